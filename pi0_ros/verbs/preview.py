# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where a policy would lead a tool from where training had it, before there is a robot."""

import numpy as np
from pi0_ros.checkpoint.fit import fit
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.kinematics.arm import Arm
from pi0_ros.kinematics.hands import Hand
from pi0_ros.kinematics.inverse import reach, Tolerance
from pi0_ros.kinematics.rotations import matrices
from pi0_ros.motion.limits import RobotLimits
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import in_numbers, with_hands
from pi0_ros.policy.hands import Seen
from pi0_ros.policy.pi0 import Pi0Policy

STARTS = 50  # from which the mean pose of training is looked for


def preview(policy: Pi0Policy, config: Configuration, urdf: str | None) -> str:
    """
    Return where the tools would go from the mean pose of training, on grey images.

    If joints cannot bring them to that pose, frame, link or rotation are not those of training.

    :param policy: loaded, and of the same configuration.
    :raises ValueError: the description does not have these tools.
    """
    if not config.robot.end_effectors:
        return ''
    if not urdf:
        return 'give --robot-description to see where the tool would go'
    robot = config.robot
    limits = RobotLimits(robot.commanded, config.safety.limit_rules(robot.commanded))
    limits.describe(urdf)
    if limits.problem:
        raise limits.problem
    numbers = in_numbers(config.policy, robot)
    policy.joints = fit(policy.spec, numbers)
    seen = Seen.of(policy.spec, policy.joints, numbers)
    lower, upper = limits.now.lower, limits.now.upper
    state = dict(zip(robot.commanded, np.clip(np.zeros(len(lower)), lower, upper)))
    state |= {name: seen.middle[name] for name in numbers.states if name in robot.observed}
    ends = {name: (low, high) for name, low, high in zip(robot.commanded, lower, upper)}
    for hand in robot.hands.values():
        found = _stand(hand, seen, urdf, ends, Tolerance(
            config.policy.tool_tolerance, config.policy.turn_tolerance))
        if isinstance(found, str):
            return found
        state |= dict(zip(hand.joints, found))
    height, width = policy.spec.image_size
    images = {name: np.full((height, width, 3), 128, np.uint8) for name in policy.cameras}
    tools = with_hands(policy, config.policy, robot, limits.body, policy.spec)
    chunk = tools.infer(Observation(
        0, np.array([state.get(name, 0.0) for name in robot.observed]), images, {},
        'pick up the red block'))
    return '; '.join(filter(None, (chunk.preview, chunk.problem and f'dropped: {chunk.problem}')))


def _stand(hand: Hand, seen: Seen, urdf: str, ends: dict[str, tuple[float, float]],
           tolerance: Tolerance) -> np.ndarray | str:
    """Return joints at the mean pose of training, or why there are none."""
    arm = Arm(urdf, hand.joints, hand.frame, hand.link)
    lower, upper = np.array([ends.get(joint, (-np.pi, np.pi)) for joint in hand.joints]).T
    lower, upper = np.clip(lower, -2 * np.pi, None), np.clip(upper, None, 2 * np.pi)
    names = hand.numbers(True)
    middle = (lower + upper) / 2
    if not all(name in seen.middle for name in names):
        return middle
    mean = np.array([seen.middle[name] for name in names])
    try:
        rotation = matrices(mean[3:], hand.state_rotation)
    except ValueError as error:
        return f"the mean of training is no pose of '{hand.link}': {error}"
    random, why = np.random.default_rng(0), ''
    for number in range(STARTS):
        begin = random.uniform(lower, upper) if number else middle
        joints, problem = reach(arm, begin, mean[:3], rotation, lower, upper, tolerance)
        if not problem:
            return joints
        why = why or problem
    return (f"no joints bring '{hand.link}' to the mean pose of training in '{hand.frame}' "
            f'({why}): frame, link or rotation are others than in training, or the robot is')

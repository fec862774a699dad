# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Closed-loop episodes: simulated robot and policy through the core, without ROS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pi0_ros.control.controllers import Report
from pi0_ros.control.guard import Guard, GuardRules
from pi0_ros.control.pilot import Pilot, Timing
from pi0_ros.motion.limits import limits_from_urdf, Rules
from pi0_ros.observation.buffers import JointBuffer, LatestBuffer
from pi0_ros.observation.observation import Freshness, ObservationBuilder
from pi0_ros.policy.policy import Policy
from pi0_ros.sim import arm, world
from pi0_ros.sim.controller import TrajectoryMessage
from pi0_ros.sim.description import RULES, urdf
from pi0_ros.sim.robot import SimulatedRobot, STEP_NS
from pi0_ros.sim.world import COLOURS

TICK_NS = 20_000_000
FRAME_TICKS = 2          # an image every 40 ms
TIME_LIMIT_S = 10.0
CAMERAS = ('overhead', 'wrist')
Watch = Callable[[int, np.ndarray | None, int | None], None]
FIRST_UNSEEN_SEED = 1_000_000_000  # training draws its tables from other generators


@dataclass(frozen=True)
class Episode:
    """How one attempt to take a named block ended."""

    seed: int
    named: str
    grasped: tuple[str, ...]  # colours of the blocks that the gripper closed on, in order
    success: bool             # the named block was lifted, and no other was ever grasped
    seconds: float            # until it was lifted, or the time limit
    chunks: int
    starved: int = 0         # chunks that came when the plan before was at its end
    hit: bool = False         # whether the hand hit the peg, which is no success
    fault: str = ''           # that ended it

    @property
    def wrong(self) -> bool:
        """Return whether a block that was not named was grasped."""
        return any(colour != self.named for colour in self.grasped)


class Helper(Protocol):
    """A person beside the robot."""

    leads: bool  # whether the policy is not asked

    def begin(self, robot: SimulatedRobot, guard: Guard, named: str) -> None:
        """See the table; the block ``named`` shall be taken."""

    def work(self, now_ns: int) -> None:
        """Do what is to be done at a tick, before it."""


def run_episode(policy: Policy, seed: int, delay_s: float = 0.0, replan_s: float = 0.3,
                instruction: str | None = None, named: str | None = None,
                handover: str = 'blend', watch: Watch = lambda *given: None,
                task: str = 'blocks', rules: Rules = RULES, helper: Helper | None = None,
                limit_s: float = 0.0, missed: bool = False) -> Episode:
    """
    Run one seeded episode: instruction given at once, ``delay_s`` of inference delay.

    As on a robot, joint states are measured some milliseconds before a tick, by an offset that the
    seed decides, and a chunk comes between two ticks, up to one later than ``delay_s``.

    :param watch: called at every tick with the time, the commanded joints [D], None for silence,
        and when the chunk that has just taken over begins, None if there is none.
    :param task: one of world.TASKS; peg names the block behind the peg.
    :param rules: of the joint limits.
    :param helper: who may take over. :param limit_s: 0 for TIME_LIMIT_S.
    :param missed: begin as after a miss, with a hand that is closed on nothing above the block.
    """
    rng = np.random.default_rng((seed, 1))
    drawn = COLOURS[int(rng.integers(len(COLOURS)))]
    robot = SimulatedRobot(seed, start_ns=TICK_NS, task=task)
    named = named or (robot.behind if task == 'peg' else drawn)
    if missed:
        block = robot.world.blocks[:, COLOURS.index(named)]
        robot.place(world.missed(np.random.default_rng((seed, 2)), block)[0])
    instruction = instruction or f'pick up the {named} block'
    joints = JointBuffer(arm.JOINT_NAMES)
    cameras = {name: LatestBuffer() for name in CAMERAS}
    builder = ObservationBuilder(joints, cameras, lambda name: robot.image(name),
                                 Freshness(10**8, 10**8, 10**8))
    pilot = Pilot(arm.JOINT_NAMES, limits_from_urdf(urdf(), arm.JOINT_NAMES, rules),
                  Timing.at_rate(50.0, replan_s, handover, update_rate_hz=1e9 / STEP_NS))
    guard = Guard(pilot, builder, GuardRules())
    joints.put(list(arm.JOINT_NAMES), robot.joints, robot.now_ns, robot.now_ns)
    guard.arm(robot.now_ns)
    if helper:
        helper.begin(robot, guard, named)
    phase_ns = STEP_NS * int(rng.integers(TICK_NS // STEP_NS))
    measured = robot.joints.copy()
    grasped: list[str] = []
    pending, due_ns, chunks = None, 0, 0
    for tick in range(1, round((limit_s or TIME_LIMIT_S) * 1e9 / TICK_NS)):
        now_ns = robot.now_ns
        joints.put(list(arm.JOINT_NAMES), measured, now_ns - phase_ns, now_ns)
        guard.controllers.each[0].hear(Report(now_ns, now_ns, arm.JOINT_NAMES,
                                              robot.controller.reference))
        if tick % FRAME_TICKS == 1:
            for name, buffer in cameras.items():
                buffer.put(name, now_ns, now_ns)
        if helper:
            helper.work(now_ns)
        if pending is None and guard.wants_chunk(now_ns) and not (helper and helper.leads):
            epoch = pilot.epoch
            seen = builder.build(now_ns, instruction)
            leftover = pilot.leftover(seen)
            pending, chunks = (policy.infer(seen, leftover=leftover), seen, epoch), chunks + 1
            due_ns = now_ns + round(delay_s * 1e9) + int(rng.integers(TICK_NS))
        begins_ns = None
        if pending is not None and now_ns >= due_ns:
            if not (helper and helper.leads) and guard.accept(
                    *pending[:2], due_ns, pending[2]) is None:
                begins_ns = pilot.plan.taken_over_ns
            pending = None
        window, _ = guard.tick(now_ns)
        watch(now_ns, None if window is None else window.start, begins_ns)
        if window is not None:
            robot.accept(TrajectoryMessage.of(window))
        robot.advance(now_ns + TICK_NS - phase_ns)
        measured = robot.joints.copy()
        robot.advance(now_ns + TICK_NS)
        if robot.held and (not grasped or grasped[-1] != robot.held):
            grasped.append(robot.held)
        if robot.taken == named or robot.hit or guard.fault:
            break
    wrong = any(colour != named for colour in grasped)
    return Episode(seed, named, tuple(grasped),
                   robot.taken == named and not wrong and not robot.hit, tick * TICK_NS / 1e9,
                   chunks, pilot.counters.starved, robot.hit,
                   guard.fault.text if guard.fault else '')

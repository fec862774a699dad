# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A policy whose state or actions are poses of tools, as one whose are joints.

The policy inside sees a robot with a joint for every number of a pose. What it reads comes from
forward kinematics, what it decides goes through inverse kinematics from where the robot is; the
chunk says what cannot be followed, and whoever would execute it drops it (``control/rules.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.mapping import JointMap
from pi0_ros.checkpoint.spec import DELTA, PolicySpec, POSE
from pi0_ros.kinematics.arm import Arm
from pi0_ros.kinematics.hands import Hand
from pi0_ros.kinematics.inverse import follow, Tolerance
from pi0_ros.kinematics.rotations import matrices, numbers, turn
from pi0_ros.kinematics.urdf import UrdfError
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.policy import ActionChunk, Body, Leftover, Policy

LEAST = (0.2, 0.8)  # metres, and of the numbers of a rotation: closer is never unlike training
NO_URDF = ('poses of tools need robot_description, which has not come: publish it, or give it '
           'as a file where there is no topic')


@dataclass(frozen=True)
class Seen:
    """What training saw of each number of a state, in the robot's units."""

    middle: Mapping[str, float]
    spread: Mapping[str, float]
    far: float = 4.0  # so many spreads from the middle it was next to never
    actions: Mapping[str, float] = field(default_factory=dict)  # middles, of those not relative

    @classmethod
    def of(cls, spec: PolicySpec, joints: JointMap, robot: RobotConfig) -> 'Seen':
        """Return it for a robot that has a name for each number."""
        rows = [(name, index) for index, name in enumerate(robot.states)]
        scale, offset = joints.state_scale, joints.state_offset
        middle = joints.actions_out(spec.action.middle[None])[0]
        moved = {name: middle[column] for column, name in enumerate(robot.commanded)
                 if not spec.relative[joints.columns[column]]}
        return cls({name: (spec.state.middle[i] - offset[i]) / scale[i] for name, i in rows},
                   {name: spec.state.spread[i] / abs(scale[i]) for name, i in rows},
                   spec.state.far, moved)


class HandPolicy:
    """Stands between a policy that knows poses and a robot that has joints."""

    def __init__(self, inner: Policy, config: PolicyConfig, robot: RobotConfig,
                 seen: Seen | None, body: Callable[[], Body]) -> None:
        """
        Prepare.

        :param seen: in training; None where only the policy inside knows it, once it is loaded.
        :param body: tells what is known of the robot, whenever it is asked.
        """
        self.inner, self._body, self._seen = inner, body, seen
        self._steps, self._own_axes = config.actions == DELTA, config.step_axes == 'tool'
        self._unit = config.step_of_training, config.turn_of_training
        self._tolerance = Tolerance(config.tool_tolerance, config.turn_tolerance)
        self._hands = tuple(robot.hands.values())
        self._moved = [hand for hand in self._hands if hand.link in robot.joint_names]
        self._adds = self._steps and bool(self._moved)
        self._robot, self._numbers = robot, robot.in_numbers(self._steps)
        self._row = {name: row for row, name in enumerate(robot.observed)}
        self._column = {name: column for column, name in enumerate(self._numbers.commanded)}
        self._arms: dict[str, Arm] = {}
        self._read: str | None = None

    def load(self) -> None:
        """Load the policy inside."""
        self.inner.load()

    def warm_up(self) -> None:
        """Warm the policy inside up."""
        self.inner.warm_up()

    @property
    def loaded(self) -> bool:
        """Return whether the policy inside is loaded."""
        return self.inner.loaded

    def ensure_loaded(self) -> None:
        """Load the policy inside again, if it has gone."""
        self.inner.ensure_loaded()

    def describe(self) -> dict[str, str]:
        """Return what the policy inside tells."""
        return self.inner.describe()

    def abort(self) -> None:
        """Abort the policy inside."""
        self.inner.abort()

    def close(self) -> None:
        """Close the policy inside."""
        self.inner.close()

    def __getattr__(self, name: str) -> object:
        """Return what only the policy inside has, such as dt_ns or noise_shape."""
        return getattr(self.inner, name)

    def infer(self, observation: Observation, noise: np.ndarray | None = None,
              leftover: Leftover | None = None) -> ActionChunk:
        """
        Decide a chunk of joint positions [T, D].

        :raises UrdfError: there is no description, or it does not have these tools.
        """
        body = self._body()
        if not self._arms or body.urdf != self._read or body.problem:
            self._arms, self._read = self._read_arms(body), body.urdf
        if self._seen is None:
            self.inner.ensure_loaded()
            spec = getattr(self.inner, 'spec', None)
            self._seen = Seen.of(spec, self.inner.joints, self._numbers) if spec else Seen({}, {})
        observed = self._observed(observation.state)
        chunk = self.inner.infer(replace(observation, state=observed), noise,
                                 leftover and self._given(leftover, observation.state))
        unlike = self._unlike(observed)
        if not np.isfinite(chunk.positions).all():
            return replace(chunk, positions=np.full(
                (len(chunk.positions), len(self._robot.commanded)), np.nan))
        positions, problems, previews = self._joints(chunk, observation.state, body)
        return replace(chunk, positions=positions, problem='; '.join(problems), unlike=unlike,
                       preview='; '.join(previews),
                       offset=max(chunk.offset, 1) if self._adds else chunk.offset)

    def check(self) -> None:
        """
        Raise why the newest description does not have the tools; from any thread.

        :raises UrdfError: so it is.
        """
        self._read_arms(self._body())

    def _read_arms(self, body: Body) -> dict[str, Arm]:
        if body.problem:
            raise body.problem
        if body.urdf is None:
            raise UrdfError('no_urdf', NO_URDF)
        return {hand.link: Arm(body.urdf, hand.joints, hand.frame, hand.link)
                for hand in self._hands}

    def _rows(self, hand: Hand) -> np.ndarray:
        return np.array([self._row[joint] for joint in hand.joints])

    def _pose(self, hand: Hand, positions: np.ndarray) -> np.ndarray:
        """Return the pose as the state writes it, as close as can be to the mean of training."""
        place, rotation = self._arms[hand.link].pose(positions)
        near = _all(self._seen.middle, hand.numbers(True)[3:])
        return np.concatenate([place, numbers(rotation, hand.state_rotation, near)])

    def _planned(self, hand: Hand, planned: np.ndarray, now: np.ndarray) -> np.ndarray:
        """
        Return poses [M, numbers] as actions write them, each close to the one before.

        The first is close to the mean of training, where actions are not relative; else to the
        state.
        """
        near = _all(self._seen.actions, hand.numbers(False)[3:])
        if near is None and hand.rotation == hand.state_rotation:
            near = self._pose(hand, now)[3:]
        out = []
        for row in planned:
            place, rotation = self._arms[hand.link].pose(row)
            near = numbers(rotation, hand.rotation, near)
            out.append(np.concatenate([place, near]))
        return np.array(out)

    def _observed(self, state: np.ndarray) -> np.ndarray:
        """Return the state [N] that the policy inside observes, for joints."""
        known = dict(zip(self._robot.observed, state))
        for hand in self._hands:
            pose = self._pose(hand, state[self._rows(hand)])
            known |= dict(zip(hand.numbers(True), pose))
        return np.array([known.get(name, 0.0) for name in self._numbers.observed])

    def _given(self, leftover: Leftover, state: np.ndarray) -> Leftover:
        """Return what is planned already, in the numbers of the policy inside."""
        out = np.zeros((len(leftover.positions), len(self._column)))
        for column, name in enumerate(self._robot.commanded):
            if name in self._column:
                out[:, self._column[name]] = leftover.positions[:, column]
                if self._adds:  # theirs are due a period before, see _joints
                    out[1:, self._column[name]] = out[:-1, self._column[name]]
        for hand in self._moved:
            rows, columns = self._rows(hand), self._columns(hand)
            planned = leftover.positions[:, rows]
            if not self._steps:
                out[:, columns] = self._planned(hand, planned, state[rows])
                continue
            poses = [self._arms[hand.link].pose(row) for row in (state[rows], *planned)]
            for k, ((here, turned), (place, rotation)) in enumerate(zip(poses, poses[1:])):
                axes = turned if self._own_axes else np.eye(3)
                change = axes.T @ rotation @ turned.T @ axes
                out[k, columns] = np.concatenate([
                    axes.T @ (place - here) / self._unit[0],
                    self._scaled(hand, change, 1 / self._unit[1])])
        return Leftover(out, leftover.delay)

    def _columns(self, hand: Hand) -> list[int]:
        return [self._column[name] for name in hand.numbers(False, self._steps)]

    @staticmethod
    def _scaled(hand: Hand, change: np.ndarray, factor: float) -> np.ndarray:
        """Return a change of rotation as numbers; only those of three can be scaled."""
        out = numbers(change, hand.rotation)
        return out * factor if len(out) == 3 else out

    def _joints(self, chunk: ActionChunk, state: np.ndarray, body: Body
                ) -> tuple[np.ndarray, list[str], list[str]]:
        """Return joint positions [T, D], what cannot be followed, and where the tools go."""
        commanded = self._robot.commanded
        out = np.empty((len(chunk.positions), len(commanded)))
        for column, name in enumerate(commanded):
            if name in self._column:
                out[:, column] = chunk.positions[:, self._column[name]]
                if self._adds and not chunk.offset:  # the chunk's rows are due a period later
                    out[:-1, column] = out[1:, column]
        problems, previews = [], []
        seconds = len(out) * chunk.dt_ns / 1e9
        for hand in self._moved:
            rows, arm = self._rows(hand), self._arms[hand.link]
            begin = state[rows]
            try:
                places, rotations = self._poses(hand, chunk.positions[:, self._columns(hand)],
                                                arm.pose(begin))
            except ValueError as error:
                out[:, rows] = begin
                problems.append(f"'{hand.link}': {error}")
                continue
            way = follow(arm, begin, places, rotations, body.lower[rows], body.upper[rows],
                         self._tolerance)
            out[:, rows] = way.positions
            if way.problem:
                problems.append(f"'{hand.link}' cannot follow, {way.problem}")
            previews.append(f"'{hand.link}' would go "
                            + told(hand.frame, arm.pose(begin), places, rotations, seconds))
        return out, problems, previews

    def _poses(self, hand: Hand, said: np.ndarray, now: tuple[np.ndarray, np.ndarray]
               ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return where the tool is wanted, [T, 3] and [T, 3, 3], for actions [T, numbers].

        Steps are added up from where it is: step k leads to where it shall be a period after k.
        """
        if not self._steps:
            return said[:, :3], matrices(said[:, 3:], hand.rotation)
        turns = said[:, 3:] * (self._unit[1] if said.shape[1] == 6 else 1.0)
        changes = matrices(turns, hand.rotation)
        place, rotation = now
        places, rotations = [], []
        for step, change in zip(self._unit[0] * said[:, :3], changes):
            place = place + (rotation @ step if self._own_axes else step)
            rotation = rotation @ change if self._own_axes else change @ rotation
            places.append(place)
            rotations.append(rotation)
        return np.array(places), np.array(rotations)

    def _unlike(self, observed: np.ndarray) -> str:
        """Return where a tool is that training never saw there, '' if it is where it was."""
        known = dict(zip(self._numbers.observed, observed))
        for hand in self._hands:
            for index, name in enumerate(hand.numbers(True)):
                middle, spread = (of.get(name) for of in (self._seen.middle, self._seen.spread))
                if middle is None:
                    continue
                most = max(self._seen.far * spread, LEAST[index > 2])
                if abs(known[name] - middle) > most:
                    return (f"'{name}' is {known[name]:.3f} in '{hand.frame}', in training it was "
                            f'{middle:.3f} give or take {spread:.3f}: the frame, the link or the '
                            'rotation is another, or the robot stands elsewhere')
        return ''


def _all(known: Mapping[str, float], names: Sequence[str]) -> np.ndarray | None:
    """Return what is known of all of these, None if it is not, or says nothing."""
    out = np.array([known.get(name, np.nan) for name in names])
    return out if np.isfinite(out).all() and out.any() else None


def require(config: PolicyConfig, robot: RobotConfig) -> None:
    """
    Refuse actions that are poses without tools, and tools without actions that are poses.

    :raises ValueError: so it is, or a tool is nowhere named.
    """
    hands, poses = robot.hands, config.actions in (POSE, DELTA)
    if hands and robot.adaptation != 'none':
        raise ValueError(f"'adaptation' is {robot.adaptation}, which is for joints, and there are "
                         "'end_effectors': leave one of them out")
    moved = [name for name in robot.joint_names if name in hands]
    if poses and not moved:
        raise ValueError(f"'actions' is {config.actions}: set 'end_effectors' to the tools, and "
                         "put their links in 'joint_names', where their poses stand in the "
                         'actions')
    if moved and not poses:
        raise ValueError(f"'joint_names' has '{moved[0]}' of 'end_effectors': set 'actions' to "
                         f'{POSE} or {DELTA}, which is {config.actions}')
    idle = [name for name in hands if name not in (*robot.joint_names, *robot.state_names)]
    if idle:
        raise ValueError(f"'end_effectors' has '{idle[0]}', which neither 'joint_names' nor "
                         "'state_names' names")


def told(frame: str, begin: tuple[np.ndarray, np.ndarray], places: Sequence[np.ndarray],
         rotations: Sequence[np.ndarray], seconds: float) -> str:
    """Return a sentence on where a tool goes, for whoever arms the robot."""
    def at(place: np.ndarray) -> str:
        return '[' + ' '.join(f'{value:.3f}' for value in place) + ']'

    far = max(np.linalg.norm(place - begin[0]) for place in places)
    turned = max(np.linalg.norm(turn(rotation @ begin[1].T)) for rotation in rotations)
    return (f"from {at(begin[0])} to {at(places[-1])} m in '{frame}' within {seconds:.1f} s, at "
            f'most {1e3 * far:.0f} mm and {np.degrees(turned):.0f} degrees away from here')

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The simulated robot: table, controller and cameras on one clock, without ROS."""

from collections.abc import Sequence

import numpy as np
from pi0_ros.sim import arm, world
from pi0_ros.sim.controller import Settings, TrajectoryController, TrajectoryMessage
from pi0_ros.sim.render import render
from pi0_ros.sim.world import COLOURS, NOTHING

STEP_NS = 2_000_000  # of the controller as it is set by default
TAKEN_HEIGHT = 0.02  # a block counts as taken once it is held this far above the table, metres


class SimulatedRobot:
    """An arm, three blocks, two or three cameras, and the controller that moves the arm."""

    joint_names = arm.JOINT_NAMES

    def __init__(self, seed: int, start_ns: int = 0, settings: Settings = Settings(),
                 task: str = 'blocks', groups: Sequence[tuple[str, ...]] = (arm.JOINT_NAMES,)
                 ) -> None:
        """
        Set the table of ``task``, one of world.TASKS, for ``seed`` at the time ``start_ns``.

        :param settings: of the controllers, whose update rate is the step of the physics.
        :param groups: the joints of every controller.
        """
        self._task, self._settings, self._groups = task, settings, groups
        self.reset(seed, start_ns)

    def reset(self, seed: int, now_ns: int) -> None:
        """Put the arm home and the blocks where ``seed`` says."""
        self.seed, self.now_ns = seed, now_ns
        self.world = world.random_world(np.random.default_rng(seed), task=self._task)
        self._hold()

    def place(self, joints: np.ndarray) -> None:
        """Put the arm at ``joints`` [5], where its controllers hold it."""
        self.world.joints[0] = joints
        self._hold()

    def _hold(self) -> None:
        self._columns = [[arm.JOINT_NAMES.index(name) for name in names] for names in self._groups]
        self.controllers = [TrajectoryController(names, self.joints[its], self._settings)
                            for names, its in zip(self._groups, self._columns)]

    @property
    def joints(self) -> np.ndarray:
        """Return the measured joint positions [5], in the order of ``arm.JOINT_NAMES``."""
        return self.world.joints[0]

    @property
    def velocity(self) -> np.ndarray:
        """Return the measured joint velocities [5]."""
        return self.world.velocity[0]

    @property
    def controller(self) -> TrajectoryController:
        """Return the first controller."""
        return self.controllers[0]

    @property
    def held(self) -> str | None:
        """Return the colour of the block in the gripper, or None."""
        held = int(self.world.held[0])
        return None if held == NOTHING else COLOURS[held]

    @property
    def taken(self) -> str | None:
        """Return the colour of the block that is held clear of the table, or None."""
        held = int(self.world.held[0])
        if held == NOTHING or self.world.blocks[0, held, 2] < world.REST_HEIGHT + TAKEN_HEIGHT:
            return None
        return COLOURS[held]

    @property
    def behind(self) -> str:
        """Return the colour of the block behind the peg."""
        return COLOURS[int(world.behind(self.world)[0])]

    @property
    def hit(self) -> bool:
        """Return whether the hand has hit the peg."""
        return bool(self.world.hit[0])

    def accept(self, message: TrajectoryMessage, number: int = 0) -> None:
        """Let a controller follow a trajectory; see ``TrajectoryController.accept``."""
        self.controllers[number].accept(message, self.now_ns)

    def advance(self, now_ns: int) -> None:
        """Let the time run until ``now_ns`` in steps of the controller's period."""
        step_ns = self._settings.period_ns
        while self.now_ns + step_ns <= now_ns:
            self.now_ns += step_ns
            commanded = np.empty(len(arm.JOINT_NAMES))
            for controller, its in zip(self.controllers, self._columns):
                commanded[its] = controller.update(self.now_ns, self.joints[its],
                                                   self.velocity[its])
            world.step(self.world, commanded[None], step_ns / 1e9)

    def image(self, camera: str) -> np.ndarray:
        """Return what ``camera`` sees now, [480, 640, 3] uint8 RGB."""
        return render(self.world, camera)

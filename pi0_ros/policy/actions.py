# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a policy's actions mean for the joints, and back."""

from dataclasses import dataclass

import numpy as np
from pi0_ros.checkpoint.mapping import JointMap


@dataclass(frozen=True)
class Actions:
    """Absolute actions in the training data's units, and positions of the commanded joints."""

    joints: JointMap
    velocity: np.ndarray | None  # [width] what 1 is in rad/s or m/s, 0 where it is a position
    dt_ns: int
    offset: int

    @property
    def moving(self) -> np.ndarray:
        """Return which commanded joints have velocities."""
        return np.flatnonzero(self._unit())

    def _unit(self) -> np.ndarray:
        """Return [D] what an action of 1 is for each commanded joint, with the robot's sign."""
        if self.velocity is None:
            return np.zeros(len(self.joints.columns))
        return self.velocity[self.joints.columns] * np.sign(self.joints.action_scale)

    def out(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """
        Return positions [T, D] for actions [T, width].

        :param state: where the joints are measured, the commanded ones first.
        """
        positions = self.joints.actions_out(actions)
        moving, period_s = self.moving, self.dt_ns / 1e9
        speeds = actions[:, self.joints.columns[moving]] * self._unit()[moving]
        positions[:, moving] = added_up(
            speeds, state[moving] + self.offset * period_s * speeds[0], period_s)
        return positions

    def back(self, planned: np.ndarray, width: int) -> np.ndarray:
        """
        Return actions [M, width] that make a plan [M, D], not a number where nobody knows.

        The last velocity of a plan is not known.
        """
        actions, moving = self.joints.actions_in(planned, width), self.moving
        if len(moving):
            speeds = np.diff(planned[:, moving], axis=0, append=np.nan) / (self.dt_ns / 1e9)
            actions[:, self.joints.columns[moving]] = speeds / self._unit()[moving]
        return actions


def added_up(velocities: np.ndarray, begin: np.ndarray, dt_s: float) -> np.ndarray:
    """
    Return positions [T, D] at the beginning of each period with a velocity [T, D].

    :param begin: [D] where the joints are measured.
    """
    return begin + dt_s * (np.cumsum(velocities, axis=0) - velocities)

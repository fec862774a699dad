# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Policies without a network, for tests and the first bring-up of a robot."""

import numpy as np
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Leftover

KINDS = ('hold', 'sine', 'scripted', 'faulty')
SINE_HZ = 0.25
SCRIPT_STEP_S = 2.0


class MockPolicy:
    """
    Decides without looking.

    hold: stay at the measured joints. sine: swing every joint about where it stood first.
    scripted: visit given poses, two seconds each. faulty: raise, then return a chunk of NaN,
    then one of a wrong shape, and so on.
    """

    def __init__(self, kind: str, *, joints: int | None = None, dt_ns: int = 20_000_000,
                 chunk_length: int = 50, amplitude: float = 0.1,
                 script: np.ndarray | None = None) -> None:
        """
        Choose the behaviour.

        :param joints: how many of the observed joints are commanded, the first ones; None: all.
        :param amplitude: of the sine, radians or metres.
        :param script: [P, D] poses for ``scripted``.
        :raises ValueError: the kind is unknown or its script is missing.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown mock policy '{kind}': expected one of {', '.join(KINDS)}")
        if kind == 'scripted' and script is None:
            raise ValueError("mock policy 'scripted' needs poses: set 'mock_script'")
        self.joints = joints
        self.kind, self.dt_ns, self.chunk_length = kind, dt_ns, chunk_length
        self.amplitude, self.script = amplitude, script
        self.number = 0
        self._start: tuple[int, np.ndarray] | None = None

    def load(self) -> None:
        """Do nothing."""

    def warm_up(self) -> None:
        """Do nothing."""

    loaded = True

    def ensure_loaded(self) -> None:
        """Do nothing."""

    def infer(self, observation: Observation, noise: np.ndarray | None = None,
              leftover: Leftover | None = None) -> ActionChunk:
        """Decide a chunk; ``noise`` and ``leftover`` are ignored."""
        number, self.number = self.number, self.number + 1
        positions = self._positions(observation, number)
        return ActionChunk(observation.t_obs_ns, self.dt_ns, positions,
                           observation.instruction, number, observation.image_stamps_ns,
                           offset=1)

    def _positions(self, observation: Observation, number: int) -> np.ndarray:
        stands = observation.state[:self.joints]
        still = np.tile(stands, (self.chunk_length, 1))
        if self.kind == 'faulty':
            if number % 3 == 0:
                raise RuntimeError('the faulty mock policy failed on purpose')
            return still * np.nan if number % 3 == 1 else still[:, :-1]
        if self._start is None:
            self._start = observation.t_obs_ns, stands.copy()
        began, centre = self._start
        due = observation.t_obs_ns + self.dt_ns * np.arange(1, self.chunk_length + 1) - began
        if self.kind == 'sine':
            swing = self.amplitude * np.sin(2 * np.pi * SINE_HZ * due / 1e9)
            return centre + swing[:, None]
        if self.kind == 'scripted':
            poses = np.vstack([centre, self.script])
            at = np.minimum(due / 1e9 / SCRIPT_STEP_S, len(poses) - 1)
            low = np.minimum(at.astype(int), len(poses) - 2)
            ease = (1 - np.cos(np.pi * (at - low))) / 2
            return poses[low] + (poses[low + 1] - poses[low]) * ease[:, None]
        return still

    def describe(self) -> dict[str, str]:
        """Return the kind."""
        return {'engine': f'mock {self.kind}'}

    def abort(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

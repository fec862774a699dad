# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The seam between whoever decides and whoever moves the robot."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Observation


@dataclass(frozen=True)
class ActionChunk:
    """
    Joint positions for the near future, decided from one observation.

    Step k is due at ``t_obs_ns + (k + offset) * dt_ns``: 0 where the training data has with an
    observation the command that was sent after it (LeRobot, openpi, ALOHA), 1 where it has the
    next state.
    """

    t_obs_ns: int          # stamp of the joint state that was used
    dt_ns: int             # control period the policy was trained at
    positions: np.ndarray  # [T, D] float, radians or metres, configured joint order
    instruction: str
    number: int = 0        # how many chunks this policy decided before
    image_stamps_ns: Mapping[str, int] = field(default_factory=dict)  # of what it was decided from
    seed: int | None = None  # the noise is that of numpy's default_rng((seed, number))
    given: int = 0         # so many first steps are executed as planned before
    offset: int = 0        # periods after the observation, at which step 0 is due
    problem: str = ''      # why it cannot be executed, as a pose that no joints reach
    unlike: str = ''       # what is not as in training, so that nobody should arm for it
    preview: str = ''      # where it leads, for people, where joints do not say it

    @property
    def end_ns(self) -> int:
        """Return when the last step is due."""
        return self.t_obs_ns + (self.offset + len(self.positions) - 1) * self.dt_ns

    @property
    def due_ns(self) -> np.ndarray:
        """Return when every step is due, [T] int64."""
        return self.t_obs_ns + self.dt_ns * (self.offset + np.arange(len(self.positions)))


@dataclass(frozen=True)
class Body:
    """What is known of the robot that a policy moves."""

    urdf: str | None   # its description, where one has come
    lower: np.ndarray  # [D] limits of the commanded joints, radians or metres
    upper: np.ndarray  # [D]
    problem: Exception | None = None  # why the description cannot be used


@dataclass(frozen=True)
class Leftover:
    """What is planned already for the times of a new chunk, which shall continue it."""

    positions: np.ndarray  # [M, D] for the chunk's first M steps, radians or metres
    delay: int             # so many of them will be executed before the chunk comes


class Unserved(Exception):
    """Nobody answers just now, or wrongly; ``finding`` says why. The policy looks after it."""

    def __init__(self, finding: Finding, fresh: bool = True) -> None:
        """
        Keep ``finding``; the text is its sentence.

        :param fresh: whether somebody was asked; else it is what was found before.
        """
        super().__init__(finding.text)
        self.finding, self.fresh = finding, fresh


class PolicyGone(Exception):
    """What decides is gone, as a process that crashed: a person should look before it goes on."""


class Policy(Protocol):
    """Decides action chunks. One thread calls all methods but the constructor."""

    def load(self) -> None:
        """Take what is needed to infer: files, memory, the device."""

    def warm_up(self) -> None:
        """Infer once on made-up input, so that the first real chunk is not the slow one."""

    @property
    def loaded(self) -> bool:
        """Return whether it can infer without being loaded again; from any thread."""

    def ensure_loaded(self) -> None:
        """Load again what has ended since, such as a process; else return at once."""

    def infer(self, observation: Observation, noise: np.ndarray | None = None,
              leftover: Leftover | None = None) -> ActionChunk:
        """
        Decide a chunk.

        :param noise: [T, max_action_dim] standard normal start of the denoising; drawn from the
            policy's own seeded generator when None.
        :param leftover: what the chunk shall continue, where the policy can.
        """

    def describe(self) -> dict[str, str]:
        """Return what diagnostics tell of it."""

    def abort(self) -> None:
        """Make a call that is under way fail, where that can be done; from any thread."""

    def close(self) -> None:
        """Give everything back. Calling it twice is allowed."""

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be set of the inputs."""

from dataclasses import dataclass

from pi0_ros.observation.observation import Freshness
from pi0_ros.setting import setting


@dataclass(frozen=True)
class InputConfig:
    """How old inputs may be, and which instructions are taken."""

    image_transport: str = setting(
        'raw', 'Subscribe to image_raw or to image_raw/compressed.', choices=('raw', 'compressed'))
    max_joint_age: float = setting(
        0.1, 'Joint states older than this stop the robot.',
        unit='s', low=0.01, high=10.0, dynamic=True)
    max_image_age: float = setting(
        0.2, 'A camera whose newest image is older than this stops the robot.',
        unit='s', low=0.01, high=10.0, dynamic=True)
    max_skew: float = setting(
        0.2, 'Images and joint states further apart than this stop the robot: raise it with '
        'max_image_age. A camera at 10 Hz with some latency is 0.15 s behind before '
        'anything is wrong.', unit='s', low=0.001, high=10.0, dynamic=True)
    ignore_stamps: tuple[str, ...] = setting(
        (), 'Inputs of which the time of receipt counts and not their stamps, such as a camera '
        'that stamps by a clock of its own: camera_1 to camera_3, joint_states.', unit='names')
    rotate: tuple[int, ...] = setting(
        (0, 0, 0), 'How far the image of each camera slot is turned clockwise before it is used, '
        'for a camera that is mounted upside down: 0, 90, 180 or 270.', unit='degrees')
    known_instructions: tuple[str, ...] = setting(
        (), 'Shell patterns such as *red*: an instruction that fits none is refused and the '
        'robot holds. Empty accepts all; a policy does something for any text, also for one'
        ' it was never trained on.', unit='patterns', dynamic=True)

    @property
    def freshness(self) -> Freshness:
        """Return the ages that are allowed."""
        return Freshness(*(round(1e9 * seconds) for seconds in (
            self.max_joint_age, self.max_image_age, self.max_skew)))

    def unstamped(self, cameras: tuple[str, ...]) -> frozenset[str]:
        """Return of which inputs stamps do not count: joint_states, or the name in its slot."""
        slots = {f'camera_{slot}': name for slot, name in enumerate(cameras, start=1)}
        return frozenset(slots.get(name, name) for name in self.ignore_stamps)

    def turns(self, cameras: tuple[str, ...]) -> dict[str, int]:
        """Return by how many right angles cameras are turned, for those that are."""
        return {name: degrees // 90 for name, degrees in zip(cameras, self.rotate)
                if name and degrees}

    @property
    def oldest_ns(self) -> int:
        """Return the age of the oldest input that is used."""
        return round(1e9 * max(self.max_joint_age, self.max_image_age))

"""The observation: what one inference is based on, and the rules for taking it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pi0_ros.observation.buffers import JointBuffer, LatestBuffer


@dataclass(frozen=True)
class Observation:
    """Robot state, camera images and instruction at one moment."""

    t_obs_ns: int                     # stamp of the joint state
    state: np.ndarray                 # [N] positions, radians or metres, of all configured joints
    images: Mapping[str, np.ndarray]  # checkpoint camera name -> [H, W, 3] uint8 RGB
    image_stamps_ns: Mapping[str, int]
    instruction: str


class NotReady(Exception):
    """No observation can be taken now; the text names the input and what is wrong with it."""


@dataclass(frozen=True)
class Freshness:
    """How old inputs may be, nanoseconds."""

    joint_age_ns: int
    image_age_ns: int
    skew_ns: int


class ObservationBuilder:
    """Takes observations from the newest values of every input.

    A camera slot without a name is left out of the observation. A camera that is configured but
    silent, late or unreadable is an error that names it: a policy that loses a camera without
    notice acts on an input it was never trained on.
    """

    def __init__(self, joints: JointBuffer, cameras: Mapping[str, LatestBuffer[Any]],
                 decode: Callable[[Any], np.ndarray], freshness: Freshness) -> None:
        """Build from ``joints`` and ``cameras``; ``decode`` turns a stored message into RGB.

        :raises ValueError: there is no camera at all.
        """
        if not cameras:
            raise ValueError('an observation needs at least one camera')
        self.joints, self.cameras = joints, dict(cameras)
        self.decode, self.freshness = decode, freshness

    def check(self, now_ns: int) -> str | None:
        """Return what is wrong with the inputs at ``now_ns`` in one sentence, or None."""
        problem = self.check_joints(now_ns)
        for name in self.cameras:
            problem = problem or self.check_camera(name, now_ns)
        return problem

    def check_joints(self, now_ns: int) -> str | None:
        """Return what is wrong with the joint states at ``now_ns``, or None."""
        joints, limits = self.joints.get(), self.freshness
        if joints is None:
            return f"no joint state yet for {', '.join(self.joints.missing())}"
        late = self.joints.late(now_ns - limits.joint_age_ns)
        if late:
            age_s = (now_ns - min(joints.stamp_ns, joints.received_ns)) / 1e9
            return (f"joint states of {', '.join(late)} are {age_s:.2f} s old, allowed are "
                    f'{limits.joint_age_ns / 1e9:.2f} s')
        return self._future('joint states are', joints.stamp_ns - now_ns)

    def check_camera(self, name: str, now_ns: int) -> str | None:
        """Return what is wrong with camera ``name`` at ``now_ns``, or None."""
        image, joints = self.cameras[name].get(), self.joints.get()
        if image is None:
            return f"camera '{name}' has not published an image"
        allowed_ns, skew_ns = self.freshness.image_age_ns, self.freshness.skew_ns
        age_ns = now_ns - min(image.stamp_ns, image.received_ns)
        if age_ns > allowed_ns:
            return (f"camera '{name}' is silent: its newest image is {age_ns / 1e9:.2f} s old, "
                    f'allowed are {allowed_ns / 1e9:.2f} s')
        apart_ns = abs(image.stamp_ns - joints.stamp_ns) if joints else 0
        if apart_ns > skew_ns and now_ns - image.received_ns > skew_ns:
            return (f"camera '{name}' is silent: its newest image is {age_ns / 1e9:.2f} s old and "
                    f'{apart_ns / 1e9:.2f} s behind the joint states, allowed are '
                    f'{skew_ns / 1e9:.2f} s')
        if apart_ns > skew_ns:
            return (f"camera '{name}' and the joint states are {apart_ns / 1e9:.2f} s apart, "
                    f'allowed are {skew_ns / 1e9:.2f} s: check their clocks')
        return self._future(f"camera '{name}' is", image.stamp_ns - now_ns)

    def _future(self, subject: str, ahead_ns: int) -> str | None:
        if ahead_ns > self.freshness.skew_ns:
            return f'{subject} stamped {ahead_ns / 1e9:.2f} s in the future: check the clocks'
        return None

    def build(self, now_ns: int, instruction: str) -> Observation:
        """Return the observation at ``now_ns``.

        :raises NotReady: an input is missing, late, or its image cannot be read.
        """
        problem = self.check(now_ns)
        if problem:
            raise NotReady(problem)
        joints = self.joints.get()
        images, stamps = {}, {}
        for name, buffer in self.cameras.items():
            stamped = buffer.get()
            if joints is None or stamped is None:
                raise NotReady('the inputs were cleared')
            try:
                images[name] = self.decode(stamped.value)
            except ValueError as error:
                raise NotReady(f"camera '{name}': {error}") from error
            stamps[name] = stamped.stamp_ns
        return Observation(joints.stamp_ns, joints.value, images, stamps, instruction)

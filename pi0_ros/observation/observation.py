# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The observation: what one inference is based on, and the rules for taking it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pi0_ros.observation.buffers import JointBuffer, LatestBuffer
from pi0_ros.observation.finding import Finding

OTHER_CLOCK_S = 1.0  # more is no delay
CLOCKS = ("by another clock than this one's (since boot, simulated time, or that of a machine "
          "that is not synchronised). Synchronise them, set 'use_sim_time' where time is "
          "simulated, or let the time of receipt count with 'ignore_stamps', which does not see "
          'delays')
MOST_NAMES = 8      # that a sentence lists
Decode = Callable[[Any], np.ndarray]  # from an image message to [H, W, 3] uint8 RGB


@dataclass(frozen=True)
class Observation:
    """Robot state, camera images and instruction at one moment."""

    t_obs_ns: int                     # stamp of the joint state
    state: np.ndarray                 # [N] positions, radians or metres, of all configured joints
    images: Mapping[str, np.ndarray]  # checkpoint camera name -> [H, W, 3] uint8 RGB
    image_stamps_ns: Mapping[str, int]
    instruction: str


class NotReady(Exception):
    """No observation can be taken now; ``finding`` names the input and what is wrong with it."""

    def __init__(self, finding: Finding) -> None:
        """Keep ``finding``; the text is its sentence."""
        super().__init__(finding.text)
        self.finding = finding


@dataclass(frozen=True)
class Freshness:
    """How old inputs may be, nanoseconds."""

    joint_age_ns: int
    image_age_ns: int
    skew_ns: int


class ObservationBuilder:
    """
    Takes observations from the newest values of every input.

    A camera slot without a name is left out of the observation. A camera that is configured but
    silent, late or unreadable is an error that names it: a policy that loses a camera without
    notice acts on an input it was never trained on.
    """

    def __init__(self, joints: JointBuffer, cameras: Mapping[str, LatestBuffer[Any]],
                 decode: Decode, freshness: Freshness) -> None:
        """
        Build from ``joints`` and ``cameras``; ``decode`` turns a stored message into RGB.

        :raises ValueError: there is no camera at all.
        """
        if not cameras:
            raise ValueError('an observation needs at least one camera')
        self.joints, self.cameras = joints, dict(cameras)
        self.decode, self.freshness = decode, freshness

    def use(self, freshness: Freshness) -> None:
        """Allow other ages from now on."""
        self.freshness = freshness

    def check(self, now_ns: int) -> Finding | None:
        """Return what is wrong with the inputs at ``now_ns``, or None."""
        problem = self.check_joints(now_ns)
        for name in self.cameras:
            problem = problem or self.check_camera(name, now_ns)
        return problem

    def check_joints(self, now_ns: int) -> Finding | None:
        """Return what is wrong with the joint states at ``now_ns``, or None."""
        joints, allowed_ns = self.joints.get(), self.freshness.joint_age_ns
        if joints is None:
            missing = ', '.join(self.joints.missing())
            heard = ', '.join(list(self.joints.heard)[:MOST_NAMES])
            return Finding('joints_missing', f'no joint state yet for {missing}' + (
                f': the joint states have {heard}' if heard else ''), missing)
        late = ', '.join(self.joints.late(now_ns - allowed_ns))
        if late:
            age_s = (now_ns - min(joints.stamp_ns, joints.received_ns)) / 1e9
            if now_ns - joints.received_ns <= allowed_ns and age_s > OTHER_CLOCK_S:
                return Finding('joints_silent', f'joint states of {late} come, but are stamped '
                               f'{age_s:.1f} s ago: {CLOCKS}', late, age_s, allowed_ns / 1e9)
            return Finding('joints_silent', f'joint states of {late} are {age_s:.2f} s old, '
                           f'allowed are {allowed_ns / 1e9:.2f} s', late, age_s, allowed_ns / 1e9)
        ahead, newest_ns = self.joints.ahead(now_ns + self.freshness.skew_ns)
        names = ', '.join(ahead)
        return self._future(names, f'joint states of {names} are', newest_ns - now_ns)

    def check_camera(self, name: str, now_ns: int) -> Finding | None:
        """Return what is wrong with camera ``name`` at ``now_ns``, or None."""
        image, joints = self.cameras[name].get(), self.joints.get()
        if image is None:
            return Finding('camera_missing', f"camera '{name}' has not published an image", name)
        allowed_ns, skew_ns = self.freshness.image_age_ns, self.freshness.skew_ns
        age_s = (now_ns - min(image.stamp_ns, image.received_ns)) / 1e9
        silent = f"camera '{name}' is silent: its newest image is {age_s:.2f} s old"
        if (now_ns - image.received_ns <= allowed_ns and age_s > OTHER_CLOCK_S
                and self.cameras[name].arrivals.steady()):
            return Finding('camera_skew', f"camera '{name}' comes, but its images are stamped "
                           f'{age_s:.1f} s ago: {CLOCKS}', name, age_s, allowed_ns / 1e9)
        if age_s > allowed_ns / 1e9:
            return Finding('camera_silent', f'{silent}, allowed are {allowed_ns / 1e9:.2f} s',
                           name, age_s, allowed_ns / 1e9)
        apart_ns = abs(image.stamp_ns - joints.stamp_ns) if joints else 0
        apart_s, skew_s = apart_ns / 1e9, skew_ns / 1e9
        if apart_ns > skew_ns and now_ns - image.received_ns > skew_ns:
            return Finding('camera_silent', f'{silent} and {apart_s:.2f} s behind the joint '
                           f'states, allowed are {skew_s:.2f} s', name, apart_s, skew_s)
        if apart_ns > skew_ns:
            return Finding('camera_skew', f"camera '{name}' and the joint states are "
                           f'{apart_s:.2f} s apart, allowed are {skew_s:.2f} s: check their '
                           'clocks', name, apart_s, skew_s)
        return self._future(name, f"camera '{name}' is", image.stamp_ns - now_ns)

    def _future(self, subject: str, words: str, ahead_ns: int) -> Finding | None:
        if ahead_ns <= self.freshness.skew_ns:
            return None
        return Finding('future_stamp', f'{words} stamped {ahead_ns / 1e9:.2f} s in the future: '
                       'check the clocks', subject, ahead_ns / 1e9, self.freshness.skew_ns / 1e9)

    def build(self, now_ns: int, instruction: str) -> Observation:
        """
        Return the observation at ``now_ns``.

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
                raise NotReady(Finding('cleared', 'the inputs were cleared', 'clock'))
            try:
                images[name] = self.decode(stamped.value)
            except ValueError as error:
                raise NotReady(Finding('camera_unreadable', f"camera '{name}': {error}", name)
                               ) from error
            stamps[name] = stamped.stamp_ns
        return Observation(joints.stamp_ns, joints.value, images, stamps, instruction)

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What comes in from a robot, live or from a bag: the same buffers and the same rules."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pi0_ros.observation import decoding
from pi0_ros.observation.buffers import Arrivals, JointBuffer, LatestBuffer, Stamped
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Decode, Freshness, ObservationBuilder

MOST_WAIT_NS = 25_000_000  # for a frame: no more than is gained by it


class Streams:
    """
    Joint states and cameras of one robot, and the observations that are built from them.

    Messages are those of sensor_msgs, or objects with their fields.
    """

    def __init__(self, joint_names: tuple[str, ...], cameras: Iterable[str],
                 freshness: Freshness, decode: Decode = decoding.message_to_rgb,
                 unstamped: frozenset[str] = frozenset(),
                 turns: Mapping[str, int] | None = None,
                 lags_ns: Mapping[str, int] | None = None) -> None:
        """
        Begin empty.

        :param cameras: the checkpoint's names. :param decode: from an image message to RGB.
        :param unstamped: cameras, or joint_states, whose time of receipt counts, not their stamps.
        :param turns: by how many right angles cameras are turned clockwise.
        :param lags_ns: see JointBuffer.
        """
        self._turns = turns or {}
        self.joints, self._unstamped = JointBuffer(joint_names, lags_ns), unstamped
        self.joint_error: str | None = None
        self.joint_arrivals = Arrivals()
        self.cameras: dict[str, LatestBuffer] = {name: LatestBuffer() for name in cameras if name}
        self.builder = ObservationBuilder(self.joints, self.cameras, decode, freshness)

    def put_joints(self, message: Any, received_ns: int, prefix: str = '') -> None:
        """
        Take a JointState; one that cannot be used is dropped and told in ``joint_error``.

        One without positions, which tells efforts or velocities alone, is nobody's business.

        :param prefix: that the names of its joints lack.
        """
        if len(message.name) and not len(message.position):
            return
        stamp_ns = self._stamp_ns('joint_states', message)
        self.joint_arrivals.add(stamp_ns, received_ns)
        try:
            names = [prefix + name for name in message.name] if prefix else message.name
            self.joints.put(names, np.asarray(message.position), stamp_ns, received_ns)
            self.joint_error = None
        except ValueError as error:
            self.joint_error = str(error)

    def put_image(self, camera: str, message: Any, received_ns: int) -> None:
        """Take an Image or CompressedImage of ``camera``; it is decoded when it is used."""
        self.cameras[camera].put(decoding.turned(message, self._turns.get(camera, 0)),
                                 self._stamp_ns(camera, message), received_ns)

    def _stamp_ns(self, name: str, message: Any) -> int:
        return 0 if name in self._unstamped else decoding.to_ns(message.header.stamp)

    def problem(self, now_ns: int) -> Finding | None:
        """Return what is wrong with the inputs, or None."""
        found = self.builder.check(now_ns)
        if found and self.joint_error:
            return replace(found, text=f'{found} ({self.joint_error})')
        return found

    def next_frame(self, now_ns: int) -> tuple[LatestBuffer, Stamped, int] | None:
        """
        Return the camera to wait for before a decision, its newest frame, and how long, in ns.

        The one whose newest frame is the oldest, if its next comes within half of its period:
        then waiting makes the robot react sooner. None where it does not pay.
        """
        oldest = min(self.cameras.values(), default=None, key=lambda buffer: (
            newest.received_ns if (newest := buffer.get()) else 0))
        newest, rate_hz = oldest and oldest.get(), oldest and oldest.arrivals.rate_hz(now_ns)
        if not newest or not rate_hz:
            return None
        due_ns = newest.received_ns + round(1e9 / rate_hz) - now_ns
        return (oldest, newest, due_ns) if 0 < due_ns < min(5e8 / rate_hz, MOST_WAIT_NS) else None

    def clear(self) -> None:
        """Forget everything received, for example after the clock went back."""
        self.joints.clear()
        self.joint_arrivals.clear()
        for buffer in self.cameras.values():
            buffer.clear()

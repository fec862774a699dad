# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a person asked for: written by the operator, read by the session and by who tells of it."""

from dataclasses import dataclass
import threading

from pi0_ros.observation.finding import Finding
from rclpy.task import Future


@dataclass
class Asked:
    """Plain values that are replaced whole; any thread may read them."""

    instruction: str = ''  # that is followed
    number: int = 0        # of instructions that were given, refused ones and equal ones too
    refused: str = ''      # why the newest one is not, if so
    stop: bool = False     # whether the stop is pressed


class Preview:
    """A question to the policy, whether what it would do first is near enough to arm for it."""

    def __init__(self, instruction: str) -> None:
        """Ask for what is done under ``instruction``."""
        self.instruction, self.future = instruction, Future()
        self.told = ''  # where the policy would go first, where joints do not say it
        self._lock = threading.Lock()

    def answer(self, finding: Finding | None) -> None:
        """Answer it once, from any thread: what forbids it, or None."""
        with self._lock:
            if not self.future.done():
                self.future.set_result(finding)

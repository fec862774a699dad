# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a check found: one result for inputs, chunks, commands and the robot."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Why the robot is not moved, in a form for programs and in a sentence for its operator."""

    reason: str            # a word of docs/safety.md, such as camera_silent
    text: str              # what was found, what is allowed, and what to do
    subject: str = ''      # the camera, the joints or the input that it is about
    amount: float = 0.0    # seconds, radians or metres that were found
    allowed: float = 0.0   # in the same unit

    def __str__(self) -> str:
        """Return the sentence."""
        return self.text

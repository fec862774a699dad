# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a run: an animation of a camera, and commanded against measured joints."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

FRAME_SIZE = (480, 360)  # width, height
FRAMES_A_SECOND = 10


@dataclass
class Recording:
    """What happened during a run, in seconds from its start."""

    joint_names: tuple[str, ...]
    frames: list[tuple[float, np.ndarray, str]] = field(default_factory=list)  # RGB, caption
    commands: list[tuple[float, list[float]]] = field(default_factory=list)
    measured: list[tuple[float, list[float]]] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)
    instructions: list[tuple[float, str]] = field(default_factory=list)

    def wants_frame(self, at_s: float) -> bool:
        """Return whether the next frame is due."""
        return not self.frames or at_s - self.frames[-1][0] >= 1 / FRAMES_A_SECOND - 0.01

    def add_frame(self, at_s: float, image: np.ndarray, caption: str) -> None:
        """Keep an RGB image."""
        self.frames.append((at_s, cv2.resize(image, FRAME_SIZE), caption))


def write_animation(recording: Recording, path: Path) -> None:
    """Write the frames as an animated GIF with time and instruction on them."""
    from PIL import Image
    if not recording.frames:
        return
    width, height = FRAME_SIZE
    pictures = []
    for at_s, image, caption in recording.frames:
        image = cv2.copyMakeBorder(image, 34, 0, 0, 0, cv2.BORDER_CONSTANT, value=(28, 30, 34))
        text = caption if len(caption) < 42 else caption[:39] + '...'
        cv2.putText(image, text, (10, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (240, 240, 240), 1,
                    cv2.LINE_AA)
        cv2.putText(image, f'{at_s:5.1f} s', (width - 70, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.5,
                    (170, 170, 170), 1, cv2.LINE_AA)
        pictures.append(Image.fromarray(image).quantize(64, dither=Image.Dither.NONE))
    times = [frame[0] for frame in recording.frames]
    lasts = [round(1000 * min(1.0, b - a)) for a, b in zip(times, times[1:])] + [1500]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lasts, loop=0)


def plot_joints(recording: Recording, path: Path, metres: Sequence[str] = ('gripper',)) -> None:
    """
    Plot every joint, commanded against measured, with chunk borders and instructions.

    :param metres: the joints that slide.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    names = recording.joint_names
    figure, axes = plt.subplots(len(names), 1, figsize=(11, 1.7 * len(names) + 0.8), sharex=True)
    for row, (axis, name) in enumerate(zip(np.atleast_1d(axes), names)):
        for at_s in recording.chunks:
            axis.axvline(at_s, color='0.88', linewidth=0.7, zorder=0)
        for values, colour, label, width in ((recording.measured, 'tab:blue', 'measured', 1.8),
                                             (recording.commands, 'tab:orange', 'commanded', 1.0)):
            if values:
                times, rows = [at for at, _ in values], [row_[row] for _, row_ in values]
                gaps = np.flatnonzero(np.diff(times) > 0.2) + 1
                axis.plot(np.insert(times, gaps, np.nan), np.insert(rows, gaps, np.nan),
                          color=colour, label=label, linewidth=width)
        for at_s, text in recording.instructions:
            axis.axvline(at_s, color='tab:green', linewidth=1.2)
            if row == 0:
                axis.annotate(text, (at_s, 1.04), xycoords=('data', 'axes fraction'), fontsize=8,
                              color='tab:green')
        axis.set_ylabel(name.replace('_', '\n') + ('\n[m]' if name in metres else '\n[rad]'),
                        fontsize=8)
        axis.tick_params(labelsize=8)
    axes = np.atleast_1d(axes)
    if recording.instructions:
        axes[0].set_xlim(left=recording.instructions[0][0] - 1)
    axes[-1].set_xlabel('time [s]; grey lines: a new action chunk, green: a new instruction')
    axes[0].legend(loc='lower right', fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)

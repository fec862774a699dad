# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How a new chunk takes over from what was planned before.

switch: the new chunk at once, which jumps where two chunks disagree. blend: faded in over a while.
ensemble: the average of all chunks that speak of a time, as ACT does (arXiv 2304.13705, weights
exp(-0.01 i), i = 0 the oldest); averages what should be chosen between. synchronous: play a chunk
to its end, stop, infer, play the next: a pause between every two. rtc and rtc_trained: real-time
chunking (arXiv 2506.07339, 2512.05964); the network continues the plan, see engine/guidance.py,
and the little that is left between the two is faded over.
"""

import numpy as np

JACOBIANS = ('identity', 'full')
ACT_DECAY = 0.01


class Switch:
    """The new chunk as it is; after a stand or another instruction, faded in evenly."""

    def __init__(self, fade_ns: int, waits: bool = False, continues: bool = False) -> None:
        """
        Fade over ``fade_ns``.

        :param waits: ask for a chunk only when the last one has ended, and play it whole.
        :param continues: tell the policy what is planned, so that its chunk continues that.
        """
        self.fade_ns, self.waits, self.continues = fade_ns, waits, continues

    def take(self, times_ns: np.ndarray, new: np.ndarray, planned: np.ndarray, begin_ns: int,
             anew: bool, older: tuple = ()) -> tuple[np.ndarray, tuple]:
        """
        Return positions [N, D] for ``times_ns`` [N], the due times of a new chunk.

        :param new: [N, D] of the new chunk. :param planned: [N, D] so far.
        :param begin_ns: where the plan ends that cannot be changed any more.
        :param anew: whether the plan rests there, or served another instruction: whatever the
            strategy, the robot is not made to jump to where such a chunk begins.
        :param older: what the last call of it returned beside the positions, () after a stand.
        """
        return (self._fade(times_ns, new, planned, begin_ns) if anew else new), ()

    def _fade(self, times_ns: np.ndarray, new: np.ndarray, planned: np.ndarray, begin_ns: int
              ) -> np.ndarray:
        """Return a mixture whose share of ``new`` grows from 0 to 1."""
        if not self.fade_ns:
            return new
        share = np.minimum((times_ns - begin_ns) / self.fade_ns, 1.0)[:, None]
        return share * new + (1 - share) * planned


class Blend(Switch):
    """The new chunk, faded in evenly."""

    def take(self, times_ns: np.ndarray, new: np.ndarray, planned: np.ndarray, begin_ns: int,
             anew: bool, older: tuple = ()) -> tuple[np.ndarray, tuple]:
        """Return the mixture; see Switch."""
        return self._fade(times_ns, new, planned, begin_ns), ()


class Ensemble(Switch):
    """The average of all chunks that speak of a time."""

    def take(self, times_ns: np.ndarray, new: np.ndarray, planned: np.ndarray, begin_ns: int,
             anew: bool, older: tuple = ()) -> tuple[np.ndarray, tuple]:
        """Return the average, the oldest chunk weighing most; see Switch."""
        chunks = (*[chunk for chunk in older if chunk[0][-1] > times_ns[0]], (times_ns, new))
        total, weights = np.zeros_like(new), np.zeros((len(new), 1))
        for index, (times, positions) in enumerate(chunks):
            speaks = ((times_ns >= times[0]) & (times_ns <= times[-1]))[:, None]
            weight = speaks * np.exp(-ACT_DECAY * index)
            total += weight * np.column_stack([np.interp(times_ns, times, column)
                                               for column in positions.T])
            weights += weight
        out, _ = super().take(times_ns, total / weights, planned, begin_ns, anew)
        return out, chunks


def rtc_kind(handover: str, jacobian: str) -> str:
    """Return which of guidance.KINDS a hand-over wants of the network, '' for none."""
    return {'rtc': jacobian, 'rtc_trained': 'trained'}.get(handover, '')


# Each by its name, made of how long a chunk is faded in.
HANDOVERS = {
    'synchronous': lambda fade_ns: Switch(fade_ns, waits=True),
    'switch': Switch,
    'blend': Blend,
    'ensemble': Ensemble,
    'rtc': lambda fade_ns: Blend(fade_ns, continues=True),
    'rtc_trained': lambda fade_ns: Blend(fade_ns, continues=True),
}
STRATEGIES = tuple(HANDOVERS)


def make_handover(strategy: str, fade_ns: int) -> Switch:
    """
    Return the strategy of that name; ``fade_ns`` is how long a chunk is faded in.

    :raises ValueError: there is none.
    """
    if strategy not in HANDOVERS:
        raise ValueError(f"hand-over '{strategy}' is unknown, expected one of "
                         f"{', '.join(STRATEGIES)}")
    return HANDOVERS[strategy](fade_ns)

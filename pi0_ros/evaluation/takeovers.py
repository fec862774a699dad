# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What the policy would have done where a person took over.

Of every moment in which a person led, its chunk is compared with what the person did as long as
he led. It disagrees where it is further from that than a robot that stands still, and by more than
a hundredth of the joints' ranges: a policy that does nothing is no worse, and one that goes on
where the person holds is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pi0_ros.evaluation.measures import number, Rows

LEAST = 0.01  # of the ranges of its joints, on average, that a policy must be away

Span = tuple[int, int]  # ns of receipt


class Led:
    """The errors of the moments in which a person led."""

    def __init__(self, rows: Rows, ranges: np.ndarray, spans: Sequence[Sequence[Span]]) -> None:
        """
        Measure them.

        :param ranges: [D] of the joints. :param spans: in which a person led, of each bag.
        """
        count = len(rows.records)
        self.spans, self.of = spans, np.full(count, -1)  # which takeover of its bag, [M]
        self.policy, self.still = (rows.errors[name] / ranges  # [M, T, D], NaN: nobody led
                                   for name in ('policy', 'hold_still'))
        self.alone = self.policy.copy()                        # NaN: somebody led
        after_ns = (rows.after_s * 1e9).astype(np.int64)
        for index, record in enumerate(rows.records):
            shift_ns = record['bag_ns'] - record['now_ns']
            due_ns = record['t_obs_ns'] + shift_ns + after_ns
            led, any_led = np.zeros((2, len(due_ns)), bool)
            for which, (begin_ns, end_ns) in enumerate(spans[record['bag']]):
                inside = (begin_ns <= due_ns) & (due_ns < end_ns)
                any_led |= inside
                if begin_ns <= record['bag_ns'] < end_ns:
                    self.of[index] = which
                    led = inside
            self.alone[index, any_led] = np.nan
            self.policy[index, ~led], self.still[index, ~led] = np.nan, np.nan
        known = np.isfinite(self.policy).any(axis=(1, 2))
        self.of[~known] = -1
        self.errors, self.stood = np.full(count, np.nan), np.full(count, np.nan)
        self.errors[known] = np.nanmean(self.policy[known], axis=(1, 2))
        self.stood[known] = np.nanmean(self.still[known], axis=(1, 2))

    def worst_joint(self, index: int) -> int:
        """Return the joint that the policy would have moved most differently."""
        by_joint = np.full(self.policy.shape[2], -1.0)
        known = np.isfinite(self.policy[index]).any(axis=0)
        by_joint[known] = np.nanmean(self.policy[index][:, known], axis=0)
        return int(np.argmax(by_joint))

    def disagrees(self, index: int) -> bool:
        """Return whether standing still would clearly have been nearer to what the person did."""
        return bool(self.errors[index] > max(self.stood[index], LEAST))


def compare(rows: Rows, led: Led, begins: Sequence[tuple[str, int]], names: Sequence[str]
            ) -> dict[str, Any] | None:
    """
    Return how far the policy is from the person, of each takeover and in all; None without any.

    :param begins: name of each bag, and when it begins, ns of receipt.
    """
    if not any(led.spans):
        return None
    inside = led.of >= 0
    each = []
    for bag, spans in enumerate(led.spans):
        mine = np.array([record['bag'] == bag for record in rows.records])
        for which, (begin_ns, end_ns) in enumerate(spans):
            found = np.flatnonzero(mine & (led.of == which))
            first = next((index for index in found if led.disagrees(index)), None)
            worst = found[np.argmax(led.errors[found])] if len(found) else None
            each.append({
                'bag': begins[bag][0], 'begin_s': number((begin_ns - begins[bag][1]) / 1e9),
                'duration_s': number((end_ns - begin_ns) / 1e9), 'moments': len(found),
                'error_share': number(led.errors[found].mean()) if len(found) else None,
                'still_share': number(led.stood[found].mean()) if len(found) else None,
                'first_s': None if first is None else number(
                    (rows.records[first]['bag_ns'] - begin_ns) / 1e9),
                'first_joint': None if first is None else names[led.worst_joint(first)],
                'worst_s': None if worst is None else number(
                    (rows.records[worst]['bag_ns'] - begin_ns) / 1e9),
                'worst_joint': None if worst is None else names[led.worst_joint(worst)]})
    return {'takeovers': len(each), 'moments': int(inside.sum()),
            'disagrees': sum(led.disagrees(index) for index in np.flatnonzero(inside)),
            'error_share': number(led.errors[inside].mean()) if inside.any() else None,
            'still_share': number(led.stood[inside].mean()) if inside.any() else None,
            'alone_share': number(np.nanmean(led.alone)) if np.isfinite(led.alone).any() else None,
            'each': each}


def as_text(told: dict[str, Any] | None) -> list[str]:
    """Return what ``compare`` told for people."""
    if told is None:
        return []
    out = [f"  where a person led, {told['takeovers']} times, {told['moments']} moments: "
           + (f"mean error {100 * told['error_share']:.2f} % of the range, standing still "
              f"{100 * told['still_share']:.2f} %; another way in {told['disagrees']}"
              if told['moments'] else 'none could be compared: a smaller --every')]
    for one in told['each']:
        first = ('it disagrees nowhere' if one['first_s'] is None else
                 f"it disagrees first after {one['first_s']:.1f} s, in {one['first_joint']}")
        if one['moments']:
            out.append(f"    {one['bag']} at {one['begin_s']:.1f} s, for {one['duration_s']:.1f} "
                       f's: {first}')
    return out

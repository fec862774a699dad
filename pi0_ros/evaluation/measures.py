# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How far predicted actions are from what was done, and from what would be done without a policy.

Errors are radians or metres, and shares of a joint's range. Two baselines: hold still, and go on
with the last velocity. What is averaged over joints is averaged as shares of their ranges.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any
import warnings

import numpy as np

MOVES = 0.02       # of its range, by which a joint must have moved to have a direction
FULL_TURN = 2 * np.pi


class Rows:
    """The records of one run as arrays: M moments, K samples, T steps, D joints."""

    def __init__(self, records: Sequence[dict[str, Any]], turns: np.ndarray) -> None:
        """
        Take the moments that were inferred and have something to be compared with.

        :param turns: [D] bool: joints of which whole turns make no difference.
        """
        self.records = [record for record in records if not record['skipped']]
        used = self.records

        def array(name: str, *shape: int) -> np.ndarray:
            return np.array([record[name] for record in used], float).reshape(len(used), *shape)

        first = used[0]
        steps, joints = np.shape(first['done'])
        self.samples = len(first['predicted'])
        self.dt_s = first['dt_ns'] / 1e9
        self.predicted = array('predicted', self.samples, steps, joints)  # [M, K, T, D]
        self.done = array('done', steps, joints)                          # [M, T, D]
        self.state = array('state', -1)[:, :joints]                       # [M, D]
        self.velocity = array('velocity', joints)                         # [M, D]
        self.turns = turns
        self.offset = first['action_offset']
        # After the observation, when each step is due, [T].
        self.after_s = self.dt_s * (self.offset + np.arange(steps))
        still = np.repeat(self.state[:, None], steps, axis=1)
        moving = still + self.velocity[:, None] * self.after_s[:, None]
        self.errors = {
            'policy': np.abs(self._apart(self.predicted, self.done[:, None])).mean(axis=1),
            'hold_still': np.abs(self._apart(still, self.done)),
            'last_velocity': np.abs(self._apart(moving, self.done))}  # each [M, T, D]

    def _apart(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        out = one - other
        return np.where(self.turns, (out + np.pi) % FULL_TURN - np.pi, out)

    def apart(self, one: np.ndarray, other: np.ndarray, joint: int) -> np.ndarray:
        """Return one - other of one joint, without whole turns where it turns."""
        out = one - other
        return (out + np.pi) % FULL_TURN - np.pi if self.turns[joint] else out

    def bags(self) -> np.ndarray:
        """Return the number of every moment's bag [M]."""
        return np.array([record['bag'] for record in self.records])

    def extent(self) -> np.ndarray:
        """Return over how far each joint [D] was recorded."""
        seen = np.concatenate([self.state, self.done.reshape(-1, self.done.shape[-1])])
        return np.nanmax(seen, axis=0) - np.nanmin(seen, axis=0)

    def bag_error(self, bag: int, ranges: np.ndarray) -> float | None:
        """
        Return the policy's mean error in one bag, a share of the range; None without moments.

        The mean over moments, steps and joints, as everywhere.
        """
        here = self.bags() == bag
        return number(np.nanmean(self.errors['policy'][here] / ranges)) if here.any() else None

    def moment_errors(self, ranges: np.ndarray) -> np.ndarray:
        """Return the policy's error of every moment [M], a share of the range."""
        return np.nanmean(self.errors['policy'] / ranges, axis=(1, 2))


def summarise(records: Sequence[dict[str, Any]], rows: Rows, names: Sequence[str],
              ranges: np.ndarray) -> dict[str, Any]:
    """
    Return all measures of one run.

    :param names: of the D joints. :param ranges: [D] of what errors are told as shares.
    """
    with warnings.catch_warnings():  # a step that no bag reaches has no mean: it is None
        warnings.filterwarnings('ignore', '(Mean of empty|All-NaN) slice', RuntimeWarning)
        return _summary(records, rows, names, ranges)


def _summary(records: Sequence[dict[str, Any]], rows: Rows, names: Sequence[str],
             ranges: np.ndarray) -> dict[str, Any]:
    by = rows.errors
    share = {name: number(np.nanmean(error / ranges)) for name, error in by.items()}
    return {
        'moments': len(records), 'compared': len(rows.records), 'samples': rows.samples,
        'steps': rows.done.shape[1], 'dt_s': number(rows.dt_s),
        'skipped': dict(sorted(Counter(one['skipped'] for one in records
                                       if one['skipped']).items())),
        'error_share': share,
        'better_than': {name: number(1 - share['policy'] / share[name]) if share[name] else None
                        for name in ('hold_still', 'last_velocity')},
        'joints': {name: _joint(rows, ranges, index) for index, name in enumerate(names)},
        'steps_error_share': {
            name: {'mean': _numbers(np.nanmean(error / ranges, axis=(0, 2))),
                   'p95': _numbers(np.nanpercentile((error / ranges).mean(axis=2), 95, axis=0)),
                   'max': _numbers(np.nanmax((error / ranges).mean(axis=2), axis=0))}
            for name, error in by.items()},
        'smoothness': _smoothness(rows, names),
        'safety': _safety(rows),
        'inputs': _inputs(rows)}


def _joint(rows: Rows, ranges: np.ndarray, index: int) -> dict[str, Any]:
    out: dict[str, Any] = {'range': number(ranges[index])}
    for name, error in rows.errors.items():
        one = error[:, :, index]
        out[name] = {'mean': number(np.nanmean(one)), 'p95': number(np.nanpercentile(one, 95)),
                     'max': number(np.nanmax(one)),
                     **{f'{part}_share': number(of / ranges[index]) for part, of in (
                         ('mean', np.nanmean(one)), ('p95', np.nanpercentile(one, 95)),
                         ('max', np.nanmax(one)))},
                     'by_step': {'mean': _numbers(np.nanmean(one, axis=0)),
                                 'p95': _numbers(np.nanpercentile(one, 95, axis=0)),
                                 'max': _numbers(np.nanmax(one, axis=0))}}
    done, predicted = rows.done[:, :, index], rows.predicted[:, :, :, index]
    last = np.array([np.flatnonzero(np.isfinite(row))[-1] for row in done])
    at = np.arange(len(done))
    moved = rows.apart(done[at, last], rows.state[:, index], index)
    would = rows.apart(predicted[at, :, last], rows.state[:, index, None], index)
    clear = np.abs(moved) > MOVES * ranges[index]
    agree = (np.sign(would) == np.sign(moved)[:, None])[clear]
    fan = rows.apart(predicted, done[:, None], index)  # around what was done
    inside = (fan.min(axis=1) <= 0) & (fan.max(axis=1) >= 0)
    out['direction'] = {'moments': int(clear.sum()),
                        'agree': number(agree.mean()) if clear.any() else None}
    fan = rows.apart(predicted, predicted[:, :1], index)
    out['spread'] = {'std': number(fan.std(axis=1).mean()) if rows.samples > 1 else None,
                     'done_inside': number(inside[np.isfinite(done)].mean())
                     if rows.samples > 1 else None}
    return out


def _smoothness(rows: Rows, names: Sequence[str]) -> dict[str, Any]:
    """Return how consecutive chunks agree, where the next came before the plan's end."""
    joined = [one for one in rows.records if one['jump'] is not None]
    out: dict[str, Any] = {'joined': len(joined), 'jump': {}, 'acceleration': {}}
    if not joined:
        return out
    jumps = np.array([one['jump'] for one in joined])
    both = [one for one in joined if one['border'] and one['inside']]
    for index, name in enumerate(names):
        out['jump'][name] = {'mean': number(jumps[:, index].mean()),
                             'p95': number(np.percentile(jumps[:, index], 95)),
                             'max': number(jumps[:, index].max())}
        if both:
            border, inside = (np.sqrt(np.mean([one[part][index]**2 for one in both]))
                              for part in ('border', 'inside'))
            out['acceleration'][name] = {'border': number(border), 'inside': number(inside)}
    return out


def _safety(rows: Rows) -> dict[str, Any]:
    used = rows.records
    changed = [bool(one['refused'] or one['clamped'] or one['slowed']) for one in used]
    return {'changed_share': number(np.mean(changed)),
            'refused': dict(sorted(Counter(one['refused'] for one in used
                                           if one['refused']).items())),
            **{what: {'chunks': sum(bool(one[what]) for one in used), 'joints': dict(
                Counter(name for one in used for name in one[what]).most_common())}
               for what in ('clamped', 'slowed')}}


def _inputs(rows: Rows) -> dict[str, Any]:
    used = rows.records

    def ages(values: list[float]) -> dict[str, float]:
        milliseconds = 1e3 * np.array(values)
        return {'p50': number(np.median(milliseconds)),
                'p95': number(np.percentile(milliseconds, 95)),
                'max': number(milliseconds.max())}

    out = {'joint_states': {'age_ms': ages([one['joint_age_s'] for one in used])}}
    for name in used[0]['image_age_s']:
        out[name] = {'age_ms': ages([one['image_age_s'][name] for one in used]),
                     'skew_ms': ages([abs(one['skew_s'][name]) for one in used])}
    return out


def number(value: float) -> float | None:
    """Return a number with six digits, None for one that is none."""
    return float(f'{value:.6g}') if np.isfinite(value) else None


def _numbers(values: np.ndarray) -> list[float | None]:
    return [number(value) for value in values]

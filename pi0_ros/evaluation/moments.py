# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One checkpoint at every moment of a bag: what it would have done, and what was done."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import time
from typing import Any, TYPE_CHECKING

import numpy as np
from pi0_ros.bags.actions import ActionPath, ActionPaths
from pi0_ros.bags.playback import LATE_NS, Moment, Playback
from pi0_ros.evaluation.execution import Execution
from pi0_ros.observation.observation import NotReady, Observation
from pi0_ros.policy.policy import ActionChunk

if TYPE_CHECKING:
    from pi0_ros.policy.pi0 import Pi0Policy  # torch takes seconds

SPREAD_NS = 100_000_000  # of moments: on a grid they would be in phase with the sensors
OVER_NS = 100_000_000  # over which the last velocity is measured


@dataclass(frozen=True)
class Setting:
    """How every bag is evaluated."""

    every_ns: int
    seed: int
    samples: int
    asked: Callable[[str], str]  # the instruction that the policy is given


@dataclass
class _Pending:
    record: dict[str, Any]
    path: ActionPath | ActionPaths
    due_ns: np.ndarray


def records(bag: int, playback: Playback, policy: 'Pi0Policy', execution: Execution,
            setting: Setting, known: dict[int, dict]) -> Iterator[dict[str, Any]]:
    """
    Yield a record of every moment, in order.

    :param bag: its number. :param known: records of moments that were done before, by their
        number; these are not inferred again.
    """
    waiting: list[_Pending | dict] = []
    for moment in playback.moments(setting.every_ns, spread_ns=SPREAD_NS):
        execution.describe(playback.description)
        if moment.number in known:
            waiting.append(_again(known[moment.number], execution))
        else:
            waiting.append(_decide(bag, moment, playback, policy, execution, setting))
        while waiting and _complete(waiting[0], playback):
            yield _finished(waiting.pop(0))
        open_ns = [one.due_ns[0] for one in waiting if isinstance(one, _Pending)]
        playback.path.forget(min(open_ns, default=moment.now_ns) - LATE_NS)
    for one in waiting:
        yield _finished(one)


def _decide(bag: int, moment: Moment, playback: Playback, policy: 'Pi0Policy',
            execution: Execution, setting: Setting) -> _Pending | dict:
    """Observe and infer; the record still lacks what was done."""
    record = {'bag': bag, 'moment': moment.number, 'now_ns': moment.now_ns,
              'bag_ns': moment.bag_ns, 'instruction': playback.instruction, 'skipped': '',
              'why': ''}
    asked = setting.asked(playback.instruction)
    try:
        if not asked:
            execution.stand()
            return record | {'skipped': 'no_instruction', 'why': 'no instruction is in force'}
        seen = playback.streams.builder.build(moment.now_ns, asked)
    except NotReady as error:
        execution.stand()
        return record | {'skipped': error.finding.reason, 'why': error.finding.text}
    moved, seconds = playback.streams.joints.moved(OVER_NS)
    count = len(playback.path.joint_names)
    moved = execution.shortest(moved[:count])
    chunks, latency = [], []
    for sample in range(setting.samples):
        noise = np.random.default_rng((setting.seed, bag, moment.number, sample)) \
            .standard_normal(policy.noise_shape)
        started = time.perf_counter()
        chunks.append(policy.infer(seen, noise))
        latency.append(1e3 * (time.perf_counter() - started))
        if not sample:
            first = noise
    executed = chunks[0]
    leftover = execution.leftover(seen, policy.dt_ns, len(executed.positions),
                                  executed.offset)
    if leftover is not None:
        executed = policy.infer(seen, first, leftover)
    fate = execution.take(executed, seen)
    joints = playback.streams.joints.get()
    stamps = seen.image_stamps_ns
    record |= {
        't_obs_ns': seen.t_obs_ns, 'asked': asked, 'dt_ns': policy.dt_ns,
        'action_offset': executed.offset,
        'state': seen.state.tolist(), 'velocity': (moved / seconds).tolist(),
        'predicted': [chunk.positions.tolist() for chunk in chunks],
        'executed': executed.positions.tolist() if leftover is not None else None,
        'image_stamps_ns': dict(stamps),
        'joint_age_s': (moment.now_ns - joints.stamp_ns) / 1e9,
        'image_age_s': {name: (moment.now_ns - at) / 1e9 for name, at in stamps.items()},
        'skew_s': {name: (at - seen.t_obs_ns) / 1e9 for name, at in stamps.items()},
        'problem': executed.problem,
        'refused': fate.refused, 'clamped': list(fate.clamped), 'slowed': list(fate.slowed),
        'jump': _list(fate.jump), 'border': _list(fate.border), 'inside': _list(fate.inside),
        'latency_ms': latency}
    return _Pending(record, playback.path, executed.due_ns)


def _list(row: np.ndarray | None) -> list[float] | None:
    return None if row is None else row.tolist()


def _again(record: dict, execution: Execution) -> dict:
    """Let the plan go on from a moment that was done before."""
    if 'predicted' not in record:
        execution.stand()
        return record
    seen = Observation(record['t_obs_ns'], np.array(record['state']), {}, {}, record['asked'])
    executed = record['executed']
    positions = record['predicted'][0] if executed is None else executed
    execution.take(ActionChunk(seen.t_obs_ns, record['dt_ns'], np.array(positions),
                               record['asked'], offset=record['action_offset'],
                               problem=record.get('problem', '')), seen)
    return record


def _complete(one: _Pending | dict, playback: Playback) -> bool:
    return isinstance(one, dict) or (one.path is not playback.path
                                     or playback.now_ns > one.due_ns[-1] + LATE_NS)


def _finished(one: _Pending | dict) -> dict[str, Any]:
    """Add what was done, NaN where that is not known or was for another instruction."""
    if isinstance(one, dict):
        return one
    record, done = one.record, one.path.sample(one.due_ns)
    other = [at for at, text in one.path.changes
             if at >= record['now_ns'] and text != record['instruction']]
    if other:
        done[one.due_ns >= other[0]] = np.nan
    if not np.isfinite(done).any():
        return record | {'done': None, 'skipped': 'nothing_after',
                         'why': 'what was done afterwards is not in the bag'}
    return record | {'done': done.tolist()}

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Cuts a bag into episodes on a constant grid of time, for a data set."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pi0_ros.bags.actions import ActionPath, ActionPaths
from pi0_ros.bags.playback import LATE_NS, Moment, Playback
from pi0_ros.bags.routes import Routes
from pi0_ros.dataset.outcome import DISCARD, find, Outcome, SUCCESS


ALL, INTERVENTIONS, SUCCESSES = CHOICES = 'all', 'interventions', 'successes'


@dataclass(frozen=True)
class Frame:
    """One row of a data set."""

    at_ns: int
    state: np.ndarray      # [N] in the order of Observation.state
    action: np.ndarray     # [D] what was commanded then, or measured one period later
    images: dict[str, Any]  # messages, by camera
    begins: bool           # whether a new episode begins with it
    task: str
    led: bool = False      # whether a person led
    outcome: Outcome | None = None  # of its episode, where somebody judged it


@dataclass
class _Pending:
    at_ns: int
    state: np.ndarray
    images: dict[str, Any]
    begins: bool
    task: str
    path: ActionPath | ActionPaths
    led: bool


def action_offset(routes: Routes) -> int:
    """Return how many periods after its frame an action of a bag is due, see ActionChunk."""
    return 0 if routes.actions else 1


def frames(playback: Playback, fps: int, marker: str = '', led_topic: str = ''
           ) -> Iterator[Frame]:
    """
    Yield the frames of a bag, in order.

    The action of a frame is what was commanded then, as LeRobot records it; where no commands were
    recorded, where the joints were measured one period later: see ``action_offset``. The state is
    the newest, up to a period of the joint states older. An episode is what was done until another
    instruction. It ends where an input was missing or late, where
    nothing was commanded yet, where the clock jumped, and with every message on ``marker``; if
    that is of std_msgs/Bool, true begins an episode and false ends it.

    :param led_topic: of std_msgs/Bool, which tells when a person leads; '' for none.
    """
    period_ns = round(1e9 / fps)
    after_ns = action_offset(playback.routes) * period_ns
    waiting: deque[_Pending] = deque()
    broken, wanted, task, path = True, True, '', playback.path
    left_out = playback.left_out
    known, led = _Known(), False
    kind = playback.bag.topics[marker].kind if marker else ''
    if kind == 'std_msgs/msg/Bool':
        wanted = False
    for event in playback.moments(period_ns, tuple(filter(None, (marker, led_topic)))):
        if not isinstance(event, Moment) and event[0] == led_topic:
            led = event[2].data
            continue
        if not isinstance(event, Moment):
            broken, wanted = True, getattr(event[2], 'data', True) is not False \
                if kind == 'std_msgs/msg/Bool' else True
            continue
        streams, now_ns = playback.streams, event.now_ns
        problem = (None if playback.instruction else 'no_instruction') or (
            None if wanted else 'between_episodes')
        finding = problem or streams.builder.check(now_ns)
        if finding:
            broken = True
            reason = getattr(finding, 'reason', finding)
            left_out[reason] += 1
            if reason is not finding:
                playback.why.setdefault(reason, finding)
        else:
            begins = broken or playback.instruction != task or playback.path is not path
            broken, task, path = False, playback.instruction, playback.path
            waiting.append(_Pending(
                now_ns, streams.joints.get().value,
                {name: one.get().value for name, one in streams.cameras.items()}, begins, task,
                playback.path, led))
        while waiting and (waiting[0].path is not playback.path
                           or now_ns > waiting[0].at_ns + period_ns + LATE_NS):
            yield from known.settle(waiting.popleft(), after_ns, left_out)
        playback.path.forget((waiting[0].at_ns if waiting else now_ns) - LATE_NS)
    for one in waiting:
        yield from known.settle(one, after_ns, left_out)


class _Known:
    """Leaves out what has no action, and lets another episode begin after that."""

    def __init__(self) -> None:
        self._broken = True

    def settle(self, one: _Pending, after_ns: int, left_out: Counter[str]) -> Iterator[Frame]:
        action = one.path.sample(np.array([one.at_ns + after_ns]))[0]
        if not np.isfinite(action).all():
            self._broken = True
            left_out['no_action'] += 1
            return
        yield Frame(one.at_ns, one.state, action, one.images, one.begins or self._broken,
                    one.task, one.led)
        self._broken = False


def judged(found: Iterator[Frame], outcomes: Sequence[Outcome], only: str, met: set[Outcome],
           named: bool = False) -> Iterator[Frame]:
    """
    Yield frames with what became of their episodes, without those that shall not count.

    :param only: successes: without those, too, that are none.
    :param met: outcomes of frames that were there, added to.
    :param named: whether tasks are not what the node was told.
    """
    before: Outcome | None = None
    gap = False
    for frame in found:
        outcome = find(outcomes, frame.at_ns, '' if named else frame.task)
        met |= {outcome} - {None}
        word = outcome.outcome if outcome else ''
        if word == DISCARD or only == SUCCESSES and word != SUCCESS:
            gap = True
            continue
        begins = frame.begins or gap or outcome is not before
        yield replace(frame, begins=begins, outcome=outcome)
        before, gap = outcome, False


def chosen(found: Iterator[Frame], only: str, drop: int) -> Iterator[Frame]:
    """
    Yield some of the frames; what follows a gap begins another episode.

    :param only: interventions: those that a person led.
    :param drop: so many frames before a person takes over are left out: they led to that.
    """
    kept: deque[Frame] = deque()  # of the policy, that may be dropped yet
    gap = False

    def out(frame: Frame) -> Frame:
        nonlocal gap
        frame, gap = replace(frame, begins=frame.begins or gap), False
        return frame

    led = False
    for frame in found:
        if frame.begins:
            yield from map(out, kept)
            kept.clear()
            led = False
        if frame.led:
            if not led and kept:
                kept.clear()
                gap = True
            led = True
            yield out(frame)
            continue
        led = False
        if only == INTERVENTIONS:
            gap = True
            continue
        kept.append(frame)
        if len(kept) > drop:
            yield out(kept.popleft())
    yield from map(out, kept)

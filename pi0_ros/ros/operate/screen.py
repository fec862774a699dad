# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the terminal shows: lines of text with a style each, made of what was seen."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import unicodedata

from pi0_ros.dataset.outcome import Outcome, WORDS

PLAIN, DIM, BOLD, GOOD, WARN, BAD = 'plain', 'dim', 'bold', 'good', 'warn', 'bad'
SILENT_S = 3.0    # after which a node that tells its diagnostics every second is gone
ANSWERS = 50      # that are kept
LABEL = 13        # columns of the names at the left
KEYS = (('a', 'arm'), ('d', 'disarm'), ('space', 'STOP'), ('r', 'release the stop, reset'),
        ('1-9', 'instruct'), ('n', 'next instruction'), ('i', 'type one'), ('h', 'hold'),
        ('s', 'success'), ('f', 'failure'), ('x', 'discard'), ('S F X', 'with a note'),
        ('t', 'keep pressed: take over'), ('g', 'give back'), ('q', 'quit'))


@dataclass
class Part:
    """One part of the node's diagnostics."""

    level: int  # 0 good, 1 warning, 2 error
    message: str
    values: Mapping[str, str]


@dataclass
class Seen:
    """What the node told, and what the person does."""

    node: str
    prompts: Sequence[str] = ()
    results: str = ''                         # file that outcomes go to, '' for none
    status: Part | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    heard_s: float | None = None              # when diagnostics came last, steady clock
    instructed_s: float = 0.0                 # when the instruction in force began
    stop: bool = False                        # as it was published last, by anybody
    chosen: int = -1                          # which prompt was said last
    outcomes: list[Outcome] = field(default_factory=list)
    answers: deque[tuple[str, int, str]] = field(  # when, level, what
        default_factory=lambda: deque(maxlen=ANSWERS))
    typing: tuple[str, str] | None = None     # what for, and the text so far
    held: bool = False                        # the key of the takeover
    absent: str = ''                          # why nothing is heard


def lines(seen: Seen, width: int, height: int, now_s: float) -> list[tuple[str, str]]:
    """
    Return the screen: text and style of at most ``height`` lines of at most ``width`` columns.

    What a person needs in a hurry goes first: a small terminal loses the end of the middle.
    """
    fresh = seen.heard_s is not None and now_s - seen.heard_s <= SILENT_S
    middle = [*(_inputs(seen) if fresh else ()), *(_policy(seen) if fresh else ()),
              *_episodes(seen), *_prompts(seen)]
    foot = [('', PLAIN), *((text, DIM) for text in _keys(width))]
    if seen.typing:
        label, text = seen.typing
        foot = [('', PLAIN), (f'{label}: {_tail(text, width - len(label) - 3)}_', BOLD),
                ('Enter: say it; Esc: forget it; Ctrl-C: STOP, and end', DIM)]
    head = _head(seen, now_s)
    room = max(height - len(head) - len(foot), 0)
    answers = [(f'{at} {text}', (DIM, WARN, BAD)[level]) for at, level, text in seen.answers]
    shown = max(min(len(answers), 6, room - len(middle) - 1), min(len(answers), 1, room))
    middle = middle[:max(room - shown, 0)]
    space = [('', PLAIN)] * max(room - shown - len(middle), 0)
    out = [*head, *middle, *space, *(answers[-shown:] if shown else []), *foot]
    return [(_cut(_plain(text), width), style) for text, style in out[:height]]


def _plain(text: str) -> str:
    """Return a text of one line that moves no cursor."""
    return ''.join(one if one.isprintable() else ' ' for one in text)


def _columns(one: str) -> int:
    """Return how many columns a character takes; a mark on another takes none."""
    return 0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in 'WF')


def _cut(text: str, width: int) -> str:
    """Return as much of the beginning of a text as fits into ``width`` columns."""
    used = 0
    for at, one in enumerate(text):
        used += _columns(one)
        if used > width:
            return text[:at]
    return text


def _tail(text: str, width: int) -> str:
    """Return as much of the end of a text as fits into ``width`` columns."""
    return _cut(text[::-1], max(width, 0))[::-1]


def _row(label: str, text: str, style: str = PLAIN) -> tuple[str, str]:
    return f'{label:{LABEL}}{text}', style


def _style(level: int) -> str:
    return (PLAIN, WARN, BAD)[min(level, 2)]


def _head(seen: Seen, now_s: float) -> list[tuple[str, str]]:
    """Return who is spoken to, what it does and why."""
    out = [(f'{seen.node}', BOLD)]
    if seen.status is None or seen.heard_s is None:
        why = seen.absent or 'It is there: it loads its policy, or is not configured.'
        return [*out, _row('state', f'nothing heard yet. {why}', WARN)]
    silent_s = now_s - seen.heard_s
    if silent_s > SILENT_S:
        return [*out, _row('state', f'SILENT for {silent_s:.0f} s: the node has ended, hangs, or '
                           f'the network is gone. {seen.absent}', BAD)]
    told = seen.status.values
    state, armed = told.get('state', '?'), told.get('armed') == 'True'
    style = GOOD if armed and seen.status.level == 0 else _style(seen.status.level)
    out.append(_row('state', f"{state.upper()}, {'ARMED' if armed else 'not armed'}"
                    + (', THE STOP IS PRESSED' if seen.stop else ''), BAD if seen.stop else style))
    reason = told.get('reason', '')
    out.append(_row('', f'{reason}: {seen.status.message}' if reason else seen.status.message,
                    _style(seen.status.level)))
    text = told.get('instruction', '')
    out.append(_row('instruction', f"'{text}' for {now_s - seen.instructed_s:.0f} s" if text else
                    'none: it holds', BOLD if text else PLAIN))
    return out


def _inputs(seen: Seen) -> list[tuple[str, str]]:
    """Return rate and age of each camera, and of the joints."""
    out = []
    for name, part in seen.parts.items():
        if name != 'joint_states' and not name.startswith('camera '):
            continue
        values = part.values
        age_ms = _number(values, 'age_ms', -1)
        text = (f"{_number(values, 'rate_hz'):5.1f} Hz, {age_ms:4.0f} ms old" if age_ms >= 0 else
                'nothing yet')
        lost = _number(values, 'lost_of_100')
        text += f', {min(lost, 100):.0f} of 100 lost' if lost >= 1 else ''
        text += f': {part.message}' if part.level else ''
        out.append(_row(name.removeprefix('camera ').replace('joint_states', 'joints'), text,
                        _style(part.level)))
    return out


def _policy(seen: Seen) -> list[tuple[str, str]]:
    """Return how fast it decides, how long the plan is, and who leads."""
    out = []
    policy, control = seen.parts.get('policy'), seen.parts.get('control')
    if policy:
        values = policy.values
        name = values.get('checkpoint', '') or policy.message
        out.append(_row('policy', f"{name}: {_number(values, 'rate_hz'):.1f} chunks/s, "
                        f"{_number(values, 'inference_p50_ms'):.0f} ms each",
                        _style(policy.level)))
    if control:
        values = control.values
        who = values.get('leads', 'policy')
        who = f"a person leads for {_number(values, 'led_for_s'):.0f} s" if who == 'person' else (
            'the policy leads')
        who += ', the key is pressed' if seen.held else ''
        out.append(_row('control', f"{who}; {_number(values, 'rate_hz'):.1f} Hz, "
                        f"{values.get('missed_ticks', '0')} missed, queue "
                        f"{_number(values, 'queue_ms') / 1e3:.2f} s"
                        + (f': {control.message}' if control.level else ''),
                        _style(control.level)))
    return out


def _episodes(seen: Seen) -> list[tuple[str, str]]:
    """Return how many episodes were judged, and the last."""
    counts = [sum(one.outcome == word for one in seen.outcomes) for word in WORDS]
    text = ', '.join(f'{count} {word}' for count, word in zip(counts, WORDS) if count)
    text = (text or 'none judged yet') + (f' -> {seen.results}' if seen.results else '')
    if seen.outcomes:
        last = seen.outcomes[-1]
        text += (f"; the last: '{last.instruction}' {last.outcome}, {last.duration_s:.1f} s"
                 + (f', {last.takeovers} takeovers' if last.takeovers else '')
                 + (f' ({last.note})' if last.note else ''))
    return [_row('episodes', text)]


def _prompts(seen: Seen) -> list[tuple[str, str]]:
    """Return the instructions that have a key."""
    return [_row('' if number > 1 else 'say', f"{number if number < 10 else ' '} {text}",
                 BOLD if number - 1 == seen.chosen else PLAIN)
            for number, text in enumerate(seen.prompts, 1)]


def _keys(width: int) -> list[str]:
    """Return the keys in as many lines as they take."""
    out = ['']
    for key, text in KEYS:
        one = f'[{key}] {text}'
        if out[-1] and len(out[-1]) + 2 + len(one) > width:
            out.append('')
        out[-1] += f'  {one}' if out[-1] else one
    return out


def _number(values: Mapping[str, str], key: str, default: float = 0.0) -> float:
    """Return a number of the diagnostics, the default where there is none."""
    try:
        return float(values.get(key, default))
    except ValueError:
        return default

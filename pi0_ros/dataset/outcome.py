# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What became of an episode, as a person or a program judged it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
import fcntl
import json
from pathlib import Path

from pi0_ros.bags.bag import Bag, BagError

SUCCESS, FAILURE, DISCARD = WORDS = 'success', 'failure', 'discard'
TOPIC = 'episode_result'
SLACK_NS = 200_000_000  # by which a recorder hears of begin and end sooner or later than the node


def parse(text: str) -> tuple[str, str]:
    """
    Return word and note of ``success``, ``failure`` or ``discard``, with a note after a colon.

    :raises ValueError: it is something else.
    """
    word, _, note = (part.strip() for part in text.partition(':'))
    if word.lower() not in WORDS:
        raise ValueError(f"'{word[:40]}' ends no episode, expected {', '.join(WORDS[:2])} or "
                         f"{DISCARD}, and a note after a colon if you like: 'failure: slipped'")
    return word.lower(), note


@dataclass(frozen=True)
class Outcome:
    """An episode is what was done under one instruction, from when it was given."""

    instruction: str
    outcome: str     # one of WORDS
    note: str
    begin_ns: int    # node time: it was instructed
    end_ns: int      # node time: it held, or was judged
    takeovers: int   # by a person
    checkpoint: str  # its fingerprint, '' for policies without

    @property
    def duration_s(self) -> float:
        """Return how long it took, s."""
        return (self.end_ns - self.begin_ns) / 1e9

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps({**asdict(self), 'duration_s': self.duration_s})

    @property
    def succeeded(self) -> bool:
        """Return whether the policy did it alone."""
        return self.outcome == SUCCESS and not self.takeovers

    @staticmethod
    def from_json(text: str) -> 'Outcome':
        """
        Return the outcome in ``text``.

        :raises ValueError: it is none.
        """
        try:
            told = json.loads(text)
            out = Outcome(*(kind(told[name]) for name, kind in Outcome.__annotations__.items()))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ValueError(f'no outcome of an episode: {error}') from error
        if out.outcome not in WORDS:
            raise ValueError(f"no outcome of an episode: '{out.outcome}'")
        return out


def read(bag: Bag) -> list[Outcome]:
    """
    Return what a bag says of its episodes, in order.

    :raises BagError: two nodes said something, or what was said cannot be read.
    """
    topics = [topic for topic, of in bag.topics.items()
              if topic.endswith('/' + TOPIC) and of.kind == 'std_msgs/msg/String' and of.count]
    if len(topics) > 1:
        raise BagError(f"bag '{bag.path}' has {', '.join(topics)}, expected one node's: record "
                       'one robot in a bag')
    try:
        return [Outcome.from_json(message.data) for _, _, message in bag.messages(topics)] \
            if topics else []
    except ValueError as error:
        raise BagError(f"'{topics[0]}' of bag '{bag.path}': {error}") from error


def read_table(path: Path) -> list[object]:
    """
    Return the rows of a table of outcomes, JSON.

    :raises ValueError: it is something else.
    """
    try:
        rows = json.loads(path.read_text('utf-8'))
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from error
    if not isinstance(rows, list):
        raise ValueError(f"'{path}' has a {type(rows).__name__}, expected a list of outcomes")
    return rows


def add_to_table(path: Path, outcome: Outcome) -> None:
    """
    Add an outcome to a table that ``evaluate --outcomes`` reads; a table that is there stays.

    :raises OSError: it cannot be written; it is as before then.
    :raises ValueError: what is there is no table.
    """
    path = path.resolve()
    row = {'checkpoint': outcome.checkpoint, 'success': outcome.succeeded,
           'duration_s': outcome.duration_s, **asdict(outcome)}
    with path.with_name(f'.{path.name}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two screens may write it
        rows = read_table(path) if path.exists() else []
        if row in rows:
            return
        new = path.with_name(f'.{path.name}.partial')
        try:
            new.write_text(json.dumps([*rows, row], indent=1) + '\n', 'utf-8')
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def find(outcomes: Sequence[Outcome], at_ns: int, instruction: str) -> Outcome | None:
    """
    Return that of the episode of a time and instruction, None if nobody judged it.

    :param instruction: '' if it is not known what the node was told.
    """
    for slack_ns in (0, SLACK_NS):
        for one in outcomes:
            if one.begin_ns - slack_ns <= at_ns < one.end_ns + slack_ns and (
                    instruction.strip() in ('', one.instruction)):
                return one
    return None

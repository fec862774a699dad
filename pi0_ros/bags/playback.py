# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A bag played through the code that serves the live node, at moments on a grid of time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pi0_ros.bags.actions import ActionPath, ActionPaths, named, OTHERS
from pi0_ros.bags.bag import Bag
from pi0_ros.bags.health import Health
from pi0_ros.bags.routes import Routes, Wanted
from pi0_ros.bags.stamps import by_stamps, OTHER_CLOCK_NS
from pi0_ros.observation.decoding import to_ns
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.streams import Streams

GOLDEN = (5**0.5 - 1) / 2  # whose multiples, without their whole part, fill 0 to 1 evenly
CLOCK_JUMP_NS = 1_000_000_000  # as control/pilot.py
SILENCE_NS = 10_000_000_000
LATE_NS = 200_000_000  # joint states of a time come so much later, at most
STATE_GAP_NS = 500_000_000     # between joint states that are still one motion


@dataclass(frozen=True)
class Moment:
    """A time at which the node could decide."""

    number: int  # in its bag
    now_ns: int  # of the node's clock
    bag_ns: int  # of receipt of the message that came next


@dataclass(frozen=True)
class Count:
    """What became of the messages of a topic."""

    topic: str
    there: int  # in the files
    read: int
    asked: bool  # whether the topic is an input
    lost: dict[str, int]  # messages that were of no use, by reason

    @property
    def used(self) -> int:
        """Return how many were taken in."""
        return max(0, self.there - sum(self.lost.values())) * self.asked


def counts_table(counts: Sequence[Count]) -> str:
    """Return for people what became of the messages of a bag."""
    width = max(len(one.topic) for one in counts)
    lines = [f"  {'topic':{width}}{'there':>8}{'read':>8}{'used':>8}  left out"]
    lines += [f'  {one.topic:{width}}{one.there:8}{one.read:8}{one.used:8}  '
              + '; '.join(f'{count} {why}' for why, count in one.lost.items())
              for one in counts if one.asked]
    others = [f'{one.topic} ({one.there})' for one in counts if not one.asked]
    lines += ['  not asked for: ' + ', '.join(others)] if others else []
    return '\n'.join(line.rstrip() for line in lines)


class Playback:
    """
    What a node would know at any moment of a bag.

    The node's clock is the time of receipt; with a /clock in the bag it is that; and where the
    stamps are of another clock altogether, it is theirs.
    """

    def __init__(self, bag: Bag, routes: Routes, wanted: Wanted, instruction: str = '',
                 by_stamps: bool = False) -> None:
        """
        Begin before the first message.

        :param instruction: instead of the bag's. :param by_stamps: see ``stamps.by_stamps``.
        """
        self.bag, self.routes, self._by_stamps = bag, routes, by_stamps and not routes.clock
        if by_stamps and routes.clock:
            bag.warnings.append("the bag has a /clock, which is the node's time: --time stamps "
                                'changes nothing')
        self.streams = Streams(wanted.observed, routes.cameras, wanted.freshness,
                               unstamped=wanted.unstamped, turns=wanted.turns,
                               lags_ns=wanted.lags_ns)
        self._unstamped = wanted.unstamped
        self.fixed, self.instruction = bool(instruction), instruction
        self.description: str | None = None
        self._joint_names = wanted.commanded
        self.path = self._new_path()  # another one after every jump of the clock
        self._older_paths: list[ActionPath | ActionPaths] = []
        self.health = Health(routes)
        self.read: Counter[str] = Counter()      # messages, by topic
        self.unusable: dict[str, Counter[str]] = {}  # messages, by topic and reason
        self.left_out: Counter[str] = Counter()  # moments that were of no use, by reason
        self.why: dict[str, Finding] = {}        # the first finding of each of these reasons
        self.now_ns: int | None = None
        self.begin_ns: int | None = None  # the node's time at the first message
        self._shift_ns: int | None = None if not routes.clock else 0
        self._camera = {topic: name for name, topic in routes.cameras.items()}

    def _new_path(self) -> ActionPath | ActionPaths:
        routes = self.routes
        gap_ns = None if routes.actions else STATE_GAP_NS
        parts = routes.parts if routes.actions else routes.told
        if not parts:
            return ActionPath(self._joint_names, gap_ns)
        return ActionPaths(self._joint_names, {topic: part.joints
                                               for topic, part in parts.items()}, gap_ns)

    def dropped(self) -> list[str]:
        """Return a sentence on actions that could not be used, if there were any."""
        paths = [*self._older_paths, self.path]
        dropped = sum((path.dropped for path in paths), Counter())
        out = [f'actions: {count} messages dropped: {why}' for why, count in dropped.items()
               if why != OTHERS]
        alone = sorted(set().union(*(path.uncommanded for path in paths)))
        return out + ([f"actions: nobody commands {', '.join(alone)}: what was measured is taken"]
                      if alone else [])

    def counts(self) -> list[Count]:
        """Return what became of the messages of every topic."""
        bag, out = self.bag, []
        for topic, of in sorted(bag.topics.items()):
            lost = Counter(self.unusable.get(topic, {}))
            if topic == self.routes.actions:  # of several, what was wrong stands by the first
                lost += sum((path.dropped for path in (*self._older_paths, self.path)), Counter())
            asked = topic in self.routes.topics or bool(self.read[topic])
            if asked:
                lost['cannot be read'] = bag.unread[topic]
                lost['behind the damage' if bag.damage else 'not found'] = (
                    of.count - self.read[topic] - bag.unread[topic])
            out.append(Count(topic, of.count, self.read[topic], asked, dict(+lost)))
        return out

    def moments(self, every_ns: int, others: tuple[str, ...] = (), spread_ns: int = 0
                ) -> Iterator[Moment | tuple[str, int, Any]]:
        """
        Yield every ``every_ns`` when that moment has come, before what was received after it.

        :param others: topics whose messages are yielded too, with the node's time.
        :param spread_ns: by up to so much, and half of ``every_ns``, each is later, evenly.
        """
        number, due_ns = 0, None
        messages = self.bag.messages(self.routes.topics | set(others))
        if self._by_stamps:
            messages = by_stamps(messages, self._stamped, self.routes.joints)
        for topic, received_ns, message in messages:
            self.read[topic] += 1
            now_ns = self._clock(topic, received_ns, message)
            if now_ns is None:
                if topic in (self.routes.instruction, self.routes.description):
                    self._take(topic, message, 0)  # which have no stamp, and wait for no clock
                continue
            before_ns, self.now_ns = self.now_ns, now_ns
            if before_ns is None:
                due_ns, self.path = None, self._new_path()
            elif self._jumped(now_ns - before_ns):
                self._start_again()
                due_ns = None
            due_ns = now_ns + every_ns if due_ns is None else due_ns
            while (at_ns := due_ns + _later_ns(number, min(spread_ns, every_ns // 2))) <= now_ns:
                self.now_ns = at_ns
                yield Moment(number, at_ns, received_ns)
                number, due_ns = number + 1, due_ns + every_ns
                if now_ns - due_ns > SILENCE_NS:
                    due_ns = now_ns  # of a pause, or a clock that was set, one moment is enough
            self.now_ns = self.path.known_ns = now_ns
            self.begin_ns = now_ns if self.begin_ns is None else self.begin_ns
            self._take(topic, message, now_ns)
            if topic in others:
                yield topic, now_ns, message

    def _stamped(self, topic: str) -> bool:
        joints = topic == self.routes.joints or topic in self.routes.told
        name = self._camera.get(topic, 'joint_states' if joints else '')
        return name not in self._unstamped

    def _clock(self, topic: str, received_ns: int, message: Any) -> int | None:
        """Return the node's time when ``message`` came, or None before it has one."""
        if self.routes.clock:
            return to_ns(message.clock) if topic == self.routes.clock else self.now_ns
        if self._shift_ns is None and topic == self.routes.joints and self._stamped(topic):
            stamp_ns = to_ns(message.header.stamp)
            apart_ns = stamp_ns - received_ns if stamp_ns else 0
            self._shift_ns = apart_ns if abs(apart_ns) > OTHER_CLOCK_NS else 0
            if self._shift_ns:
                self.bag.warnings.append(
                    f"stamps in '{self.bag.name}' are {apart_ns / 1e9:+.1f} s from the time of "
                    "recording: the stamps' clock counts")
                self.now_ns = self.begin_ns = None
        return received_ns + (self._shift_ns or 0)

    def _jumped(self, gap_ns: int) -> bool:
        """
        Return whether the node's clock jumped; a pause in the time of receipt is none.

        Time of receipt goes back only where the recorder's clock was set.
        """
        return abs(gap_ns) > CLOCK_JUMP_NS if self.routes.clock else gap_ns < 0

    def _start_again(self) -> None:
        self.streams.clear()
        self._older_paths.append(self.path)
        self.path = self._new_path()
        self.health.jumps += 1

    def _take(self, topic: str, message: Any, now_ns: int) -> None:
        routes = self.routes
        if topic in self._camera:
            name = self._camera[topic]
            self.health.add(name, to_ns(message.header.stamp) * self._stamped(topic), now_ns)
            self.streams.put_image(name, message, now_ns)
        elif topic == routes.joints or topic in routes.told:
            stamped = self._stamped(topic)
            if topic in routes.told:
                message = named(message, routes.told[topic].prefix)
            self.health.add_joints(message, now_ns, stamped)
            self.streams.put_joints(message, now_ns)
            if self.streams.joint_error:
                self.unusable.setdefault(topic, Counter())[self.streams.joint_error] += 1
            if not routes.actions:
                self.path.put(message, now_ns, stamped, topic)
        elif topic == routes.actions or topic in routes.parts:
            if topic in routes.parts:
                message = named(message, routes.parts[topic].prefix)
            joints = self.streams.joints.get()
            if joints is not None:
                self.path.measured = joints.value[:len(self._joint_names)]
            self.path.put(message, now_ns, topic=topic)
        elif topic == routes.instruction and not self.fixed:
            text = message.data.strip()
            if text != self.instruction:
                self.instruction = text
                self.path.changes.append((now_ns, text))
        elif topic == routes.description:
            self.description = message.data


def _later_ns(number: int, most_ns: int) -> int:
    """Return a time up to ``most_ns``; those of consecutive numbers lie evenly apart."""
    return round(number * GOLDEN % 1 * most_ns)

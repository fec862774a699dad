# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Time of receipt as it would have been, had the recorder never stalled: told by stamps."""

from collections.abc import Callable, Iterator
import heapq
from typing import Any

from pi0_ros.observation.decoding import to_ns

STALL_NS = 5_000_000_000  # that a stamp may be older than receipt
OTHER_CLOCK_NS = 1_000_000_000
ACTIVE_NS = 1_000_000_000  # who was silent for longer is not waited for


def by_stamps(messages: Iterator[tuple[str, int, Any]], stamped: Callable[[str], bool],
              clock: str) -> Iterator[tuple[str, int, Any]]:
    """
    Yield topic, time and message, in the order of stamps, where messages have them.

    A stamp that is further than five seconds from the time of receipt says nothing of it; where
    the first on the topic ``clock`` is of another clock altogether, all are shifted by that.

    :param stamped: whether stamps of a topic count.
    """
    waiting: list[tuple[int, int, str, Any]] = []
    newest: dict[str, tuple[int, int]] = {}  # of each topic, stamp and receipt
    shift_ns: int | None = None if stamped(clock) else 0
    last_ns = before_ns = 0

    def ready(until_ns: int) -> Iterator[tuple[str, int, Any]]:
        nonlocal last_ns
        while waiting and waiting[0][0] <= until_ns:
            at_ns, _, topic, message = heapq.heappop(waiting)
            last_ns = max(last_ns, at_ns)
            yield topic, last_ns, message

    for number, (topic, received_ns, message) in enumerate(messages):
        if received_ns < before_ns:  # the recorder's clock was set back
            yield from ready(before_ns + STALL_NS)
            newest, last_ns = {}, 0
        before_ns, at_ns = received_ns, received_ns
        stamp_ns = to_ns(message.header.stamp) if (
            stamped(topic) and hasattr(message, 'header')) else 0
        if stamp_ns:
            if shift_ns is None and topic == clock:
                shift_ns = stamp_ns - received_ns
                shift_ns = shift_ns if abs(shift_ns) > OTHER_CLOCK_NS else 0
            if shift_ns is not None and abs(stamp_ns - shift_ns - received_ns) <= STALL_NS:
                at_ns = stamp_ns - shift_ns
                newest[topic] = at_ns, received_ns
        heapq.heappush(waiting, (at_ns, number, topic, message))
        yield from ready(min((stamp for stamp, seen in newest.values()
                              if seen > received_ns - ACTIVE_NS), default=received_ns))
    yield from ready(2**63)

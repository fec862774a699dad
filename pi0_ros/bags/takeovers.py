# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""When a person led, as the node told it in a bag."""

from pi0_ros.bags.bag import Bag, BagError

OTHERS = 'status', 'active_instruction', 'inference', 'episode_result'  # that the node tells


def led_topic(bag: Bag) -> str:
    """
    Return the topic on which a node told when a person led, '' if none did.

    :raises BagError: several did.
    """
    found = [topic for topic, of in bag.topics.items()  # beside others of the node: no lamp
             if topic.endswith('/led') and of.kind == 'std_msgs/msg/Bool' and of.count and any(
                 topic.removesuffix('led') + other in bag.topics for other in OTHERS)]
    if len(found) > 1:
        raise BagError(f"bag '{bag.path}' has {', '.join(found)}, expected one node's: record "
                       'one robot in a bag')
    return found[0] if found else ''


def spans(bag: Bag) -> list[tuple[int, int]]:
    """Return from when to when a person led, ns of receipt; the last may end with the bag."""
    topic, out, since_ns = led_topic(bag), [], None
    for _, at_ns, message in bag.messages([topic]) if topic else ():
        if message.data and since_ns is None:
            since_ns = at_ns
        elif not message.data and since_ns is not None:
            out.append((since_ns, at_ns))
            since_ns = None
    return out if since_ns is None else [*out, (since_ns, bag.end_ns)]

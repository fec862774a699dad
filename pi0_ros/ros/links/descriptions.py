# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Who publishes the robot's description, and who of them cannot be heard."""

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy


def publishers(node: Node, topic: str) -> tuple[list[str], list[str]]:
    """
    Return the names of nodes that publish on ``topic``, and those of volatile publishers.

    A description is said once: who says it volatile is heard by nobody who comes later, and not by
    those who ask for what was said before.
    """
    found = node.get_publishers_info_by_topic(topic)
    names = sorted({one.node_name for one in found})
    return names, sorted({one.node_name for one in found if one.qos_profile.durability
                          == DurabilityPolicy.VOLATILE})

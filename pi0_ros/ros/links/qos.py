# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Quality of service of every topic."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

# An executor asks every event's handler again for every message (docs/benchmarks/timing.md). Of
# these topics there is no event to tell: who hears a publisher in vain is told so itself, and a
# best-effort subscription matches all.
SAID = PublisherEventCallbacks(use_default_callbacks=False)
HEARD = SubscriptionEventCallbacks(use_default_callbacks=False)
# Matches reliable and best-effort publishers; only the newest message counts.
NEWEST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                    reliability=ReliabilityPolicy.BEST_EFFORT)
# Parts of a robot come in messages of their own: none may push out another's.
JOINTS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=50,
                    reliability=ReliabilityPolicy.BEST_EFFORT)
# Volatile: `ros2 topic pub` is, and a transient-local subscription would not match it.
INSTRUCTION = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE,
                         durability=DurabilityPolicy.VOLATILE)
# Heard from reliable and best-effort publishers, such as joystick drivers.
STOP = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
STATE = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
# For recorders: none may be lost.
RECORD = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# For those who join late: the robot's description, the node's status.
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL)

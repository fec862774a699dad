# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the operator allows a policy, and what is asked of it by that."""

from dataclasses import dataclass

import numpy as np
from pi0_ros.control import safety
from pi0_ros.motion.handover import Switch
from pi0_ros.motion.limits import JointLimits
from pi0_ros.observation.finding import Finding
from pi0_ros.policy.policy import ActionChunk

ARMING_NS = 5_000_000_000  # that arming may take, on the steady clock


@dataclass(frozen=True)
class GuardRules:
    """What the operator allows; nanoseconds."""

    chunk_age_ns: int = 500_000_000
    tracking_ns: int = 200_000_000
    hang_ns: int = 2_000_000_000  # of an inference, at least; also five times its 95th percentile
    rejections: int = 3           # of chunks in a row, and of inferences that fail, before a fault
    allow_missing_limits: bool = False
    tracks: bool = True           # whether the robot follows: not in a dry run


def check_chunk(chunk: ActionChunk, near: list[np.ndarray], now_ns: int, limits: JointLimits,
                names: tuple[str, ...], handover: Switch, rules: GuardRules) -> Finding | None:
    """
    Return why a chunk must not become part of a plan, or None; the node and bags ask this.

    :param near: see ``safety.check_way``.
    """
    if chunk.problem:
        return Finding('chunk_unreachable', f'the chunk cannot be executed: {chunk.problem}',
                       'chunk')
    # Who plays chunks whole stands while one is decided: its age is no harm.
    return (safety.check_form(chunk, names)
            or (None if handover.waits else
                safety.check_age(chunk, now_ns, rules.chunk_age_ns))
            or safety.check_way(chunk, near, limits, names))


class Watchdog:
    """Whether the policy answers in time, by a steady clock; from any thread."""

    def __init__(self) -> None:
        """Nothing is waited for."""
        self.working_since_ns: int | None = None  # an inference
        self.arming_since_ns: int | None = None

    def hanging(self, steady_ns: int, usual_ns: int, rules: GuardRules) -> Finding | None:
        """
        Return an inference that does not come back.

        :param usual_ns: the 95th percentile of what inferences take.
        """
        since, allowed_ns = self.working_since_ns, max(rules.hang_ns, 5 * usual_ns)
        if since is None or steady_ns - since <= allowed_ns:
            return None
        took_s, allowed_s = (steady_ns - since) / 1e9, allowed_ns / 1e9
        return Finding('policy_hangs', f'the inference has not come back for {took_s:.1f} s, '
                       f'allowed are {allowed_s:.1f} s: the GPU or its driver hangs', 'policy',
                       took_s, allowed_s)

    def arming_late(self, steady_ns: int) -> Finding | None:
        """Return an arming that takes too long: who asked for it has gone."""
        since = self.arming_since_ns
        if since is None or steady_ns - since <= ARMING_NS:
            return None
        return Finding('arming_late', 'not armed: the policy has not answered within '
                       f'{ARMING_NS / 1e9:.0f} s; ask again', 'policy', (steady_ns - since) / 1e9,
                       ARMING_NS / 1e9)

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What several tests need."""

import math
from pathlib import Path
import signal
import subprocess
import sys

import numpy as np
from pi0_ros.motion.handover import make_handover
from pi0_ros.motion.limits import JointLimits, unlimited
from pi0_ros.motion.plan import Plan
from pi0_ros.motion.splice import Rules, splice
from pi0_ros.policy.policy import ActionChunk

DATA = Path(__file__).parent / 'data'
FIXTURES = ('lerobot_mean_std', 'lerobot_untied_embeddings', 'lerobot_relative',
            'openpi_pytorch')
PI05_FIXTURES = ('lerobot_pi05_quantiles', 'lerobot_pi05_relative_missing')
MS = 1_000_000
KILLED = """
import os, pkgutil, signal, sys
from pi0_ros import cli
where, name, left, *words = sys.argv[1:]
owner, left = pkgutil.resolve_name(where), [int(left)]
method = getattr(owner, name)

def counted(*given, **more):
    out = method(*given, **more)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return out

setattr(owner, name, counted)
sys.exit(cli.main(words))
"""


def killed_after(method: str, count: int, *words: str) -> None:
    """Run ``pi0_ros`` with words, in a process that is killed when a method returns so often."""
    where, _, name = method.rpartition('.')
    done = subprocess.run([sys.executable, '-c', KILLED, where, name, str(count), *words],
                          cwd=DATA.parents[1], capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr


def chunk(values, t_obs_ns=0, dt_ns=20 * MS, instruction='go', number=0, offset=1
          ) -> ActionChunk:
    """Return a chunk; one-dimensional values make a chunk of one joint."""
    positions = np.asarray(values, float)
    if positions.ndim == 1:
        positions = positions[:, None]
    return ActionChunk(t_obs_ns, dt_ns, positions, instruction, number, offset=offset)


class Planner:
    """Plans of one joint, one after another, each made of the one before."""

    def __init__(self, strategy='blend', fade_ms=0, at=0.0, brake_ns=1):
        self.plan = Plan.standing(np.array([at]), 0)
        self.rules = Rules(unlimited(1), make_handover(strategy, fade_ms * MS), brake_ns)

    def take(self, chunk_, now):
        """Splice a chunk in at ``now``; return why not, or None."""
        made = splice(self.plan, chunk_, now, self.rules)
        if isinstance(made, str):
            return made
        self.plan = made
        return None

    def at(self, *times_ms):
        """Return the planned positions at times."""
        return self.plan.sample(np.array(times_ms) * MS)[:, 0].tolist()


def command_problem(message) -> str | None:
    """
    Return what is wrong with a published JointTrajectory, or None.

    Written from the rules, not from the code that makes the message.
    """
    if not message.joint_names:
        return 'no joint names'
    if message.header.stamp.sec == 0 and message.header.stamp.nanosec == 0:
        return 'no stamp'
    if not message.points:
        return 'no points'
    before, first = -1.0, len(message.points) == 1
    for point in message.points:
        at = point.time_from_start.sec + point.time_from_start.nanosec / 1e9
        if not at > before:
            return f'time {at} after {before}'
        if not first and before < 0 and at:
            return f'a window that begins {at} s after its stamp'
        if not first and before >= 0 and at - before > 0.02 + 1e-9:
            return f'points {at - before} s apart'
        before = at
        for values in (point.positions, point.velocities):
            if len(values) != len(message.joint_names):
                return f'{len(values)} values for {len(message.joint_names)} joints'
            if not all(math.isfinite(value) for value in values):
                return 'a value is not finite'
    if any(message.points[-1].velocities):
        return f'last velocity {list(message.points[-1].velocities)}'
    return None


def box(count, lower=-np.inf, upper=np.inf, velocity=1e6, acceleration=1e6, jump=np.inf,
        tracking=np.inf) -> JointLimits:
    """Return the same limits for ``count`` joints."""
    none = np.zeros(count, bool)
    return JointLimits(*(np.full(count, float(value)) for value in (
        lower, upper, velocity, acceleration, jump, tracking)), none, none,
        np.full(count, float(acceleration)))


def robot_urdf(**joints: str) -> str:
    """Return a URDF; every joint is 'TYPE LOWER UPPER VELOCITY [LEADER FACTOR OFFSET]'."""
    def joint(name: str, text: str) -> str:
        kind, *numbers = text.split()
        limit = (f'<limit lower="{numbers[0]}" upper="{numbers[1]}" velocity="{numbers[2]}" '
                 'effort="1"/>') if numbers else ''
        mimic = (f'<mimic joint="{numbers[3]}" multiplier="{numbers[4]}" offset="{numbers[5]}"/>'
                 if len(numbers) > 3 else '')
        return (f'<joint name="{name}" type="{kind}"><parent link="base"/><child '
                f'link="{name}_link"/>{limit}{mimic}</joint>')

    return ('<robot name="r">' + ''.join(joint(name, text) for name, text in joints.items())
            + '</robot>')

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Child processes that end with their parent, whatever ends it."""

import ctypes
from importlib import metadata
import os
from pathlib import Path
import random
import re
import signal
import socket
import subprocess
import sys

from pi0_ros.launching import profile

PR_SET_PDEATHSIG = 1
DOMAINS = range(1, 101)  # all platforms allow these
PROFILE = 'fastdds.xml'
FIRST_TAKEN = 64_000  # of ports: who holds it has that domain, before anybody speaks in it
_taken: list[socket.socket] = []


def share_file(name: str) -> Path:
    """Return a file of config/, from the source tree or from an installed package."""
    source = Path(__file__).parents[3] / 'config' / name
    if source.exists():
        return source
    from ament_index_python.packages import get_package_share_directory
    return Path(get_package_share_directory('pi0_ros')) / 'config' / name


def private_environment(domain: int | None = None) -> dict[str, str]:
    """Return an environment in which ROS stays on this host, in a domain of its own."""
    out = dict(os.environ)
    out['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if out.get('ROS_DISTRO') == 'humble':
        out['ROS_LOCALHOST_ONLY'] = '1'
    out['ROS_DOMAIN_ID'] = str(domain if domain is not None else free_domain())
    out |= profile({'ROS_DISTRO': _distro(), **out}, str(share_file(PROFILE)))
    out['PYTHONUNBUFFERED'] = '1'
    return out


def _distro() -> str:
    """Return which ROS 2 is there as wheels, nothing if none is."""
    return next((found[1] for one in metadata.distributions()
                 if (found := re.fullmatch(r'ros-(\w+)-rclpy', one.name))), '')


def free_domain() -> int:
    """Return a domain id that nobody on this host uses, nor takes while this process lives."""
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            taken.bind(('127.0.0.1', FIRST_TAKEN + domain))
        except OSError:
            taken.close()
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('127.0.0.1', 7400 + 250 * domain + 10))  # of its first participant
            except OSError:
                taken.close()
                continue
        _taken.append(taken)
        return domain
    raise RuntimeError(f'all ROS domains from {DOMAINS[0]} to {DOMAINS[-1]} are in use')


class Children:
    """Started processes, each with a log file."""

    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        """Start children in ``environment``; write their output to ``logs``."""
        self.environment, self.logs = environment, logs
        self.running: dict[str, subprocess.Popen] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: list[str]) -> subprocess.Popen:
        """Start ``command`` as the child ``name``."""
        with (self.logs / f'{name}.log').open('w') as log:
            self.running[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=self.environment,
                stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent)
        return self.running[name]

    def start_verb(self, verb: str, arguments: list[str]) -> subprocess.Popen:
        """Start ``python -m pi0_ros VERB``."""
        return self.start(verb, [sys.executable, '-m', 'pi0_ros', verb, *arguments])

    def ended(self) -> str | None:
        """Return a sentence on a child that ended by itself, with the end of its log, or None."""
        for name, process in self.running.items():
            if process.poll() is not None:
                tail = (self.logs / f'{name}.log').read_text(errors='replace')[-1500:]
                return f'{name} ended with code {process.returncode}:\n{tail}'
        return None

    def end(self) -> None:
        """End every child: ask, ask again, then kill. A second Ctrl-C does not cut this short."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number, patience_s in ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0),
                                   (signal.SIGKILL, 3.0)):
            for process in self.running.values():
                if process.poll() is None:
                    os.killpg(process.pid, number)
            for process in self.running.values():
                try:
                    process.wait(patience_s)
                except subprocess.TimeoutExpired:
                    continue
        self.running.clear()
        signal.signal(signal.SIGINT, before)


def _die_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

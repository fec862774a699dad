# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``operate``: one screen for the person beside the robot."""

import argparse
from collections.abc import Sequence
import contextlib
import curses
import locale
import os
from pathlib import Path
import select
import signal
import sys
import time

from pi0_ros.dataset.outcome import DISCARD, FAILURE, read_table, SUCCESS
from pi0_ros.ros.operate import screen
from pi0_ros.ros.operate.desk import Desk
import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import NameValidationException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.validate_full_topic_name import validate_full_topic_name

FRAME_S = 0.1      # between two pictures
WAIT_S = 0.02      # for messages, between two looks at the keys
LAST_WORDS_S = 2.0
ENTER, ESCAPE, ERASE = ('\n', '\r'), '\x1b', ('\x08', '\x7f')
INTERRUPT, QUIT = '\x03', '\x1c'  # Ctrl-C, Ctrl-\
STOPS = ' ', INTERRUPT, QUIT
ESCAPE_S = 0.5     # in which what follows an escape belongs to it, over a slow line
PASTE_S = 0.3      # after a line, in which nothing is a command
LONGEST = 1000     # characters of what is typed
WORDS = {'s': SUCCESS, 'f': FAILURE, 'x': DISCARD}
HELP = """\
One screen: what the node does and why, the rates of its cameras and joints, what it was told.
Every key is a topic or a service of the node (docs/interface.md), nothing else:

  a, d       ~/enable true, false            space     ~/stop true
  r          ~/stop false, then ~/reset      1-9, n    an instruction of the command line
  i          type an instruction             h         the empty instruction: hold
  s, f, x    ~/episode success, failure, discard; S, F, X ask for a note first
  t          ~/takeover_enable true, as long as the key is pressed; g  false: give back
  q          quit; the node goes on. Ctrl-C: press the stop and quit.
"""


class Keys:
    """
    Makes keys of what a terminal sends, and of nothing else.

    What comes in pieces over a slow line, a cursor key or a paste, must not become commands: what
    follows an escape is dropped, and so is what comes in one look with other keys, but for those
    that stop.
    """

    def __init__(self) -> None:
        """Nothing was typed."""
        self._quiet_s = 0.0          # until then keys are dropped
        self._escaped_s: float | None = None  # a lone escape, so far

    def commands(self, came: Sequence[str], now_s: float) -> tuple[list[str], int]:
        """Return the keys that count, and how many were dropped."""
        stops = [key for key in came if key in STOPS]
        if ESCAPE in came:
            self._quiet_s = now_s + ESCAPE_S
            return stops[:1], len(came) - 1
        if now_s < self._quiet_s or len(set(came)) > 1:
            return stops[:1], len(came) - bool(stops)
        return list(came[:1]), 0

    def typed(self, came: Sequence[str], now_s: float) -> list[str]:
        """Return what belongs to a line; ESCAPE alone where nothing follows it for a while."""
        out = []
        for key in came:
            if key == ESCAPE:
                self._escaped_s = now_s
            elif self._escaped_s is not None and now_s - self._escaped_s < ESCAPE_S and (
                    key != INTERRUPT):
                self._quiet_s, self._escaped_s = now_s + ESCAPE_S, None
            elif key == INTERRUPT or now_s >= self._quiet_s:
                out.append(key)
                if key in ENTER:  # whatever follows was pasted
                    self._quiet_s = now_s + PASTE_S
                    break
        if self._escaped_s is not None and now_s - self._escaped_s >= ESCAPE_S:
            self._escaped_s = None
            out.append(ESCAPE)
        return out


class Terminal:
    """Draws the screen and obeys keys."""

    def __init__(self, window: 'curses.window', desk: Desk) -> None:
        """Draw on ``window``."""
        self._window, self._desk, self._keys = window, desk, Keys()
        self.ended = self.interrupted = False
        self._sure_s = 0.0
        curses.raw()  # Ctrl-S must not hold the stop back, nor Ctrl-Z leave a robot alone
        window.nodelay(True)
        window.keypad(True)
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        self._gone = select.poll()
        self._gone.register(sys.stdin, 0)  # tells of what is always told: that it hung up
        self._styles = {screen.PLAIN: 0, screen.DIM: curses.A_DIM, screen.BOLD: curses.A_BOLD,
                        screen.GOOD: curses.A_BOLD, screen.WARN: curses.A_BOLD,
                        screen.BAD: curses.A_REVERSE}
        if curses.has_colors():
            curses.start_color()
            curses.use_default_colors()
            for number, (style, colour) in enumerate((
                    (screen.GOOD, curses.COLOR_GREEN), (screen.WARN, curses.COLOR_YELLOW),
                    (screen.BAD, curses.COLOR_RED)), 1):
                curses.init_pair(number, colour, -1)
                self._styles[style] |= curses.color_pair(number)

    def draw(self) -> None:
        """Draw what was seen."""
        height, width = self._window.getmaxyx()
        self._window.erase()
        for row, (text, style) in enumerate(screen.lines(
                self._desk.seen, width - 1, height, time.monotonic())):
            with contextlib.suppress(curses.error):  # of a window that has just become smaller
                self._window.addnstr(row, 0, text, width - 1, self._styles[style])
        self._window.refresh()

    def obey(self) -> None:
        """Do what was typed since the last look."""
        if self._gone.poll(0):
            self.ended = True
        came: list[str] = []
        while True:
            try:
                key = self._window.get_wch()
            except curses.error:
                break
            if isinstance(key, str):
                came.append(key)
            elif key in (curses.KEY_ENTER, curses.KEY_BACKSPACE):
                came.append('\n' if key == curses.KEY_ENTER else '\x7f')
        now_s = time.monotonic()
        if self._desk.seen.typing:
            for key in self._keys.typed(came, now_s):
                if self._desk.seen.typing:
                    self._type(key)
            return
        keys, dropped = self._keys.commands(came, now_s) if came else ((), 0)
        if dropped:
            self._desk.say(1, f'{dropped} keys that came at once are no commands')
        for key in keys:
            self._press(key, now_s)

    def _press(self, key: str, now_s: float) -> None:
        desk = self._desk
        if key in (INTERRUPT, QUIT):
            self.interrupted = True
        elif key == ' ':
            desk.stop()
        elif key in ('a', 'd'):
            desk.arm(key == 'a')
        elif key == 'r':
            desk.reset()
        elif key == 't':
            desk.hold_takeover(now_s)
        elif key == 'g':
            desk.give_back()
        elif key == 'n':
            desk.choose_next()
        elif key in '123456789':
            desk.choose(int(key) - 1)
        elif key == 'h':
            desk.instruct('')
        elif key == 'i':
            desk.seen.typing = 'instruction', ''
        elif key in WORDS:
            desk.judge(WORDS[key], now_s)
        elif key.lower() in WORDS:
            desk.seen.typing = f'{WORDS[key.lower()]}, note', ''
        elif key == 'q':
            self.ended = not desk.armed or now_s < self._sure_s
            if not self.ended:
                self._sure_s = now_s + 3.0
                desk.say(1, 'the robot is armed and goes on without this screen: q again to quit')

    def _type(self, key: str) -> None:
        what, text = self._desk.seen.typing
        if key in (INTERRUPT, QUIT):
            self.interrupted = True
        elif key in ENTER:
            self._desk.seen.typing = None
            if what == 'instruction':
                self._desk.instruct(text)
            else:
                self._desk.judge(what.partition(',')[0], time.monotonic(), text)
        elif key == ESCAPE:
            self._desk.seen.typing = None
        elif key in ERASE:
            self._desk.seen.typing = what, text[:-1]
        elif key.isprintable() and len(text) < LONGEST:
            self._desk.seen.typing = what, text + key


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros operate', description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument('prompts', nargs='*', metavar='INSTRUCTION',
                     help="for the keys 1 to 9 and n, such as 'pick up the red block'")
    out.add_argument('--instructions', type=Path, metavar='FILE', help='more, one in a line')
    out.add_argument('--node', default='/pi0', metavar='NAME',
                     help='with its namespace (default: /pi0)')
    out.add_argument('--instruction-topic', metavar='TOPIC',
                     help='where it was remapped (default: instruction, beside the node)')
    out.add_argument('--results', default='success.json', metavar='FILE',
                     help='table that what became of episodes is added to, for evaluate '
                          "--outcomes; '' for none (default: success.json)")
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    argv = sys.argv[1:] if argv is None else argv
    cut = argv.index('--ros-args') if '--ros-args' in argv else len(argv)
    args = parser().parse_args(argv[:cut])
    try:
        prompts = list(args.prompts)
        if args.instructions:
            prompts += [line.strip() for line in args.instructions.read_text().splitlines()
                        if line.strip()]
        table = Path(args.results) if args.results else None
        if table and table.exists():
            read_table(table)
        if table and not os.access(table if table.exists() else table.absolute().parent, os.W_OK):
            raise ValueError(f"'{table}' cannot be written: name another file with --results")
        name = '/' + args.node.strip('/')
        validate_full_topic_name(name)
        topic = args.instruction_topic or f"{name.rpartition('/')[0]}/instruction"
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ValueError('stdin and stdout are no terminal, expected one: ssh -t, docker run '
                             '-it')
        return _operate(name, topic, argv[cut:], prompts, table)
    except (OSError, ValueError, NameValidationException) as error:
        print(f"pi0_ros operate: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except RCLError as error:
        print(f"pi0_ros operate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except curses.error as error:
        print(f"pi0_ros operate: the terminal '{os.environ.get('TERM', '')}' cannot be used "
              f'({error}): export TERM=xterm', file=sys.stderr)
        return 1


def _operate(name: str, topic: str, ros: list[str], prompts: list[str], table: Path | None
             ) -> int:
    try:
        locale.setlocale(locale.LC_ALL, '')
    except locale.Error:  # ssh sends the name of one that is not installed here
        locale.setlocale(locale.LC_ALL, 'C')
    if 'utf' not in (locale.nl_langinfo(locale.CODESET) or '').lower():
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, 'C.UTF-8')
    rclpy.init(args=['operate', *ros], signal_handler_options=rclpy.SignalHandlerOptions.NO)
    told: list[int] = []
    heard = False

    def session(window: 'curses.window') -> None:
        nonlocal heard
        terminal, drawn_s = Terminal(window, desk), 0.0
        while not (terminal.ended or terminal.interrupted or told):
            executor.spin_once(timeout_sec=WAIT_S)
            terminal.obey()
            now_s = time.monotonic()
            desk.work(now_s)
            if now_s - drawn_s >= FRAME_S:
                drawn_s = now_s
                terminal.draw()
        if terminal.interrupted:
            told.append(signal.SIGINT)
        if signal.SIGINT in told:
            desk.stop()
            end_s = time.monotonic() + LAST_WORDS_S
            while not desk.stopped and time.monotonic() < end_s:
                executor.spin_once(timeout_sec=WAIT_S)
            heard = desk.stopped

    try:
        node = rclpy.create_node(f'operate_{os.getpid()}')
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: told.append(number))
        desk = Desk(node, name, topic, prompts, table)
        os.environ.setdefault('ESCDELAY', '25')
        with contextlib.suppress(ExternalShutdownException):
            curses.wrapper(session)
        executor.shutdown()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    if signal.SIGINT not in told:
        return 0
    print(f'the stop is pressed: ros2 topic pub --once {name}/stop std_msgs/msg/Bool '
          "'{data: false}' and ~/reset, or operate again and r, let it go on" if heard else
          f'{name} HAS NOT SAID THAT IT STOPPED: use the emergency stop', file=sys.stderr)
    return 0 if heard else 1

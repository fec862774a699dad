# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``operate``: one screen for the person beside the robot."""

import argparse
import contextlib
import curses
import locale
import os
from pathlib import Path
import signal
import sys
import time

from pi0_ros.dataset.outcome import DISCARD, FAILURE, read_table, SUCCESS
from pi0_ros.ros.operate import screen
from pi0_ros.ros.operate.desk import Desk
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

FRAME_S = 0.1      # between two pictures
WAIT_S = 0.02      # for messages, between two looks at the keys
LAST_WORDS_S = 0.3
ENTER, ESCAPE, ERASE = (10, 13, curses.KEY_ENTER), 27, (8, 127, curses.KEY_BACKSPACE)
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


class Terminal:
    """Draws the screen and obeys keys."""

    def __init__(self, window: 'curses.window', desk: Desk) -> None:
        """Draw on ``window``."""
        self._window, self._desk = window, desk
        self.ended = False
        self._sure_s = 0.0
        window.nodelay(True)
        window.keypad(True)
        curses.curs_set(0)
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
            with contextlib.suppress(curses.error):  # wide characters at the end
                self._window.addnstr(row, 0, text, width - 1, self._styles[style])
        self._window.refresh()

    def obey(self) -> None:
        """Do what was typed since the last look."""
        while not self.ended:
            try:
                key = self._window.get_wch()
            except curses.error:
                return
            code = ord(key) if isinstance(key, str) else key
            if self._desk.seen.typing:
                self._type(key, code)
            else:
                self._press(key if isinstance(key, str) else '')

    def _press(self, key: str) -> None:
        desk, now_s = self._desk, time.monotonic()
        if key == ' ':
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
        elif key and key in '123456789':
            desk.choose(int(key) - 1)
        elif key == 'h':
            desk.instruct('')
        elif key == 'i':
            desk.seen.typing = 'instruction', ''
        elif key in WORDS:
            desk.judge(WORDS[key])
        elif key.lower() in WORDS:
            desk.seen.typing = f'{WORDS[key.lower()]}, note', ''
        elif key == 'q':
            self.ended = not desk.armed or now_s < self._sure_s
            if not self.ended:
                self._sure_s = now_s + 3.0
                desk.say(1, 'the robot is armed and goes on without this screen: q again to quit')

    def _type(self, key: str | int, code: int) -> None:
        what, text = self._desk.seen.typing
        if code in ENTER:
            self._desk.seen.typing = None
            if what == 'instruction':
                self._desk.instruct(text)
            else:
                self._desk.judge(what.partition(',')[0], text)
        elif code == ESCAPE:
            self._desk.seen.typing = None
        elif code in ERASE:
            self._desk.seen.typing = what, text[:-1]
        elif isinstance(key, str) and key.isprintable() and len(text) < LONGEST:
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
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ValueError('stdin and stdout are no terminal, expected one: ssh -t, docker run '
                             '-it')
        return _operate(args, argv[cut:], prompts, table)
    except (OSError, ValueError) as error:
        print(f'pi0_ros operate: {error}', file=sys.stderr)
        return 1
    except curses.error as error:
        print(f"pi0_ros operate: the terminal '{os.environ.get('TERM', '')}' cannot be used "
              f'({error}): export TERM=xterm', file=sys.stderr)
        return 1


def _operate(args: argparse.Namespace, ros: list[str], prompts: list[str], table: Path | None
             ) -> int:
    name = '/' + args.node.strip('/')
    rclpy.init(args=['operate', *ros], signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node = rclpy.create_node(f'operate_{os.getpid()}')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: told.append(number))
    desk = Desk(node, name, args.instruction_topic or f"{name.rpartition('/')[0]}/instruction",
                prompts, table)

    def session(window: 'curses.window') -> None:
        terminal, drawn_s = Terminal(window, desk), 0.0
        while not terminal.ended and not told:
            executor.spin_once(timeout_sec=WAIT_S)
            terminal.obey()
            now_s = time.monotonic()
            desk.work(now_s)
            if now_s - drawn_s >= FRAME_S:
                drawn_s = now_s
                terminal.draw()
        if signal.SIGINT in told:
            desk.stop()
            terminal.draw()
            end_s = time.monotonic() + LAST_WORDS_S
            while time.monotonic() < end_s:
                executor.spin_once(timeout_sec=WAIT_S)

    locale.setlocale(locale.LC_ALL, '')
    os.environ.setdefault('ESCDELAY', '25')
    try:
        curses.wrapper(session)
    except ExternalShutdownException:
        pass
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    if signal.SIGINT in told:
        print(f'the stop is pressed: ros2 topic pub --once {name}/stop std_msgs/msg/Bool '
              "'{data: false}' and ~/reset, or operate again and r, let it go on")
    return 0

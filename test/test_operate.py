# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The terminal of who stands beside the robot: its screen, and its keys on a real graph."""

import fcntl
import json
import math
import os
import signal
import struct
import subprocess
import sys
import termios
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from pi0_ros.dataset.outcome import Outcome  # noqa: E402, I100
from pi0_ros.ros.links import qos  # noqa: E402
from pi0_ros.ros.operate import operate  # noqa: E402
from pi0_ros.ros.operate.screen import _columns, BAD, KEYS, lines, Part, Seen  # noqa: E402
from std_msgs.msg import Bool, String  # noqa: E402
from test_node import make, moving  # noqa: E402, F401

WIDTH, HEIGHT = 90, 30


def seen(**changes):
    given = {'status': Part(0, 'swing', {'state': 'moving', 'armed': 'True', 'reason': '',
                                         'instruction': 'swing'}), 'heard_s': 100.0,
             'parts': {'camera front': Part(0, '30 Hz', {'rate_hz': '29.97', 'age_ms': '12.3'})}}
    return Seen('/pi0', **given | changes)


def shown(*given):
    return '\n'.join(text for text, _ in lines(*given))


TEXT = st.text(max_size=120)


@given(st.integers(1, 120), st.integers(1, 50), TEXT, TEXT, st.lists(TEXT, max_size=12),
       st.lists(st.tuples(TEXT, st.integers(0, 2), TEXT), max_size=12), st.booleans())
def test_whatever_is_told_fits_and_moves_no_cursor(width, height, message, instruction, prompts,
                                                   answers, typing):
    of = seen(status=Part(1, message, {'state': message, 'armed': 'True', 'reason': message,
                                       'instruction': instruction}), prompts=prompts,
              typing=('instruction', message) if typing else None,
              outcomes=[Outcome(instruction, 'success', message, 0, 1, 0, '')])
    of.answers.extend(answers)
    told = lines(of, width, height, 100.5)
    assert len(told) <= height
    assert all(sum(map(_columns, text)) <= width and (text.isprintable() or not text)
               for text, _ in told)


def test_a_person_reads_state_rates_and_every_key():
    text = shown(seen(), 100, 30, 101.0)
    for words in ('MOVING, ARMED', "'swing' for", 'front', '30.0 Hz', '12 ms old',
                  *(f'[{key}]' for key, _ in KEYS)):
        assert words in text
    small = shown(seen(), 60, 12, 101.0)  # what matters stays in a small window
    assert 'MOVING, ARMED' in small and '[space] STOP' in small


def test_a_node_that_is_silent_or_stopped_is_seen():
    told = dict(lines(seen(), 100, 30, 107.0))
    (text,) = [text for text in told if 'SILENT for 7 s' in text]
    assert told[text] == BAD
    assert 'nothing heard yet' in shown(seen(status=None), 100, 30, 101.0)
    told = dict(lines(seen(stop=True), 100, 30, 101.0))
    (text,) = [text for text in told if 'THE STOP IS PRESSED' in text]
    assert told[text] == BAD


def test_keys_are_told_from_what_only_looks_like_them():
    keys = operate.Keys()
    assert keys.commands(['a'], 0.0) == (['a'], 0)
    assert keys.commands(['t', 't', 't'], 0.1) == (['t'], 0)
    assert keys.commands(['\x1b'], 1.0)[0] == []
    assert keys.commands(['[', '2', '~'], 1.1)[0] == keys.commands(['2'], 1.4)[0] == []
    assert keys.commands([' '], 1.45)[0] == [' ']  # whatever came before
    assert keys.commands(['2'], 1.6) == (['2'], 0)
    assert keys.commands(['a', '\x03', '1'], 2.0)[0] == ['\x03']
    assert keys.typed(['a', 'b', '\r', 's', 'a', 'd'], 3.0) == ['a', 'b', '\r']
    assert keys.commands(['a'], 3.1)[0] == [] and keys.commands(['a'], 3.4)[0] == ['a']
    assert keys.typed(['\x1b'], 5.0) == [] and keys.typed(['[', 'D'], 5.1) == []
    assert keys.typed(['x'], 5.7) == ['x']  # a cursor key forgets nothing
    assert keys.typed(['\x1b'], 6.0) == [] and keys.typed([], 6.6) == ['\x1b']


def test_the_end_of_what_is_typed_is_seen_and_wide_characters_fit():
    of = seen(typing=('instruction', 'word ' * 40 + '赤いブロック'))
    text = shown(of, 60, 20, 101.0)
    assert '赤いブロック_' in text and 'Ctrl-C: STOP' in text
    assert all(sum(2 if ord(one) > 0x2e80 else 1 for one in line) <= 60
               for line in text.split('\n'))


@pytest.mark.parametrize('arguments, words', [
    (['--node', 'my robot'], 'my robot'), (['--results', 'no/such.json'], 'cannot be written'),
    ([], 'are no terminal'), (['--instructions', 'none.txt'], 'none.txt'),
    (['--results', 'bad.json'], "'bad.json' cannot be read")])
def test_what_it_cannot_work_with_is_told(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bad.json').write_text('{')
    assert operate.main(arguments) == 1
    assert words in capsys.readouterr().err


class Terminal:
    """The verb in a pseudo-terminal."""

    def __init__(self, folder, *arguments):
        pyte = pytest.importorskip('pyte', reason='needs pyte (requirements/test.txt)')
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self._stream = pyte.ByteStream(self.screen)
        self._end, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack('HHHH', HEIGHT, WIDTH, 0, 0))
        os.set_blocking(self._end, False)
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'pi0_ros', 'operate', *arguments], cwd=folder, stdin=other,
            stdout=other, stderr=other, start_new_session=True,
            env={name: value for name, value in os.environ.items()
                 if name not in ('COLUMNS', 'LINES')}
            | {'TERM': 'linux', 'PYTHONPATH': os.pathsep.join(sys.path)},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(other)

    def press(self, keys):
        os.write(self._end, keys.encode())

    def shows(self, *words):
        """Look at what came; return whether all words are on the screen."""
        try:
            while data := os.read(self._end, 65536):
                self._stream.feed(data)
        except OSError:  # nothing more, or it has ended
            pass
        text = '\n'.join(self.screen.display)
        return all(word in text for word in words)

    def waits(self, word):
        """Return whether the last line that begins with a time and that word has no answer."""
        self.shows()
        lines = [line[9:] for line in self.screen.display if line[9:].startswith(word)]
        return bool(lines) and not lines[-1].startswith(f'{word}: ')

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        if self._end >= 0:
            os.close(self._end)
        self._end = -1


def arm(graph, screen):
    """Arm; again where a busy machine let inputs become old."""
    pressed_s = [-math.inf]

    def armed():
        if screen.shows('STANDING, ARMED', 'arm: armed'):
            return True
        if not screen.waits('arm') and time.monotonic() > pressed_s[0] + 1.0:
            pressed_s[0] = time.monotonic()
            screen.press('a')
        return False
    graph.wait(armed)


@pytest.fixture
def terminal(tmp_path):
    made = []

    def start(*arguments):
        made.append(Terminal(tmp_path, *arguments))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_every_key_is_a_topic_or_a_service(make, terminal, tmp_path):  # noqa: F811
    graph = make(takeover_timeout=0.5)
    heard = {'episode': [], 'takeover_enable': [], 'stop': []}
    for name, messages in heard.items():
        graph.robot.create_subscription(
            String if name == 'episode' else Bool, f'pi0/{name}',
            lambda message, messages=messages: messages.append(message.data),
            qos.NEWEST if name == 'takeover_enable' else qos.INSTRUCTION)
    screen = terminal('swing', 'swing on')
    graph.wait(lambda: screen.shows('/pi0', 'DISARMED, not armed', 'front', '1 swing'))
    arm(graph, screen)
    screen.press('1')
    graph.wait(lambda: screen.shows('MOVING, ARMED', "'swing' for"))
    assert graph.robot.active[-1] == 'swing'
    moving(graph, 10)
    screen.press('F')
    graph.wait(lambda: screen.shows('failure, note: _'))
    screen.press('it slipqx\x7f\x7fped\r')  # no key acts while one types
    graph.wait(lambda: heard['episode'] == ['failure: it slipped'])
    heard_s = time.monotonic()
    graph.wait(lambda: screen.shows('1 failure -> success.json', '(it slipped)', 'STANDING')
               and time.monotonic() > heard_s + operate.PASTE_S)  # no key acts before
    screen.press('n')
    graph.wait(lambda: screen.shows("'swing on' for"))
    screen.press('s')
    graph.wait(lambda: screen.shows('1 success, 1 failure'))
    assert heard['episode'][1:] == ['success']
    assert not graph.robot.count_publishers('pi0/takeover_enable')  # of a screen that only looks
    screen.press('i')
    graph.wait(lambda: screen.shows('instruction: _', 'Ctrl-C: STOP'))
    screen.press('swing back\rshad')  # what follows the line was pasted
    graph.wait(lambda: screen.shows("'swing back' for"))
    moving(graph, 10)

    def pressed():
        screen.press('t')
        return screen.shows('TAKEOVER, ARMED', 'a person leads')
    graph.wait(pressed)
    graph.wait(lambda: screen.shows('is silent: holding'))  # the key is up
    assert heard['takeover_enable'] and all(heard['takeover_enable'])
    screen.press('g')
    graph.wait(lambda: screen.shows('MOVING, ARMED', 'the policy leads'))
    screen.press('h')
    graph.wait(lambda: screen.shows('STANDING, ARMED', 'none: it holds'))
    screen.press('x')
    graph.wait(lambda: screen.shows('1 success, 1 failure, 1 discard'))
    screen.press(' ')
    graph.wait(lambda: screen.shows('THE STOP IS PRESSED', 'FAULTED, not armed'))
    screen.press('r')
    graph.wait(lambda: screen.shows('DISARMED, not armed', 'reset: cleared'))
    assert heard['stop'] == [True, False]
    arm(graph, screen)
    screen.press('q')
    graph.wait(lambda: screen.shows('q again to quit'))
    screen.press('d')
    graph.wait(lambda: screen.shows('DISARMED, not armed', 'disarm: disarmed'))
    screen.press('q')
    assert screen.process.wait(20) == 0
    rows = json.loads((tmp_path / 'success.json').read_text())
    assert [(row['instruction'], row['outcome'], row['success'], row['takeovers'])
            for row in rows] == [('swing', 'failure', False, 0), ('swing on', 'success', True, 0),
                                 ('swing back', 'discard', False, 1)]


def test_ctrl_c_presses_the_stop_and_another_node_is_named(make, terminal):  # noqa: F811
    graph = make()
    screen = terminal('--node', '/left/pi0')
    graph.wait(lambda: screen.shows('/left/pi0', 'nothing heard yet', '--node /pi0'))
    screen.close()
    assert screen.process.returncode == 0
    screen = terminal('--results', '')
    graph.wait(lambda: screen.shows('DISARMED, not armed'))
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph, 5)
    screen.press('\x13')  # Ctrl-S holds nothing back
    screen.press('\x03')
    graph.status('faulted', 'stopped by the operator')
    graph.wait(lambda: screen.process.poll() is not None)
    assert screen.process.returncode == 0
    screen = terminal('--node', '/left/pi0')
    graph.wait(lambda: screen.shows('nothing heard yet'))
    screen.press(' ')
    graph.wait(lambda: screen.shows('NOBODY HEARS'))
    screen.press('\x03')
    graph.wait(lambda: screen.process.poll() is not None)
    assert screen.process.returncode == 1


def test_what_comes_in_pieces_or_at_once_is_no_command(make, terminal):  # noqa: F811
    graph = make()
    screen = terminal('swing', 'swing on', '--results', '')
    graph.wait(lambda: screen.shows('DISARMED, not armed'))
    screen.press('aish')
    graph.wait(lambda: screen.shows('4 keys that came at once are no commands'))
    assert not graph.node.session.pilot.enabled and not screen.shows('arm ...')
    screen.press('s')
    graph.wait(lambda: screen.shows('no episode ended'))
    screen.press('x 1')  # but space stops
    graph.wait(lambda: screen.shows('THE STOP IS PRESSED'))

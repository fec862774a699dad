# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the docs tell to type exists, links lead somewhere, every page is in the index."""

import ast
import importlib
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys

from bags import Tape
from pi0_ros import cli
from pi0_ros.configuration.parameters import BY_NAME
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
NAMES = list(TEXTS)
BLOCK = re.compile(r'^( *)```(\w*)\n(.*?)^ *```$', re.M | re.S)
NOT_RUN = re.compile(r'<!-- not run: (.+?) -->\n *$')
OWN = ('make', 'python', '.venv/bin/python', 'ros2', 'pip', 'docker', 'rosdep', 'PYTHONPATH=.')
ARM = ('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'gripper')
INTERFACES = (ROOT / 'docs' / 'interface.md').read_text()


def commands(text):
    """Yield the words of every command in fenced blocks without a language."""
    for _, language, block in BLOCK.findall(text):
        if language not in ('', 'bash'):
            continue
        for line in block.replace('\\\n', ' ').splitlines():
            for part in re.split(r'\s&&\s', line):
                words = shlex.split(part, comments=True)
                if words and words[0] in OWN:
                    yield words


def typed(text):
    """Yield for every block that has a command its mark, None without one, and its lines."""
    for match in BLOCK.finditer(text):
        lines = match[3].replace('\\\n', ' ').splitlines()
        if match[2] in ('', 'bash') and any(line.split()[0] in OWN for line in lines if
                                            line.strip()):
            mark = NOT_RUN.search(text[:match.start()])
            yield mark and mark[1], [line for line in lines if line.strip()]


def parser_of(verb):
    """Return the options of a verb; None where it takes those of ROS."""
    module = importlib.import_module(cli.VERBS[verb][0])
    made = getattr(module, 'parser', None) or getattr(module, '_parser', None)
    if made is None or verb in cli.NEEDS_ROS:
        return None
    return {option for action in made()._actions for option in action.option_strings}


def check_verb(verb, words):
    """Look whether a verb has the options that are given."""
    assert verb in cli.VERBS, verb
    known = parser_of(verb)
    if known is not None:
        given = {word.partition('=')[0] for word in words if word.startswith('--')}
        assert given <= known, (verb, given - known)


def launch_arguments(name):
    """Return the arguments that a launch file declares."""
    text = (ROOT / 'launch' / name).read_text()
    declared = set(re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", text))
    for node in ast.parse(text).body:  # tables of arguments and what they are for
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            declared |= {key.value for key in node.value.keys}
    return declared


def check_ros2(words):
    """Look at a command of ros2 that speaks of this package."""
    kind, rest = words[1], words[2:]
    if kind == 'run' and rest[0] == 'pi0_ros':
        check_verb(rest[1], rest[2:])
    elif kind == 'launch' and rest[0] == 'pi0_ros':
        given = {word.partition(':=')[0] for word in rest[2:] if ':=' in word}
        assert not [word for word in rest if word.endswith(':=')], words  # ros2 launch refuses it
        assert given <= launch_arguments(rest[1]), (rest[1], given - launch_arguments(rest[1]))
    elif kind in ('topic', 'service', 'action'):
        own = [word for word in rest if word.startswith('/pi0/')]
        for word in own:
            assert f"`~/{word.removeprefix('/pi0/')}`" in INTERFACES, word


@pytest.mark.parametrize('name', NAMES)
def test_commands_exist(name):
    targets = set(re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.M))
    for words in commands(TEXTS[name]):
        if words[0] == 'PYTHONPATH=.':
            words = words[1:]
        if words[0] == 'make':
            assert {word for word in words[1:] if '=' not in word} <= targets, words
        elif words[0] == 'ros2':
            check_ros2(words)
        elif words[:3] == [words[0], '-m', 'pi0_ros']:
            check_verb(words[3], words[4:])
        elif words[0].endswith('python') and words[1].startswith('benchmarks/') and (
                'NAME' not in words[1]):
            assert (ROOT / words[1]).is_file(), words
        for word in words:
            if 'requirements/' in word:
                assert (ROOT / 'requirements' / word.rpartition('/')[2]).is_file(), word


@pytest.mark.parametrize('name', NAMES)
def test_commands_in_sentences_exist(name):
    for verb, rest in re.findall(r'`(?:python -m pi0_ros|ros2 run pi0_ros) (\w+)([^`]*)`',
                                 TEXTS[name]):
        if verb != 'VERB':
            check_verb(verb, rest.split())
    for script, options in re.findall(r'`(?:PYTHONPATH=\S+ )?(?:\.venv/bin/)?python '
                                      r'(benchmarks/\w+\.py)([^`]*)`', TEXTS[name]):
        if 'NAME' in script:
            continue
        text = (ROOT / script).read_text()
        for option in re.findall(r'--[\w-]+', options):
            assert f"'{option}'" in text, (script, option)


@pytest.mark.parametrize('name', NAMES)
def test_links_and_pictures_lead_somewhere(name):
    folder = (ROOT / name).parent
    for link in re.findall(r'\]\(([^)\s]+)\)', TEXTS[name]):
        if re.match(r'https?:', link):
            continue
        path, _, anchor = link.partition('#')
        target = (folder / path).resolve() if path else ROOT / name
        assert target.exists(), link
        if anchor:
            headings = re.findall(r'^#+ (.*)$', target.read_text(), re.M)
            marks = {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
                     for heading in headings}
            assert anchor in marks, link


def write_taken_over(path):
    """Write a bag of the simulated robot's, in which a person leads for two seconds."""
    path.parent.mkdir()
    tape = Tape(path)
    tape.say(0, 'pick up the red block')
    tape.say(0, '', '/pi0/status')  # whose the mark is
    for at_ms in range(0, 4000, 20):
        joints = [at_ms / 1e4, 0.0, 0.0, 0.0, 0.5]
        tape.joints(at_ms, joints, names=ARM)
        tape.command(at_ms, [(0, joints)], names=ARM)
        if at_ms % 40 == 0:
            for slot in (1, 2):
                tape.image(at_ms, topic=f'/camera_{slot}/image_raw')
        if at_ms in (0, 1000, 3000):
            tape.flag(at_ms, at_ms == 1000, '/pi0/led')
    tape.close()


def test_commands_without_a_mark_run_as_they_are_typed(tmp_path):
    """Every one of every page, in the order of the pages, in a folder with a bag of one's own."""
    (tmp_path / 'config').symlink_to(ROOT / 'config')
    (tmp_path / 'my_robot.yaml').symlink_to(ROOT / 'config' / 'sim.yaml')
    write_taken_over(tmp_path / 'bags' / 'monday')
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {
        'PYTHONPATH': paths, 'PATH': f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    lines = [line for text in TEXTS.values() for mark, block in typed(text) if not mark
             for line in block]
    ran = {tuple(shlex.split(line, comments=True)): line for line in lines}
    for words in [*ran, ('python', '-m', 'pi0_ros', 'inspect', 'demo')]:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr[-2000:])
    assert (tmp_path / 'out' / 'evaluation' / 'report.html').is_file()
    assert (tmp_path / 'out' / 'dataset' / 'meta' / 'info.json').is_file()
    assert (tmp_path / 'out' / 'corrections' / 'meta' / 'info.json').is_file()
    assert len(ran) >= 5


@pytest.mark.parametrize('name', NAMES)
def test_a_mark_says_why_and_names_what_exists(name):
    text = TEXTS[name]
    marks = [mark for mark, _ in typed(text) if mark]
    assert text.count('<!-- not run') == len(marks)  # every mark is at a block with commands
    for mark in marks:
        for file in re.findall(r'test_\w+\.py', mark):
            assert (ROOT / 'test' / file).is_file(), mark


def test_messages_of_goes_wrong_are_in_the_code():
    """Of every message three words in a row are, as the code writes them."""
    told = ' \n '.join(
        re.sub(r'\s+', ' ', node.value) for path in (ROOT / 'pi0_ros').rglob('*.py')
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str))
    rows = re.findall(r'^\| (.*?) \|', TEXTS['docs/goes_wrong.md'], re.M)
    messages = [row for row in rows if row not in ('message', 'it says', '---')]
    first = next(number for number, row in enumerate(messages) if row.startswith('two ROS 2'))
    assert len(messages) - first > 50  # before that is a table of what one sees
    lost = []
    for message in messages[first:]:
        parts = re.split(r"'[^']*'|…|[;,:]|/\S+|\b\d[\d.,]*\b", message)
        threes = [' '.join(words[at:at + 3]) for words in (part.split() for part in parts)
                  for at in range(len(words) - 2)]
        if threes and not any(three in told for three in threes):
            lost.append(message)
    assert not lost


def test_every_reason_of_the_fault_table_is_in_goes_wrong():
    rows = re.findall(r'^\| [^|]+ \| ([^|]*) \|', TEXTS['docs/safety.md'], re.M)
    reasons = {name for row in rows
               for name in re.findall(r'(?:^|, |, or )`(\w+)`', row)}
    told = set(re.findall(r'`(\w+)`', ' '.join(
        re.findall(r'^\|.*\| ([^|]*) \|$', TEXTS['docs/goes_wrong.md'], re.M))))
    assert len(reasons) > 40
    assert not reasons - told


def test_every_page_is_in_the_index():
    index = TEXTS['docs/README.md'] + TEXTS['docs/benchmarks/README.md']
    for page in PAGES:
        if page.name != 'README.md':
            assert f'{page.name})' in index, page


def test_parameter_files_in_the_docs_are_read():
    """Every name under ros__parameters in a block of YAML is a parameter, or a block's name."""
    yaml = pytest.importorskip('yaml')
    for name, text in TEXTS.items():
        for indent, language, block in BLOCK.findall(text):
            if language != 'yaml' or 'ros__parameters' not in block:
                continue
            plain = '\n'.join(line.removeprefix(indent) for line in block.splitlines())
            for section in yaml.safe_load(plain).values():
                values = section['ros__parameters']
                groups = {part.partition('/')[0] for part in values.get('commands', ())}
                assert set(values) - groups <= set(BY_NAME), (name, set(values) - set(BY_NAME))


def test_pages_say_what_they_are():
    for name, text in TEXTS.items():
        assert text.startswith('# '), name
        assert len(text.splitlines()) < 260, name  # a page that nobody reads to its end

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Whether the tests notice: one token of the code is changed, and some test must fail.

    python test/mutants.py [--rooms control motion] [--count 60] [--seed 0] [--jobs 2]

First every test is run once, to see which lines it runs and how long it takes. A mutant lives in a
copy of the package and meets the tests that run its line, the quickest first, as many as the
budget allows: what only a longer test would notice counts as a survivor. ``--these`` takes the
names that were printed, to look at survivors again.
"""

import argparse
import ast
from collections import defaultdict
from collections.abc import Callable
import json
import os
from pathlib import Path
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'pi0_ros'
SETTINGS = ('__init__', 'config')  # what they say is shown to people, not computed
MOTION = ['test_motion_bounds', 'test_traces', 'test_boundaries', 'test_plan', 'test_rules',
          'test_states', 'test_limits', 'test_handover', 'test_pilot', 'test_following',
          'test_faults', 'test_observation']
CHECKPOINT = ['test_mapping', 'test_checkpoint', 'test_checkpoint_edges', 'test_weights',
              'test_policy', 'test_guidance']
TESTS = {'control': MOTION, 'motion': MOTION, 'checkpoint': CHECKPOINT, 'weights': CHECKPOINT,
         'observation': ['test_buffers', 'test_observation', 'test_images', 'test_faults',
                         'test_conversions', 'test_bag', 'test_bag_times', 'test_boundaries']}
SWAPS = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq,
         ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub,
         ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And}
BUDGET_S = 30.0  # of tests a mutant meets, by how long they took before
CPU_S, PATIENCE = 20, 4  # a mutant that computes that much longer is noticed
WALL = 10  # times that, for one that waits for ever


def places(tree: ast.AST) -> list[tuple[ast.AST, str, list[int]]]:
    """
    Return what can be changed: operators, numbers, truth values, calls of max and min.

    :returns: of each the node, the kind, and the lines of which one runs where it does; none where
        it runs when the module is imported.
    """
    out = []

    def visit(node: ast.AST, lines: list[int], inside: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            outer = [*node.args.defaults, *[one for one in node.args.kw_defaults if one],
                     *getattr(node, 'decorator_list', ())]
            for child in outer:
                visit(child, lines, inside)
            for child in node.body if isinstance(node.body, list) else [node.body]:
                visit(child, lines, True)
            return
        if isinstance(node, ast.stmt):
            last = node.body[0].lineno - 1 if getattr(node, 'body', None) else node.end_lineno
            lines = list(range(node.lineno, max(last, node.lineno) + 1)) if inside else []
        kind = _kind(node)
        if kind:
            out.append((node, kind, lines))
        declared = node.decorator_list if isinstance(node, ast.ClassDef) else ()
        for child in ast.iter_child_nodes(node):
            if child not in declared:
                visit(child, lines, inside)

    visit(tree, [], False)
    return out


def _kind(node: ast.AST) -> str:
    """Return what is changed of a node, '' for nothing."""
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
        return 'op'
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        return 'compare'
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        return 'value'
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        return 'drop'
    return 'name' if isinstance(node, ast.Name) and node.id in ('max', 'min') else ''


def mutate(source: str, number: int) -> tuple[str, str, list[int]]:
    """Return the source with one place changed, a word on it, and the lines of it."""
    tree = ast.parse(source)
    node, kind, lines = places(tree)[number]
    before = ast.unparse(node)
    if kind == 'op':
        node.op = SWAPS[type(node.op)]()
    elif kind == 'compare':
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif kind == 'name':
        node.id = {'max': 'min', 'min': 'max'}[node.id]
    elif kind == 'drop':
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    else:
        node.value = (not node.value) if isinstance(node.value, bool) else node.value * 2 + 1
    return ast.unparse(tree), f'line {node.lineno}: {before} -> {ast.unparse(node)}', lines


class Once:
    """A plugin that does not look for the smallest example: one that fails is enough."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Change hypothesis' settings, after conftest.py and before any test is read."""
        from hypothesis import Phase, settings
        settings.register_profile('mutants', phases=[Phase.explicit, Phase.generate],
                                  derandomize=True, database=None, deadline=None)
        settings.load_profile('mutants')


class Recorder(Once):
    """A plugin that notes which lines of some rooms a test runs, and how long it takes."""

    def __init__(self, rooms: list[str]) -> None:
        """Look at these rooms."""
        self.prefixes = tuple(f'{PACKAGE / room}{os.sep}' for room in rooms)
        self.tests: dict[str, dict] = {}
        self.lines: dict[str, set[int]] = defaultdict(set)
        self.passed = True

    def trace(self, frame, event, _):
        """Follow calls into the rooms, line by line."""
        name = frame.f_code.co_filename
        if not name.startswith(self.prefixes):
            return None
        lines = self.lines[name[len(str(PACKAGE)) + 1:]]

        def line(frame, event, _):
            lines.add(frame.f_lineno)
            return line
        return line(frame, event, None)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        """Run a test with its fixtures under the tracer."""
        self.lines = defaultdict(set)
        threading.settrace(self.trace)
        sys.settrace(self.trace)
        began = time.process_time()
        yield
        sys.settrace(None)
        threading.settrace(None)
        self.tests[item.nodeid] = {'s': time.process_time() - began, 'lines': {
            path: sorted(lines) for path, lines in self.lines.items()}}

    def pytest_runtest_logreport(self, report) -> None:
        """Note what fails."""
        self.passed = self.passed and not report.failed


def child(folder: Path, work: Callable[[], int], cpu_s: float | None = None) -> int:
    """Do ``work`` in a process of its own, silently; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        if cpu_s:
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 5))
        sys.path[:] = [str(folder), *[part for part in sys.path if part != str(ROOT)]]
        os.environ['PYTHONPATH'] = str(folder)
        code = work()
    except BaseException:
        code = 1
    os._exit(code)


def ask(tests: list[str], plugin: Once) -> int:
    """Run tests in this process; return pytest's exit code."""
    return int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', *tests],
                           plugins=[plugin]))


def record(rooms: list[str], files: list[str], out: Path) -> int:
    """Note the lines of all tests of ``files``; runs in a child."""
    recorder = Recorder(rooms)
    ask([f'test/{name}.py' for name in files], recorder)
    out.write_text(json.dumps(recorder.tests))
    return 0 if recorder.passed and recorder.tests else 1


class Crew:
    """So many children at a time."""

    def __init__(self, jobs: int) -> None:
        """Take their number."""
        self.jobs, self.at_work = jobs, {}

    def add(self, pid: int, done: Callable[[bool], None], wall_s: float) -> None:
        """Wait until there is room for one more; ``done`` is told whether it ended well."""
        self.at_work[pid] = (done, time.monotonic() + wall_s)
        self.wait(self.jobs - 1)

    def wait(self, most: int = 0) -> None:
        """Wait until no more than so many are at work."""
        while len(self.at_work) > most:
            for pid, (done, end) in list(self.at_work.items()):
                found, status = os.waitpid(pid, os.WNOHANG)
                if not found and time.monotonic() > end:
                    os.killpg(pid, signal.SIGKILL)
                    found, status = os.waitpid(pid, 0)
                if found:
                    del self.at_work[pid]
                    done(status == 0)
            time.sleep(0.02)


def copy(folder: Path) -> None:
    """Make what tests need, in ``folder``; of code a copy, of data a link."""
    for part in ('pi0_ros', 'test'):
        shutil.copytree(ROOT / part, folder / part, symlinks=True,
                        ignore=lambda at, names: [name for name in names if name.endswith('.pyc')
                                                  or name in ('data', 'models')])
        for name in ('data', 'models'):
            for found in (ROOT / part).rglob(name):
                target = folder / found.relative_to(ROOT)
                if found.is_dir() and not target.exists():  # it may lie in one that is linked
                    target.symlink_to(found)
    for found in ROOT.iterdir():
        if not (folder / found.name).exists() and not found.name.startswith('.'):
            (folder / found.name).symlink_to(found)


def meets(known: dict[str, dict], path: str, lines: list[int], budget_s: float
          ) -> tuple[list[str], float]:
    """Return the tests that run one of ``lines``, or anything of the file, and their seconds."""
    found = sorted((test['s'], name) for name, test in known.items() if path in test['lines']
                   and (not lines or not set(lines).isdisjoint(test['lines'][path])))
    total, names = 0.0, []
    for seconds, name in found:
        if total + seconds > budget_s:
            break
        total += seconds
        names.append(name)
    return names, total


def main() -> None:
    """Print survivors and the score."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rooms', nargs='+', choices=TESTS, default=['control', 'motion'])
    parser.add_argument('--count', type=int, default=60)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    parser.add_argument('--budget', type=float, default=BUDGET_S,
                        help='seconds of tests that a mutant meets (default: 30)')
    parser.add_argument('--these', nargs='+', default=[], help='like control/guard.py#12')
    args = parser.parse_args()
    every = [(f'{room}/{path.name}', number) for room in args.rooms
             for path in sorted((PACKAGE / room).glob('*.py')) if path.stem not in SETTINGS
             for number in range(len(places(ast.parse(path.read_text()))))]
    chosen = random.Random(args.seed).sample(every, min(args.count, len(every)))
    if args.these:
        chosen = [(path, int(number)) for path, _, number in (
            one.partition('#') for one in args.these)]
    rooms = sorted({path.partition('/')[0] for path, _ in chosen})
    for name in ('hypothesis', 'numpy', 'torch'):
        __import__(name)  # once, for all children
    survivors, crew = [], Crew(args.jobs)
    with tempfile.TemporaryDirectory() as temporary:
        files = sorted({name for room in rooms for name in TESTS[room]})
        known: dict[str, dict] = {}

        def learn(name: str) -> Callable[[bool], None]:
            def done(well: bool) -> None:
                if not well:
                    sys.exit(f'{name}.py fails without a mutant: mend that first')
                known.update(json.loads((Path(temporary) / name).read_text()))
            return done
        for name in files:
            crew.add(child(ROOT, lambda name=name: record(rooms, [name], Path(temporary) / name)),
                     learn(name), 3600)
        crew.wait()
        whole = Path(temporary) / 'whole'
        whole.mkdir()
        copy(whole)
        quickest, _ = meets({name: {**test, 'lines': {'': []}} for name, test in known.items()},
                            '', [], args.budget)
        crew.add(child(whole, lambda: ask(quickest, Once())), lambda well: well or sys.exit(
            'tests fail in a copy without a mutant: mend that first'), 3600)
        crew.wait()
        for count, (path, number) in enumerate(chosen):
            text, word, lines = mutate((PACKAGE / path).read_text(), number)
            word = f'{path}#{number} {word}'
            tests, seconds = meets(known, path, lines, args.budget)
            if not tests:
                survivors.append(word)
                print(f'SURVIVES {word}, which no test runs', flush=True)
                continue
            folder = Path(temporary) / str(count)
            folder.mkdir()
            copy(folder)
            (folder / 'pi0_ros' / path).write_text(text)

            def told(well: bool, word: str = word, folder: Path = folder,
                     asked: str = f'{len(tests)} tests, {seconds:.0f} s') -> None:
                shutil.rmtree(folder)
                survivors.extend([word] * well)
                print('SURVIVES' if well else 'killed  ', word, f'({asked})' * well, flush=True)
            cpu_s = CPU_S + PATIENCE * seconds
            crew.add(child(folder, lambda tests=tests: ask(tests, Once()), cpu_s), told,
                     WALL * cpu_s)
        crew.wait()
    print(f'{len(chosen) - len(survivors)} of {len(chosen)} killed, '
          f'{100 * (1 - len(survivors) / len(chosen)):.0f} %')


if __name__ == '__main__':
    main()

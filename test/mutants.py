"""Whether the tests notice: one token of the code is changed, and some test must fail.

    python test/mutants.py [--rooms control motion] [--count 60] [--seed 0] [--jobs 2]

Each mutant lives in a copy of the package; a survivor is printed with its line.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'pi0_ros'
SETTINGS = ('__init__', 'config')  # what they say is shown to people, not computed
MOTION = ['test_plan', 'test_rules', 'test_states', 'test_limits', 'test_handover', 'test_pilot',
          'test_following', 'test_faults', 'test_observation']
# Of each room the tests that are asked, those first that fail soonest.
TESTS = {'control': MOTION, 'motion': MOTION,
         'observation': ['test_observation', 'test_images', 'test_faults', 'test_conversions',
                         'test_bag'],
         'checkpoint': ['test_mapping', 'test_checkpoint', 'test_policy', 'test_guidance']}
SWAPS = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq,
         ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub,
         ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And}
LIMIT_S = 150


def places(tree: ast.AST) -> list[tuple[ast.AST, str]]:
    """Return what can be changed: operators, numbers, truth values, calls of max and min."""
    out = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
            out.append((node, 'op'))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            out.append((node, 'compare'))
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            out.append((node, 'value'))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
            out.append((node, 'drop'))
        elif isinstance(node, ast.Name) and node.id in ('max', 'min'):
            out.append((node, 'name'))
    return out


def mutate(source: str, number: int) -> tuple[str, str]:
    """Return the source with one place changed, and a word on it."""
    tree = ast.parse(source)
    found = places(tree)
    node, kind = found[number % len(found)]
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
    return ast.unparse(tree), f'line {node.lineno}: {before} -> {ast.unparse(node)}'


def survives(path: str, number: int | None, tests: list[str]) -> tuple[str, bool]:
    """Return a word on the mutant, None for the code as it is, and whether every test passes.

    :param path: of the file, below the package.
    """
    source = (PACKAGE / path).read_text()
    text, word = (source, 'as it is') if number is None else mutate(source, number)
    with tempfile.TemporaryDirectory() as folder:
        for part in ('pi0_ros', 'test', 'docs', 'config'):
            shutil.copytree(ROOT / part, Path(folder) / part, symlinks=True,
                            ignore=shutil.ignore_patterns('*.pyc'))
        (Path(folder) / 'pi0_ros' / path).write_text(text)
        try:
            done = subprocess.run(
                [sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider',
                 *[f'test/{test}.py' for test in tests]], cwd=folder, capture_output=True,
                env={**os.environ, 'PYTHONPATH': folder}, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return f'{path} {word}', False  # a loop without end is noticed
    return f'{path} {word}', done.returncode == 0


def main() -> None:
    """Print survivors and the score."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rooms', nargs='+', choices=TESTS, default=['control', 'motion'])
    parser.add_argument('--count', type=int, default=60)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    files = [f'{room}/{path.name}' for room in args.rooms
             for path in sorted((PACKAGE / room).glob('*.py')) if path.stem not in SETTINGS]
    weights = [len(places(ast.parse((PACKAGE / path).read_text()))) for path in files]
    chosen = [(rng.choices(files, weights)[0], rng.randrange(10**6)) for _ in range(args.count)]
    for room in args.rooms:
        if not survives(f'{room}/__init__.py', None, TESTS[room])[1]:
            sys.exit(f'the tests of {room} fail without a mutant: mend that first')
    alive = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for word, survived in pool.map(
                lambda one: survives(*one, TESTS[one[0].partition('/')[0]]), chosen):
            alive += survived
            print('SURVIVES' if survived else 'killed  ', word, flush=True)
    print(f'{args.count - alive} of {args.count} killed, '
          f'{100 * (args.count - alive) / args.count:.0f} %')


if __name__ == '__main__':
    main()

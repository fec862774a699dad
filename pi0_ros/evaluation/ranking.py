# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which checkpoint is the best one, and how sure that is; and what success on the robot says."""

from collections.abc import Iterable, Mapping, Sequence
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

DRAWS, SEED = 2000, 0
INSIDE = (2.5, 97.5)   # percentiles of an interval of 95 %
Z = 1.959964           # of the same, of a normal distribution
FEWEST = 3             # checkpoints that have an order worth a correlation
TRUE = ('1', 'true', 'yes', 'success', 'succeeded')
FALSE = ('0', 'false', 'no', 'failure', 'failed')


def rank(found: Mapping[str, Mapping[Any, tuple[float, int]]]) -> dict[str, Any]:
    """
    Rank runs by their mean error, least first; how sure that is by bootstrap over episodes.

    All runs are drawn with the same episodes, so that a hard one counts for all of them; one that
    a run lacks counts for none.

    :param found: of every run by its name, sum of errors and how many, by episode.
    """
    names = list(found)
    everywhere = [one for one in found[names[0]] if all(one in other for other in found.values())]
    dropped = len({one for other in found.values() for one in other}) - len(everywhere)
    if not everywhere:
        return {'episodes': 0, 'dropped': dropped, 'order': []}
    sums, counts = (np.array([[found[name][one][part] for one in everywhere] for name in names])
                    for part in (0, 1))
    values = sums.sum(1) / counts.sum(1)
    order = np.argsort(values, kind='stable')
    drawn = np.random.default_rng(SEED).integers(0, len(everywhere), (DRAWS, len(everywhere)))
    means = sums[:, drawn].sum(2) / counts[:, drawn].sum(2)  # [R, DRAWS]
    best = means.argmin(axis=0)
    out = []
    for place, run in enumerate(order):
        low, high = np.percentile(means[run], INSIDE)
        follower = order[place + 1] if place + 1 < len(order) else None
        out.append({'name': names[run], 'value': _number(values[run]), 'low': _number(low),
                    'high': _number(high), 'best': _number((best == run).mean()),
                    'better_than_next': None if follower is None else _number(
                        (means[run] < means[follower]).mean())})
    return {'episodes': len(everywhere), 'dropped': dropped, 'order': out}


def read_outcomes(path: Path) -> dict[str, list[float]]:
    """
    Read what became of runs on the robot: CSV with a header, or a JSON list of objects.

    Every row has ``checkpoint`` (a name, or a fingerprint) and ``success`` (true, false, or from
    0 to 1), and may have more; rows whose ``outcome`` is discard do not count.

    :returns: successes by checkpoint. :raises ValueError: it is something else.
    """
    text = path.read_text('utf-8-sig')  # as spreadsheets write it
    head = text.split('\n', 1)[0]
    try:
        rows = (json.loads(text) if text.lstrip().startswith('[') else list(csv.DictReader(
            text.splitlines(), delimiter=';' if ';' in head and ',' not in head else ',')))
    except (json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from error
    out: dict[str, list[float]] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {'checkpoint', 'success'} <= set(row):
            has = ', '.join(map(str, row)) if isinstance(row, dict) else repr(row)
            raise ValueError(f"row {number} of '{path}' has {has}, expected 'checkpoint' and "
                             "'success' in every row")
        if str(row.get('outcome')).strip().lower() == 'discard':
            continue
        out.setdefault(str(row['checkpoint']), []).append(_success(row['success'], number, path))
    if not out:
        raise ValueError(f"'{path}' has no run that counts: " + (
            'all of them are discarded' if rows else 'expected one in every row'))
    return out


def _success(value: object, number: int, path: Path) -> float:
    word = str(value).strip().lower()
    try:
        share = 1.0 if word in TRUE else 0.0 if word in FALSE else float(word)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"row {number} of '{path}' has success '{value}', expected true or "
                         'false, or a share from 0 to 1')
    return share


def require_known(outcomes: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """
    Return the checkpoints that were run and are evaluated.

    :raises ValueError: there are none.
    """
    names = list(names)
    known = [name for name in outcomes if name in names]
    if not known:
        raise ValueError(f"--outcomes has runs of {', '.join(outcomes)}, expected the names of "
                         f"the checkpoints: {', '.join(names)} (--checkpoint NAME=DIR)")
    return known


def judge(outcomes: Mapping[str, Sequence[float]], measures: Mapping[str, Mapping[str, float]]
          ) -> dict[str, Any]:
    """
    Return success of every checkpoint, and how well each measure orders them by it.

    :param measures: of every run by its name, less is better.
    :raises ValueError: no run of the table is a checkpoint that is evaluated.
    """
    known = require_known(outcomes, measures)
    out: dict[str, Any] = {'runs': {}, 'unknown': [name for name in outcomes if name not in known],
                           'spearman': {}}
    for name in known:
        trials = outcomes[name]
        low, high = wilson(sum(trials), len(trials))
        out['runs'][name] = {'trials': len(trials), 'success': _number(sum(trials) / len(trials)),
                             'low': _number(low), 'high': _number(high)}
    success = [out['runs'][name]['success'] for name in known]
    for kind in dict.fromkeys(kind for one in measures.values() for kind in one):
        values = [measures[name].get(kind) for name in known]
        if len(known) >= FEWEST and None not in values:
            out['spearman'][kind] = spearman(values, success)
    return out


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Return the interval of 95 % of a rate (Wilson 1927)."""
    share, spread = successes / trials, Z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the correlation of ranks, equal values sharing one; None where one does not vary."""
    ranks = [_ranks(np.asarray(values, float)) for values in (one, other)]
    if any(np.ptp(values) == 0 for values in ranks):
        return None
    return _number(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return (values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2


def _number(value: float) -> float:
    return float(f'{value:.6g}')

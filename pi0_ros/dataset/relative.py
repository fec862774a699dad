# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Relative actions: which ones, and their statistics, as LeRobot computes them."""

from collections.abc import Sequence

import numpy as np
from pi0_ros.dataset import sums
from pi0_ros.dataset.reader import ACTION, DataError, DataSet

BATCH = 50_000         # chunks at a time, as LeRobot
MOST_ROWS = 5_000_000  # that quantiles are taken of


def relative_mask(names: Sequence[str], exclude: Sequence[str], width: int) -> np.ndarray:
    """
    Return [width] bool: actions that are relative to the state of the observation.

    An action is excluded where its lower-cased name contains one of ``exclude``, as LeRobot's
    ``RelativeActionsProcessorStep`` has it.

    :raises DataError: the data set does not name its actions, so that none can be excluded.
    """
    if not exclude:
        return np.ones(width, bool)
    if len(names) != width:
        raise DataError('the data set does not name its actions, so that '
                        f"{', '.join(exclude)} cannot be told from the others: give "
                        '--relative-exclude-joints no names, or name them in meta/info.json')
    return np.array([not any(part.lower() in name.lower() for part in exclude)
                     for name in names])


def relative_statistics(data: DataSet, mask: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """
    Return statistics of the actions of all chunks of ``length`` frames, ``action.mean`` and so on.

    Of every chunk that lies in one episode, minus the state at its first frame where ``mask``. As
    LeRobot's ``compute_relative_action_stats``: mean and deviation in float32, from the mean of
    squares; quantiles are exact here, of at most ``MOST_ROWS`` rows, and a histogram's there.

    :raises DataError: every episode is shorter than a chunk.
    """
    first = data.chunk_starts(length)
    if not len(first):
        raise DataError(f'every episode is shorter than a chunk of {length} frames, so relative '
                        'actions have no statistics: a smaller --chunk-size, or longer episodes')
    parts, rows = [], []
    every = -(-len(first) * length // MOST_ROWS)
    for begin in range(0, len(first), BATCH):
        batch = first[begin:begin + BATCH]
        chunks = data.action[batch[:, None] + np.arange(length)].astype(np.float32)
        chunks = chunks - np.where(mask, data.state[batch, :len(mask)], np.float32(0))[:, None]
        flat = chunks.reshape(-1, chunks.shape[-1])
        parts.append((len(flat), flat.mean(axis=0), (flat**2).mean(axis=0), flat.min(axis=0),
                      flat.max(axis=0)))
        rows.append(chunks[::every].reshape(-1, flat.shape[1]))
    mean, squares, total = parts[0][1], parts[0][2], parts[0][0]
    for count, its_mean, its_squares, _, _ in parts[1:]:
        total += count
        mean = mean + (its_mean - mean) * np.float32(count / total)
        squares = squares + (its_squares - squares) * np.float32(count / total)
    out = {'mean': mean, 'std': np.sqrt(np.maximum(squares - mean**2, 0)),
           'min': np.min([one[3] for one in parts], axis=0),
           'max': np.max([one[4] for one in parts], axis=0), 'count': np.array([total])}
    shown = np.concatenate(rows)
    out |= {name: np.quantile(shown, share, axis=0) for name, share in sums.QUANTILES.items()}
    return {f'{ACTION}.{name}': np.asarray(value, np.float32) for name, value in out.items()}

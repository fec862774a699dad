# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Normalisation statistics as LeRobot names them."""

from typing import Any

import numpy as np

QUANTILES = {'q01': 0.01, 'q10': 0.10, 'q50': 0.50, 'q90': 0.90, 'q99': 0.99}


def of_columns(columns: np.ndarray) -> dict[str, list]:
    """
    Return statistics of vectors [D, N], each a list of D numbers.

    :param columns: may lie in a file: one of them is in memory at a time.
    """
    out: dict[str, list] = {name: [] for name in ('min', 'max', 'mean', 'std')}
    out |= {'count': [columns.shape[1]]} | {name: [] for name in QUANTILES}
    for column in columns:
        values = np.array(column, float)
        for name in ('min', 'max', 'mean', 'std'):
            out[name].append(float(getattr(values, name)()))
        for name, value in zip(QUANTILES, np.quantile(values, list(QUANTILES.values()),
                                                      overwrite_input=True)):
            out[name].append(float(value))
    return out


def of_images(counts: np.ndarray, frames: int) -> dict[str, Any]:
    """
    Return statistics of images, in 0 to 1, shaped [3, 1, 1].

    :param counts: [3, 256] how often each value occurs in each channel. :param frames: that were
        counted.
    """
    values, total = np.arange(256) / 255, counts.sum(axis=1)
    mean = counts @ values / total
    std = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    present = [values[channel > 0] for channel in counts]
    out = {'min': [one.min() for one in present], 'max': [one.max() for one in present],
           'mean': mean, 'std': std}
    grown = np.cumsum(counts, axis=1) / total[:, None]
    out |= {name: [values[np.searchsorted(one, share)] for one in grown]
            for name, share in QUANTILES.items()}
    shaped = {name: np.reshape(value, (3, 1, 1)).tolist() for name, value in out.items()}
    return {**shaped, 'count': [frames]}

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Normalisation statistics as LeRobot names them."""

from typing import Any

import numpy as np

QUANTILES = {'q01': 0.01, 'q10': 0.10, 'q50': 0.50, 'q90': 0.90, 'q99': 0.99}


def of_rows(rows: np.ndarray) -> dict[str, list]:
    """Return statistics of vectors [N, D], each a list of D numbers."""
    rows = rows.astype(float)
    out = {'min': rows.min(axis=0), 'max': rows.max(axis=0), 'mean': rows.mean(axis=0),
           'std': rows.std(axis=0), 'count': np.array([len(rows)])}
    out |= {name: np.quantile(rows, share, axis=0) for name, share in QUANTILES.items()}
    return {name: value.tolist() for name, value in out.items()}


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

# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Normalisation of states and actions, and its inverse."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

EPS = 1e-8
STILL = 1e-4       # spread in the checkpoint's unit
STILL_RANGE = 5.0  # normalised: five standard deviations
BINS = np.linspace(-1, 1, 257)[:-1]
# Spreads from the middle beyond which training was next to never: 4 standard deviations; half a
# range more than the range; next to all of what lies outside quantiles.
FAR = {'MEAN_STD': 4.0, 'MIN_MAX': 1.5, 'QUANTILES': 2.0, 'QUANTILE10': 4.0, 'IDENTITY': np.inf}
NEEDS = {'MEAN_STD': ('mean', 'std'), 'MIN_MAX': ('min', 'max'), 'QUANTILES': ('q01', 'q99'),
         'QUANTILE10': ('q10', 'q90'), 'IDENTITY': ()}


@dataclass(frozen=True)
class Normaliser:
    """
    An affine map per feature, and its inverse.

    ``normalise(x) = (x - shift) * scale``; ``restore(n) = n * spread + middle``. The two are not
    exact inverses: LeRobot adds its epsilon in one direction only.
    """

    shift: np.ndarray   # [D]
    scale: np.ndarray   # [D]
    spread: np.ndarray  # [D]
    middle: np.ndarray  # [D]
    # As the trainer computes it of values [D] float32, to the bit: at the edge of a digit of
    # pi0.5's prompt another rounding is another digit.
    trained: Callable[[np.ndarray], np.ndarray] | None = None
    far: float = 4.0  # so many spreads from the middle training was next to never

    @property
    def still(self) -> np.ndarray:
        """Return [D] bool: what hardly moved in the training data."""
        return self.spread < STILL

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """
        Return normalised ``values`` [..., D], those of still features within +-STILL_RANGE.

        A joint that never moved in training has next to no spread: 1 mm could become 1000.
        """
        out = (values - self.shift) * self.scale
        return np.where(self.still, np.clip(out, -STILL_RANGE, STILL_RANGE), out)

    def digits(self, values: np.ndarray) -> np.ndarray:
        """
        Return the digits [D] of a state as pi0.5's prompt has them: -1 to 255.

        As openpi's ``tokenizer.py`` and LeRobot's ``processor_pi05.py``: below the first of 256
        bins from -1 to 1 it is -1, above the last 255.
        """
        of = self.trained or self.normalise
        return np.digitize(of(values.astype(np.float32)), BINS) - 1

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Return ``values`` [..., D] in physical units."""
        return values * self.spread + self.middle

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Return what ``restore`` makes ``values`` [..., D] of; not a number where still."""
        return (values - self.middle) / np.where(self.still, np.nan, self.spread)


def lerobot_normaliser(mode: str, feature: str, statistics: Mapping[str, np.ndarray],
                       width: int, eps: float = EPS) -> Normaliser:
    """
    Return the normaliser of LeRobot's ``normalize_processor.py`` for one feature.

    :param statistics: flat names such as ``observation.state.mean`` to arrays.
    :raises ValueError: the mode is unknown, or a statistic is missing, of another width, or not
        finite. LeRobot skips a missing one silently, which sends z-scores to the robot.
    """
    if mode not in NEEDS:
        raise ValueError(f"normalisation mode '{mode}' of '{feature}' is unknown, expected one of "
                         f"{', '.join(NEEDS)}")
    values = []
    for name in NEEDS[mode]:
        key = f'{feature}.{name}'
        if key not in statistics:
            has = ', '.join(sorted(statistics)[:6]) or 'none'
            raise ValueError(f"statistics lack '{key}', which normalisation {mode} needs; there "
                             f'are {has}: copy the checkpoint again with its processor files, or '
                             'train on one data set at a time')
        value = np.asarray(statistics[key], np.float64)
        if value.shape != (width,):
            raise ValueError(f"statistic '{key}' has shape {value.shape}, expected ({width},)")
        if not np.isfinite(value).all():
            raise ValueError(f"statistic '{key}' is not finite: {value}")
        if name == 'std' and (value < 0).any():
            raise ValueError(f"statistic '{key}' is negative: {value}")
        values.append(value)
    if mode == 'IDENTITY':
        zero, one = np.zeros(width), np.ones(width)
        return Normaliser(zero, one, one, zero, lambda x: x, FAR[mode])
    one, other = (value.astype(np.float32) for value in values)  # as LeRobot has them
    if mode == 'MEAN_STD':
        mean, std = values
        return Normaliser(mean, 1 / (std + eps), std, mean,
                          lambda x: (x - one) / (other + np.float32(eps)))
    low, high = values
    if (low > high).any():
        first, second = NEEDS[mode]
        at = int(np.flatnonzero(low > high)[0])
        raise ValueError(f"statistic '{feature}.{first}' is above '{feature}.{second}' at {at}, "
                         f'{low[at]} and {high[at]}: it would mirror what the policy does')
    span = np.where(high == low, eps, high - low)
    denominator = np.where(other == one, np.float32(eps), other - one)
    return Normaliser(low + span / 2, 2 / span, span / 2, low + span / 2,
                      lambda x: np.float32(2) * (x - one) / denominator - np.float32(1),
                      FAR[mode])


def openpi_normaliser(feature: str, statistics: Mapping[str, list[float]], width: int,
                      eps: float = 1e-6, quantiles: bool = False) -> Normaliser:
    """
    Return openpi's normaliser (``transforms.py``, the same eps both ways).

    Statistics may be longer than ``width``, not shorter.

    :param quantiles: from q01 and q99, as of pi0.5; else from mean and std.

    :raises ValueError: a statistic is missing, too short, or not finite.
    """
    values = []
    for name in ('q01', 'q99') if quantiles else ('mean', 'std'):
        try:
            value = np.asarray(statistics.get(name, ()), np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"statistic '{feature}.{name}' is no list of numbers") from error
        if value.ndim != 1 or len(value) < width:
            raise ValueError(f"statistic '{feature}.{name}' has shape {value.shape}, expected at "
                             f'least ({width},)')
        if not np.isfinite(value[:width]).all():
            raise ValueError(f"statistic '{feature}.{name}' is not finite: {value}")
        if name == 'std' and (value[:width] < 0).any():
            raise ValueError(f"statistic '{feature}.std' is negative: {value}")
        values.append(value[:width])
    if quantiles:
        low, high = values
        if (low > high).any():
            at = int(np.flatnonzero(low > high)[0])
            raise ValueError(f"statistic '{feature}.q01' is above '{feature}.q99' at {at}, "
                             f'{low[at]} and {high[at]}: it would mirror what the policy does')
        half = (high - low + eps) / 2
        middle = np.where(high == low, low, low + half)  # padding stays at 0
        return Normaliser(low + half, 1 / half, half, middle,
                          lambda x: (x - low) / (high - low + eps) * 2.0 - 1.0,
                          FAR['QUANTILES'])
    mean, std = values
    return Normaliser(mean, 1 / (std + eps), std + eps, mean,
                      lambda x: (x - mean) / (std + eps))

"""How sure a mean is: bootstrap intervals and paired tests that resample whole sequences.

Frames of one video resemble each other, so persons are not independent draws; sequences nearly are. NumPy in and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from posesyn.errors import InputError

# All sign patterns are tried up to this many sequences (65,536 patterns); above, random ones. Our own choice.
_EXACT = 16


class Interval(NamedTuple):
    """A mean with its interval."""

    mean: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """Mean of second - first with its interval, and the two-sided p-value of no difference."""

    mean: float
    low: float
    high: float
    p_value: float
    sequences: int


def bootstrap_mean(
    values: np.ndarray, groups: Sequence[object], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean over all values with a percentile interval of the bootstrap over groups (Efron's cluster bootstrap).

    Args:
        values: (N,) per-person values.
        groups: N names of sequences; whole sequences are drawn with replacement.
        resamples: Draws.
        level: Share of the draws inside the interval.
        seed: Decides the draws.

    Raises:
        InputError: Other shapes, values that are not finite, or options out of range. One group gives an interval of no
            width, which says nothing: give the persons' names as groups if they are independent.

    Example:
        >>> interval = bootstrap_mean(np.arange(100.0), groups=range(100), resamples=200)
        >>> interval.low < 49.5 < interval.high
        True
    """
    sums, counts = _group_sums(values, groups, resamples, level)
    return Interval(float(sums.sum() / counts.sum()), *_percentiles(sums, counts, resamples, level, seed))


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence[object],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compares two runs on the same persons.

    The interval is that of :func:`bootstrap_mean` for second - first. The test flips the sign of each sequence's sum of
    differences (Fisher's randomisation test): exact for up to 16 sequences, else with ``resamples`` random patterns and
    the observed one among them.

    Args:
        first, second: (N,) values of the same persons, in the same order.
        groups, resamples, level, seed: As in :func:`bootstrap_mean`.

    Raises:
        InputError: As :func:`bootstrap_mean`.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise InputError("paired values must have equal shapes", got=f"{first.shape} and {second.shape}")
    sums, counts = _group_sums(second - first, groups, resamples, level)
    low, high = _percentiles(sums, counts, resamples, level, seed)
    observed = abs(sums.sum())
    # Sums of floats differ in the last digits by their order.
    slack = 1e-12 * max(np.abs(sums).sum(), 1e-300)
    if len(sums) <= _EXACT:
        patterns = 1 - 2.0 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        p_value = float((np.abs(patterns @ sums) >= observed - slack).mean())
    else:
        rng = np.random.default_rng(seed)
        hits = 0
        for _ in range(resamples):
            hits += abs((rng.integers(0, 2, len(sums)) * 2 - 1) @ sums) >= observed - slack
        p_value = (hits + 1) / (resamples + 1)
    return PairedDifference(float(sums.sum() / counts.sum()), low, high, p_value, len(sums))


def _group_sums(
    values: np.ndarray, groups: Sequence[object], resamples: int, level: float
) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or len(values) != len(groups):
        raise InputError("values and groups must be (N,) with N >= 1", got=f"{values.shape} and {len(groups)}")
    if not np.isfinite(values).all():
        raise InputError("values must be finite", got=f"{int((~np.isfinite(values)).sum())} are not")
    if resamples < 1 or not 0 < level < 1:
        raise InputError("resamples must be at least 1 and level in (0, 1)", got=(resamples, level))
    rows = {name: row for row, name in enumerate(dict.fromkeys(groups))}
    index = np.array([rows[name] for name in groups])
    return np.bincount(index, values), np.bincount(index).astype(np.float64)


def _percentiles(sums: np.ndarray, counts: np.ndarray, resamples: int, level: float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    number = len(sums)
    means = np.empty(resamples)
    for row in range(resamples):  # one draw at a time: 2,000 x 10,000 sequences would fill the memory
        drawn = rng.integers(0, number, number)
        means[row] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)

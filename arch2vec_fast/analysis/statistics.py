# SPDX-License-Identifier: Apache-2.0
"""Statistics of S searches that ended at different times: step functions, errors, distributions.

A search is a step function: what it holds after a query it holds until the next one. Means over
seeds are therefore taken at equal time (or equal number of queries) with the last value carried
forward, never by averaging the times at which the seeds made their n-th query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Band", "Estimate", "ecdf", "estimate", "mean_steps", "step_grid", "t_quantile"]

Vector = NDArray[np.float64]

# Two-sided 95 % points of Student's t for 1, 2, ... degrees of freedom; the expansion takes over.
_T_TABLE = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_NORMAL = 1.959963984540054


class Estimate(NamedTuple):
    """A mean over seeds and how far to trust it."""

    mean: float
    error: float
    """Standard error of the mean, std / sqrt(S); NaN for one seed."""
    std: float
    """Standard deviation over seeds (S - 1 in the denominator); NaN for one seed."""
    seeds: int


class Band(NamedTuple):
    """A mean step function with its 95 % confidence band, [G] each."""

    x: Vector
    mean: Vector
    error: Vector
    """Standard error of the mean; NaN for one seed."""
    lower: Vector
    upper: Vector
    seeds: int


def estimate(values: Vector) -> Estimate:
    """Mean, standard error and standard deviation of one number a seed, [S].

    >>> estimate(np.array([1.0, 2.0, 3.0]))[:3]
    (2.0, 0.5773502691896258, 1.0)
    """
    if not len(values):
        raise ValueError("values: no seeds; a mean needs at least one")
    std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Estimate(float(np.mean(values)), std / math.sqrt(len(values)), std, len(values))


def t_quantile(degrees: int) -> float:
    """How many standard errors a two-sided 95 % band takes; wide for few seeds, as it must be.

    Student's t with S - 1 degrees of freedom: a table up to 10, then the Cornish-Fisher expansion
    (relative error below 1e-4).

    >>> round(t_quantile(9), 3), round(t_quantile(499), 4)
    (2.262, 1.9647)
    """
    if degrees < 1:
        return math.nan
    if degrees <= len(_T_TABLE):
        return _T_TABLE[degrees - 1]
    z = _NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def step_grid(xs: Sequence[Vector], points: int = 400) -> Vector:
    """Where to look at the mean of step functions with jumps at xs [n_s], one array a seed.

    From the first x at which every seed has a value to the last jump of any. All jumps where there
    are at most `points`, otherwise as many positions, half evenly spaced and half by ratio, which
    suits linear and logarithmic axes.

    >>> step_grid([np.array([1.0, 3.0]), np.array([2.0, 2.5])]).tolist()
    [2.0, 2.5, 3.0]
    """
    if not len(xs) or not all(len(x) for x in xs):
        raise ValueError("xs: a seed without queries; leave it out")
    begin, end = max(float(x[0]) for x in xs), max(float(x[-1]) for x in xs)
    jumps = np.unique(np.concatenate(xs))
    jumps = jumps[jumps >= begin]
    if len(jumps) <= points:
        return jumps
    half = points // 2
    positions = [np.linspace(begin, end, points - half)]
    positions.append(np.geomspace(begin, end, half) if begin > 0 else jumps[:half])
    # Snapped to jumps, so that a whole number of queries stays whole.
    at = np.searchsorted(jumps, np.concatenate(positions), side="right") - 1
    return jumps[np.unique(np.clip(at, 0, len(jumps) - 1))]


def mean_steps(xs: Sequence[Vector], ys: Sequence[Vector], grid: Vector) -> Band:
    """Mean over S seeds of step functions, at `grid` [G].

    xs, ys: positions (ascending) and values of the jumps of each seed, [n_s]. A seed holds the
    last value whose position is not beyond the grid point, also after its last jump; of jumps at
    one position the last counts. Where some seed has no value yet the mean is NaN: a mean over
    whoever happens to be there would jump when the others arrive.
    """
    values = np.stack([_hold(x, y, grid) for x, y in zip(xs, ys, strict=True)])
    count = len(values)
    mean = values.mean(0)
    error = np.full_like(mean, math.nan)
    if count > 1:
        error = values.std(0, ddof=1) / math.sqrt(count)
    half = np.nan_to_num(t_quantile(count - 1) * error)
    return Band(grid, mean, error, mean - half, mean + half, count)


def _hold(x: Vector, y: Vector, grid: Vector) -> Vector:
    at = np.searchsorted(x, grid, side="right") - 1
    return np.where(at >= 0, y[np.maximum(at, 0)], math.nan)


def ecdf(values: Vector) -> tuple[Vector, Vector]:
    """Distinct values in order and the share of values that do not exceed each.

    >>> [part.tolist() for part in ecdf(np.array([2.0, 1.0, 2.0, 5.0]))]
    [[1.0, 2.0, 5.0], [0.25, 0.75, 1.0]]
    """
    if not len(values):
        raise ValueError("values: no seeds; a distribution needs at least one")
    distinct, counts = np.unique(values, return_counts=True)
    return distinct, np.cumsum(counts) / len(values)

# SPDX-License-Identifier: Apache-2.0
"""What one search of a Gaussian process holds: observations, kernel settings, Cholesky factor.

All M x M and in float64, on the host, a search at a time: so a search does not depend on its
company. What grows with the number of candidates is in `gp`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast._checks_gp import LANES
from arch2vec_fast._reference_dngo import log_improvement
from arch2vec_fast._reference_gp import LEAST_VARIANCE, matern
from arch2vec_fast.spaces import WlHistogram

Transform = Literal["rank", "clip", "standard", "none"]
Vector = NDArray[np.float64]

_LEAST_SIGNAL = 1e-12  # variance of constant targets
_JITTER = 1e-9  # what rounding may take from the smallest eigenvalue
_EXACT = "donot_use_mm_for_euclid_dist"  # products cancel where points are close


@dataclass(frozen=True, slots=True, kw_only=True)
class GpRecipe:
    """Choices of a Gaussian process; defaults are the measured winner (`docs/results.md`).

    Attributes:
        targets: what the process is fitted to. "rank": normal quantiles of the ranks; "clip":
            rewards in robust units with the tail below the median compressed by a logarithm;
            "standard": zero mean, unit variance; "none": rewards as they are.
        weights: shares w of the Matern kernel that are tried; where there are no features or no
            histograms, the kernel there is gets all.
        length_scales: tried; in units of the root mean square distance of two candidates.
        noises: noise variances that are tried, in units of the signal variance.
        refit_growth: the three are chosen anew whenever the observations have grown by this factor
            since they last were.
    """

    targets: Transform = "rank"
    weights: tuple[float, ...] = (0.25, 0.5, 0.75)
    length_scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    noises: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    refit_growth: float = 2.0

    def __post_init__(self) -> None:
        if self.targets not in get_args(Transform):
            raise ValueError(
                f"targets: unknown transform {self.targets!r}; "
                f"choose one of {', '.join(get_args(Transform))}"
            )
        if not self.weights or not all(0 <= w <= 1 for w in self.weights):
            raise ValueError(f"weights: {self.weights}; give one or more in [0, 1]")
        for name in ("length_scales", "noises"):
            values = getattr(self, name)
            if not values or not all(0 < v < math.inf for v in values):
                raise ValueError(f"{name}: {values}; give one or more positive numbers")
        if not self.refit_growth > 1:
            raise ValueError(f"refit_growth: {self.refit_growth} is not above 1")


class GpSettings(NamedTuple):
    """A point of the grid: see `GpRecipe`."""

    length_scale: float
    weight: float
    noise: float


def transform_targets(targets: NDArray[np.floating[Any]], kind: Transform) -> Vector:
    """Targets [M] as `GpRecipe.targets` has it; monotone in each, float64.

    Equal targets stay equal. Constant ones become zero, except under "none".

    >>> transform_targets(np.array([0.1, 0.9, 0.8]), "rank").round(2).tolist()
    [-0.97, 0.97, 0.0]
    """
    values = np.asarray(targets, np.float64)
    if kind == "none" or not len(values):
        return values
    if kind == "rank":
        ordered = np.sort(values)
        below = np.searchsorted(ordered, values, "left")
        middle = (below + np.searchsorted(ordered, values, "right")) / 2
        share = torch.from_numpy(middle / len(values))
        quantiles: Vector = torch.special.ndtri(share).numpy()
        return quantiles
    if kind == "clip":
        values = values - np.median(values)
        upper = values[values > 0]
        values = values / (np.sqrt(np.mean(upper**2)) if len(upper) else 1.0)
        values = np.where(values < 0, -np.log1p(np.maximum(-values, 0)), values)
    centred: Vector = values - values.mean()
    spread = float(centred.std())
    return centred / spread if spread > 0 else centred


def log_marginal_likelihood(matrix: Tensor, targets: Tensor, noises: Tensor) -> Tensor:
    """Log evidence [R] of y [M] ~ N(0, s (K + noise I)) at R noises, s at its best; float64.

    The best signal variance is s = y^T (K + noise I)^-1 y / M. One eigendecomposition of K [M, M]
    serves all noises.
    """
    value, vector = torch.linalg.eigh(matrix)
    energy = (vector.T @ targets).square()
    spectrum = value.clamp(min=0).unsqueeze(1) + noises
    count = len(targets)
    signal = ((energy.unsqueeze(1) / spectrum).sum(0) / count).clamp(min=_LEAST_SIGNAL)
    evidence: Tensor = -0.5 * (count * (2 * math.pi * signal).log() + spectrum.log().sum(0) + count)
    return evidence


class Points(NamedTuple):
    """A few candidates as their kernel sees them, float64, on the host."""

    features: Tensor  # [R, D]
    profiles: Tensor  # [R, .] normalised histograms over the colours that occur

    def part(self, rows: slice) -> Points:
        """Some of them."""
        return Points(self.features[rows], self.profiles[rows])

    def against(self, others: Points) -> tuple[Tensor, Tensor]:
        """Squared distances and products of histograms, [R, M] each."""
        distance = torch.cdist(self.features, others.features, compute_mode=_EXACT)
        return distance.square(), self.profiles @ others.profiles.T


class Gram:
    """Looks candidates up."""

    def __init__(self, panels: Tensor, histogram: WlHistogram | None) -> None:
        self._panels = panels  # [P, D, 16]
        self._histogram = histogram

    def points(self, rows: list[int]) -> Points:
        """Those of `rows`; only points of one call share columns of profiles."""
        panel, lane = np.divmod(rows, LANES)
        return Points(self._panels[panel, :, lane].double().cpu(), self._profiles(rows))

    def _profiles(self, rows: list[int]) -> Tensor:
        if self._histogram is None:
            return torch.zeros(len(rows), 0, dtype=torch.float64)
        starts = self._histogram.starts
        spans = [np.arange(starts[row], starts[row + 1]) for row in rows]
        entries = np.concatenate(spans)
        colours, columns = np.unique(self._histogram.colours[entries], return_inverse=True)
        profiles = np.zeros((len(rows), len(colours)))
        owners = np.repeat(np.arange(len(rows)), [len(span) for span in spans])
        profiles[owners, columns] = self._histogram.counts[entries]
        profiles /= np.sqrt(np.square(profiles).sum(1, keepdims=True))
        return torch.from_numpy(profiles)


class Observations:
    """One search: what it observed, the settings chosen, and the factor of K(M, M) + noise."""

    def __init__(self, gram: Gram, recipe: GpRecipe) -> None:
        self._gram = gram
        self._recipe = recipe
        self._square = self._similar = torch.zeros(0, 0, dtype=torch.float64)
        self._chosen_at = 0  # observations when the settings were chosen
        self.rows: list[int] = []
        self.targets: list[float] = []
        self.settings = GpSettings(1.0, 1.0, 1.0)
        self.factor = torch.zeros(0, 0, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.rows)

    def observe(self, rows: list[int], targets: list[float]) -> int:
        """Takes further observations in; returns the first whose row of V has to be solved."""
        known = len(self)
        if not rows:
            return known
        self.rows += rows
        self.targets += targets
        points = self._gram.points(self.rows)
        square, similar = points.part(slice(known, None)).against(points)
        self._square = _bordered(self._square, square)
        self._similar = _bordered(self._similar, similar)
        if len(self) >= self._recipe.refit_growth * self._chosen_at:
            self._choose_settings()
            self._chosen_at, known = len(self), 0
        self._extend_factor(known)
        return known

    def transformed(self) -> Tensor:
        """Targets [M] in the units of the process."""
        values = transform_targets(np.array(self.targets), self._recipe.targets)
        return torch.from_numpy(values)

    def whitened(self) -> tuple[Tensor, float]:
        """L^-1 y [M] and the standard deviation of the signal."""
        y = self.transformed().unsqueeze(1)
        solved = torch.linalg.solve_triangular(self.factor, y, upper=False)[:, 0]
        return solved, math.sqrt(max(float(solved.square().mean()), _LEAST_SIGNAL))

    def choose(
        self, count: int, rows: list[int], solved: Tensor, target: float, pending: int = 0
    ) -> list[int]:
        """`count` of `rows` [K], one after the other, by expected improvement over `target`.

        The variance falls as if those chosen before had been observed. Their values are taken for
        what is expected of them, so that no mean moves (Desautels et al. 2014, Ginsbourger et al.
        2010).

        Args:
            rows: candidates. The first `pending` were chosen before; if there are none, the first
                candidate is chosen as it is.
            solved: their columns of V, [M, K].
        """
        whitened, scale = self.whitened()
        solved, points = solved.double(), self._gram.points(rows)
        mean = whitened @ solved
        left = (1 - solved.square().sum(0)).clamp(min=LEAST_VARIANCE)
        chosen, believed = list(range(pending or 1)), 0
        while len(chosen) < pending + count:
            for last in chosen[believed:]:
                prior = self._kernel(*points.part(slice(last, last + 1)).against(points))[0]
                covariance = prior - solved[:, last] @ solved
                row = covariance / math.sqrt(float(left[last]) + self.settings.noise)
                solved = torch.cat([solved, row.unsqueeze(0)])
                left = (left - row.square()).clamp(min=LEAST_VARIANCE)
            believed = len(chosen)
            score = log_improvement(mean, scale * left.sqrt(), mean.new_tensor(target))
            score[chosen] = -math.inf
            chosen.append(int(score.argmax()))
        return [rows[at] for at in chosen[pending:]]

    def _kernel(self, square: Tensor, similar: Tensor) -> Tensor:
        near = matern(square, 1 / self.settings.length_scale)
        return self.settings.weight * near + (1 - self.settings.weight) * similar

    def _choose_settings(self) -> None:
        """The point of the grid with the largest evidence, the first of equal ones."""
        y, noises = self.transformed(), torch.tensor(self._recipe.noises, dtype=torch.float64)
        best = -math.inf
        for length_scale in self._recipe.length_scales:
            near = matern(self._square, 1 / length_scale)
            for weight in self._recipe.weights:
                mixed = weight * near + (1 - weight) * self._similar
                evidence = log_marginal_likelihood(mixed, y, noises)
                at = int(evidence.argmax())
                if float(evidence[at]) > best:
                    best = float(evidence[at])
                    self.settings = GpSettings(length_scale, weight, float(noises[at]))

    def _extend_factor(self, known: int) -> None:
        """Rows `known` and on of the Cholesky factor."""
        rows = self._kernel(self._square[known:], self._similar[known:])
        before = self.factor[:known, :known]
        left = torch.linalg.solve_triangular(before, rows[:, :known].T, upper=False).T
        rest = rows[:, known:] - left @ left.T
        rest.diagonal().add_(self.settings.noise + _JITTER)
        lower = rest.new_zeros(len(self), len(self))
        lower[:known, :known] = before
        lower[known:, :known] = left
        lower[known:, known:] = torch.linalg.cholesky(rest)
        self.factor = lower


def _bordered(matrix: Tensor, rows: Tensor) -> Tensor:
    """A symmetric matrix grown to [M, M] by its last rows [R, M]."""
    return torch.cat([torch.cat([matrix, rows[:, : len(matrix)].T], 1), rows])

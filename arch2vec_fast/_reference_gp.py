# SPDX-License-Identifier: Apache-2.0
"""The `gp_*` twins of `reference`, and the kernel that they share with `surrogates.gp`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arch2vec_fast._checks_gp import (
    LANES,
    GpCandidates,
    check_extend,
    check_gp_acquire,
    from_panels,
)
from arch2vec_fast._reference_dngo import Acquisition, log_improvement, select_best

_DTYPES = (torch.float32, torch.float64)
LEAST_VARIANCE = 1e-6  # of a function of variance one: what float32 leaves at an observed point


def matern(square: Tensor, inverse_length: Tensor | float) -> Tensor:
    """Matern 5/2 of squared distances: (1 + a + a^2 / 3) exp(-a) with a = sqrt(5) d / length."""
    a = square.clamp(min=0).sqrt() * (math.sqrt(5) * inverse_length)
    return (1 + a + a.square() / 3) * (-a).exp()


def histogram_rows(candidates: GpCandidates, rows: Tensor) -> Tensor:
    """Products of the normalised histograms of `rows` [R] with those of all candidates, [R, Q]."""
    colours, weights = candidates.colours.long(), candidates.weights
    found = weights.new_zeros(len(rows), candidates.num_candidates)
    for into, row in zip(found, rows.tolist()):
        own = slice(int(candidates.starts[row]), int(candidates.starts[row + 1]))
        table = weights.new_zeros(candidates.num_colours)
        table[colours[own]] = weights[own]
        # One sum after the other: adding by index has no fixed order on a GPU.
        into[:] = torch.segment_reduce(
            table[colours] * weights, "sum", offsets=candidates.starts, initial=0.0
        )
    return found


def kernel_rows(candidates: GpCandidates, rows: Tensor, kernel: Tensor) -> Tensor:
    """Kernel of `rows` [R] with all candidates and the zeros behind them, [R, 16 P].

    kernel: 1 / length scale and the weight of the features, [2].
    """
    inverse_length, weight = kernel
    columns, norms = from_panels(candidates.panels), candidates.norms.flatten()
    square = norms[rows, None] + norms - 2 * columns[:, rows].T @ columns
    similar = histogram_rows(candidates, rows)
    similar = torch.nn.functional.pad(similar, (0, len(norms) - candidates.num_candidates))
    mixed: Tensor = weight * matern(square, inverse_length) + (1 - weight) * similar
    return mixed


def gp_extend(
    candidates: GpCandidates,
    rows: Tensor,
    first: Tensor,
    last: Tensor,
    factor: Tensor,
    kernel: Tensor,
    coefficients: Tensor,
    solved: Tensor,
    explained: Tensor,
    mean: Tensor,
) -> None:
    """Conditions on further points in place as `functional.gp_extend`; float32 or 64, any device.

    On a GPU too, which has no kernel for it: a few calls of torch a search.
    """
    inputs = (rows, first, last, factor, kernel, coefficients)
    check_extend(candidates, inputs, (solved, explained, mean), _DTYPES)
    for s, (begin, end) in enumerate(zip(first.tolist(), last.tolist())):
        if begin == 0:
            explained[s], mean[s] = 0, 0
        if begin == end:
            continue
        fresh = kernel_rows(candidates, rows[s, begin:end], kernel[s])
        lower = factor[s, begin:end].tril(begin)
        fresh -= lower[:, :begin] @ from_panels(solved[s, :, :begin])
        fresh = torch.linalg.solve_triangular(lower[:, begin:end], fresh, upper=False)
        solved[s, :, begin:end] = fresh.unflatten(1, (-1, LANES)).transpose(0, 1)
        explained[s] += fresh.square().sum(0).unflatten(0, (-1, LANES))
        mean[s] = torch.einsum("m,pml->pl", coefficients[s, :end], solved[s, :, :end])


def gp_acquire(
    mean: Tensor,
    explained: Tensor,
    scale: Tensor,
    target: Tensor,
    *,
    num_candidates: int,
    num_results: int = 5,
    visited: Tensor | None = None,
    predictions: bool = False,
) -> Acquisition:
    """The best candidates as `functional.gp_acquire`, float32 or 64, on any device."""
    posterior = {"mean": mean, "explained": explained, "scale": scale, "target": target}
    check_gp_acquire(posterior, visited, num_candidates, num_results, _DTYPES)
    means = mean.flatten(1)[:, :num_candidates]
    left = (1 - explained.flatten(1)[:, :num_candidates]).clamp(min=LEAST_VARIANCE)
    variances = left * scale.square().unsqueeze(1)
    scores = log_improvement(means, variances.sqrt(), target.unsqueeze(1))
    best, indices = select_best(scores, visited, num_results)
    kept = slice(None) if predictions else slice(0)
    return Acquisition(best, indices, means[:, kept], variances[:, kept])

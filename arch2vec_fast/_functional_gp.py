# SPDX-License-Identifier: Apache-2.0
"""The `gp_*` functions of `functional`: posteriors of Gaussian processes over fixed candidates.

Letters: S searches, M observed points, C capacity, Q candidates in P panels of sixteen, D features,
K results.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arch2vec_fast import _autograd
from arch2vec_fast._checks import check_kernels
from arch2vec_fast._checks_gp import GpCandidates, check_extend, check_gp_acquire
from arch2vec_fast._reference_dngo import Acquisition

_FLOAT = (torch.float32,)


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
    """Conditions S Gaussian processes on further points, at all candidates, in place.

    For search s and its points m = first[s] .. last[s] - 1, with k the kernel

        k(x, y) = w (1 + a + a^2 / 3) exp(-a) + (1 - w) <h(x), h(y)>,  a = sqrt(5) |x - y| / length

    of features and normalised histograms, row m of V = L^-1 K(M, Q) is

        V[m] = (k(x_m, .) - sum over j < m of L[m, j] V[j]) / L[m, m]

    and is written to `solved`; its square is added to `explained`, which starts at zero where
    first[s] = 0. The posterior has variance 1 - explained and, where there are new points, gets
    mean = V^T (L^-1 y) over all points up to `last`.

    Args:
        candidates: see `gp_candidates`; float32.
        rows: candidates observed, int64 [S, M]; those from `last` on are not read.
        first, last: int64 [S], 0 <= first <= last <= M; equal where a search has nothing new.
        factor: L, float32 [S, M, M], lower triangles of the Cholesky factors of K(M, M) + noise.
        kernel: 1 / length and w, float32 [S, 2].
        coefficients: L^-1 y, float32 [S, M].
        solved: V, float32 [S, P, C, 16] with C >= M; rows before `first` are read.
        explained: sum over m of V^2, float32 [S, P, 16].
        mean: float32 [S, P, 16]; left as it is where a search has nothing new.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device or row.

    Not differentiable. Deterministic: a column depends neither on the other candidates nor on the
    other searches nor on the threads. (D + M) Q multiply-adds a row; features and V are read once
    for every 24 rows, mean included. CPU alone: on other devices use the twin in `reference`.

    Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", algorithm 2.1.

    Example:
        >>> import torch
        >>> from arch2vec_fast.functional import gp_candidates
        >>> candidates = gp_candidates(torch.tensor([[0.0], [1.0]]))
        >>> solved, explained = torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 16)
        >>> one, mean = torch.ones(1, 1), torch.zeros(1, 1, 16)
        >>> gp_extend(candidates, torch.tensor([[0]]), torch.tensor([0]), torch.tensor([1]),
        ...           one[None], torch.ones(1, 2), 3 * one, solved, explained, mean)
        >>> explained[0, 0, :2].tolist(), mean[0, 0, :2].tolist()
        ([1.0, 0.27...], [3.0, 1.57...])
    """
    inputs, written = (rows, first, last, factor, kernel, coefficients), (solved, explained, mean)
    check_extend(candidates, inputs, written, _FLOAT)
    check_kernels("panels", candidates.panels, "gp_extend")
    _autograd.gp_extend((*candidates, *inputs), written)


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
    """Scores all candidates for S Gaussian processes and returns the best K of each.

    The score is the logarithm of the expected improvement over the target, which does not
    underflow, under the mean given and variance = scale^2 max(1 - explained, 1e-6). The best come
    first, ties by the lowest index.

    Args:
        mean, explained: float32 [S, P, 16], as `gp_extend` leaves them.
        scale: standard deviation of the signal, float32 [S].
        target: float32 [S].
        num_candidates: Q.
        num_results: K, 0 .. 1024.
        visited: bool [S, Q], candidates that are not to be proposed.
        predictions: also return mean and variance of every candidate.

    Returns:
        `Acquisition(scores [S, K], indices [S, K], mean [S, Q], variance [S, Q])`. Where fewer than
        K candidates are left, the score is -inf and the index -1. Without `predictions`, mean and
        variance have shape [S, 0].

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device or count.

    Not differentiable. Deterministic, as `gp_extend`; a few nanoseconds a candidate. CPU alone: on
    other devices use the twin in `reference`.

    Source: Jones, Schonlau and Welch 1998; Ament et al. 2023 for the logarithm.

    Example:
        >>> import torch
        >>> zero, prior = torch.zeros(1), torch.zeros(1, 1, 16)
        >>> best = gp_acquire(prior, prior, zero + 1, zero, num_candidates=3, num_results=2)
        >>> best.indices.tolist()
        [[0, 1]]
    """
    posterior = {"mean": mean, "explained": explained, "scale": scale, "target": target}
    check_gp_acquire(posterior, visited, num_candidates, num_results, _FLOAT)
    check_kernels("mean", mean, "gp_acquire")
    inputs = (mean, explained, scale, target)
    found = _autograd.gp_acquire(inputs, visited, num_candidates, num_results, predictions)
    return Acquisition(*found)

# SPDX-License-Identifier: Apache-2.0
"""The `dngo_*` functions of `functional`: Bayesian optimisation for several searches at once.

Letters: S seeds (independent searches), M observed points, Q candidates, D inputs, H hidden units,
E epochs, R rank, K results, P = H (D + 2) + 1 parameters of a network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arch2vec_fast import _autograd
from arch2vec_fast._checks import check_kernels
from arch2vec_fast._checks_dngo import (
    SCORES,
    check_acquire,
    check_evidence,
    check_fit,
    check_range,
    check_tensor,
)
from arch2vec_fast._reference_dngo import Acquisition

_FLOAT = (torch.float32,)


def dngo_draw(
    seed: Tensor, *, num_inputs: int, num_points: int, num_hidden: int = 128, num_epochs: int = 100
) -> tuple[Tensor, Tensor]:
    """Draws initial parameters and the shuffles of every epoch, from the seeds alone.

    Weights and biases are uniform in +-1/sqrt(inputs of their layer), as those of
    `torch.nn.Linear`; a shuffle sorts the points by a random word each. The numbers are Philox's,
    keyed by (seed, epoch, element): the same bits on every device, whatever else is drawn.

    Args:
        seed: int64 [S], any values.
        num_inputs: D, at least 1.
        num_points: M, may be 0.
        num_hidden: H, at least 1.
        num_epochs: E, may be 0.

    Returns:
        `parameters` float32 [S, P] (weight [H, D] row-major, bias [H], readout [H], readout bias)
        and `order` int32 [S, E, M], a permutation of 0 .. M - 1 for each epoch.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or count.

    Not differentiable. Deterministic. Work and memory grow as S * E * M.

    Example:
        >>> import torch
        >>> parameters, order = dngo_draw(torch.tensor([7]), num_inputs=16, num_points=5)
        >>> parameters.shape, order.shape, sorted(order[0, 3].tolist())
        (torch.Size([1, 2305]), torch.Size([1, 100, 5]), [0, 1, 2, 3, 4])
    """
    check_tensor("seed", seed, ("S",), (torch.int64,))
    check_range("num_inputs", num_inputs, 1, 4096)
    check_range("num_hidden", num_hidden, 1, 4096)
    check_range("num_points", num_points, 0, 2**20)
    check_range("num_epochs", num_epochs, 0, 2**20)
    check_kernels("seed", seed, "dngo_draw")
    return _autograd.dngo_draw(seed, num_inputs, num_hidden, num_epochs, num_points)


def dngo_fit(
    parameters: Tensor,
    points: Tensor,
    targets: Tensor,
    order: Tensor,
    *,
    batch_size: int = 10,
    learning_rate: float = 1e-2,
) -> Tensor:
    """Trains S networks of one hidden layer in place, all epochs in one call.

    Minimises the mean squared error of readout . tanh(W x + b) + readout_bias by Adam (0.9, 0.999,
    1e-8) on batches of min(B, M) points in the order given; the last M mod B points of an epoch
    rest, as in the released code.

    Args:
        parameters: float32 [S, P] as `dngo_draw` makes them, contiguous, without grad. **Changed.**
        points: float32 [S, M, D], M >= 1; normalised if you want that.
        targets: float32 [S, M].
        order: int32 [S, E, M], rows of `points`, an epoch each.
        batch_size: B, 1 .. 16.
        learning_rate: of Adam, positive.

    Returns:
        float32 [S, E], the mean of the batches' losses for every epoch.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device or count; an index outside 0 .. M - 1;
            parameters that are not contiguous or require grad.

    Not differentiable. Deterministic: each seed gets the bits that it gets alone, for any number of
    threads. O(S * E * M * P), 3 us a step of 10 points for D = 16, H = 128; one seed a thread.

    Source: Snoek et al. 2015, section 3; the released pybnn/dngo.py.

    Example:
        >>> import torch
        >>> points = torch.linspace(-1, 1, 20).reshape(1, 20, 1)
        >>> parameters, order = dngo_draw(torch.tensor([0]), num_inputs=1, num_points=20)
        >>> losses = dngo_fit(parameters, points, points[..., 0] ** 2, order)
        >>> bool(losses[0, -1] < 0.01 * losses[0, 0])
        True
    """
    hidden, batch = check_fit(parameters, points, targets, order, batch_size, learning_rate, _FLOAT)
    check_kernels("parameters", parameters, "dngo_fit")
    return _autograd.dngo_fit(parameters, points, targets, order, hidden, batch, learning_rate)


def dngo_evidence(
    eigenvalue: Tensor,
    energy: Tensor,
    residual: Tensor,
    start: Tensor | None = None,
    *,
    num_points: int,
    num_hidden: int,
    released: bool = False,
) -> tuple[Tensor, Tensor]:
    """Maximises the marginal likelihood of S Bayesian linear regressions over both precisions.

    y ~ N(Phi w, 1/beta) and w ~ N(0, I/alpha) with basis Phi [M, H] have, given the singular values
    s_i and left singular vectors u_i of Phi, an evidence that is a sum over i of terms of
    lambda_i = s_i^2 and (u_i . y)^2, so that an evaluation costs O(R).

    The correct evidence is maximised over log(alpha / beta) with beta in closed form, globally on a
    refined grid. `released` keeps the released code's objective (the residual is not squared,
    log det has a floor) and its search, scipy's fmin step by step. Both logarithms stay within
    +-10.

    Args:
        eigenvalue: float64 [S, R], lambda_i >= 0, R <= min(M, H); others are taken as zero.
        energy: float64 [S, R], (u_i . y)^2.
        residual: float64 [S], |y|^2 less the sum of all energies, those left out included.
        start: float64 [S, 2], log alpha and log(1 / beta) where the released search starts.
        num_points: M.
        num_hidden: H.
        released: which objective and search.

    Returns:
        `prior_precision` alpha and `noise_precision` beta, float64 [S].

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device or count, or no start for `released`.

    Not differentiable. Deterministic. About 0.1 ms a seed.

    Source: Bishop 2006, section 3.5; the released pybnn/dngo.py.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> alpha, beta = dngo_evidence(4 * one, one, one[0], num_points=3, num_hidden=1)
        >>> round(float(alpha), 3), round(float(beta), 3)
        (8.0, 2.0)
    """
    check_evidence(eigenvalue, energy, residual, start, released)
    check_kernels("eigenvalue", eigenvalue, "dngo_evidence")
    check_range("num_points", num_points, 1, 2**20)
    check_range("num_hidden", num_hidden, 1, 4096)
    check_range("eigenvalue: rank", eigenvalue.shape[1], 0, min(num_points, num_hidden))
    if start is None:
        start = eigenvalue.new_zeros(len(eigenvalue), 2)
    optimum = _autograd.dngo_evidence(
        eigenvalue, energy, residual, start, num_points, num_hidden, released
    )
    return optimum[:, 0].exp(), (-optimum[:, 1]).exp()


def dngo_acquire(
    candidates: Tensor,
    weight: Tensor,
    bias: Tensor,
    coefficients: Tensor,
    factor: Tensor,
    noise: Tensor,
    target: Tensor,
    *,
    num_results: int = 5,
    visited: Tensor | None = None,
    score: str = "log_improvement",
    predictions: bool = False,
) -> Acquisition:
    """Scores all candidates for S searches and returns the best K of each, in one pass.

        phi = tanh(W x + b)    mean = m . phi    variance = noise + |F phi|^2

    `score="log_improvement"` is the logarithm of the expected improvement over the target,
    E[max(y - target, 0)] of y ~ N(mean, variance), which does not underflow; "released" is the
    released code's float32 formula with the variance in place of the standard deviation. The best
    come first, ties by the lowest index, NaN last.

    Args:
        candidates: float32 [Q, D], shared by the searches.
        weight, bias: W float32 [S, H, D], b [S, H].
        coefficients: m, float32 [S, H].
        factor: F, float32 [S, H, H], lower triangular (what lies above is not read): the inverse of
            the Cholesky factor of the posterior precision.
        noise, target: float32 [S].
        num_results: K, 0 .. 1024.
        visited: bool [S, Q], candidates that are not to be proposed.
        score: "log_improvement" or "released".
        predictions: also return mean and variance of every candidate.

    Returns:
        `Acquisition(scores [S, K], indices [S, K], mean [S, Q], variance [S, Q])`. Where fewer than
        K candidates are left, the score is -inf and the index -1. Without `predictions`, mean and
        variance have shape [S, 0].

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, count or word.

    Not differentiable. Deterministic: a candidate's score does not depend on the others, on their
    number, on the other searches or on the threads. O(S * Q * H * (D + H / 2)); nothing of size
    Q * H is ever written.

    Source: Snoek et al. 2015, section 3; Jones et al. 1998.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [-1.0]])
        >>> one = torch.ones(1, 1)
        >>> best = dngo_acquire(x, one[None], 0 * one, one, one[None], one[0], 0 * one[0],
        ...                     num_results=2)
        >>> best.indices.tolist()
        [[1, 0]]
    """
    posterior = {
        "weight": weight,
        "bias": bias,
        "coefficients": coefficients,
        "factor": factor,
        "noise": noise,
        "target": target,
    }
    check_acquire(candidates, posterior, visited, num_results, score, _FLOAT)
    check_kernels("candidates", candidates, "dngo_acquire")
    which = SCORES.index(score)
    posterior_parts = (weight, bias, coefficients, factor, noise, target)
    found = _autograd.dngo_acquire(
        candidates, *posterior_parts, visited, num_results, which, predictions
    )
    return Acquisition(*found)

# SPDX-License-Identifier: Apache-2.0
"""The `dngo_*` twins of `reference`, and the formulas they share with `surrogates`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast._checks_dngo import (
    check_acquire,
    check_evidence,
    check_fit,
    check_range,
    check_tensor,
)

_DTYPES = (torch.float32, torch.float64)
_LIMIT = 10.0  # of both logarithms of the evidence search
_PARAMETERS, _SHUFFLE = 2, 3  # PhiloxStream


class Acquisition(NamedTuple):
    """What `dngo_acquire` returns; letters as there."""

    scores: Tensor  # [S, K], best first; -inf where no candidate is left
    indices: Tensor  # [S, K] int64; -1 where no candidate is left
    mean: Tensor  # [S, Q], or [S, 0]
    variance: Tensor  # [S, Q], or [S, 0]


def philox(seed: int, step: int, stream: int, count: int) -> NDArray[np.uint32]:
    """The first `count` words of Philox4x32-10, as csrc/common/philox.h has them."""
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    low = np.uint64(0xFFFFFFFF)
    counter = [blocks, *(np.full_like(blocks, v) for v in (step & 0xFFFFFFFF, step >> 32, stream))]
    keys = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * counter[0], np.uint64(0xCD9E8D57) * counter[2]
        counter = [
            (b >> np.uint64(32)) ^ counter[1] ^ np.uint64(keys[0]),
            b & low,
            (a >> np.uint64(32)) ^ counter[3] ^ np.uint64(keys[1]),
            a & low,
        ]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(counter, 1).astype(np.uint32).reshape(-1)[:count]


def dngo_draw(
    seed: Tensor, *, num_inputs: int, num_points: int, num_hidden: int = 128, num_epochs: int = 100
) -> tuple[Tensor, Tensor]:
    """Initial parameters and shuffles as `functional.dngo_draw`, bit for bit."""
    check_tensor("seed", seed, ("S",), (torch.int64,))
    check_range("num_inputs", num_inputs, 1, 4096)
    check_range("num_hidden", num_hidden, 1, 4096)
    check_range("num_points", num_points, 0, 2**20)
    check_range("num_epochs", num_epochs, 0, 2**20)
    size = num_hidden * (num_inputs + 2) + 1
    bound = np.full(size, 1 / math.sqrt(num_inputs), np.float32)
    bound[num_hidden * (num_inputs + 1) :] = 1 / math.sqrt(num_hidden)
    parameters = np.empty((len(seed), size), np.float32)
    order = np.empty((len(seed), num_epochs, num_points), np.int32)
    for s, key in enumerate(seed.tolist()):
        words = philox(key, 0, _PARAMETERS, size) >> np.uint32(8)
        parameters[s] = (words.astype(np.float32) * np.float32(2**-23) - np.float32(1)) * bound
        for epoch in range(num_epochs):
            words = philox(key, epoch, _SHUFFLE, num_points)
            order[s, epoch] = np.argsort(words, kind="stable")
    return torch.from_numpy(parameters).to(seed.device), torch.from_numpy(order).to(seed.device)


def split_parameters(parameters: Tensor, num_inputs: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of flat parameters [S, P]: weight [S, H, D], bias [S, H], readout [S, H], bias [S]."""
    hidden = (parameters.shape[1] - 1) // (num_inputs + 2)
    weight, bias, readout, last = parameters.split([hidden * num_inputs, hidden, hidden, 1], dim=1)
    return weight.unflatten(1, (hidden, num_inputs)), bias, readout, last[:, 0]


def dngo_fit(
    parameters: Tensor,
    points: Tensor,
    targets: Tensor,
    order: Tensor,
    *,
    batch_size: int = 10,
    learning_rate: float = 1e-2,
) -> Tensor:
    """Trains in place as `functional.dngo_fit`, by autograd and torch's Adam, float32 or 64."""
    _, batch = check_fit(parameters, points, targets, order, batch_size, learning_rate, _DTYPES)
    seeds, num_points, num_inputs = points.shape
    losses = points.new_empty(seeds, order.shape[1])
    for s in range(seeds):
        flat = parameters[s : s + 1].clone().requires_grad_()
        optimizer = torch.optim.Adam([flat], lr=learning_rate)
        for epoch, rows in enumerate(order[s].long()):
            whole = num_points // batch * batch
            batches = rows[:whole].split(batch)
            total = points.new_zeros(())
            for chosen in batches:
                weight, bias, readout, readout_bias = split_parameters(flat, num_inputs)
                basis = torch.tanh(points[s, chosen] @ weight[0].T + bias)
                loss = torch.mean((basis @ readout[0] + readout_bias - targets[s, chosen]) ** 2)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            losses[s, epoch] = total / len(batches)
        parameters[s] = flat.detach()[0]
    return losses


def log_evidence(
    eigenvalue: Tensor,
    energy: Tensor,
    residual: Tensor,
    log_alpha: Tensor,
    log_noise: Tensor,
    *,
    num_points: int,
    num_hidden: int,
    released: bool = False,
) -> Tensor:
    """Log marginal likelihood [...] at log alpha and log(1 / beta) [...], from terms [..., R].

    `released` keeps that code's objective: the norm of the residual instead of its square, and
    log(det K + 1e-10), which overflows to an evidence of minus infinity; -inf outside +-10.
    """
    alpha, beta = log_alpha.exp(), (-log_noise).exp()
    k = alpha.unsqueeze(-1) + beta.unsqueeze(-1) * eigenvalue
    square = residual + (energy * (alpha.unsqueeze(-1) / k) ** 2).sum(-1)
    length = (energy * eigenvalue * (beta.unsqueeze(-1) / k) ** 2).sum(-1)
    log_det = k.log().sum(-1) + (num_hidden - eigenvalue.shape[-1]) * log_alpha
    if released:
        log_det = (log_det.exp() + 1e-10).log()
    evidence = 0.5 * (
        num_hidden * log_alpha
        - num_points * (log_noise + math.log(2 * math.pi))
        - beta * (square.sqrt() if released else square)
        - alpha * length
        - log_det
    )
    if not released:
        return evidence
    outside = (log_alpha.abs() > _LIMIT) | (log_noise.abs() > _LIMIT)
    return evidence.nan_to_num(-1e25, math.inf, -math.inf).masked_fill(outside, -math.inf)


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
    """Both precisions as `functional.dngo_evidence`, by scipy's searches over both logarithms."""
    from scipy import optimize  # not needed by the package itself

    check_evidence(eigenvalue, energy, residual, start, released)
    found = []
    for s in range(len(eigenvalue)):

        def cost(x: NDArray[np.float64], s: int = s) -> float:
            at = torch.from_numpy(np.asarray(x, np.float64))
            evidence = log_evidence(
                eigenvalue[s],
                energy[s],
                residual[s],
                at[0],
                at[1],
                num_points=num_points,
                num_hidden=num_hidden,
                released=released,
            )
            return -float(evidence)

        if released:
            assert start is not None
            found.append(optimize.fmin(cost, start[s].numpy(), disp=False))
            continue
        box = [(-_LIMIT, _LIMIT)] * 2
        starts = np.stack(np.meshgrid(*[np.linspace(-9, 9, 7)] * 2), -1).reshape(-1, 2)
        first = min(starts, key=cost)
        tight = {"ftol": 1e-15, "gtol": 1e-12}
        found.append(optimize.minimize(cost, first, bounds=box, method="L-BFGS-B", options=tight).x)
    optimum = torch.tensor(np.array(found).reshape(-1, 2))
    return optimum[:, 0].exp(), (-optimum[:, 1]).exp()


def log_improvement(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    """log E[max(y - target, 0)] of y ~ N(mean, std^2), finite far below the target.

    With u = (mean - target) / std and x = |u| the expectation is
    std * (max(u, 0) + density(x) * (1 - x * sqrt(pi / 2) * erfcx(x / sqrt(2)))).
    """
    u = (mean - target) / std
    x = u.abs()
    ratio = 1 - x * math.sqrt(math.pi / 2) * torch.special.erfcx(x / math.sqrt(2))
    # The difference loses all digits in the far tail, where the asymptotic series has them.
    far = x > (1e3 if x.dtype == torch.float64 else 10)
    square = x.clamp(min=1) ** -2
    ratio = torch.where(far, square * (1 - 3 * square * (1 - 5 * square * (1 - 7 * square))), ratio)
    log_density = -0.5 * u**2 - 0.5 * math.log(2 * math.pi)
    above = torch.log(u.clamp(min=0) + log_density.exp() * ratio)
    return std.log() + torch.where(u > 0, above, log_density + ratio.log())


def released_improvement(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """The released code's expected improvement: its formula, the variance as the deviation."""
    u = (mean - target) / variance
    normal = torch.distributions.Normal(torch.zeros_like(u), torch.ones_like(u))
    improvement: Tensor = variance * (torch.exp(normal.log_prob(u)) + u * normal.cdf(u))
    return improvement


def select_best(scores: Tensor, visited: Tensor | None, num_results: int) -> tuple[Tensor, Tensor]:
    """The largest scores [S, K] and their indices, ties to the lowest index, NaN last.

    Where fewer than K candidates are not visited: -inf and -1.
    """
    # NaN last among the candidates that are left, the visited behind them.
    rank = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-torch.finfo(scores.dtype).max)
    gone = torch.zeros_like(scores, dtype=torch.bool) if visited is None else visited
    by_score = rank.sort(descending=True, stable=True).indices
    by_left = gone.gather(1, by_score).to(torch.int8).sort(stable=True).indices
    order = by_score.gather(1, by_left)[:, :num_results]
    taken = gone.gather(1, order)
    best = scores.gather(1, order).masked_fill(taken, -math.inf)
    indices = order.masked_fill(taken, -1)
    missing = num_results - order.shape[1]
    if missing:
        best = torch.nn.functional.pad(best, (0, missing), value=-math.inf)
        indices = torch.nn.functional.pad(indices, (0, missing), value=-1)
    return best, indices


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
    """The best candidates as `functional.dngo_acquire`, float32 or 64, on any device."""
    posterior = {
        "weight": weight,
        "bias": bias,
        "coefficients": coefficients,
        "factor": factor,
        "noise": noise,
        "target": target,
    }
    check_acquire(candidates, posterior, visited, num_results, score, _DTYPES)
    basis = torch.tanh(candidates @ weight.mT + bias.unsqueeze(1))  # [S, Q, H]
    mean = (basis @ coefficients.unsqueeze(2))[..., 0]
    variance = noise.unsqueeze(1) + (basis @ factor.tril().mT).square().sum(2)
    aim = target.unsqueeze(1)
    if score == "released":
        scores = released_improvement(mean, variance, aim)
    else:
        scores = log_improvement(mean, variance.sqrt(), aim)
    best, indices = select_best(scores, visited, num_results)
    kept = slice(None) if predictions else slice(0)
    return Acquisition(best, indices, mean[:, kept], variance[:, kept])

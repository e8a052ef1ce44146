# SPDX-License-Identifier: Apache-2.0
"""Bayesian optimisation: acquisition over NAS-Bench-101, a fit, a whole round, 500 searches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arch2vec_fast import functional
from arch2vec_fast.surrogates import DNGO
from arch2vec_fast.surrogates.bayesian_linear import spectrum
from bench.gpu.report import OURS, Report, graphed

_CANDIDATES = 423_624
_SMALL = 15_625
_INPUTS, _HIDDEN = 16, 128


def posterior(seeds: int) -> dict[str, Tensor]:
    """Of the size and scale of a fitted model."""

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(seeds, *shape, device="cuda")

    return {
        "weight": normal(_HIDDEN, _INPUTS, scale=0.2),
        "bias": normal(_HIDDEN, scale=0.2),
        "coefficients": normal(_HIDDEN, scale=0.1),
        "factor": normal(_HIDDEN, _HIDDEN, scale=0.02).tril(),
        "noise": normal().abs() + 1e-3,
        "target": normal(),
    }


def plain(candidates: Tensor, values: dict[str, Tensor], k: int) -> Callable[[], object]:
    """Vectorised PyTorch for one search: the basis of all candidates, then everything else."""
    weight, bias, m, factor, noise, target = (part[0] for part in values.values())
    normal = torch.distributions.Normal(torch.zeros((), device="cuda"), 1.0)

    def work() -> object:
        basis = torch.tanh(torch.addmm(bias, candidates, weight.T))
        std = ((basis @ factor.T).square().sum(1) + noise).sqrt()
        u = (basis @ m - target) / std
        improvement = std * (normal.log_prob(u).exp() + u * normal.cdf(u))
        return improvement.topk(k)

    return work


def acquisition(report: Report, seeds: int, count: int, k: int, goal: float | None) -> None:
    """One row in a graph; plain PyTorch beside it where there is one search."""
    candidates, values = torch.randn(count, _INPUTS, device="cuda"), posterior(seeds)
    contenders = {
        OURS: graphed(lambda: functional.dngo_acquire(candidates, **values, num_results=k))
    }
    if seeds == 1:
        contenders["torch"] = plain(candidates, values, k)  # its top-k cannot be captured
    report.race(
        f"DNGO acquire, best {k} of {count:,}, {seeds} searches, in a CUDA graph",
        contenders,
        goal=goal,
        flops=2.0 * seeds * count * _HIDDEN * (_INPUTS + _HIDDEN / 2),
        moved=4.0 * count * _INPUTS,
    )


def fits(report: Report, seeds: int, points: int) -> None:
    """100 epochs of `seeds` networks."""
    x = torch.randn(seeds, points, _INPUTS, device="cuda")
    y = torch.randn(seeds, points, device="cuda")
    seed = torch.arange(seeds, device="cuda")
    parameters, order = functional.dngo_draw(seed, num_inputs=_INPUTS, num_points=points)
    # Training goes on from where it is: the same work.
    report.race(
        f"DNGO fit, {points} points, {seeds} searches",
        {OURS: lambda: functional.dngo_fit(parameters, x, y, order)},
    )


def rounds(report: Report, seeds: int, points: int, count: int, goal: float | None) -> None:
    """Fit, evidence, posterior and acquisition as a search does them, host included."""
    candidates = torch.randn(count, _INPUTS, device="cuda")
    x = torch.randn(seeds, points, _INPUTS, device="cuda")
    y = x[..., 0].tanh()
    model = DNGO(seeds=list(range(seeds)), device="cuda")
    times = []
    for turn in range(4 if seeds > 1 else 8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        model.fit(x, y).acquire(candidates, 5)
        torch.cuda.synchronize()
        times += [time.perf_counter() - began] if turn else []
    more: dict[str, Any] = {} if goal is None else {"goal": goal}
    report.add(
        f"DNGO round, {points} points, {count:,} candidates, {seeds} searches",
        statistics.median(times) * 1e3,
        "ms",
        min=min(times) * 1e3,
        max=max(times) * 1e3,
        **more,
    )


def decompositions(report: Report) -> None:
    """Where the evidence's eigendecomposition is faster, which decides bayesian_linear.py."""
    for seeds in (1, 8, 64, 500):
        basis = torch.randn(seeds, 100, _HIDDEN, device="cuda", dtype=torch.float64).tanh()
        targets = torch.randn(seeds, 100, device="cuda", dtype=torch.float64)
        for where, move in (("GPU", False), ("host, copies included", True)):
            times = []
            for _ in range(3):
                torch.cuda.synchronize()
                began = time.perf_counter()
                gram = basis @ basis.mT
                value, vector = torch.linalg.eigh(gram.cpu() if move else gram)
                value.to("cuda"), vector.to("cuda")
                torch.cuda.synchronize()
                times.append(time.perf_counter() - began)
            report.add(f"eigh of {seeds} x 100 x 100 on the {where}", min(times) * 1e3, "ms")
        began = time.perf_counter()
        terms = spectrum(basis, targets)
        functional.dngo_evidence(*terms[:3], num_points=100, num_hidden=_HIDDEN)
        torch.cuda.synchronize()
        elapsed = (time.perf_counter() - began) * 1e3
        report.add(f"spectrum and evidence of {seeds} searches", elapsed, "ms")


def run(report: Report) -> None:
    """All rows."""
    torch.manual_seed(0)
    cases: tuple[tuple[Callable[..., None], tuple[int | float | None, ...]], ...] = (
        (acquisition, (1, _CANDIDATES, 5, 0.5e-3)),
        (acquisition, (1, _CANDIDATES, 100, None)),
        (acquisition, (500, _SMALL, 5, None)),
        (fits, (1, 100)),
        (fits, (500, 100)),
        (rounds, (1, 100, _CANDIDATES, 20)),
        (rounds, (500, 100, _SMALL, None)),
        (decompositions, ()),
    )
    for rows, numbers in cases:
        report.attempt(f"DNGO, {rows.__name__} {numbers}", partial(rows, report, *numbers))

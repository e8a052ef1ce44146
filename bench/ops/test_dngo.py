# SPDX-License-Identifier: Apache-2.0
"""Rounds of Bayesian optimisation, their acquisition alone, and many searches at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from arch2vec_fast.surrogates import DNGO, DngoRecipe
from bench.contenders.dngo import (
    EagerDngo,
    released_acquire,
    released_model,
    vectorised_acquire,
)

_HIDDEN, _EPOCHS = 128, 100
# Of a candidate: the basis, and half a square factor of its variance.
_FLOPS_A_CANDIDATE = 2 * _HIDDEN * (16 + _HIDDEN / 2)


def flops_of_a_round(candidates: int, points: int) -> float:
    """Acquisition, and forward and backward of each point of each epoch; not the evidence."""
    return candidates * _FLOPS_A_CANDIDATE + _EPOCHS * points * 6 * _HIDDEN * 17


def observations(latents: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Points spread over the candidates, and rewards like accuracies."""
    chosen = latents[torch.linspace(0, len(latents) - 1, points).long()]
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(points, generator=generator)
    return chosen, 0.9 + 0.03 * torch.tanh(chosen[:, 0]) + noise


@pytest.mark.parametrize("points", [16, 100, 200])
def test_round_over_nasbench101(
    race: Callable[..., dict[str, Any]], latents: Tensor, points: int
) -> None:
    x, y = observations(latents, points)

    def ours() -> float:
        DNGO(DngoRecipe.released(), seeds=1).fit(x, y).acquire(latents, 5)
        return 1

    def vectorised() -> float:
        vectorised_acquire(EagerDngo(x.numpy(), y.numpy()), latents)
        return 1

    race(
        f"DNGO round, {points} points, {len(latents):,} candidates",
        {"arch2vec_fast": ours, "vectorised": vectorised},
        unit="round",
        goals={"vectorised": 3},
        flops=flops_of_a_round(len(latents), points),
        moved=latents.numel() * 4,
    )


@pytest.mark.filterwarnings("ignore")  # the released code's own
@pytest.mark.parametrize("points", [100])
def test_round_over_nasbench101_as_released(
    race: Callable[..., dict[str, Any]],
    pytestconfig: pytest.Config,
    latents: Tensor,
    points: int,
) -> None:
    """All windows of 200, once a turn: the released way takes its time."""
    x, y = observations(latents, points)
    fit = released_model(pytestconfig.getoption("--reference"))

    def ours() -> float:
        DNGO(DngoRecipe.released(), seeds=1).fit(x, y).acquire(latents, 5)
        return 1

    def released() -> float:
        released_acquire(fit(x.numpy(), y.numpy()), latents)
        return 1

    race(
        f"DNGO round as released, {points} points, {len(latents):,} candidates",
        {"arch2vec_fast": ours, "released": released},
        unit="round",
        goals={"released": 20},
        flops=flops_of_a_round(len(latents), points),
        moved=latents.numel() * 4,
        repeats=2,
    )


@pytest.mark.parametrize("points", [100])
def test_acquire_over_nasbench101(
    race: Callable[..., dict[str, Any]], latents: Tensor, points: int
) -> None:
    x, y = observations(latents, points)
    fitted = DNGO(DngoRecipe.released(), seeds=1).fit(x, y)
    eager = EagerDngo(x.numpy(), y.numpy())

    def ours() -> float:
        fitted.acquire(latents, 5)
        return len(latents)

    def vectorised() -> float:
        vectorised_acquire(eager, latents)
        return len(latents)

    race(
        f"DNGO acquire, {points} points",
        {"arch2vec_fast": ours, "vectorised": vectorised},
        unit="candidate",
        amount=len(latents),
        goals={"vectorised": 3},
        flops=_FLOPS_A_CANDIDATE,
        moved=4 * 16,
    )


@pytest.mark.parametrize("points", [16, 100])
def test_round_of_many_searches_on_nasbench201(
    race: Callable[..., dict[str, Any]], quick: bool, latents: Tensor, points: int
) -> None:
    """Searches in lock-step over 15,625 candidates; the rival runs them one after the other."""
    seeds = 2 if quick else 20
    candidates = latents[:15_625].contiguous()
    x, y = observations(candidates, points)
    stacked = x.expand(seeds, -1, -1), y.expand(seeds, -1)
    names = list(range(seeds))

    def together() -> float:
        DNGO(seeds=names).fit(*stacked).acquire(candidates, 5)
        return seeds

    def vectorised() -> float:
        vectorised_acquire(EagerDngo(np.asarray(x), np.asarray(y)), candidates)
        return 1

    race(
        f"DNGO round, {points} points, 15,625 candidates, 500 searches, {seeds} at a time",
        {"arch2vec_fast": together, "vectorised": vectorised},
        unit="search",
        amount=500,
        goals={"vectorised": 3},
        flops=flops_of_a_round(len(candidates), points),
        moved=candidates.numel() * 4 / seeds,
    )

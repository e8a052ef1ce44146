# SPDX-License-Identifier: Apache-2.0
"""Rounds of the Gaussian process over all candidates, and whole searches by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast import spaces
from arch2vec_fast.spaces import CellBatch, wl_histogram
from arch2vec_fast.surrogates import GaussianProcess

_WIDTH = 128  # of a hidden read-out's principal components


def features(count: int) -> Tensor:
    """As wide as those that the search sees; what they hold makes no difference to the time."""
    return torch.randn(count, _WIDTH, generator=torch.Generator().manual_seed(0))


def reward_of(points: Tensor) -> NDArray[np.float64]:
    """Rewards like accuracies, smooth in the features."""
    reward: NDArray[np.float64] = (0.9 + 0.03 * torch.tanh(points[:, 0])).double().numpy()
    return reward


def search(model: GaussianProcess, reward: NDArray[np.float64], queries: int) -> None:
    """Sixteen random candidates, then five a round."""
    seeds = len(model.rows)
    rng = np.random.default_rng(0)
    rows = np.stack([rng.choice(len(reward), 16, replace=False) for _ in range(seeds)])
    model.fit(rows, reward[rows])
    while len(model.rows[0]) < queries:
        rows = model.propose(5)
        model.extend(rows, reward[rows])


@pytest.mark.parametrize("points", [36, 151])
def test_posterior_over_nasbench101(
    race: Callable[..., dict[str, Any]], latents: Tensor, points: int
) -> None:
    """Conditioning on all points at once and the acquisition; embeddings alone, as torch can."""
    count = len(latents)
    candidates = features(count)
    rows = torch.linspace(0, count - 1, points).long()[None].numpy()
    reward = reward_of(candidates)[rows]
    models = {engine: GaussianProcess(candidates, engine=engine) for engine in ("native", "eager")}

    def run(engine: str) -> Callable[[], float]:
        def condition() -> float:
            models[engine].fit(rows, reward).acquire(5)
            return count

        return condition

    race(
        f"GP posterior and acquisition, {points} points",
        {"arch2vec_fast": run("native"), "torch": run("eager")},
        unit="candidate",
        amount=count,
        goals={"torch": 1.5},
        flops=2 * points * (_WIDTH + points / 2 + 1),
    )


@pytest.mark.parametrize("queries", [151])
def test_search_of_nasbench101(
    race: Callable[..., dict[str, Any]], nasbench101: CellBatch, queries: int
) -> None:
    """One search, from the candidates and their histograms to the last query."""
    count = len(nasbench101)
    candidates, histogram = features(count), wl_histogram(nasbench101)
    reward = reward_of(candidates)

    def whole() -> float:
        search(GaussianProcess(candidates, histogram), reward, queries)
        return 1

    race(
        f"GP search, {queries} queries, {count:,} candidates",
        {"arch2vec_fast": whole},
        unit="search",
        repeats=2,
    )


def test_many_searches_of_nasbench201(race: Callable[..., dict[str, Any]], quick: bool) -> None:
    """Searches in lock-step, as a study of 500 seeds runs them."""
    seeds, queries = (2, 36) if quick else (50, 106)
    candidates, histogram = features(15_625), wl_histogram(spaces.get("nasbench201").enumerate())
    reward = reward_of(candidates)
    model = GaussianProcess(candidates, histogram, num_searches=seeds)

    def together() -> float:
        search(model, reward, queries)
        return seeds

    race(
        f"GP searches, {queries} queries, 15,625 candidates, 500 searches, {seeds} at a time",
        {"arch2vec_fast": together},
        unit="search",
        amount=500,
        repeats=2,
    )

# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours in the latent space: the search step of arch2vec-RL, and k = 100.

`released` is the step of the authors' search (search_methods/reinforce.py): all distances, all
sorted, then the first that was not visited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from arch2vec_fast.index import NativeIndex, VisitedSet
from bench.harness import Contender

_VISITED = 400  # cells seen by a search when it is timed
_DIM = 16


def work_of(points: Tensor, num_queries: int) -> dict[str, float]:
    """Of a query, as if all points were read; of 8-bit integers, held against the float32 roof."""
    count = len(points)
    return {"flops": count * 2 * _DIM, "moved": count * (_DIM + 4) / num_queries}


def random_points(count: int) -> Tensor:
    """Normal points, a third of them equal to an earlier one."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, _DIM, generator=generator)
    copies = torch.arange(0, count, 3)
    points[copies] = points[(torch.rand(len(copies), generator=generator) * (copies + 1)).long()]
    return points


def near(points: Tensor, count: int) -> Tensor:
    """Queries as a search makes them: near points, equal to none."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(len(points), (count,), generator=generator)
    return points[rows] + 0.3 * torch.randn(count, _DIM, generator=generator)


def native(points: Tensor, queries: Tensor, k: int, visited: VisitedSet | None) -> Contender:
    index = NativeIndex(points)

    def work() -> float:
        index.nearest(queries, k, visited=visited)
        return len(queries)

    return work


def full_sort(points: Tensor, queries: Tensor, visited: set[int]) -> Contender:
    """The released step, action by action."""

    def work() -> float:
        for action in queries:
            distance = torch.norm(points - action, dim=1)
            order = (-1 * distance).topk(len(distance)).indices
            rank = 0
            while order[rank].item() in visited:
                rank += 1
        return len(queries)

    return work


def eager(points: Tensor, queries: Tensor, k: int) -> Contender:
    """All distances by a matrix product, the k smallest of each row."""

    def work() -> float:
        torch.cdist(queries, points).topk(k, largest=False)
        return len(queries)

    return work


def scikit_learn(points: Tensor, queries: Tensor, k: int) -> Contender:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points.numpy())
    rows = queries.numpy()

    def work() -> float:
        index.kneighbors(rows)
        return len(rows)

    return work


def faiss_flat(points: Tensor, queries: Tensor, k: int, visited: VisitedSet | None) -> Contender:
    """The flat index as it is, without the tie rule; visited points by its selector."""
    import faiss

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points.numpy())
    rows = queries.numpy()
    parameters: dict[str, Any] = {}
    if visited is not None:
        bits = visited.words[0].numpy().view(np.uint8)
        skipped = faiss.IDSelectorBitmap(len(points), faiss.swig_ptr(bits))
        parameters["params"] = faiss.SearchParameters(sel=faiss.IDSelectorNot(skipped))

    def work() -> float:
        index.search(rows, k, **parameters)
        return len(rows)

    return work


@pytest.mark.parametrize("num_queries", [1, 16])
@pytest.mark.parametrize("size", [15_625, 423_624, 600_000])
def test_nearest_latent(
    race: Callable[..., dict[str, Any]],
    threads: int,
    quick: bool,
    has_package: Callable[[str], bool],
    request: pytest.FixtureRequest,
    size: int,
    num_queries: int,
) -> None:
    is_nasbench101 = size == 423_624
    points = request.getfixturevalue("latents") if is_nasbench101 else random_points(size)
    points = points[:20_000] if quick else points
    queries = near(points, num_queries)
    contenders = {
        "arch2vec_fast": native(points, queries, 1, None),
        "eager": eager(points, queries, 1),
        "scikit-learn": scikit_learn(points, queries, 1),
    }
    goals: dict[str, float] = {}
    if num_queries == 1:
        contenders["released"] = full_sort(points, queries, set())
        goals["released"] = 60 if is_nasbench101 else 20
    if has_package("faiss"):
        contenders["FAISS"] = faiss_flat(points, queries, 1, None)
        goals["FAISS"] = 1.8
    plural = "one query" if num_queries == 1 else f"{num_queries} queries"
    race(
        f"nearest of {len(points):,}, {plural}",
        contenders,
        unit="query",
        goals=goals if is_nasbench101 and threads == 1 and not quick else {},
        **work_of(points, num_queries),
    )


def test_nearest_unvisited(
    race: Callable[..., dict[str, Any]],
    threads: int,
    has_package: Callable[[str], bool],
    latents: Tensor,
) -> None:
    """One search step with the 400 cells around the query visited."""
    query = near(latents, 1)
    around = NativeIndex(latents).nearest(query, _VISITED).indices
    visited = VisitedSet(len(latents))
    visited.visit(around)
    contenders = {
        "arch2vec_fast": native(latents, query, 1, visited),
        "released": full_sort(latents, query, set(around[0].tolist())),
    }
    if has_package("faiss"):
        contenders["FAISS"] = faiss_flat(latents, query, 1, visited)
    race(
        f"nearest unvisited of {len(latents):,}, one query",
        contenders,
        unit="query",
        **work_of(latents, 1),
    )


def test_nearest_hundred(
    race: Callable[..., dict[str, Any]],
    threads: int,
    has_package: Callable[[str], bool],
    latents: Tensor,
) -> None:
    queries = near(latents, 16)
    contenders = {
        "arch2vec_fast": native(latents, queries, 100, None),
        "eager": eager(latents, queries, 100),
        "scikit-learn": scikit_learn(latents, queries, 100),
    }
    if has_package("faiss"):
        contenders["FAISS"] = faiss_flat(latents, queries, 100, None)
    race(
        f"100 nearest of {len(latents):,}, 16 queries",
        contenders,
        unit="query",
        **work_of(latents, 16),
    )

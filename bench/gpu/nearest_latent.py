# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours among the 423,624 points of NAS-Bench-101's size, on the GPU.

Rivals: a matrix product and top-k of torch (|x|^2 - 2xq + |q|^2: not exact), FAISS's flat index.
The call from Python costs the host more than the kernels take, so the kernels are also measured in
a CUDA graph, which is how a search in lock-step would run them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arch2vec_fast import functional, reference
from arch2vec_fast._latents import PackedLatents
from bench.gpu.report import OURS, Report, graphed

_POINTS, _DIM = 423_624, 16


def product_and_topk(points: Tensor, queries: Tensor, k: int) -> Callable[[], object]:
    norms = points.square().sum(1)

    def work() -> object:
        return torch.addmm(norms, queries, points.t(), alpha=-2).topk(k, largest=False)

    return work


def faiss_flat(points: Tensor, queries: Tensor, k: int) -> Callable[[], object] | None:
    try:
        import faiss
        import faiss.contrib.torch_utils  # tensors in and out, on torch's stream
    except ImportError:
        return None
    if not hasattr(faiss, "StandardGpuResources"):
        return None
    resources = faiss.StandardGpuResources()
    index: Any = faiss.GpuIndexFlatL2(resources, points.shape[1])
    index.add(points)
    return lambda: index.search(queries, k)


def compare(report: Report, packed: PackedLatents, num_queries: int, k: int) -> None:
    """One row: the call, and the kernels alone."""
    queries = torch.randn(num_queries, _DIM, device="cuda")
    what = f"{k} nearest" if k > 1 else "nearest"
    count = "one query" if num_queries == 1 else f"{num_queries} queries"
    goal = 30e-6 if (num_queries, k) == (16, 1) else None

    def ours() -> object:
        return functional.nearest_latent(packed, queries, k)

    theirs = product_and_topk(packed.points, queries, k)
    rivals = {"torch": theirs, "FAISS GPU": faiss_flat(packed.points, queries, k)}
    moved = 4.0 * _POINTS * _DIM
    name = f"{what} of {_POINTS:,}, {count}"
    report.race(name, {OURS: ours, **rivals}, moved=moved)
    in_graph = {OURS: graphed(ours), "torch": graphed(theirs)}
    report.race(f"{name}, in a CUDA graph", in_graph, goal=goal, moved=moved)


def unvisited(report: Report, packed: PackedLatents) -> None:
    """With a mask for each query; and whether what was found is right."""
    queries = torch.randn(16, _DIM, device="cuda")
    visited = functional.pack_visited(torch.rand(16, _POINTS, device="cuda") < 0.01)
    masked = graphed(lambda: functional.nearest_latent(packed, queries, 1, visited))
    report.race(f"nearest unvisited of {_POINTS:,}, 16 queries, in a CUDA graph", {OURS: masked})
    found = functional.nearest_latent(packed, queries, 100, visited)
    exact = reference.nearest_latent(packed.points, queries, 100, visited)
    same = sum(int(torch.equal(a, b)) for a, b in zip(found, exact, strict=True))
    report.add("nearest_latent equals a full sort to the bit", same / 2, "share")


def run(report: Report) -> None:
    """Rows for one search, a few, and 500 in lock-step; masks; many neighbours."""
    torch.manual_seed(0)
    points = torch.randn(_POINTS, _DIM, device="cuda")
    points[::3] = points[1::3][: len(points[::3])]  # a third have an equal
    packed = functional.pack_latents(points)
    for num_queries, k in ((1, 1), (16, 1), (500, 1), (16, 10), (16, 100)):
        row = f"{k} nearest of {_POINTS:,}, {num_queries} queries"
        report.attempt(row, partial(compare, report, packed, num_queries, k))
    report.attempt(f"nearest unvisited of {_POINTS:,}", lambda: unvisited(report, packed))

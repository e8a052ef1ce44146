# SPDX-License-Identifier: Apache-2.0
"""LatentIndex: every implementation gives the same bits; what was visited; what is refused."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from arch2vec_fast import reference
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.index import FaissIndex, LatentIndex, NativeIndex, VisitedSet, build_index
from arch2vec_fast.spaces import CellBatch, CellLayout

Build = Callable[[Tensor], LatentIndex]


def faiss_index(points: Tensor) -> LatentIndex:
    pytest.importorskip("faiss")
    return FaissIndex(points)


def limited_faiss_index(points: Tensor) -> LatentIndex:
    """As on a GPU: no more than so many neighbours a search, no selector."""
    index = faiss_index(points)
    index._limit = min(len(points), 40)
    fetch = index._fetch
    index._fetch = lambda queries, count, words: fetch(queries, count, None)
    return index


ENGINES = [NativeIndex, faiss_index, limited_faiss_index]


def tied(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Points on a coarse grid: groups of equal ones that no small surplus covers."""
    return torch.randint(-1, 2, (count, dim), generator=generator).float() / 3 + 5


@pytest.mark.parametrize("build", ENGINES)
@pytest.mark.parametrize("dim", [2, 3, 16])
def test_nearest_is_exact(build: Build, dim: int, generator: torch.Generator) -> None:
    for points in (tied(1500, dim, generator), torch.randn(1500, dim, generator=generator)):
        index = build(points)
        assert (len(index), index.dim) == (1500, dim)
        for count, k in ((1, 1), (3, 20), (25, 1)):  # FAISS computes 20 queries and more otherwise
            queries = points[:count] + 0.01 * torch.randn(count, dim, generator=generator)
            for rows in (None, 1, count):
                visited = None if rows is None else VisitedSet(1500, rows=rows)
                if visited is not None:
                    some = torch.rand(rows, 1500, generator=generator).argsort(1)[:, :700]
                    visited.visit(some)
                found = index.nearest(queries, k, visited=visited)
                mask = None if visited is None else visited.mask()
                distances, indices = reference.nearest_latent(points, queries, k, mask)
                assert torch.equal(found.indices, indices)
                assert torch.equal(found.distances, distances)


@pytest.mark.parametrize("build", ENGINES)
def test_nearest_at_the_ends(build: Build) -> None:
    """No queries, no points, fewer points than asked, none left, distances that overflow."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3e38, 3e38], [-3e38, 0.0]])
    index = build(points)
    assert index.nearest(points[:0], 2).indices.shape == (0, 2)
    assert build(points[:0]).nearest(points[:1], 2).indices.tolist() == [[-1, -1]]
    found = index.nearest(points[1:3], 6)
    assert found.indices.tolist() == [[1, 0, 2, 3, -1, -1], [2, 0, 1, 3, -1, -1]]
    visited = VisitedSet(4)
    visited.visit([0, 1, 2, 3])
    found = index.nearest(points[:2], visited=visited)
    assert found.indices.tolist() == [[-1], [-1]]
    assert found.distances.isinf().all()


@pytest.mark.parametrize("build", ENGINES)
def test_nearest_answers_in_the_kind_of_its_queries(build: Build) -> None:
    index = build(torch.eye(3))
    arrays = index.nearest(np.array([[0.9, 0.0, 0.0]]))  # float64, as NumPy makes it
    assert isinstance(arrays.indices, np.ndarray)
    assert (arrays.distances.dtype, arrays.indices.dtype) == (np.float32, np.int64)
    tensors = index.nearest(torch.tensor([[0.9, 0.0, 0.0]], requires_grad=True))
    assert isinstance(tensors.indices, Tensor)
    assert not tensors.distances.requires_grad
    assert arrays.indices.tolist() == tensors.indices.tolist() == [[0]]


def test_lock_step_searches_never_visit_twice(generator: torch.Generator) -> None:
    points = tied(60, 3, generator)
    index, visited = build_index(points), VisitedSet(60, rows=4)
    paths = torch.stack([_step(index, visited, generator) for _ in range(60)], dim=1)
    assert torch.equal(paths.sort(1).values, torch.arange(60).expand(4, 60))
    assert _step(index, visited, generator).tolist() == [-1] * 4
    visited.reset([1, 3])
    assert visited.mask().sum(1).tolist() == [60, 0, 60, 0]
    visited.reset()
    assert not visited.mask().any()


def _step(index: LatentIndex, visited: VisitedSet, generator: torch.Generator) -> Tensor:
    actions = torch.randn(len(visited), index.dim, generator=generator) + 5
    found = index.nearest(actions, visited=visited)
    visited.visit(found.indices)
    return found.indices[:, 0]


def test_visited_set_marks_what_it_is_told(generator: torch.Generator) -> None:
    for count in (1, 63, 64, 65, 300):
        expected = torch.rand(3, count, generator=generator) < 0.4
        visited = VisitedSet(count, rows=3)
        padded = torch.where(expected, torch.arange(count), -1)
        visited.visit(padded)
        visited.visit(padded[:, 0])  # once more changes nothing
        visited.visit([[], [], []])
        assert torch.equal(visited.mask(), expected)
        assert torch.equal(visited.words, reference.pack_visited(expected))


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([1, 2, 3], ValueError, r"^indices: expected shape \[2\] or \[2, n\], got \[3\]"),
        ([0, 10], IndexError, r"^indices: 10 is outside -1 .. 9"),
        ([0, -2], IndexError, r"^indices: -2 is outside -1 .. 9"),
        ([0.0, 1.0], TypeError, r"^indices: expected integers, got torch.float32"),
        ([True, False], TypeError, r"^indices: expected integers, got torch.bool"),
    ],
)
def test_visited_set_rejects(indices: object, error: type[Exception], message: str) -> None:
    visited = VisitedSet(10, rows=2)
    with pytest.raises(error, match=message):
        visited.visit(indices)  # type: ignore[arg-type]
    assert not visited.mask().any()


@pytest.mark.parametrize("build", ENGINES)
def test_nearest_rejects(build: Build) -> None:
    index = build(torch.randn(70, 4))
    for queries, k, visited, error, message in (
        (torch.zeros(2, 3), 1, None, ValueError, r"^queries: expected shape \[M, 4\]"),
        (torch.zeros(2, 4).long(), 1, None, TypeError, "^queries: expected floating-point"),
        (torch.full((2, 4), torch.nan), 1, None, ValueError, "^queries: row 0 holds a NaN"),
        (torch.zeros(2, 4), 0, None, ValueError, r"^k: 0 is outside"),
        (torch.zeros(2, 4), 1, VisitedSet(70, rows=3), ValueError, "^visited: expected shape"),
        (torch.zeros(2, 4), 1, VisitedSet(71), ValueError, "^visited: is a set of 71 points"),
        (
            torch.zeros(2, 4),
            1,
            torch.zeros(70),
            TypeError,
            "^visited: expected a VisitedSet",
        ),
    ):
        with pytest.raises(error, match=message):
            index.nearest(queries, k, visited=visited)
    with pytest.raises(ValueError, match=r"^points: row 1 holds a NaN"):
        build(torch.tensor([[0.0], [torch.inf]]))


def test_build_index_chooses_and_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.zeros((3, 2))
    assert isinstance(build_index(points), NativeIndex)
    with pytest.raises(ValueError, match=r"^engine: unknown 'annoy'; choose one of"):
        build_index(points, engine="annoy")
    with pytest.raises(ValueError, match=r"^device: 'gpu' is not a device"):
        build_index(points, device="gpu")
    monkeypatch.setitem(sys.modules, "faiss", None)
    for device, extra in (("cpu", "faiss"), ("cuda", "faiss-gpu")):
        with pytest.raises(ImportError, match=rf"^faiss: not installed; .*-fast\[{extra}\]'"):
            build_index(points, engine="faiss", device=device)


def test_embedding_table_makes_an_index() -> None:
    cells = CellBatch(np.zeros((3, 1), np.int64), CellLayout(7, 5))
    table = EmbeddingTable(vectors=np.eye(3, dtype=np.float32), cells=cells)
    assert table.index().nearest(table.vectors).indices.tolist() == [[0], [1], [2]]


@pytest.mark.cuda
@pytest.mark.parametrize("engine", ["native", "faiss"])
def test_cuda_index_agrees_with_the_cpu(engine: str, generator: torch.Generator) -> None:
    if engine == "faiss":
        faiss = pytest.importorskip("faiss")
        if not hasattr(faiss, "StandardGpuResources"):
            pytest.skip("FAISS without GPU code")
    points = tied(3000, 5, generator)
    queries = torch.randn(6, 5, generator=generator) + 5
    here, there = build_index(points), build_index(points, engine=engine, device="cuda")
    visited = VisitedSet(3000, rows=6)
    visited_there = VisitedSet(3000, rows=6, device="cuda")
    for _ in range(5):
        found = here.nearest(queries, 7, visited=visited)
        found_there = there.nearest(queries.cuda(), 7, visited=visited_there)
        assert torch.equal(found_there.indices.cpu(), found.indices)
        assert torch.equal(found_there.distances.cpu(), found.distances)
        visited.visit(found.indices)
        visited_there.visit(found_there.indices)
    with pytest.raises(ValueError, match=r"^queries: on cpu, but the index on cuda"):
        there.nearest(queries)

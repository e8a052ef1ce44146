# SPDX-License-Identifier: Apache-2.0
"""The `best` arch2vec-BO: it finds what random search does not, each cell once, in any company."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast import benchmarks
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import METHODS, search
from toy import toy_benchmark


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    whole = toy_benchmark()
    some = np.random.default_rng(1).permutation(len(whole))[:800]
    return replace(
        whole,
        cells=whole.cells[some],
        validation=whole.validation[some],
        test=whole.test[some],
        times=whole.times[some],  # type: ignore[index]
    )


@pytest.fixture(scope="module")
def embeddings(toy: TableBenchmark) -> EmbeddingTable:
    """Nothing but noise: what is found, the cells' own histograms find."""
    vectors = np.random.default_rng(0).standard_normal((len(toy), 8)).astype(np.float32)
    return EmbeddingTable(vectors=vectors, cells=toy.cells)


def test_finds_the_best_cells(toy: TableBenchmark, embeddings: EmbeddingTable) -> None:
    chance, found = (
        search(toy, method, seeds=range(4), queries=61, embeddings=embeddings)["incumbent"].reshape(
            4, -1
        )[:, -1]
        for method in ("random", "arch2vec-bo")
    )
    assert (found > toy.ceiling.validation - 0.01).all()
    assert found.mean() > chance.mean()


def test_queries_are_distinct_and_those_of_a_search_alone(
    toy: TableBenchmark, embeddings: EmbeddingTable
) -> None:
    """Searches spend their seconds at different queries."""
    together = search(toy, "arch2vec-bo", seeds=range(3), seconds=4000, embeddings=embeddings)
    rows, seeds = together["row"], together["seed"]
    for seed in range(3):
        alone = search(toy, "arch2vec-bo", seeds=[seed], seconds=4000, embeddings=embeddings)
        np.testing.assert_array_equal(alone["row"], rows[seeds == seed])
        assert len(np.unique(alone["row"])) == len(alone["row"])


def test_a_small_pool_is_searched_to_its_end(
    toy: TableBenchmark, embeddings: EmbeddingTable
) -> None:
    few = replace(
        toy,
        cells=toy.cells[:19],
        validation=toy.validation[:19],
        test=toy.test[:19],
        times=None,
    )
    vectors = EmbeddingTable(vectors=embeddings.vectors[:19], cells=few.cells)
    trace = search(few, "arch2vec-bo", seeds=[0, 1], queries=30, embeddings=vectors)
    assert sorted(trace["row"][trace["seed"] == 0].tolist()) == list(range(19))


def test_large_pools_are_searched_by_fewer_seeds_at_once() -> None:
    """Whose posterior of every cell fills memory."""
    method = METHODS["arch2vec-bo"]
    assert [method.seeds_at_once(cells, 50) for cells in (15_625, 423_624, 10**8)] == [50, 4, 1]
    assert METHODS["random"].seeds_at_once(10**8, 50) == 50


@pytest.mark.data
def test_finds_the_best_of_nasbench201(data_dir: Path) -> None:
    """Histograms alone, which need no training: ten seeds, a hundred queries."""
    benchmark = benchmarks.get("nasbench201-imagenet16-120")
    nothing = np.zeros((len(benchmark.cells), 1), np.float32)
    embeddings = EmbeddingTable(vectors=nothing, cells=benchmark.cells)
    trace = search(benchmark, "arch2vec-bo", seeds=range(4), queries=101, embeddings=embeddings)
    best = trace["incumbent"].reshape(4, -1)[:, -1]
    assert (best > benchmark.ceiling.validation - 0.01).all()

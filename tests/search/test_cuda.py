# SPDX-License-Identifier: Apache-2.0
"""Searches on a GPU: methods with models run there to their end, on inputs of every width."""

from dataclasses import replace

import numpy as np
import pytest

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import SearchRecipe, search
from arch2vec_fast.search.base import SearchProblem
from arch2vec_fast.search.observations import network_device
from toy import toy_benchmark


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    few, toy = slice(0, None, 20), toy_benchmark()
    return replace(
        toy, cells=toy.cells[few], validation=toy.validation[few], test=toy.test[few], times=None
    )


@pytest.mark.parametrize(("inputs", "where"), [(16, "cuda"), (64, "cuda"), (65, "cpu")])
def test_networks_too_wide_for_a_gpu_stay_on_the_cpu(
    toy: TableBenchmark, inputs: int, where: str
) -> None:
    problem = SearchProblem(
        benchmark=toy, seeds=np.arange(2), recipe=SearchRecipe.paper(), device="cuda"
    )
    assert network_device(problem, inputs).type == where


@pytest.mark.cuda
@pytest.mark.parametrize("recipe", ["best", "paper", "released"])
@pytest.mark.parametrize("method", ["arch2vec-rl", "bo", "arch2vec-bo", "bananas", "supervised-bo"])
def test_runs_on_a_gpu(toy: TableBenchmark, method: str, recipe: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((len(toy.cells), 16), np.float32)
    trace = search(
        toy,
        method,
        seeds=range(2),
        queries=24,
        recipe=recipe,
        embeddings=EmbeddingTable(vectors=vectors, cells=toy.cells),
        device="cuda",
    )
    for _, rows in trace.searches():
        assert len(trace["row"][rows]) == 24

# SPDX-License-Identifier: Apache-2.0
"""BANANAS-style search: it finds, it does not repeat, a seed does not know its company."""

from dataclasses import replace

import numpy as np
import pytest

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.search import search
from toy import toy_benchmark


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    return toy_benchmark()


def test_better_than_random(toy: TableBenchmark) -> None:
    chance, found = (
        search(toy, name, seeds=range(6), queries=56) for name in ("random", "bananas")
    )
    last = [rows.stop - 1 for _, rows in found.searches()]
    assert found["regret"][last].mean() < 0.3 * chance["regret"][last].mean()
    for _, rows in found.searches():
        assert len(np.unique(found["row"][rows])) == 56


def test_a_seed_does_not_know_its_company(toy: TableBenchmark) -> None:
    many = search(toy, "bananas", seeds=range(3), queries=31)
    alone = search(toy, "bananas", seeds=[2], queries=31)
    np.testing.assert_array_equal(many["row"][many["seed"] == 2], alone["row"])
    assert len(np.unique(many["row"].reshape(3, -1), axis=0)) == 3


def test_a_small_pool_is_exhausted(toy: TableBenchmark) -> None:
    """Few of its cells have neighbours in the pool: the rest is reached all the same."""
    few = slice(0, 40)
    small = replace(
        toy, cells=toy.cells[few], validation=toy.validation[few], test=toy.test[few], times=None
    )
    trace = search(small, "bananas", seeds=[0, 1], queries=60)
    assert sorted(trace["row"]) == sorted(list(range(40)) * 2)

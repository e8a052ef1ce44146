# SPDX-License-Identifier: Apache-2.0
"""Neighbours in a pool: one edit away where it is the space, the nearest cells where it is not."""

from dataclasses import replace

import numpy as np
import pytest

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.search import search
from arch2vec_fast.search.neighbours import PoolNeighbours, one_hot_encoding
from arch2vec_fast.spaces.darts import Darts
from toy import toy_benchmark

CELLS = Darts().sample(20_000, max_mult_adds=600e6, seed=0)


def darts_benchmark() -> TableBenchmark:
    """Worth of a cell: its separable convolutions, and operations that read its inputs."""
    edges = Darts().edges(CELLS)
    kinds, sources = edges[..., 1], edges[..., 0]
    worth = ((kinds == 4) | (kinds == 5)).sum(1) + (sources < 2).sum(1)
    accuracy = 0.2 + worth / 20
    return TableBenchmark(
        name="darts-toy",
        space=Darts(),
        cells=CELLS,
        reward="made-up accuracy",
        fidelities=(1,),
        validation=accuracy[:, None, None],
        test=accuracy,
    )


def test_a_whole_space_has_its_edits() -> None:
    benchmark = toy_benchmark()
    rows = np.array([0, 777, 15_000])
    edits, owner = benchmark.space.neighbours(benchmark.cells[rows])
    found = benchmark.find(edits)
    for at, near in enumerate(PoolNeighbours(benchmark).of(rows)):
        np.testing.assert_array_equal(near, np.setdiff1d(found[owner == at], rows[at]))


def test_in_a_sample_the_nearest_cells_stand_in() -> None:
    points = one_hot_encoding(CELLS)
    rows = np.array([5, 19_999, 5])
    found = PoolNeighbours(darts_benchmark()).of(rows)
    for row, near in zip(rows, found, strict=True):
        assert len(near) == 68  # the edits of a DARTS cell
        assert row not in near
        distances = np.abs(points - points[row]).sum(1)
        distances[row] = np.inf
        assert distances[near].max() <= np.delete(distances, [*near, row]).min()
    np.testing.assert_array_equal(found[0], found[2])


def test_a_pool_of_few_cells() -> None:
    few = replace(
        darts_benchmark(),
        cells=CELLS[:3],
        validation=np.full((3, 1, 1), 0.5),
        test=np.full(3, 0.5),
    )
    assert [near.tolist() for near in PoolNeighbours(few).of(np.arange(3))] == [
        [1, 2],
        [0, 2],
        [0, 1],
    ]
    one = replace(few, cells=CELLS[:1], validation=few.validation[:1], test=few.test[:1])
    assert [near.tolist() for near in PoolNeighbours(one).of(np.arange(1))] == [[]]


@pytest.mark.parametrize("method", ["evolution", "bananas"])
def test_climbing_works_in_a_sample(method: str) -> None:
    """Where next to no cell has an edit of its in the pool, these beat chance all the same."""
    benchmark = darts_benchmark()
    rewards = [
        search(benchmark, name, seeds=range(8), queries=80)["validation"].reshape(8, 80)
        for name in ("random", method)
    ]
    assert rewards[1][:, 40:].mean() > rewards[0][:, 40:].mean() + 0.03

# SPDX-License-Identifier: Apache-2.0
"""REINFORCE on the discrete encoding: what it chooses from, what it learns, seeds on their own."""

from dataclasses import replace

import numpy as np
import pytest

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.search import SearchProblem, SearchRecipe, search
from arch2vec_fast.search.discrete_reinforce import Choices, DiscreteReinforce
from arch2vec_fast.spaces import CellSpace
from toy import toy_benchmark


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    return toy_benchmark()


def made_up(space: CellSpace) -> TableBenchmark:
    """Accuracy by the number of edges."""
    cells = space.enumerate()
    score = cells.num_edges() / 100
    return TableBenchmark(
        name=space.name,
        space=space,
        cells=cells,
        reward="edges",
        fidelities=(1,),
        validation=score[:, None, None],
        test=score,
    )


def test_nasbench201_is_six_operations(toy: TableBenchmark) -> None:
    choices = Choices(toy)
    assert choices.options.tolist() == [[1, 2, 3, 4, 5]] * 6
    drawn = np.random.default_rng(0).integers(5, size=(100, 6))
    rows = choices.rows(drawn)
    _, node_ops = toy.cells[rows].to_dense()
    np.testing.assert_array_equal(node_ops[:, 1:7], drawn + 1)


def test_any_space_is_edges_and_operations() -> None:
    """Every cell of a general space can be chosen, and what is no cell is told apart."""
    space = CellSpace(5, ("input", "conv", "pool", "output"), max_edges=6)
    benchmark = made_up(space)
    choices = Choices(benchmark)
    sizes = (choices.options >= 0).sum(1)
    every = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1)
    rows = choices.rows(every.reshape(-1, len(sizes)))
    assert (rows < 0).any()
    assert set(rows[rows >= 0].tolist()) == set(range(len(benchmark.cells)))


def test_loose_nodes_of_nasbench101_are_pruned() -> None:
    benchmark = made_up(spaces.get("nasbench101"))
    choices = Choices(benchmark)
    sizes = (choices.options >= 0).sum(1)
    rows = choices.rows(np.random.default_rng(0).integers(sizes, size=(3000, len(sizes))))
    present = benchmark.cells[rows[rows >= 0]].num_present()
    assert 0.05 < (rows >= 0).mean() < 0.6
    assert present.min() < present.max() == 7


def test_better_than_random_on_a_smooth_benchmark(toy: TableBenchmark) -> None:
    eager = replace(SearchRecipe.paper(), choice_learning_rate=3.0)
    found = search(toy, "reinforce", seeds=range(10), queries=200, recipe=eager)
    chance = search(toy, "random", seeds=range(10), queries=200)
    late = found["validation"].reshape(10, 200)[:, 150:]
    assert late.mean() > chance["validation"].mean() + 2 * chance["validation"].std()


def test_a_seed_does_not_know_its_company(toy: TableBenchmark) -> None:
    many, alone = (
        search(toy, "reinforce", seeds=seeds, queries=60, recipe="best")
        for seeds in ([0, 1, 3, 8], [3])
    )
    np.testing.assert_array_equal(many["row"][many["seed"] == 3], alone["row"])
    assert len(np.unique(many["row"].reshape(4, -1), axis=0)) == 4


def test_one_step_of_the_gradient(toy: TableBenchmark) -> None:
    """Second query: the baseline is (0.9 * 0.1 * r1 + 0.1 * r2) / 0.19, the policy uniform."""
    recipe = replace(SearchRecipe.paper(), choice_learning_rate=1.0)
    searcher = DiscreteReinforce(SearchProblem(benchmark=toy, seeds=np.arange(1), recipe=recipe))
    everyone = np.ones(1, np.bool_)
    for reward in (0.5, 0.9):
        rows = searcher.ask(everyone).rows
        searcher.tell(rows, np.array([[reward]]))
    advantage = 0.9 - (0.09 * 0.5 + 0.1 * 0.9) / 0.19
    _, node_ops = toy.cells[rows[0]].to_dense()
    picked = node_ops[0, 1:7, None] == np.arange(1, 6)
    np.testing.assert_allclose(searcher.logits[0], advantage * (picked - 0.2))


def test_cells_that_are_missing_are_drawn_again(toy: TableBenchmark) -> None:
    few = np.arange(0, 15_625, 40)
    small = replace(
        toy, cells=toy.cells[few], validation=toy.validation[few], test=toy.test[few], times=None
    )
    searcher = DiscreteReinforce(
        SearchProblem(benchmark=small, seeds=np.arange(3), recipe=SearchRecipe.paper())
    )
    rows = searcher.ask(np.array([True, False, True])).rows
    assert rows.shape == (3, 1)
    assert rows[1, 0] == -1
    assert (rows[[0, 2]] >= 0).all()
    before = searcher.logits.copy()
    searcher.tell(rows, np.full((3, 1), np.nan))
    np.testing.assert_array_equal(searcher.logits, before)

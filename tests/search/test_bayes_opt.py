# SPDX-License-Identifier: Apache-2.0
"""Bayesian optimisation with DNGO: it finds, it repeats only as told, it is the released loop."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import nn

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import SearchProblem, SearchRecipe, search
from arch2vec_fast.search.bayes_opt import arch2vec_bo, discrete_bo, one_hot_encoding
from arch2vec_fast.search.candidates import Candidates
from arch2vec_fast.search.observations import Observations
from arch2vec_fast.surrogates import released_expected_improvement
from toy import SPACE, toy_benchmark

RECIPES = ("released", "paper")


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    """A pool small enough for hundreds of rounds in a second."""
    whole = toy_benchmark()
    some = np.random.default_rng(1).permutation(len(whole))[:600]
    return replace(
        whole,
        cells=whole.cells[some],
        validation=whole.validation[some],
        test=whole.test[some],
        times=None,
    )


@pytest.fixture(scope="module")
def embeddings(toy: TableBenchmark) -> EmbeddingTable:
    """The one-hot operations, mixed: smooth in what the reward depends on."""
    _, node_ops = toy.cells.to_dense(one_hot=True)
    flat = node_ops.reshape(len(toy), -1).astype(np.float32)
    mix = np.random.default_rng(0).standard_normal((flat.shape[1], 16)).astype(np.float32)
    return EmbeddingTable(vectors=flat @ mix, cells=toy.cells)


def rows_of(
    toy: TableBenchmark, embeddings: EmbeddingTable, recipe: SearchRecipe, seeds: list[int], n: int
) -> NDArray[np.int64]:
    trace = search(toy, "arch2vec-bo", seeds=seeds, queries=n, recipe=recipe, embeddings=embeddings)
    rows: NDArray[np.int64] = trace["row"].reshape(len(seeds), -1)
    return rows


@pytest.mark.parametrize("method", ["arch2vec-bo", "bo"])
def test_better_than_random(method: str, toy: TableBenchmark, embeddings: EmbeddingTable) -> None:
    chance, found = (
        search(toy, name, seeds=range(8), queries=66, recipe="paper", embeddings=embeddings)
        for name in ("random", method)
    )
    last = [rows.stop - 1 for _, rows in found.searches()]
    assert found["regret"][last].mean() < 0.5 * chance["regret"][last].mean()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_seed_does_not_know_its_company(
    recipe: str, toy: TableBenchmark, embeddings: EmbeddingTable
) -> None:
    chosen = SearchRecipe.get(recipe, "nasbench201")
    many = rows_of(toy, embeddings, chosen, [0, 1, 2, 3], 26)
    alone = rows_of(toy, embeddings, chosen, [2], 26)
    np.testing.assert_array_equal(many[2], alone[0])
    assert len(np.unique(many, axis=0)) == 4


def test_threads_change_nothing(toy: TableBenchmark, embeddings: EmbeddingTable) -> None:
    one = rows_of(toy, embeddings, SearchRecipe.paper(), [0, 1, 2], 31)
    torch.set_num_threads(2)
    try:
        two = rows_of(toy, embeddings, SearchRecipe.paper(), [0, 1, 2], 31)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    np.testing.assert_array_equal(one, two)


def test_only_the_released_recipe_repeats_cells(
    toy: TableBenchmark, embeddings: EmbeddingTable
) -> None:
    released = SearchRecipe.released("nasbench201")
    repeats = rows_of(toy, embeddings, released, [0, 1], 46)
    distinct = rows_of(toy, embeddings, replace(released, distinct_queries=True), [0, 1], 46)
    for some, other in zip(repeats, distinct):
        assert len(np.unique(some)) < 46
        assert len(np.unique(other)) == 46


def test_a_small_pool_is_exhausted(toy: TableBenchmark, embeddings: EmbeddingTable) -> None:
    few = slice(0, 23)
    small = replace(
        toy, cells=toy.cells[few], validation=toy.validation[few], test=toy.test[few], times=None
    )
    trace = search(
        small, "arch2vec-bo", seeds=[0, 1], queries=50, recipe="paper", embeddings=embeddings
    )
    assert sorted(trace["row"]) == sorted(list(range(23)) * 2)


@pytest.mark.parametrize("recipe", RECIPES)
def test_inactive_searches_rest(
    recipe: str, toy: TableBenchmark, embeddings: EmbeddingTable
) -> None:
    """A search that stops leaves the others' queries as they are, though the batch shrinks."""
    problem = SearchProblem(
        benchmark=toy,
        seeds=np.arange(3),
        recipe=SearchRecipe.get(recipe, "nasbench201"),
        embeddings=embeddings,
    )
    whole, shrinking = arch2vec_bo(problem), arch2vec_bo(problem)
    everyone = np.ones(3, np.bool_)
    for turn in range(4):
        active = np.array([True, turn < 2, True])
        wanted, rows = whole.ask(everyone).rows, shrinking.ask(active).rows
        np.testing.assert_array_equal(rows[active], wanted[active])
        assert (rows[~active] == -1).all()
        rewards = toy.validation[wanted, 0, 0]
        whole.tell(wanted, rewards)
        shrinking.tell(rows, np.where(active[:, None], rewards, np.nan))


# -- the released loop, plainly --------------------------------------------------------------------


def released_network(num_inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, 128), nn.Tanh(), nn.Linear(128, 1))


def released_round(
    points: NDArray[np.float32], rewards: NDArray[np.float32], pool: NDArray[np.float32]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the pool as pybnn's DNGO computes them, all draws global."""
    rng = np.random.RandomState(np.random.randint(0, 10_000))  # noqa: NPY002
    mean, std = points.mean(0), points.std(0)
    scaled = torch.from_numpy((points - mean) / std)
    targets = torch.from_numpy(rewards)[:, None]
    network = released_network(points.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        rows = np.arange(len(points))
        rng.shuffle(rows)
        for start in range(0, len(rows) - 9, 10):
            batch = rows[start : start + 10]
            optimizer.zero_grad()
            nn.functional.mse_loss(network(scaled[batch]), targets[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        basis = network[:2](scaled).numpy()
        every = network[:2](torch.from_numpy((pool - mean) / std)).numpy()
    y = rewards.astype(np.float64)

    def cost(theta: NDArray[np.float64]) -> float:
        if (np.abs(theta) > 10).any():
            return np.inf
        alpha, beta = np.exp(theta[0]), 1 / np.exp(theta[1])
        k = beta * basis.T @ basis + alpha * np.eye(128)
        m = beta * np.linalg.solve(k, basis.T @ y)
        evidence = 64 * np.log(alpha) + len(y) / 2 * (np.log(beta) - np.log(2 * np.pi))
        evidence -= beta / 2 * np.linalg.norm(y - basis @ m) + alpha / 2 * m @ m
        with np.errstate(over="ignore"):
            evidence -= 0.5 * np.log(np.linalg.det(k) + 1e-10)
        return 1e25 if np.isnan(evidence) else -float(evidence)

    start = np.array([rng.normal(0, 1, 1)[0], rng.normal(-3, 1, 1)[0]])
    found = optimize.fmin(cost, start, disp=False)
    np.random.randint(0, 10_000)  # noqa: NPY002  (pybnn's regression seeds itself and never draws)
    alpha, beta = np.exp(found[0]), 1 / np.exp(found[1])
    covariance = np.linalg.inv(beta * basis.T @ basis + alpha * np.eye(128))
    mean_of = every @ (beta * covariance @ (basis.T @ y))
    variance = 1 / beta + ((every @ covariance) * every).sum(1)
    return torch.Tensor(mean_of), torch.Tensor(variance)


def released_search(toy: TableBenchmark, vectors: NDArray[np.float32], seed: int) -> list[int]:
    """Three rounds of the released search on NAS-Bench-201."""
    order = list(range(len(toy)))
    random.seed(seed)
    random.shuffle(order)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    pool, reward = vectors[order], toy.validation[order, 0, 0].astype(np.float32)
    positions = list(np.random.permutation(len(toy))[:16])  # noqa: NPY002
    for _ in range(3):
        mean, variance = released_round(pool[positions], reward[positions], pool)
        improvement = released_expected_improvement(mean, variance, 1.0)
        positions += torch.argsort(improvement)[-1:].tolist()
    return [order[position] for position in positions]


@pytest.mark.parametrize("scale", [1.0, 0.2], ids=["target in reach", "every improvement zero"])
def test_released_recipe_queries_what_the_released_code_queries(
    scale: float, toy: TableBenchmark, embeddings: EmbeddingTable
) -> None:
    scaled = replace(toy, validation=toy.validation * scale)
    seed = 5
    rows = rows_of(scaled, embeddings, SearchRecipe.released("nasbench201"), [seed], 19)[0]
    assert rows.tolist() == released_search(scaled, embeddings.vectors, seed)


def test_released_batches_are_the_end_of_an_ascending_sort(
    toy: TableBenchmark, embeddings: EmbeddingTable
) -> None:
    """Five a round elsewhere: the worst of the best is queried first."""
    recipe = SearchRecipe.released()
    one = replace(recipe, batch_size=1)
    five, single = (rows_of(toy, embeddings, r, [1], 17)[0, 16:] for r in (recipe, one))
    whole = rows_of(toy, embeddings, recipe, [1], 21)[0, 16:]
    assert whole[0] == five[0]
    assert whole[4] == single[0]


# -- the parts -------------------------------------------------------------------------------------


def test_candidates_score_equal_vectors_once() -> None:
    vectors = np.array([[1, 0], [2, 0], [1, 0], [3, 0], [1, 0]], np.float32)
    pool = Candidates(vectors)
    assert pool.vectors.tolist() == [[1, 0], [2, 0], [3, 0]]
    gone = pool.exhausted(np.array([[0, 2, 2], [0, 4, 2]]))
    assert gone.tolist() == [[False, False, False], [True, False, False]]
    assert pool.rows(np.array([0, 2]), 3, np.array([2])).tolist() == [0, 4, 3]
    assert pool.rows(np.array([1, -1]), 2).tolist() == [1, -1]


def test_candidates_last_first() -> None:
    vectors = np.array([[1], [2], [1], [3]], np.float32)
    pool = Candidates(vectors, last_first=True)
    assert pool.vectors[:, 0].tolist() == [3, 1, 2]
    assert pool.rows(np.array([1]), 2).tolist() == [2, 0]


def test_observations_keep_order_and_grow() -> None:
    seen = Observations(2)
    for turn in range(70):
        rewards = np.array([[turn, np.nan], [np.nan, turn]]) if turn % 2 else np.full((2, 2), turn)
        seen.add(np.arange(4).reshape(2, 2), rewards)
    batch = next(iter(seen.batches(np.ones(2, np.bool_))))
    assert batch.rows.shape == (2, 105)
    assert batch.rows[:, :4].tolist() == [[0, 1, 0, 0], [2, 3, 3, 2]]
    assert batch.rewards[0, :4].tolist() == [0, 0, 1, 2]


def test_what_is_pending_is_believed_to_be_average() -> None:
    seen = Observations(1)
    everyone = np.ones(1, np.bool_)
    seen.pending.expect(np.array([[4, 7, -1, 5]]))
    assert not list(seen.batches(everyone))  # nothing to believe yet
    seen.add(np.array([[7]]), np.array([[0.5]]))
    seen.add(np.array([[5]]), np.array([[1.0]]))
    (batch,) = seen.batches(everyone)
    assert batch.rows.tolist() == [[7, 5, 4]]
    assert batch.rewards.tolist() == [[0.5, 1.0, 0.75]]
    seen.add(np.array([[4]]), np.array([[0.0]]))
    (batch,) = seen.batches(everyone)
    assert batch.rewards.tolist() == [[0.5, 1.0, 0.0]]


def test_one_hot_encoding_tells_cells_apart() -> None:
    encoded = one_hot_encoding(SPACE.enumerate())
    assert encoded.shape == (15_625, 30)
    assert len(np.unique(encoded, axis=0)) == 15_625


def test_embeddings_are_needed(toy: TableBenchmark) -> None:
    with pytest.raises(ValueError, match=r"^embeddings: "):
        search(toy, "arch2vec-bo", seeds=[0], queries=20)
    problem = SearchProblem(benchmark=toy, seeds=np.arange(2), recipe=SearchRecipe.paper())
    with pytest.raises(ValueError, match=r"^embeddings: none given"):
        arch2vec_bo(problem)
    assert discrete_bo(problem).ask(np.ones(2, np.bool_)).rows.shape == (2, 16)

# SPDX-License-Identifier: Apache-2.0
"""arch2vec-RL: the released loop query by query, seeds on their own, what the recipe changes."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.index import VisitedSet, build_index
from arch2vec_fast.search import SearchProblem, SearchRecipe, search
from arch2vec_fast.search.policy import LstmPolicy
from arch2vec_fast.search.reinforce import (
    Agent,
    LatentReinforce,
    advantages,
    nearest_rows,
    start_rows,
    whitened,
)
from tolerances import REORDERED
from toy import toy_benchmark


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    """One cell in seven of the toy benchmark."""
    whole = toy_benchmark()
    few = np.arange(0, len(whole), 7)
    assert whole.times is not None
    return replace(
        whole,
        cells=whole.cells[few],
        validation=whole.validation[few],
        test=whole.test[few],
        times=whole.times[few],
    )


@pytest.fixture(scope="module")
def table(toy: TableBenchmark) -> EmbeddingTable:
    """One-hot operations turned at random to 12 numbers: neighbours share operations."""
    _, node_ops = toy.cells.to_dense(one_hot=True)
    turn = np.random.default_rng(0).standard_normal((56, 12)) / 8
    vectors = node_ops.reshape(len(toy), 56) @ turn
    return EmbeddingTable(vectors=vectors.astype(np.float32), cells=toy.cells)


def test_policy_is_a_torch_lstm_trained_by_torch_adam() -> None:
    dim, hidden, steps = 5, 12, 7
    torch.manual_seed(3)
    cell, head = nn.LSTMCell(dim, hidden), nn.Linear(hidden, dim)
    adam = torch.optim.Adam([*cell.parameters(), *head.parameters()], lr=0.01)
    generator = torch.Generator().manual_seed(3)
    policy = LstmPolicy(dim, hidden, learning_rate=0.01, generator=generator)
    for _ in range(3):
        states = torch.randn(steps, dim, requires_grad=True)
        weights = torch.randn(steps, dim)
        carried, means = None, []
        for state in states:
            carried = cell(state[None], carried)
            means.append(head(carried[0])[0])
        episode = policy.begin()
        ours = torch.stack([policy.forward(state, episode) for state in states.detach()])
        torch.testing.assert_close(ours, torch.stack(means), **REORDERED[torch.float32]._asdict())
        adam.zero_grad()
        (torch.stack(means) * weights).sum().backward()
        adam.step()
        gradient = policy.learn(weights, episode)
        torch.testing.assert_close(gradient, states.grad, **REORDERED[torch.float32]._asdict())


def test_an_episode_whose_rewards_come_late_teaches_the_policy_of_today() -> None:
    """Of two episodes under way the second is complete first; torch says what the first teaches."""
    dim, recipe = 3, SearchRecipe(name="short", episode_length=2, policy_hidden=8, baseline=0.0)
    agent = Agent(torch.Generator().manual_seed(0), dim, recipe)
    states = torch.randn(4, dim, generator=torch.Generator().manual_seed(1))
    actions = torch.stack([agent.act(state) for state in states])
    assert agent.observe(0.5, 3) is None
    assert agent.observe(0.9, 2) is not None
    weight, input_bias, hidden_bias, head, head_bias = agent._policy._parameters
    cell, readout = nn.LSTMCell(dim, 8), nn.Linear(8, dim)
    with torch.no_grad():
        cell.weight_ih.copy_(weight[:, :dim])
        cell.weight_hh.copy_(weight[:, dim:])
        cell.bias_ih.copy_(input_bias)
        cell.bias_hh.copy_(hidden_bias)
        readout.weight.copy_(head)
        readout.bias.copy_(head_bias)
    seen, carried, loss = states[:2].clone().requires_grad_(), None, torch.zeros(())
    for t, reward in enumerate(advantages([0.3, 0.7], recipe)):
        carried = cell(seen[None, t], carried)
        likelihood = torch.distributions.Normal(readout(carried[0])[0], 1).log_prob(actions[t])
        loss = loss - likelihood.sum() * reward / 2
    loss.backward()
    assert agent.observe(0.7, 1) is None
    gradient = agent.observe(0.3, 0)
    torch.testing.assert_close(gradient, seen.grad, **REORDERED[torch.float32]._asdict())


def released_rows(
    toy: TableBenchmark, vectors: torch.Tensor, seed: int, recipe: SearchRecipe, episodes: int
) -> list[int]:
    """The released loop (`search_methods/reinforce_search_NB201_8x8.py`), written out plainly."""
    order = list(range(len(vectors)))
    if recipe.shuffled_pool:
        random.seed(seed)
        random.shuffle(order)
    features = vectors[order]
    rewards = toy.mean_validation[order]
    torch.manual_seed(seed)
    cell, head = nn.LSTMCell(vectors.shape[1], 128), nn.Linear(128, vectors.shape[1])
    adam = torch.optim.Adam([*cell.parameters(), *head.parameters()], lr=1e-2)
    random.seed(seed)
    at = random.randint(0, len(vectors))
    visited, rows = {at}, []
    for _ in range(episodes):
        carried, losses, found = None, [], []
        for _ in range(16):
            carried = cell(features[at][None], carried)
            normal = MultivariateNormal(head(carried[0]), torch.eye(vectors.shape[1]))
            action = normal.sample()
            near = (features - action).norm(dim=1).argsort(stable=True)
            near = near[int(recipe.skip_nearest) :]
            at = next(int(row) for row in near if int(row) not in visited)
            visited.add(at)
            rows.append(order[at])
            losses.append(-normal.log_prob(action).mean())
            found.append(rewards[at])
        assert recipe.baseline is not None
        loss = torch.stack(losses) * (torch.tensor(found).float() - recipe.baseline)
        adam.zero_grad()
        loss.mean().backward()
        adam.step()
    return rows


@pytest.mark.parametrize("space", ["nasbench101", "nasbench201"])
def test_released_recipe_follows_the_released_loop(
    space: str, toy: TableBenchmark, table: EmbeddingTable
) -> None:
    recipe = SearchRecipe.released(space)
    trace = search(toy, "arch2vec-rl", seeds=range(3), queries=48, recipe=recipe, embeddings=table)
    for seed, rows in trace.searches():
        wanted = released_rows(toy, torch.from_numpy(table.vectors), seed, recipe, 3)
        assert trace["row"][rows].tolist() == wanted


@pytest.mark.parametrize("recipe", SearchRecipe.names())
def test_a_seed_does_not_know_its_company(
    recipe: str, toy: TableBenchmark, table: EmbeddingTable
) -> None:
    many, alone = (
        search(toy, "arch2vec-rl", seeds=seeds, queries=40, recipe=recipe, embeddings=table)
        for seeds in ([0, 1, 3, 8], [3])
    )
    np.testing.assert_array_equal(many["row"][many["seed"] == 3], alone["row"])
    assert len(np.unique(many["row"].reshape(4, -1), axis=0)) == 4


def test_searches_that_end_leave_the_others_alone(
    toy: TableBenchmark, table: EmbeddingTable
) -> None:
    """Budgets in seconds end searches one by one."""
    short, long = (
        search(toy, "arch2vec-rl", seeds=range(6), seconds=seconds, embeddings=table)
        for seconds in (4000, 8000)
    )
    counts = []
    for seed, rows in short.searches():
        beyond = next(part for other, part in long.searches() if other == seed)
        counts.append(rows.stop - rows.start)
        same = long["row"][beyond][: counts[-1]]
        np.testing.assert_array_equal(short["row"][rows], same)
    assert len(set(counts)) > 1


@pytest.mark.parametrize("recipe", SearchRecipe.names())
def test_no_cell_is_queried_twice_and_the_pool_can_be_exhausted(
    recipe: str, toy: TableBenchmark, table: EmbeddingTable
) -> None:
    few = np.arange(40)
    small = replace(
        toy, cells=toy.cells[few], validation=toy.validation[few], test=toy.test[few], times=None
    )
    trace = search(
        small, "arch2vec-rl", seeds=range(3), queries=90, recipe=recipe, embeddings=table
    )
    for _, rows in trace.searches():
        queried = trace["row"][rows]
        assert len(np.unique(queried)) == len(queried)
        assert len(queried) >= 38


@pytest.mark.parametrize("recipe", SearchRecipe.names())
def test_better_than_random_on_a_smooth_benchmark(
    recipe: str, toy: TableBenchmark, table: EmbeddingTable
) -> None:
    found = search(
        toy, "arch2vec-rl", seeds=range(10), queries=150, recipe=recipe, embeddings=table
    )
    chance = search(toy, "random", seeds=range(10), queries=150)
    late = found["validation"].reshape(10, 150)[:, 100:].mean()
    assert late > chance["validation"].mean() + 0.02  # its standard error is 0.0025


def test_discounted_returns_run_backwards() -> None:
    recipe = replace(SearchRecipe.paper(), discount=0.5, baseline=0.25)
    assert advantages([1.0, 2.0, 4.0], recipe).tolist() == [2.75, 3.75, 3.75]
    rewards = replace(recipe, returns="rewards")
    assert advantages([1.0, 2.0, 4.0], rewards).tolist() == [0.75, 1.75, 3.75]


def test_normalised_advantages_have_unit_spread() -> None:
    weights = advantages([0.2, 0.4, 0.9], SearchRecipe.best())
    torch.testing.assert_close(weights.mean(), torch.tensor(0.0))
    torch.testing.assert_close(weights.std(unbiased=False), torch.tensor(1.0))
    assert advantages([0.2, 0.2], SearchRecipe.best()).tolist() == [0.0, 0.0]


def test_whitened_vectors_have_unit_covariance() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 5)) @ rng.standard_normal((5, 7)) + 3  # of rank 5
    turned = whitened(vectors.astype(np.float32)).astype(np.float64)
    covariance = turned.T @ turned / 500
    np.testing.assert_allclose(turned.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(covariance, np.diag(covariance.diagonal()), atol=1e-4)
    np.testing.assert_allclose(covariance.diagonal(), [0, 0, 1, 1, 1, 1, 1], atol=1e-4)


def test_steps_from_the_incumbent_stay_near_it(toy: TableBenchmark, table: EmbeddingTable) -> None:
    """With tiny steps the next cell is the nearest unvisited one to the best so far."""
    recipe = replace(SearchRecipe.best(), action_scale=1e-6)
    trace = search(toy, "arch2vec-rl", seeds=[2], queries=12, recipe=recipe, embeddings=table)
    vectors = whitened(table.vectors)
    rows, rewards = trace["row"].tolist(), trace["validation"]
    for step in range(1, 12):
        best = rows[int(rewards[:step].argmax())]
        near = np.square(vectors - vectors[best]).sum(1).argsort(kind="stable").tolist()
        assert rows[step] in near[: step + 2]


def test_the_nearest_of_all_is_skipped_even_where_it_was_visited() -> None:
    index = build_index(torch.arange(5.0)[:, None])
    visited = VisitedSet(5, rows=2)
    visited.visit([[1], [2]])
    actions = torch.tensor([[1.1], [1.1]])
    assert nearest_rows(index, actions, visited, skip_nearest=False).tolist() == [2, 1]
    assert nearest_rows(index, actions, visited, skip_nearest=True).tolist() == [2, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"policy_learning_rate": 0.1},
        {"policy_hidden": 16},
        {"episode_length": 4},
        {"baseline": 0.0},
        {"returns": "rewards"},
        {"discount": 0.2},
        {"skip_nearest": True},
        {"normalize_advantages": True},
        {"whiten": True},
        {"action_origin": "incumbent"},
        {"action_scale": 0.5},
    ],
)
def test_every_field_matters(
    change: dict[str, object], toy: TableBenchmark, table: EmbeddingTable
) -> None:
    plain, changed = (
        search(toy, "arch2vec-rl", seeds=[1], queries=60, recipe=recipe, embeddings=table)
        for recipe in (SearchRecipe.paper(), replace(SearchRecipe.paper(), **change))
    )
    assert plain["row"].tolist() != changed["row"].tolist()


def test_released_starts_are_those_of_pythons_generator(toy: TableBenchmark) -> None:
    def start(**fields: bool) -> list[int]:
        recipe = replace(SearchRecipe.paper(), **fields)
        problem = SearchProblem(benchmark=toy, seeds=np.arange(4), recipe=recipe)
        return start_rows(problem).tolist()

    plain = [random.Random(seed).randint(0, len(toy)) for seed in range(4)]
    assert start(released_draws=True) == plain
    assert len({*start(), *plain, *start(released_draws=True, shuffled_pool=True)}) == 12


def test_embeddings_of_another_pool_are_refused(toy: TableBenchmark, table: EmbeddingTable) -> None:
    def start(embeddings: EmbeddingTable | None) -> None:
        LatentReinforce(
            SearchProblem(
                benchmark=toy,
                seeds=np.arange(2),
                recipe=SearchRecipe.paper(),
                embeddings=embeddings,
            )
        )

    with pytest.raises(ValueError, match="embeddings: none given"):
        start(None)
    shorter = EmbeddingTable(vectors=table.vectors[:-1], cells=toy.cells[:-1])
    with pytest.raises(ValueError, match=f"embeddings: {len(toy) - 1} vectors for the {len(toy)}"):
        start(shorter)
    turned = EmbeddingTable(vectors=table.vectors[::-1].copy(), cells=toy.cells[::-1])
    with pytest.raises(ValueError, match="embeddings: are of other cells"):
        start(turned)
    with pytest.raises(ValueError, match="embeddings: arch2vec-rl searches in an embedding"):
        search(toy, "arch2vec-rl", seeds=[0], queries=5)

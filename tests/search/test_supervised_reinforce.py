# SPDX-License-Identifier: Apache-2.0
"""Supervised RL: the released episode by plain autograd, seeds on their own, saved embeddings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.index import build_index
from arch2vec_fast.models.inference import readout_encoder
from arch2vec_fast.search import SearchProblem, SearchRecipe, search
from arch2vec_fast.search.reinforce import start_rows
from arch2vec_fast.search.supervised_reinforce import SupervisedReinforce, untrained_encoder
from toy import toy_benchmark

RELEASED = SearchRecipe.released("nasbench101")


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    """One cell in 31 of the toy benchmark."""
    whole = toy_benchmark()
    few = np.arange(0, len(whole), 31)
    return replace(
        whole, cells=whole.cells[few], validation=whole.validation[few], test=whole.test[few],
        times=None,
    )  # fmt: skip


def released_rows(toy: TableBenchmark, seed: int, episodes: int) -> list[int]:
    """The released loop (`search_methods/supervised_reinforce.py`), written out plainly."""
    adjacency, node_ops = (
        torch.from_numpy(part).float() for part in toy.cells.to_dense(one_hot=True)
    )
    problem = SearchProblem(benchmark=toy, seeds=np.array([seed]), recipe=RELEASED)
    start = int(start_rows(problem)[0])
    torch.manual_seed(seed)
    encoder = untrained_encoder(toy.cells.layout, directed=True)
    cell, head = nn.LSTMCell(16, 128), nn.Linear(128, 16)
    encoder_adam = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    policy_adam = torch.optim.Adam([*cell.parameters(), *head.parameters()], lr=1e-2)
    visited, rows = {start}, []
    for _ in range(episodes):
        # an untrained encoder puts all cells within rounding of each other: the same for both
        features = readout_encoder(encoder.eval(), toy.cells.layout)(toy.cells.to_torch())
        index = build_index(features)
        encoder.train()
        carried, losses = None, []
        for _ in range(16):
            state = encoder.encode(adjacency[start][None], node_ops[start][None])[0].mean(1)
            carried = cell(state, carried)
            normal = torch.distributions.Normal(head(carried[0]), 1.0)
            action = normal.sample()
            near = index.nearest(action, len(features)).indices[0].tolist()
            rows.append(next(row for row in near if row not in visited))
            visited.add(rows[-1])
            reward = torch.tensor(toy.mean_validation[rows[-1]]).float()
            losses.append(-normal.log_prob(action).sum() * (reward - 0.95))
        encoder_adam.zero_grad()
        policy_adam.zero_grad()
        torch.stack(losses).mean().backward()
        policy_adam.step()
        encoder_adam.step()
    return rows


def test_released_recipe_follows_the_released_loop(toy: TableBenchmark) -> None:
    trace = search(toy, "supervised-rl", seeds=range(2), queries=48, recipe=RELEASED)
    for seed, rows in trace.searches():
        assert trace["row"][rows].tolist() == released_rows(toy, seed, 3)


@pytest.mark.parametrize("recipe", SearchRecipe.names())
def test_a_seed_does_not_know_its_company(recipe: str, toy: TableBenchmark) -> None:
    many, alone = (
        search(toy, "supervised-rl", seeds=seeds, queries=40, recipe=recipe)
        for seeds in ([0, 3], [3])
    )
    np.testing.assert_array_equal(many["row"][many["seed"] == 3], alone["row"])
    for _, rows in many.searches():
        assert len(np.unique(many["row"][rows])) == 40


@pytest.mark.parametrize(
    "change",
    [
        {"directed": True},
        {"evaluate_in_train_mode": True},
        {"frozen_policy_input": True},
        {"encoder_learning_rate": 0.1},
    ],
)
def test_every_field_matters(change: dict[str, object], toy: TableBenchmark) -> None:
    plain, changed = (
        search(toy, "supervised-rl", seeds=[1], queries=50, recipe=recipe)
        for recipe in (SearchRecipe.paper(), replace(SearchRecipe.paper(), **change))
    )
    assert plain["row"].tolist() != changed["row"].tolist()


def test_the_encoder_learns_and_ends_with_the_pool(toy: TableBenchmark) -> None:
    few = np.arange(0, len(toy), 12)
    small = replace(toy, cells=toy.cells[few], validation=toy.validation[few], test=toy.test[few])
    problem = SearchProblem(benchmark=small, seeds=np.arange(2), recipe=SearchRecipe.paper())
    searcher = SupervisedReinforce(problem)
    before = searcher.embeddings()
    active = np.array([True, False])
    for _ in range(len(small) - 1):
        rows = searcher.ask(active).rows
        assert rows[0, 0] >= 0
        assert rows[1, 0] == -1
        searcher.tell(rows, np.array([[small.mean_validation[rows[0, 0]]], [np.nan]]))
    after = searcher.embeddings()
    assert searcher.ask(active).rows[0, 0] == -1
    assert np.abs(after[0] - before[0]).max() > 1e-4
    np.testing.assert_array_equal(after[1], before[1])


def test_embeddings_are_kept_beside_the_trace(toy: TableBenchmark, tmp_path: Path) -> None:
    search(toy, "supervised-rl", seeds=[4, 7], queries=20, recipe="paper", out=tmp_path)
    for seed in (4, 7):
        table = EmbeddingTable.load(tmp_path / f"embeddings-{seed}.safetensors")
        assert table.vectors.shape == (len(toy), 16)
        assert table.cells == toy.cells
        assert table.metadata["seed"] == str(seed)


def test_global_random_numbers_are_left_alone(toy: TableBenchmark) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    SupervisedReinforce(
        SearchProblem(benchmark=toy, seeds=np.arange(2), recipe=SearchRecipe.paper())
    )
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)

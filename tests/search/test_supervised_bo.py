# SPDX-License-Identifier: Apache-2.0
"""Supervised BO: encoders learnt from rewards, as the released baseline and as it should be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from arch2vec_fast import functional, spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.search import SearchProblem, SearchRecipe, search
from arch2vec_fast.search.released import ReleasedDraws
from arch2vec_fast.search.supervised_bo import SupervisedBo, _scores
from arch2vec_fast.surrogates import log_expected_improvement
from arch2vec_fast.surrogates.gin_stack import GinStack
from toy import toy_benchmark

RECIPES = ("released", "paper")
NB101 = spaces.get("nasbench101")


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    whole = toy_benchmark()
    some = np.random.default_rng(1).permutation(len(whole))[:150]
    return replace(
        whole,
        cells=whole.cells[some],
        validation=whole.validation[some],
        test=whole.test[some],
        times=None,
    )


@pytest.fixture
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arch2vec_fast.search.supervised_bo._EPOCHS", 8)


@pytest.mark.usefixtures("_few_epochs")
@pytest.mark.parametrize("recipe", RECIPES)
def test_queries_are_distinct_and_independent_of_company(recipe: str, toy: TableBenchmark) -> None:
    chosen = SearchRecipe.get(recipe)
    many = search(toy, "supervised-bo", seeds=range(2), queries=22, recipe=chosen)
    alone = search(toy, "supervised-bo", seeds=[1], queries=22, recipe=chosen)
    np.testing.assert_array_equal(many["row"][many["seed"] == 1], alone["row"])
    for _, rows in many.searches():
        assert len(np.unique(many["row"][rows])) == 22


def test_better_than_random(toy: TableBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arch2vec_fast.search.supervised_bo._EPOCHS", 30)
    chance, found = (
        search(toy, name, seeds=range(3), queries=26, recipe="paper")
        for name in ("random", "supervised-bo")
    )
    last = [rows.stop - 1 for _, rows in found.searches()]
    assert found["regret"][last].mean() < 0.6 * chance["regret"][last].mean()


@pytest.mark.usefixtures("_few_epochs")
def test_embeddings_are_those_of_the_last_round(toy: TableBenchmark) -> None:
    problem = SearchProblem(benchmark=toy, seeds=np.arange(2), recipe=SearchRecipe.paper())
    searcher = SupervisedBo(problem)
    assert not any(vectors.any() for vectors in searcher.embeddings())
    for _ in range(2):
        rows = searcher.ask(np.array([True, True])).rows
        searcher.tell(rows, toy.validation[rows, 0, 0])
    first, second = searcher.embeddings()
    assert first.shape == (150, 16)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("directed", [False, True])
def test_training_equals_that_of_plain_modules(directed: bool, generator: torch.Generator) -> None:
    """Weights and running statistics of networks side by side are those of each alone.

    In float64: biases before batch norm have no gradient but rounding, which Adam would follow.
    """
    cells = NB101.sample(24, seed=0).to_torch()
    adjacency, node_ops = functional.unpack_cells(cells, NB101.layout)
    targets = torch.randn(2, 24, generator=generator, dtype=torch.float64)
    order = torch.stack([torch.randperm(24, generator=generator)[None] for _ in range(2)])
    draws = [ReleasedDraws(seed, 0) for seed in (1, 2)]
    stack = GinStack(NB101.layout, [draw.linear for draw in draws], directed=directed)
    for values in (stack.parameters, stack.statistics):
        for name, value in values.items():
            values[name] = value.detach().double().requires_grad_(value.requires_grad)
    plain = [stack.model(place).double().train() for place in range(2)]
    heads = [torch.nn.Linear(16, 1, dtype=torch.float64) for _ in plain]
    for place, head in enumerate(heads):
        weight, bias = (stack.parameters["out." + part][place] for part in ("weight", "bias"))
        head.load_state_dict({"weight": weight.detach().clone(), "bias": bias.detach().clone()})
    both = (part.double().expand(2, *part.shape) for part in (adjacency, node_ops))
    stack.train(*both, targets, order)
    for place, (model, head) in enumerate(zip(plain, heads)):
        learnt = [p for name, p in model.named_parameters() if not name.startswith("gates")]
        optimizer = torch.optim.Adam([*learnt, *head.parameters()], lr=1e-2)
        for rows in order[place, 0, :20].split(10):  # the last four rest
            mu, _ = model.encode(adjacency[rows].double(), node_ops[rows].double())
            predicted = head(torch.tanh(mu.mean(1)))[:, 0]
            optimizer.zero_grad()
            (predicted - targets[place, rows]).square().mean().backward()
            optimizer.step()
        mine = stack.model(place).state_dict()
        for name, wanted in model.state_dict().items():
            if not name.startswith(("decoder.", "gates")) and "num_batches" not in name:
                torch.testing.assert_close(mine[name], wanted.float(), rtol=1e-5, atol=1e-6)


def test_directed_encoders_see_successors_alone() -> None:
    """An edge more into the last node changes its source's vector, never the last node's own."""
    draws = [ReleasedDraws(0, 0)]
    matrices = np.zeros((2, 3, 3), int)
    matrices[:, 0, 1] = matrices[:, 1, 2] = 1
    matrices[1, 0, 2] = 1
    cells = [NB101.from_matrix(m, ["input", "conv1x1-bn-relu", "output"]) for m in matrices]
    stack = GinStack(NB101.layout, [draws[0].linear], directed=True)
    model = stack.model(0)
    plain, more = (model.encode(*unpack(cell.to_torch(), NB101.layout))[0][0] for cell in cells)
    assert torch.equal(plain[1:], more[1:])
    assert not torch.equal(plain[0], more[0])


def test_the_released_acquisition_divides_the_target_alone() -> None:
    mean = torch.tensor([[0.9, 0.93, 0.9]], dtype=torch.float64)
    std = torch.tensor([[0.1, 0.1, 1.0]], dtype=torch.float64)
    target = torch.tensor([[0.95]], dtype=torch.float64)
    recipe = SearchRecipe.released()
    bugged = _scores(mean, std, target, recipe)
    assert bugged.argmax() == 2  # the widest, whatever the means
    right = _scores(mean, std, target, SearchRecipe.paper())
    torch.testing.assert_close(right, log_expected_improvement(mean, std, target))

# SPDX-License-Identifier: Apache-2.0
"""The DNGO surrogate: the released code's numbers, both engines, several searches at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from arch2vec_fast import functional
from arch2vec_fast.surrogates import (
    DNGO,
    BayesianLinearRegression,
    DngoRecipe,
    expected_improvement,
    released_expected_improvement,
)
from arch2vec_fast.surrogates.dngo import released_draws

GOLDEN = Path(__file__).parent.parent / "golden"
RECIPES = {"corrected": DngoRecipe.corrected(), "released": DngoRecipe.released()}


@pytest.fixture(params=["dngo_n60", "dngo_n200"])
def golden(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{request.param}.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def problem(seeds: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    candidates = torch.randn(3000, 16, generator=generator)
    chosen = torch.stack([torch.randperm(3000, generator=generator)[:40] for _ in range(seeds)])
    points = candidates[chosen]
    return candidates, points, 0.9 + 0.03 * (points[..., 0] - points[..., 1] ** 2).tanh()


@pytest.mark.parametrize("score", ["released", "log_improvement"])
def test_acquisition_matches_golden(score: str, golden: dict[str, Tensor]) -> None:
    """The released network and precisions; ours from the candidates on."""
    regression = BayesianLinearRegression(
        prior_precision=golden["alpha"][None], noise_precision=golden["beta"][None]
    ).condition(golden["theta"][None], golden["y"][None])
    weight = golden["fc1_weight"].double() / golden["X_std"]
    bias = golden["fc1_bias"] - weight @ golden["X_mean"].double()
    target = torch.tensor(0.95) if score == "released" else golden["incumbent"]
    posterior = [weight, bias, regression.coefficients[0], regression.factor[0]]
    posterior += [1 / golden["beta"], target]
    improvement = torch.empty(2000)
    for start in (0, 1000):  # all of them: more than one call returns
        found = functional.dngo_acquire(
            golden["Q"][start : start + 1000],
            *(part[None].float() for part in posterior),
            num_results=1000,
            score=score,
            predictions=True,
        )
        improvement[start + found.indices[0]] = found.scores[0]
        part = slice(start, start + 1000)
        torch.testing.assert_close(found.mean[0].double(), golden["mean"][part], rtol=0, atol=5e-5)
        variance = found.variance[0].double()
        torch.testing.assert_close(variance, golden["var"][part], rtol=2e-4, atol=0)
    if score == "released":
        # u = (mean - 0.95) / variance makes 2e-5 of the mean there 1 % here.
        torch.testing.assert_close(improvement, golden["ei_released"], rtol=0.02, atol=1e-5)
        formula = released_expected_improvement(golden["mean"].float(), golden["var"].float())
        torch.testing.assert_close(formula, golden["ei_released"], rtol=1e-6, atol=1e-9)
    else:
        expected = golden["ei_incumbent"]
        torch.testing.assert_close(improvement.double().exp(), expected, rtol=2e-3, atol=0)


def test_released_draws_are_those_of_numpy() -> None:
    """`RandomState(seed)`: a shuffle of 0 .. M - 1 an epoch, then the two normals of the prior."""
    order, start = released_draws(7, 3, 5)
    generator = np.random.RandomState(7)
    for row in order:
        rows = np.arange(5)
        generator.shuffle(rows)
        assert row.tolist() == rows.tolist()
    assert start.tolist() == [generator.normal(0, 1, 1)[0], generator.normal(-3, 1, 1)[0]]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_engines_agree(recipe: DngoRecipe, generator: torch.Generator) -> None:
    """From the same network: a hundred epochs of Adam apart, rounding alone separates two fits."""
    candidates, points, rewards = problem(2, generator)
    options: dict[str, Any] = {"seeds": [3, 4], "num_epochs": 2}
    native = DNGO(recipe, **options).fit(points, rewards)
    eager = DNGO(recipe, **options, engine="eager").fit(points, rewards)
    for mine, wanted in zip(native.predict(candidates), eager.predict(candidates)):
        torch.testing.assert_close(mine, wanted, rtol=5e-3, atol=1e-4)
    mine, wanted = native.acquire(candidates, 5), eager.acquire(candidates, 5)
    torch.testing.assert_close(mine.improvement, wanted.improvement, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_improvement_is_that_of_the_prediction(
    recipe: DngoRecipe, generator: torch.Generator
) -> None:
    candidates, points, rewards = problem(2, generator)
    model = DNGO(recipe, seeds=[1, 2], num_epochs=10).fit(points, rewards)
    mean, std = model.predict(candidates)
    best = model.acquire(candidates, 4)
    for s in range(2):
        if recipe is RECIPES["released"]:
            expected = released_expected_improvement(mean[s], std[s] ** 2)
        else:
            expected = expected_improvement(mean[s].double(), std[s].double(), rewards[s].max())
        torch.testing.assert_close(
            best.improvement[s], expected.float().topk(4).values, rtol=1e-3, atol=1e-6
        )


def test_several_searches_are_each_search_alone(generator: torch.Generator) -> None:
    candidates, points, rewards = problem(3, generator)
    visited = torch.rand(3, len(candidates), generator=generator) < 0.5
    together = DNGO(seeds=[5, 6, 7], num_epochs=10).fit(points, rewards)
    best = together.acquire(candidates, 6, visited)
    assert not visited.gather(1, best.indices).any()
    for s, seed in enumerate((5, 6, 7)):
        alone = DNGO(seeds=seed, num_epochs=10).fit(points[s], rewards[s])
        for mine, wanted in zip(alone.acquire(candidates, 6, visited[s]), best):
            assert torch.equal(mine, wanted[s])


def test_numpy_and_torch_give_the_same(generator: torch.Generator) -> None:
    candidates, points, rewards = problem(1, generator)
    model = DNGO(seeds=1, num_epochs=5).fit(points[0], rewards[0])
    again = DNGO(seeds=1, num_epochs=5).fit(points[0].numpy(), rewards[0].numpy().astype(float))
    for mine, wanted in zip(again.predict(candidates.numpy()), model.predict(candidates)):
        assert isinstance(mine, np.ndarray)
        np.testing.assert_array_equal(mine, wanted)
    assert isinstance(again.acquire(candidates.numpy()).indices, np.ndarray)


def test_prediction_follows_the_rewards(generator: torch.Generator) -> None:
    """Accuracies near 0.9: without normalised targets a basis without constant misses them."""
    candidates, points, rewards = problem(1, generator)
    truth = 0.9 + 0.03 * (candidates[:, 0] - candidates[:, 1] ** 2).tanh()
    mean, std = DNGO().fit(points[0], rewards[0]).predict(candidates)
    assert np.corrcoef(mean, truth)[0, 1] > 0.5
    assert (std > 0).all()
    assert abs(float(mean.mean() - truth.mean())) < 0.02


def test_constant_inputs_and_rewards_are_no_division_by_zero(generator: torch.Generator) -> None:
    candidates, points, rewards = problem(1, generator)
    points[..., 3] = 1.0
    mean, std = DNGO().fit(points[0], torch.full_like(rewards[0], 0.9)).predict(candidates)
    assert mean.isfinite().all()
    assert std.isfinite().all()
    one = DNGO().fit(points[0, :1], rewards[0, :1])
    assert one.acquire(candidates, 2).improvement.isfinite().all()


def test_incumbent_overrides_the_recipe(generator: torch.Generator) -> None:
    candidates, points, rewards = problem(1, generator)
    model = DNGO(num_epochs=5).fit(points[0], rewards[0])
    easy, hard = (model.acquire(candidates, 1, incumbent=level) for level in (0.5, 2.0))
    assert float(easy.improvement[0]) > 0.3
    assert float(hard.improvement[0]) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4), torch.zeros(4)), r"^points: expected shape \[1, M, D\]"),
        ((torch.zeros(0, 3), torch.zeros(0)), r"^points: expected shape .*got \[0, 3\]"),
        ((torch.zeros(4, 3), torch.zeros(3)), r"^targets: expected a reward for each point"),
        ((torch.full((4, 3), torch.nan), torch.zeros(4)), r"^points: not all finite"),
        ((torch.zeros(4, 3), torch.full((4,), torch.inf)), r"^targets: not all finite"),
    ],
)
def test_fit_rejects(arguments: tuple[Tensor, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DNGO().fit(*arguments)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m, q: m.predict(q[:, 1:]),
            ValueError,
            r"^candidates: expected shape \[Q, 16\], as",
        ),
        (
            lambda m, q: m.acquire(q, 3, q[:9, 0] > 0),
            ValueError,
            r"^visited: expected shape \[2, 30",
        ),
        (
            lambda m, q: m.acquire(q, 3, q.T[:3] > 0),
            ValueError,
            r"^visited: expected shape \[2, 300",
        ),
        (lambda m, q: m.acquire(q, 1.5), TypeError, "^num_results: expected an int, got float"),
        (
            lambda m, q: m.acquire(q, incumbent=q[:3, 0]),
            ValueError,
            "^incumbent: expected a number",
        ),
    ],
)
def test_acquire_rejects(
    call: Any, error: type[Exception], message: str, generator: torch.Generator
) -> None:
    candidates, points, rewards = problem(2, generator)
    model = DNGO(seeds=[1, 2], num_epochs=1).fit(points, rewards)
    with pytest.raises(error, match=message):
        call(model, candidates)


def test_a_regression_rejects() -> None:
    model = BayesianLinearRegression()
    for basis, targets, message in (
        (torch.zeros(4, 3), torch.zeros(4), r"^basis: expected shape \[S, M, H\].*got \[4, 3\]"),
        (torch.zeros(1, 4, 3), torch.zeros(1, 5), r"^targets: expected shape \[1, 4\] to go with"),
        (torch.full((1, 4, 3), torch.nan), torch.zeros(1, 4), r"^basis: not all finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(basis, targets)


def test_rejects_what_has_no_meaning() -> None:
    with pytest.raises(TypeError, match=r"^recipe: expected a DngoRecipe, got str; use"):
        DNGO("released")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^seeds: expected an int or several, got float"):
        DNGO(seeds=1.5)  # type: ignore[arg-type]
    for seeds in ([], 2**64):
        with pytest.raises(ValueError, match=r"^seeds: .* are none, or no integers of 64 bits"):
            DNGO(seeds=seeds)
    with pytest.raises(ValueError, match=r"^model: not fitted; call fit"):
        DNGO().predict(torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"^engine: 'fast' is not an engine; use native or eager"):
        DNGO(engine="fast")
    with pytest.raises(ValueError, match=r"^standard_deviation: False has no meaning"):
        DngoRecipe(standard_deviation=False)

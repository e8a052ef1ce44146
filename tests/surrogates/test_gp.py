# SPDX-License-Identifier: Apache-2.0
"""The Gaussian process: a dense posterior, the evidence, batches, and searches side by side."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arch2vec_fast import spaces
from arch2vec_fast.spaces import WlHistogram, wl_histogram
from arch2vec_fast.surrogates import GaussianProcess, GpRecipe, expected_improvement
from arch2vec_fast.surrogates.gp_observations import log_marginal_likelihood, transform_targets

SPACE = spaces.get("nasbench201")
CELLS = SPACE.enumerate()[::37]
HISTOGRAM = wl_histogram(CELLS)
RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((len(CELLS), 9)).astype(np.float32)
REWARD = -np.square(FEATURES[:, :3]).sum(1).astype(np.float64) + CELLS.num_edges() % 3
ENGINES = ["native", "eager"]


def dense_kernel(model: GaussianProcess, histogram: WlHistogram | None = HISTOGRAM) -> NDArray[Any]:
    """K(Q, Q) of the first search, by definition, float64."""
    length, weight, _ = model.settings[0]
    x = FEATURES.astype(np.float64)
    x = (x - x.mean(0)) / math.sqrt(2 * ((x - x.mean(0)) ** 2).sum(1).mean())
    a = math.sqrt(5) * np.linalg.norm(x[:, None] - x[None], axis=2) / length
    near = (1 + a + a**2 / 3) * np.exp(-a)
    if histogram is None:
        return near
    phi = np.zeros((len(x), histogram.num_colours))
    owners = np.repeat(np.arange(len(x)), np.diff(histogram.starts))
    phi[owners, histogram.colours] = histogram.counts
    phi /= np.linalg.norm(phi, axis=1, keepdims=True)
    return weight * near + (1 - weight) * phi @ phi.T


def observe(searches: int, points: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(len(CELLS))[:points] for _ in range(searches)])
    return rows, REWARD[rows]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("targets", ["rank", "clip", "standard", "none"])
def test_posterior_is_the_dense_one(engine: str, targets: Any) -> None:
    rows, y = observe(1, 40)
    model = GaussianProcess(FEATURES, HISTOGRAM, recipe=GpRecipe(targets=targets), engine=engine)
    mean, std = model.fit(rows, y).predict()
    among, noise = dense_kernel(model), model.settings[0].noise
    k, cross = among[rows[0]][:, rows[0]] + noise * np.eye(40), among[rows[0]]
    values = transform_targets(y[0], targets)
    solved = np.linalg.solve(k, values)
    signal = values @ solved / 40
    np.testing.assert_allclose(mean[0], cross.T @ solved, atol=2e-4 * abs(values).max())
    variance = signal * (1 - (cross * np.linalg.solve(k, cross)).sum(0))
    np.testing.assert_allclose(std[0] ** 2, variance, atol=2e-4 * signal)


def test_evidence_is_scikit_learns() -> None:
    gaussian_process = pytest.importorskip("sklearn.gaussian_process")
    kernels = gaussian_process.kernels
    x = torch.from_numpy(FEATURES[:30]).double()
    y = torch.from_numpy(transform_targets(REWARD[:30], "rank"))
    length, noise = 2.5, 0.07
    a = math.sqrt(5) * torch.cdist(x, x) / length
    near = (1 + a + a.square() / 3) * (-a).exp()
    solved = torch.linalg.solve(near + noise * torch.eye(30), y)
    signal = float(y @ solved / 30)
    kernel = kernels.ConstantKernel(signal) * kernels.Matern(length, nu=2.5) + kernels.WhiteKernel(
        signal * noise
    )
    theirs = gaussian_process.GaussianProcessRegressor(kernel, optimizer=None, alpha=0)
    theirs.fit(x.numpy(), y.numpy())
    ours = log_marginal_likelihood(near, y, torch.tensor([noise, 1.0]).double())
    assert float(ours[0]) == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-9)


def test_settings_are_the_best_of_the_grid() -> None:
    rows, y = observe(1, 30)
    recipe = GpRecipe(weights=(0.0, 0.5, 1.0), length_scales=(0.3, 1.0), noises=(0.01, 0.1))
    model = GaussianProcess(FEATURES, HISTOGRAM, recipe=recipe).fit(rows, y)
    values = torch.from_numpy(transform_targets(y[0], "rank"))
    found = {}
    for weight in recipe.weights:
        for length in recipe.length_scales:
            one = GpRecipe(weights=(weight,), length_scales=(length,))
            other = GaussianProcess(FEATURES, HISTOGRAM, recipe=one).fit(rows, y)
            matrix = torch.from_numpy(dense_kernel(other)[rows[0]][:, rows[0]])
            evidence = log_marginal_likelihood(matrix, values, torch.tensor(recipe.noises).double())
            found.update({(length, weight, n): float(e) for n, e in zip(recipe.noises, evidence)})
    assert found[tuple(model.settings[0])] == pytest.approx(max(found.values()))  # type: ignore[index]


@pytest.mark.parametrize("engine", ENGINES)
def test_extending_is_fitting_to_all(engine: str) -> None:
    """Between two choices of the settings, row by row."""
    rows, y = observe(2, 31)
    recipe = GpRecipe(weights=(0.5,), length_scales=(0.7,), noises=(0.01,))
    whole = GaussianProcess(FEATURES, HISTOGRAM, num_searches=2, recipe=recipe, engine=engine)
    steps = GaussianProcess(FEATURES, HISTOGRAM, num_searches=2, recipe=recipe, engine=engine)
    whole.fit(rows, y)
    for first in range(0, 31, 4):
        steps.extend(rows[:, first : first + 4], y[:, first : first + 4])
    for mine, wanted in zip(steps.predict(), whole.predict(), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=2e-4)
    assert (steps.propose(5) == whole.propose(5)).all()


def test_searches_do_not_depend_on_their_company() -> None:
    """Three side by side, one of which ends early, are three alone."""
    starts, _ = observe(3, 10)

    def run(seeds: list[int]) -> list[list[int]]:
        model = GaussianProcess(FEATURES, HISTOGRAM, num_searches=len(seeds))
        rows = starts[seeds]
        for step in range(5):
            rewards = REWARD[rows]
            if 1 in seeds and step == 3:
                rewards[seeds.index(1), 2:] = np.nan
            if 1 in seeds and step > 3:
                rows[seeds.index(1)] = -1
            model.extend(rows, rewards)
            rows = model.propose(5)
        return model.rows

    together = run([0, 1, 2])
    assert together == [run([seed])[0] for seed in range(3)]
    assert [len(rows) for rows in together] == [30, 22, 30]


@pytest.mark.parametrize("engine", ENGINES)
def test_acquire_ranks_by_expected_improvement(engine: str) -> None:
    rows, y = observe(2, 20)
    model = GaussianProcess(FEATURES, HISTOGRAM, num_searches=2, engine=engine).fit(rows, y)
    mean, std = model.predict()
    found = model.acquire(7)
    for s in range(2):
        best = transform_targets(y[s], "rank").max()
        score = expected_improvement(mean[s].astype(np.float64), std[s], best)
        score[rows[s]] = -1
        np.testing.assert_allclose(score[found.indices[s]], found.improvement[s], rtol=1e-3)
        np.testing.assert_allclose(np.sort(score)[::-1][:7], found.improvement[s], rtol=1e-3)
        assert found.indices[s, 0] == model.propose(5)[s, 0]
    everything = np.ones(len(CELLS), bool)
    assert (model.acquire(3, visited=everything).indices == -1).all()
    higher = model.acquire(1, incumbent=9.0).improvement
    assert (higher < found.improvement[:, :1]).all()


def test_a_batch_is_one_after_the_other() -> None:
    """The second choice is the best once the first is observed at its mean."""
    recipe = GpRecipe(weights=(0.5,), length_scales=(0.7,), noises=(0.01,), targets="none")
    rows, y = observe(1, 20)
    y = y - y.mean()
    model = GaussianProcess(FEATURES, HISTOGRAM, recipe=recipe).fit(rows, y)
    batch = model.propose(4)
    scale = model._searches[0].whitened()[1]
    for count in range(1, 4):
        mean, _ = model.predict()
        more = np.concatenate([rows, batch[:, :count]], 1)
        values = np.concatenate([y, mean[:, batch[0, :count]]], 1)
        other = GaussianProcess(FEATURES, HISTOGRAM, recipe=recipe).fit(more, values)
        hallucinated, std = other.predict()
        std = std * scale / other._searches[0].whitened()[1]
        score = expected_improvement(hallucinated[0].astype(np.float64), std[0], y.max())
        score[more[0]] = -1
        assert score[batch[0, count]] == pytest.approx(score.max(), rel=1e-2)


def test_what_is_pending_is_as_if_chosen_in_the_same_batch() -> None:
    rows, y = observe(2, 20)
    model = GaussianProcess(FEATURES, HISTOGRAM, num_searches=2).fit(rows, y)
    batch = model.propose(4)
    for count in range(4):
        found = model.propose(1, batch[:, :count].tolist())
        np.testing.assert_array_equal(found[:, 0], batch[:, count])
    assert model.propose(1, [batch[0].tolist(), []])[1, 0] == batch[1, 0]


def test_equal_cells_do_not_fill_a_batch() -> None:
    """Ten copies of the most promising candidate: one of them is enough."""
    copies = np.repeat(FEATURES, 10, 0)
    recipe = GpRecipe(noises=(1e-4,))
    rows = np.arange(0, 2000, 100)[None]
    model = GaussianProcess(copies, recipe=recipe).fit(rows, np.repeat(REWARD, 10)[rows])
    assert len(set((model.acquire(5).indices[0] // 10).tolist())) == 1
    assert len(set((model.propose(5)[0] // 10).tolist())) == 5


@pytest.mark.parametrize("with_features", [True, False])
def test_either_kernel_will_do(with_features: bool) -> None:
    kernels: dict[str, Any] = {"features": FEATURES} if with_features else {"histogram": HISTOGRAM}
    rows, y = observe(1, 25)
    model = GaussianProcess(**kernels).fit(rows, y)
    assert model.settings[0].weight == float(with_features)
    assert np.isfinite(model.predict()[0]).all()


def test_transforms_are_monotone() -> None:
    values = np.array([0.1, 0.9, 0.5, 0.5, 0.95, 0.94])
    order = np.argsort(values, kind="stable")
    for kind in ("rank", "clip", "standard", "none"):
        moved = transform_targets(values, kind)[order]  # type: ignore[arg-type]
        assert (np.diff(moved) >= 0).all()
        assert moved[2] == moved[1]
    clipped = transform_targets(values, "clip")[order]
    assert clipped[1] - clipped[0] < 2 * (clipped[-1] - clipped[2])  # the tail has drawn near
    assert transform_targets(np.full(3, 0.5), "clip").tolist() == [0, 0, 0]


def test_constant_rewards_and_repeated_points_are_no_trouble() -> None:
    model = GaussianProcess(FEATURES, HISTOGRAM)
    model.fit(np.array([[3, 3, 3, 5]]), np.full((1, 4), 0.5))
    mean, std = model.predict()
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert len(set(model.propose(5)[0].tolist()) - {3, 5}) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GaussianProcess(), "features: none, and no histogram either"),
        (lambda: GaussianProcess(FEATURES[:3], HISTOGRAM), "histogram: of 423 cells, but feat"),
        (lambda: GaussianProcess(FEATURES * np.nan), "features: not all finite"),
        (lambda: GaussianProcess(FEATURES[0]), r"features: expected shape \[Q, D\]"),
        (lambda: GaussianProcess(FEATURES, engine="fast"), "engine: 'fast' is not an engine"),
        (lambda: GaussianProcess(FEATURES, num_searches=0), "num_searches: 0 is below 1"),
        (lambda: GaussianProcess(FEATURES).predict(), "model: search 0 has no observations"),
        (lambda: GaussianProcess(FEATURES).fit([[423]], [[0.0]]), r"rows: outside -1 .. Q - 1"),
        (lambda: GaussianProcess(FEATURES).fit([[1]], [[np.inf]]), "targets: infinite"),
        (lambda: GaussianProcess(FEATURES).fit([[1]], [[0.0, 1.0]]), "targets: shape"),
        (lambda: GaussianProcess(FEATURES).fit([1], [0.0]), r"rows: expected integers \[1, B\]"),
        (lambda: GpRecipe(targets="log"), "targets: unknown transform 'log'"),  # type: ignore[arg-type]
        (lambda: GpRecipe(weights=(2.0,)), r"weights: \(2.0,\); give one or more in \[0, 1\]"),
        (lambda: GpRecipe(noises=()), r"noises: \(\); give one or more positive"),
        (lambda: GpRecipe(refit_growth=1), "refit_growth: 1 is not above 1"),
    ],
)
def test_rejects(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_rejects_a_recipe_by_name() -> None:
    with pytest.raises(TypeError, match=r"^recipe: expected a GpRecipe, got str"):
        GaussianProcess(torch.zeros(4, 2), recipe="best")  # type: ignore[arg-type]

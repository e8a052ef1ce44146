# SPDX-License-Identifier: Apache-2.0
"""Bayesian linear regression against the released code's numbers and against its definition."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from arch2vec_fast.surrogates import BayesianLinearRegression
from arch2vec_fast.surrogates.bayesian_linear import spectrum

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(params=[60, 200])
def golden(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"dngo_n{request.param}.npz") as archive:
        return {name: torch.from_numpy(archive[name]).double() for name in archive.files}


def dense_evidence(basis: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
    """log N(y | 0, I / beta + Phi Phi^T / alpha)."""
    covariance = torch.eye(len(y), dtype=y.dtype) / beta + basis @ basis.T / alpha
    return torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y)


@pytest.mark.parametrize(("points", "hidden"), [(7, 20), (20, 7), (9, 9), (1, 3)])
def test_log_evidence_is_that_of_the_normal_distribution(
    points: int, hidden: int, generator: torch.Generator
) -> None:
    basis = torch.randn(1, points, hidden, generator=generator, dtype=torch.float64)
    y = torch.randn(1, points, generator=generator, dtype=torch.float64)
    model = BayesianLinearRegression().fit(basis, y)
    alpha, beta = torch.tensor([0.3, 7.0]).double(), torch.tensor([2.0, 0.1]).double()
    actual = model.log_evidence(alpha, beta)
    expected = [dense_evidence(basis[0], y[0], float(a), float(b)) for a, b in zip(alpha, beta)]
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-10, atol=1e-10)
    best = model.log_evidence(model.prior_precision, model.noise_precision)
    assert (best >= actual).all()


def test_spectrum_of_a_basis_without_full_rank(generator: torch.Generator) -> None:
    basis = torch.randn(1, 30, 4, generator=generator, dtype=torch.float64).repeat(1, 1, 2)
    y = torch.randn(1, 30, generator=generator, dtype=torch.float64)
    terms = spectrum(basis, y)
    total = terms.energy.sum(1) + terms.residual
    torch.testing.assert_close(total, y.square().sum(1), rtol=1e-10, atol=0)
    q, _ = torch.linalg.qr(basis[0, :, :4])
    expected = (y[0] - q @ (q.T @ y[0])).square().sum()
    torch.testing.assert_close(terms.residual[0], expected, rtol=1e-8, atol=0)


def test_predict_is_the_conditional_distribution(generator: torch.Generator) -> None:
    basis = torch.randn(2, 12, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    new = torch.randn(2, 8, 5, generator=generator, dtype=torch.float64)
    model = BayesianLinearRegression().fit(basis, y)
    mean, std = model.predict(new)
    for s in range(2):
        alpha, beta = model.prior_precision[s], model.noise_precision[s]
        inverse = torch.linalg.inv(torch.eye(12) / beta + basis[s] @ basis[s].T / alpha)
        cross = new[s] @ basis[s].T / alpha
        torch.testing.assert_close(mean[s], cross @ inverse @ y[s], rtol=1e-6, atol=1e-8)
        prior = new[s].square().sum(1) / alpha + 1 / beta
        expected = prior - ((cross @ inverse) * cross).sum(1)
        torch.testing.assert_close(std[s] ** 2, expected, rtol=1e-6, atol=1e-8)


def test_released_evidence_matches_golden(golden: dict[str, Tensor]) -> None:
    model = BayesianLinearRegression(released=True).fit(golden["theta"][None], golden["y"][None])
    log_alpha, log_noise = golden["log_grid"].T
    actual = model.log_evidence(log_alpha.exp(), (-log_noise).exp())
    expected = golden["released_mll"]
    assert torch.equal(actual.isinf(), expected.isinf())
    # Float32 products there put 1e-7 of the largest eigenvalue into all others.
    assert model.terms is not None
    largest = model.terms.eigenvalue.max()
    sound = expected.isfinite() & (log_alpha > (1e-5 * largest).log() - log_noise)
    assert sound.sum() >= 15
    torch.testing.assert_close(actual[sound], expected[sound], rtol=1e-4, atol=3e-3)


def test_released_search_matches_golden(golden: dict[str, Tensor]) -> None:
    """Its tolerance is 1e-4 in both logarithms, and the start of the golden run is not known."""
    for start in ([0.0, -3.0], [1.0, -4.0]):
        model = BayesianLinearRegression(released=True)
        model.fit(golden["theta"][None], golden["y"][None], torch.tensor([start]))
        assert model.prior_precision is not None
        assert model.noise_precision is not None
        torch.testing.assert_close(model.prior_precision[0], golden["alpha"], rtol=5e-4, atol=0)
        torch.testing.assert_close(model.noise_precision[0], golden["beta"], rtol=5e-4, atol=0)


def test_posterior_matches_golden(golden: dict[str, Tensor]) -> None:
    model = BayesianLinearRegression(
        prior_precision=golden["alpha"][None], noise_precision=golden["beta"][None]
    ).condition(golden["theta"][None], golden["y"][None])
    scaled = (golden["Q"] - golden["X_mean"]) / golden["X_std"]
    basis = torch.tanh(scaled @ golden["fc1_weight"].T + golden["fc1_bias"])
    mean, std = model.predict(basis[None])
    torch.testing.assert_close(mean[0], golden["mean"], rtol=0, atol=5e-5)
    torch.testing.assert_close(std[0] ** 2, golden["var"], rtol=2e-4, atol=0)


@pytest.mark.parametrize("released", [False, True])
def test_eager_engine_agrees(released: bool, golden: dict[str, Tensor]) -> None:
    data = golden["theta"][None], golden["y"][None]
    native = BayesianLinearRegression(released=released).fit(*data)
    eager = BayesianLinearRegression(released=released, eager=True).fit(*data)
    assert native.prior_precision is not None
    assert eager.prior_precision is not None
    torch.testing.assert_close(native.prior_precision, eager.prior_precision, rtol=1e-4, atol=0)
    torch.testing.assert_close(native.factor, eager.factor, rtol=1e-4, atol=1e-6)


def test_a_regression_that_was_not_fitted_says_so() -> None:
    with pytest.raises(ValueError, match=r"^model: not fitted; call fit"):
        BayesianLinearRegression().predict(torch.zeros(1, 1, 1))

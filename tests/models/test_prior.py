# SPDX-License-Identifier: Apache-2.0
"""Latent priors: moments of samples, reproducibility, bad kinds."""

import pytest
import torch
from torch import Tensor

from arch2vec_fast.models import PRIORS, LatentPrior


@pytest.fixture
def posteriors() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(6, 6, generator=generator)
    batches = []
    for size in (700, 1, 300):
        mu = (torch.randn(size, 6, generator=generator) @ mixing + 2.0).view(size, 3, 2)
        batches.append((mu, torch.full((size, 3, 2), -0.5)))
    return batches


@pytest.mark.parametrize("kind", PRIORS)
def test_samples_are_reproducible(kind: str, posteriors: list[tuple[Tensor, Tensor]]) -> None:
    prior = LatentPrior.fit(kind, posteriors)
    first, second, third = (
        prior.sample(7, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (7, 3, 2)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize("kind", PRIORS)
def test_sample_moments(kind: str, posteriors: list[tuple[Tensor, Tensor]]) -> None:
    """Each prior against the moments of its definition, to four standard errors."""
    mu = torch.cat([batch[0] for batch in posteriors]).flatten(1).double()
    within = torch.eye(6).double() * torch.exp(torch.tensor(-1.0))  # E[sigma^2]
    covariance = {
        "standard": torch.eye(6).double(),
        "per-node": torch.diag(mu.var(0)),
        "gaussian": torch.cov(mu.T, correction=0) + within,
        "posterior": torch.cov(mu.T, correction=0) + within,
    }[kind]
    mean = torch.zeros(6).double() if kind == "standard" else mu.mean(0)
    count = 200_000
    draws = LatentPrior.fit(kind, posteriors).sample(count, torch.Generator().manual_seed(0))
    draws = draws.flatten(1).double()
    error = 4 * (covariance.diagonal() / count).sqrt()
    assert ((draws.mean(0) - mean).abs() < error).all()
    spread = torch.outer(covariance.diagonal(), covariance.diagonal()).sqrt()
    assert ((torch.cov(draws.T) - covariance).abs() < 4 * (2 / count) ** 0.5 * 2 * spread).all()


def test_fit_without_sigma_is_the_spread_of_the_means() -> None:
    mu = torch.randn(500, 3, 2)
    prior = LatentPrior.fit("gaussian", [(mu, None)])
    covariance = torch.cov(mu.flatten(1).T, correction=0)
    torch.testing.assert_close(prior.scale @ prior.scale.T, covariance, rtol=1e-3, atol=1e-4)


def test_rejects_unknown_kind() -> None:
    with pytest.raises(ValueError, match="prior: unknown kind 'flow'; choose one of standard"):
        LatentPrior.fit("flow", [])

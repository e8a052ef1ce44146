# SPDX-License-Identifier: Apache-2.0
"""Where latents of new cells come from: four priors behind one `sample`.

standard   z ~ N(0, I), the prior of the evidence lower bound;
per-node   z ~ N(mean, std^2) for each node and dimension, as the released code samples: moments
           of the encoder means of the last epoch, collected while the weights moved;
gaussian   one Gaussian with full covariance over all N*D numbers of a cell, fitted to the
           aggregate posterior: Cov[mu] + diag(E[sigma^2]) by the law of total variance;
posterior  a draw from q(z | x) of a training cell x chosen at random: mostly replays x.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

PRIORS = ("standard", "per-node", "gaussian", "posterior")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentPrior:
    """A distribution over latents [N,D] of a cell.

    kind: one of `PRIORS`. mean [N,D]. scale: [N,D] standard deviations, or for `gaussian` the
    lower Cholesky factor [N*D, N*D]; for `posterior` mean and scale are [M,N,D], one row a cell.
    """

    kind: str
    mean: Tensor
    scale: Tensor

    @classmethod
    def from_state(
        cls, kind: str, tensors: dict[str, Tensor], shape: tuple[int, int]
    ) -> LatentPrior:
        """Inverse of `state`; ValueError unless it is of `shape` (N, D) and finite."""
        mean, scale = (tensors.get(name, torch.empty(0)) for name in ("mean", "scale"))
        centre = (len(mean), *shape) if kind == "posterior" else shape
        spread = (shape[0] * shape[1],) * 2 if kind == "gaussian" else centre
        if kind not in PRIORS or mean.shape != centre or scale.shape != spread:
            raise ValueError("not a latent prior of this space and recipe")
        if not (mean.isfinite().all() and scale.isfinite().all()):
            raise ValueError("a latent prior with NaN or infinity")
        return cls(kind=kind, mean=mean, scale=scale)

    @classmethod
    def standard(cls, num_nodes: int, latent_dim: int) -> LatentPrior:
        """N(0, I)."""
        zeros = torch.zeros(num_nodes, latent_dim)
        return cls(kind="standard", mean=zeros, scale=torch.ones_like(zeros))

    @classmethod
    def fit(cls, kind: str, posteriors: Iterable[tuple[Tensor, Tensor | None]]) -> LatentPrior:
        """Fit to batches of (mu [B,N,D], log_sigma [B,N,D] or None), in float64, one pass."""
        if kind not in PRIORS:
            raise ValueError(f"prior: unknown kind {kind!r}; choose one of {', '.join(PRIORS)}")
        if kind == "posterior":
            pairs = [(mu.cpu(), _sigma(mu, log_sigma).cpu()) for mu, log_sigma in posteriors]
            mean, scale = (torch.cat(part) for part in zip(*pairs))
            return cls(kind=kind, mean=mean, scale=scale)
        moments = LatentMoments()
        for mu, log_sigma in posteriors:
            moments.add(mu, log_sigma)
        shape = moments.shape
        if kind == "standard":
            return cls.standard(*shape)
        if kind == "per-node":
            return moments.per_node()
        mean, covariance = moments.total_covariance()
        floor = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance))
        factor = torch.linalg.cholesky(covariance + floor.to(covariance))
        return cls(kind=kind, mean=mean.view(shape).float(), scale=factor.float())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents float32 [count,N,D] on the CPU; reproducible by `generator`."""
        shape = self.mean.shape[-2:]
        if self.kind == "posterior":
            pick = torch.randint(len(self.mean), (count,), generator=generator)
            noise = torch.randn(count, *shape, generator=generator)
            return self.mean[pick] + self.scale[pick] * noise
        noise = torch.randn(count, *shape, generator=generator)
        if self.kind == "gaussian":
            noise = (noise.flatten(1) @ self.scale.T).view(count, *shape)
            return self.mean + noise
        return noise * self.scale + self.mean

    def state(self) -> dict[str, Tensor]:
        """Tensors to save beside `kind`."""
        return {"mean": self.mean.contiguous(), "scale": self.scale.contiguous()}


class LatentMoments:
    """Running first and second moments of posteriors, in float64.

    `add` costs one [N*D, B] x [B, N*D] product, or only sums with `covariance=False`.
    """

    def __init__(self, *, covariance: bool = True) -> None:
        self._covariance = covariance
        self.count = 0
        self.shape: tuple[int, int] = (0, 0)
        self.sums: dict[str, Tensor] = {}

    def add(self, mu: Tensor, log_sigma: Tensor | None = None) -> None:
        """Take in mu [B,N,D] and log_sigma of the same shape."""
        flat = mu.detach().double().flatten(1)
        parts = {"mu": flat.sum(0), "mu2": flat.pow(2).sum(0)}
        if self._covariance:
            parts["outer"] = flat.T @ flat
            parts["sigma2"] = _sigma(mu, log_sigma).double().flatten(1).pow(2).sum(0)
        for name, value in parts.items():
            if name in self.sums:  # on the CPU where a checkpoint was read
                value = self.sums[name].to(value.device) + value
            self.sums[name] = value
        self.count += len(mu)
        self.shape = (mu.shape[1], mu.shape[2])

    def add_sums(self, mu: Tensor, mu2: Tensor, count: int, shape: tuple[int, int]) -> None:
        """Take in `count` cells by their sums of mu and mu^2, float64 [N*D] each.

        Only where no covariance is kept. shape: (N, D).
        """
        for name, value in (("mu", mu), ("mu2", mu2)):
            if name in self.sums:  # on the CPU where a checkpoint was read
                value = self.sums[name].to(value.device) + value
            self.sums[name] = value
        self.count += count
        self.shape = shape

    def per_node(self) -> LatentPrior:
        """Mean and (unbiased) standard deviation of mu for each node and dimension."""
        mean = self.sums["mu"] / self.count
        variance = (self.sums["mu2"] / self.count - mean.pow(2)) * self.count / (self.count - 1)
        scale = variance.clamp_min(0).sqrt().view(self.shape).float().cpu()
        return LatentPrior(kind="per-node", mean=mean.view(self.shape).float().cpu(), scale=scale)

    def total_covariance(self) -> tuple[Tensor, Tensor]:
        """Mean [N*D] and covariance [N*D, N*D] of the aggregate posterior, float64."""
        mean = self.sums["mu"] / self.count
        covariance = self.sums["outer"] / self.count - torch.outer(mean, mean)
        covariance = covariance + torch.diag(self.sums["sigma2"] / self.count)
        return mean.cpu(), covariance.cpu()


def _sigma(mu: Tensor, log_sigma: Tensor | None) -> Tensor:
    return torch.zeros_like(mu) if log_sigma is None else log_sigma.detach().exp()

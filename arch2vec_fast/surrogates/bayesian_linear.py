# SPDX-License-Identifier: Apache-2.0
"""Bayesian linear regression on a basis, with both precisions from the evidence, for S data sets.

y ~ N(Phi w, 1/beta), w ~ N(0, I/alpha) (Bishop 2006, sections 3.3 to 3.5). All in float64: what
grows with the number of candidates is done elsewhere (`functional.dngo_acquire`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from arch2vec_fast import _reference_dngo, functional, reference


class Spectrum(NamedTuple):
    """All that the evidence needs of basis and targets; see `functional.dngo_evidence`."""

    eigenvalue: Tensor  # [S, R] of Phi^T Phi
    energy: Tensor  # [S, R]
    residual: Tensor  # [S]
    num_points: int
    num_hidden: int


def spectrum(basis: Tensor, targets: Tensor) -> Spectrum:
    """One eigendecomposition of the smaller of Phi Phi^T and Phi^T Phi.

    Args:
        basis: Phi, float64 [S, M, H].
        targets: float64 [S, M].
    """
    num_points, num_hidden = basis.shape[1:]
    sizes = (num_points, num_hidden)
    if num_points <= num_hidden:
        value, vector = _eigh(basis @ basis.mT)
        energy = (vector.mT @ targets.unsqueeze(2))[..., 0] ** 2
        return Spectrum(value.clamp(min=0), energy, torch.zeros_like(targets[:, 0]), *sizes)
    value, vector = _eigh(basis.mT @ basis)
    # Below this the division by lambda is noise: such directions count as not reached.
    floor = value[:, -1:] * (num_hidden * torch.finfo(value.dtype).eps)
    reached = value > floor
    along = (vector.mT @ (basis.mT @ targets.unsqueeze(2)))[..., 0]
    share = torch.where(reached, along / value, 0)
    rest = targets - (basis @ (vector @ share.unsqueeze(2)))[..., 0]
    return Spectrum(value.clamp(min=0), share * along, rest.square().sum(1), *sizes)


def _double_pair(basis: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Phi [S, M, H] and y [S, M] in float64."""
    if basis.dim() != 3 or 0 in basis.shape[1:]:
        raise ValueError(
            f"basis: expected shape [S, M, H], M and H at least 1, got {list(basis.shape)}"
        )
    if targets.shape != basis.shape[:2]:
        raise ValueError(
            f"targets: expected shape {list(basis.shape[:2])} to go with the basis, got "
            f"{list(targets.shape)}"
        )
    for name, values in (("basis", basis), ("targets", targets)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name}: not all finite; remove those observations")
    return basis.double(), targets.double()


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    # On the host: LAPACK was faster than an H100 for 1, 8, 64 and 500 matrices of 100 x 100, by a
    # third, copies included (bench/gpu/dngo.py).
    # On one thread: LAPACK's own gain nothing at this size, and on a busy machine wait for each
    # other, 34 s instead of 0.3 s for 100 matrices of 106 x 106.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        value, vector = torch.linalg.eigh(matrix.cpu())
    finally:
        torch.set_num_threads(threads)
    return value.to(matrix.device), vector.to(matrix.device)


@dataclass(slots=True, kw_only=True)
class BayesianLinearRegression:
    """Posterior of the weights; see the module. S data sets, H basis functions.

    Attributes:
        released: the released code's evidence and search (SEMANTICS: its residual is not squared).
        prior_precision, noise_precision: alpha and beta [S], set by `fit`.
        coefficients: posterior mean m [S, H].
        factor: F [S, H, H], lower triangular, with posterior covariance F^T F.

    Example:
        >>> import torch
        >>> basis = torch.eye(3, dtype=torch.float64)[None]
        >>> model = BayesianLinearRegression().fit(basis, torch.tensor([[2.0, -2.0, 2.0]]))
        >>> mean, std = model.predict(basis)
        >>> (mean > 0).tolist()
        [[True, False, True]]
    """

    released: bool = False
    eager: bool = False
    prior_precision: Tensor | None = None
    noise_precision: Tensor | None = None
    coefficients: Tensor | None = None
    factor: Tensor | None = None
    terms: Spectrum | None = None

    def fit(
        self, basis: Tensor, targets: Tensor, start: Tensor | None = None
    ) -> BayesianLinearRegression:
        """Maximises the evidence and conditions on the data.

        Args:
            basis: Phi [S, M, H], computed in float64.
            targets: y [S, M].
            start: log alpha, log(1 / beta) [S, 2] where the released search starts; default 0, -3,
                the mean of the released prior.
        """
        basis, targets = _double_pair(basis, targets)
        terms = self.terms = spectrum(basis, targets)
        if start is None:
            start = targets.new_tensor([0.0, -3.0]).expand(len(targets), 2)
        engine = reference if self.eager else functional
        self.prior_precision, self.noise_precision = engine.dngo_evidence(
            *terms[:3],
            start.double(),
            num_points=terms.num_points,
            num_hidden=terms.num_hidden,
            released=self.released,
        )
        return self.condition(basis, targets)

    def condition(self, basis: Tensor, targets: Tensor) -> BayesianLinearRegression:
        """Sets the posterior of the weights at the precisions in place; `fit` ends with it."""
        if self.prior_precision is None or self.noise_precision is None:
            raise ValueError("model: no precisions; call fit, or set both")
        basis, targets = _double_pair(basis, targets)
        alpha, beta = self.prior_precision[:, None, None], self.noise_precision[:, None, None]
        unit = torch.eye(basis.shape[2], dtype=basis.dtype, device=basis.device)
        lower = torch.linalg.cholesky(alpha * unit + beta * (basis.mT @ basis))
        self.factor = torch.linalg.solve_triangular(lower, unit, upper=False)
        moment = beta * (basis.mT @ targets.unsqueeze(2))
        self.coefficients = (self.factor.mT @ (self.factor @ moment))[..., 0]
        return self

    def log_evidence(self, prior_precision: Tensor, noise_precision: Tensor) -> Tensor:
        """Log marginal likelihood [...] of the first data set at the precisions [...] given."""
        if self.terms is None:
            raise ValueError("model: not fitted; call fit(basis, targets) first")
        return _reference_dngo.log_evidence(
            self.terms.eigenvalue[0],
            self.terms.energy[0],
            self.terms.residual[0],
            prior_precision.log(),
            -noise_precision.log(),
            num_points=self.terms.num_points,
            num_hidden=self.terms.num_hidden,
            released=self.released,
        )

    def predict(self, basis: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, the noise included, at phi [S, Q, H]: two tensors [S, Q]."""
        if self.coefficients is None or self.factor is None or self.noise_precision is None:
            raise ValueError("model: not fitted; call fit(basis, targets) first")
        basis = basis.double()
        mean = (basis @ self.coefficients.unsqueeze(2))[..., 0]
        spread = (basis @ self.factor.mT).square().sum(2)
        return mean, (1 / self.noise_precision.unsqueeze(1) + spread).sqrt()

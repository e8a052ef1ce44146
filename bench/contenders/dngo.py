# SPDX-License-Identifier: Apache-2.0
"""The released code's Bayesian-optimisation round, and the same round vectorised.

With a clone of MSU-MLSys-Lab/arch2vec its own `pybnn.dngo.DNGO` is used (it imports emcee, which it
does not call here and which need not be installed); without, a faithful eager twin: the same loops
over mini-batches, an inverse and a determinant for each evaluation of the evidence, candidates in
windows of 200 with a full 200 x 200 covariance each.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast.surrogates import released_expected_improvement
from arch2vec_fast.surrogates.dngo import released_draws

WINDOW = 200
Floats = NDArray[np.floating[Any]]


def released_model(reference: Path | None) -> Callable[[Floats, Floats], Any]:
    """A function that fits and returns something with `predict`."""
    if reference is None:
        return EagerDngo
    sys.path.insert(0, str(reference))
    sys.modules.setdefault("emcee", types.ModuleType("emcee"))
    module = importlib.import_module("pybnn.dngo")

    def fit(x: Floats, y: Floats) -> Any:
        options = {"do_mcmc": False, "normalize_output": False, "rng": 1}
        model = module.DNGO(num_epochs=100, n_units=128, **options)
        model.train(X=x, y=y, do_optimize=True)
        return model

    return fit


class EagerDngo:
    """The released fit and prediction, step by step, in PyTorch, NumPy and scipy."""

    def __init__(self, x: Floats, y: Floats, *, hidden: int = 128, epochs: int = 100) -> None:
        from scipy import optimize

        self.mean, self.std = x.mean(0), x.std(0)
        points, self.y = (x - self.mean) / self.std, y
        self.hidden = torch.nn.Linear(x.shape[1], hidden)
        readout = torch.nn.Linear(hidden, 1)
        parameters = [*self.hidden.parameters(), *readout.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=0.01)
        order, start = released_draws(1, epochs, len(x))
        batch = min(10, len(x))
        for rows in order:
            for first in range(0, len(x) - batch + 1, batch):
                chosen = rows[first : first + batch]
                inputs, targets = torch.Tensor(points[chosen]), torch.Tensor(y[chosen, None])
                optimizer.zero_grad()
                output = readout(torch.tanh(self.hidden(inputs)))
                torch.nn.functional.mse_loss(output, targets).backward()
                optimizer.step()
        self.theta = self.basis(points)
        found = np.exp(optimize.fmin(self._cost, start, disp=False))
        self.beta = 1 / found[1]
        precision = self.beta * self.theta.T @ self.theta + np.eye(hidden) * found[0]
        self.covariance = np.linalg.inv(precision)
        self.coefficients = self.beta * self.covariance @ self.theta.T @ y

    def basis(self, points: Floats) -> Floats:
        """Hidden units of normalised points."""
        with torch.no_grad():
            values: Floats = torch.tanh(self.hidden(torch.Tensor(points))).numpy()
        return values

    def _cost(self, logs: Floats) -> float:
        if np.any(np.abs(logs) > 10):
            return float("inf")
        alpha, beta = np.exp(logs[0]), 1 / np.exp(logs[1])
        count, hidden = self.theta.shape
        precision = beta * self.theta.T @ self.theta + np.eye(hidden) * alpha
        m = beta * np.linalg.inv(precision) @ self.theta.T @ self.y
        with np.errstate(all="ignore"):
            log_det = np.log(np.linalg.det(precision) + 1e-10)
        residual = np.linalg.norm(self.y - self.theta @ m)
        value = hidden / 2 * logs[0] - count / 2 * (logs[1] + np.log(2 * np.pi))
        value -= beta / 2 * residual + alpha / 2 * m @ m + 0.5 * log_det
        return 1e25 if np.isnan(value) else -float(value)

    def predict(self, candidates: Floats) -> tuple[Floats, Floats]:
        """Mean and variance, with the diagonal of a full product."""
        theta = self.basis((candidates - self.mean) / self.std)
        return theta @ self.coefficients, 1 / self.beta + np.diag(theta @ self.covariance @ theta.T)


def released_acquire(model: Any, candidates: Tensor, k: int = 5) -> Tensor:
    """Windows of 200, lists of numbers, an argsort of everything."""
    mean, variance = [], []
    for part in torch.split(candidates, WINDOW):
        m, v = model.predict(part.numpy())
        mean.extend(list(m))
        variance.extend(list(v))
    improvement = released_expected_improvement(torch.Tensor(mean), torch.Tensor(variance))
    return torch.argsort(improvement)[-k:]


def vectorised_acquire(model: EagerDngo, candidates: Tensor, k: int = 5) -> Tensor:
    """The same mathematics without loops: three products over all candidates, row sums, top-k."""
    mean, std = torch.as_tensor(model.mean), torch.as_tensor(model.std)
    with torch.no_grad():
        theta = torch.tanh(model.hidden((candidates - mean) / std))
    covariance = torch.from_numpy(model.covariance).float()
    variance = 1 / float(model.beta) + ((theta @ covariance) * theta).sum(1)
    predicted = theta @ torch.from_numpy(model.coefficients).float()
    improvement = released_expected_improvement(predicted, variance)
    return torch.topk(improvement, k).indices

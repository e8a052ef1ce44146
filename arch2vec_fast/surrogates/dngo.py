# SPDX-License-Identifier: Apache-2.0
"""DNGO: a small network whose hidden units are the basis of a Bayesian linear regression.

Snoek et al., "Scalable Bayesian Optimization Using Deep Neural Networks", ICML 2015, with one
hidden layer, as arch2vec uses it. S independent searches are one model of S seeds: they share the
candidates, and every kernel works on all of them at once.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast import _reference_dngo, functional, reference
from arch2vec_fast._checks import check_device
from arch2vec_fast._memory import counted_memory
from arch2vec_fast._reference_dngo import Acquisition, split_parameters
from arch2vec_fast.surrogates.bayesian_linear import BayesianLinearRegression

Array = Tensor | NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DngoRecipe:
    """Where the released code and the correct model differ, choice by choice.

    Attributes:
        squared_residual: the evidence holds the square of the residual; released: its norm.
        normalize_targets: zero mean, unit variance before the fit, undone after; the basis has no
            constant, so raw accuracies near 0.9 are fitted badly.
        standard_deviation: expected improvement takes the standard deviation; released: the
            variance, which is nearly greedy.
        target: what must be improved upon; None: the best reward observed.
        numpy_draws: shuffles and the start of the evidence search from NumPy's legacy generator,
            number by number as the released code draws them.
    """

    squared_residual: bool = True
    normalize_targets: bool = True
    standard_deviation: bool = True
    target: float | None = None
    numpy_draws: bool = False

    def __post_init__(self) -> None:
        if self.normalize_targets and not self.standard_deviation:
            raise ValueError(
                "standard_deviation: False has no meaning in normalised units; "
                "set normalize_targets=False"
            )

    @classmethod
    def released(cls, target: float = 0.95) -> DngoRecipe:
        """What the released code does; its target is 1.0 on NAS-Bench-201."""
        return cls(
            squared_residual=False,
            normalize_targets=False,
            standard_deviation=False,
            target=target,
            numpy_draws=True,
        )

    @classmethod
    def corrected(cls) -> DngoRecipe:
        """The model as published, with the incumbent as target."""
        return cls()


class Proposal(NamedTuple):
    """The best candidates of each search, best first."""

    indices: Array  # [S, K] or [K]; -1 where no candidate is left
    improvement: Array  # [S, K] or [K], expected improvement as the recipe has it


class DNGO:
    """The surrogate of `search`: `fit`, then `predict` or `acquire`, then `fit` anew.

    One search: points [M, D], targets [M]; S of them: `seeds` of length S, points [S, M, D],
    targets [S, M]. NumPy arrays and tensors are taken, of any floating type, and what comes back is
    of the kind of the candidates. Every fit starts afresh from its seed, as in the released code.

    Args:
        recipe: `DngoRecipe.corrected()` (default) or `.released()`, or your own.
        seeds: one int or several: everything random follows from them.
        num_hidden, num_epochs, batch_size, learning_rate: of the network.
        device: "cpu" or "cuda".
        engine: "native" (the kernels) or "eager" (plain PyTorch, the same model).

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> candidates = rng.standard_normal((500, 4)).astype(np.float32)
        >>> reward = -np.square(candidates).sum(1)
        >>> model = DNGO(seeds=3).fit(candidates[:50], reward[:50])
        >>> best = model.acquire(candidates, 5, visited=np.arange(500) < 50)
        >>> bool(reward[best.indices].mean() > reward.mean())
        True
    """

    def __init__(
        self,
        recipe: DngoRecipe | None = None,
        *,
        seeds: int | Sequence[int] = 0,
        num_hidden: int = 128,
        num_epochs: int = 100,
        batch_size: int = 10,
        learning_rate: float = 1e-2,
        device: str | torch.device = "cpu",
        engine: str = "native",
    ) -> None:
        if engine not in ("native", "eager"):
            raise ValueError(f"engine: {engine!r} is not an engine; use native or eager")
        if recipe is not None and not isinstance(recipe, DngoRecipe):
            raise TypeError(
                f"recipe: expected a DngoRecipe, got {type(recipe).__name__}; "
                "use DngoRecipe.released() or .corrected()"
            )
        self.recipe = recipe or DngoRecipe.corrected()
        self.single = isinstance(seeds, int)
        self.seeds = _checked_seeds(seeds)
        self.num_hidden = num_hidden
        self.num_epochs = num_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.device = check_device(device)
        self._functions = functional if engine == "native" else reference
        self.regression = BayesianLinearRegression(
            released=not self.recipe.squared_residual, eager=engine == "eager"
        )
        self._posterior: tuple[Tensor, ...] = ()
        self._shift = self._scale = self._best = torch.empty(0)

    def fit(
        self,
        points: Array,
        targets: Array,
        *,
        parameters: Tensor | None = None,
        order: Tensor | None = None,
    ) -> DNGO:
        """Trains the networks, maximises the evidence, conditions the regression; returns self.

        Args:
            points: [M, D] or [S, M, D], M >= 1.
            targets: rewards to be maximised, [M] or [S, M].
            parameters: initial parameters [S, P] instead of those drawn from the seeds.
            order: shuffles int32 [S, E, M] instead of those drawn.
        """
        inputs, rewards = self._observations(points, targets)
        num_points, num_inputs = inputs.shape[1:]
        shuffles = 4 * self.num_epochs * num_points
        network = 12 * self.num_hidden * (num_inputs + 2)
        basis = 8 * 4 * self.num_hidden * (num_points + self.num_hidden)
        with counted_memory("seeds", len(self.seeds), shuffles + network + basis, self.device):
            self._fit(inputs, rewards, parameters, order)
        return self

    def _fit(
        self, inputs: Tensor, rewards: Tensor, parameters: Tensor | None, order: Tensor | None
    ) -> None:
        num_points, num_inputs = inputs.shape[1:]
        drawn, shuffles, start = self._draw(num_inputs, num_points)
        flat = drawn if parameters is None else parameters.to(self.device).contiguous().clone()
        shuffles = shuffles if order is None else order.to(self.device)

        mean, std = inputs.mean(1, keepdim=True), inputs.std(1, correction=0, keepdim=True)
        std = torch.where(std > 0, std, 1)  # a constant input tells nothing; it becomes zero
        self._best = rewards.max(1).values
        self._shift, self._scale = torch.zeros_like(self._best), torch.ones_like(self._best)
        if self.recipe.normalize_targets:
            self._shift = rewards.mean(1)
            spread = rewards.std(1, correction=0)
            self._scale = torch.where(spread > 0, spread, 1)
            rewards = (rewards - self._shift[:, None]) / self._scale[:, None]
        scaled = (inputs - mean) / std
        self._functions.dngo_fit(
            flat,
            scaled,
            rewards,
            shuffles,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )
        weight, bias, _, _ = (part.double() for part in split_parameters(flat, num_inputs))
        basis = torch.tanh(scaled.double() @ weight.mT + bias.unsqueeze(1))
        self.regression.fit(basis, rewards, start)
        self._keep(weight / std, bias - (weight @ (mean / std).double().mT)[..., 0])

    def predict(self, candidates: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the reward, the noise included: [Q] or [S, Q]."""
        found = self._acquire(self._candidates(candidates), 0, None, None, predictions=True)
        mean = self._shift[:, None] + self._scale[:, None] * found.mean
        std = self._scale[:, None] * found.variance.sqrt()
        return self._result(mean, candidates), self._result(std, candidates)

    def acquire(
        self,
        candidates: Array,
        k: int = 5,
        visited: Array | None = None,
        incumbent: Array | float | None = None,
    ) -> Proposal:
        """The `k` candidates of largest expected improvement, one pass over all of them.

        Args:
            candidates: [Q, D], shared by the searches; keep a float32 tensor on the model's device
                between calls and nothing is copied.
            k: 0 .. 1024.
            visited: bool [Q] or [S, Q], candidates that are not to be proposed.
            incumbent: best reward so far, a number or one a search; default: the recipe's target,
                else the best reward of `fit`.
        """
        mask = None
        if visited is not None:
            mask = torch.as_tensor(visited).to(self.device, torch.bool)
            if mask.dim() == 1:
                mask = mask.expand(len(self.seeds), -1)
        found = self._acquire(self._candidates(candidates), k, mask, incumbent, predictions=False)
        improvement = found.scores
        if self.recipe.standard_deviation:
            improvement = improvement.exp() * self._scale[:, None]
        return Proposal(
            self._result(found.indices, candidates), self._result(improvement, candidates)
        )

    def improvement(self, candidates: Array, searches: Array | None = None) -> Array:
        """Expected improvement of every candidate, as the recipe has it: [Q] or [S, Q].

        What `acquire` ranks by, over the recipe's target or the best reward of `fit`. searches:
        which of the S are wanted, integers [s]; then [s, Q].
        """
        chosen = torch.arange(len(self.seeds)) if searches is None else torch.as_tensor(searches)
        rows = chosen.to(self.device)
        found = self._acquire(
            self._candidates(candidates), 0, None, None, predictions=True, searches=rows
        )
        target = self._target(None)[rows, None]
        if not self.recipe.standard_deviation:
            scores = _reference_dngo.released_improvement(found.mean, found.variance, target)
            return self._result(scores, candidates)
        scores = _reference_dngo.log_improvement(found.mean, found.variance.sqrt(), target)
        return self._result(scores.exp() * self._scale[rows, None], candidates)

    def _target(self, incumbent: Array | float | None) -> Tensor:
        """What must be improved upon, in the units of the fit, [S]."""
        if incumbent is None:
            incumbent = self.recipe.target if self.recipe.target is not None else self._best
        target = torch.as_tensor(incumbent, dtype=torch.float32).to(self.device)
        if target.shape not in ((), (1,), (len(self.seeds),)):
            raise ValueError(
                f"incumbent: expected a number or one of each of {len(self.seeds)} searches, got "
                f"shape {list(target.shape)}"
            )
        return ((target - self._shift) / self._scale).expand(len(self.seeds))

    def _acquire(
        self,
        candidates: Tensor,
        k: int,
        visited: Tensor | None,
        incumbent: Array | float | None,
        *,
        predictions: bool,
        searches: Tensor | None = None,
    ) -> Acquisition:
        if not self._posterior:
            raise ValueError("model: not fitted; call fit(points, targets) first")
        num_inputs = self._posterior[0].shape[2]
        if candidates.dim() != 2 or candidates.shape[1] != num_inputs:
            raise ValueError(
                f"candidates: expected shape [Q, {num_inputs}], as the points of fit, got "
                f"{list(candidates.shape)}"
            )
        posterior = (*self._posterior, self._target(incumbent))
        eager = self._functions is reference
        each = 4 * len(posterior[0]) * (4 + (2 * self.num_hidden if eager else 0))
        with counted_memory("candidates", len(candidates), each, self.device):
            found: Acquisition = self._functions.dngo_acquire(
                candidates,
                *(part if searches is None else part[searches] for part in posterior),
                num_results=k,
                visited=visited,
                score="log_improvement" if self.recipe.standard_deviation else "released",
                predictions=predictions,
            )
        return found

    def _keep(self, weight: Tensor, bias: Tensor) -> None:
        """What `dngo_acquire` reads, with the normalisation of the inputs folded in."""
        assert self.regression.coefficients is not None
        assert self.regression.factor is not None
        assert self.regression.noise_precision is not None
        self._posterior = tuple(
            part.float()
            for part in (
                weight,
                bias,
                self.regression.coefficients,
                self.regression.factor,
                1 / self.regression.noise_precision,
            )
        )

    def _draw(self, num_inputs: int, num_points: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Initial parameters, shuffles and the start of the released evidence search."""
        parameters, order = self._functions.dngo_draw(
            torch.tensor(self.seeds, device=self.device),
            num_inputs=num_inputs,
            num_points=num_points,
            num_hidden=self.num_hidden,
            num_epochs=0 if self.recipe.numpy_draws else self.num_epochs,
        )
        if not self.recipe.numpy_draws:
            return parameters, order, None
        draws = [released_draws(seed, self.num_epochs, num_points) for seed in self.seeds]
        order = torch.from_numpy(np.stack([shuffles for shuffles, _ in draws]))
        start = torch.from_numpy(np.stack([at for _, at in draws]))
        return parameters, order.to(self.device), start.to(self.device)

    def _observations(self, points: Array, targets: Array) -> tuple[Tensor, Tensor]:
        inputs = torch.as_tensor(points).detach().to(self.device, torch.float32)
        rewards = torch.as_tensor(targets).detach().to(self.device, torch.float32)
        if self.single and inputs.dim() == 2:
            inputs, rewards = inputs[None], rewards[None]
        if inputs.dim() != 3 or len(inputs) != len(self.seeds) or 0 in inputs.shape:
            raise ValueError(
                f"points: expected shape [{len(self.seeds)}, M, D] for {len(self.seeds)} seeds, "
                f"M and D at least 1, got {list(np.shape(points))}"
            )
        if rewards.shape != inputs.shape[:2]:
            raise ValueError(
                f"targets: expected a reward for each point, got {list(np.shape(targets))} for "
                f"points of {list(np.shape(points))}"
            )
        for name, values in (("points", inputs), ("targets", rewards)):
            if not bool(values.isfinite().all()):
                raise ValueError(f"{name}: not all finite; remove those observations")
        return inputs, rewards

    def _candidates(self, candidates: Array) -> Tensor:
        return torch.as_tensor(candidates).detach().to(self.device, torch.float32)

    def _result(self, tensor: Tensor, like: Array) -> Array:
        tensor = tensor[0] if self.single else tensor
        return tensor if isinstance(like, Tensor) else tensor.cpu().numpy()


def _checked_seeds(seeds: int | Sequence[int]) -> list[int]:
    """The seeds of all searches, which fit 64 bits."""
    if isinstance(seeds, str | float) or seeds is None:
        raise TypeError(f"seeds: expected an int or several, got {type(seeds).__name__}")
    several = [seeds] if isinstance(seeds, int) else [operator.index(seed) for seed in seeds]
    if not several or not all(-(2**63) <= seed < 2**63 for seed in several):
        raise ValueError(f"seeds: {seeds} are none, or no integers of 64 bits")
    return several


def released_draws(
    seed: int, num_epochs: int, num_points: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Shuffles [E, M] and the start of the evidence search [2] as the released code draws them."""
    generator = np.random.RandomState(seed)
    order = np.empty((num_epochs, num_points), np.int32)
    for epoch in range(num_epochs):
        rows = np.arange(num_points)
        generator.shuffle(rows)
        order[epoch] = rows
    start = [generator.normal(0, 1, 1)[0], generator.normal(-3, 1, 1)[0]]
    return order, np.array(start)

# SPDX-License-Identifier: Apache-2.0
"""The supervised counterpart of arch2vec-BO: the encoder is learnt from the search's own rewards.

Each round trains a graph isomorphism network from scratch on the cells queried so far, a Bayesian
linear regression takes the tanh of its vectors as basis, and the pool is scored by expected
improvement. What arch2vec learns without accuracies this learns from a few hundred of them.

Source: Yan et al. 2020, section 4.2; the released search_methods/supervised_dngo.py.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast import functional
from arch2vec_fast.models.inference import readout_encoder
from arch2vec_fast.search.base import SearchProblem
from arch2vec_fast.search.observations import Batch, ModelSearch, initial_rows
from arch2vec_fast.search.recipes import SearchRecipe
from arch2vec_fast.search.released import ReleasedDraws
from arch2vec_fast.surrogates.acquisition import (
    log_expected_improvement,
    released_expected_improvement,
)
from arch2vec_fast.surrogates.bayesian_linear import BayesianLinearRegression
from arch2vec_fast.surrogates.dngo import released_draws
from arch2vec_fast.surrogates.gin_stack import GinStack

__all__ = ["SupervisedBo"]

_EPOCHS = 100
_LATENT = 16
_WINDOW = 512  # cells that share batch statistics where the released code predicts
_SEARCHES_AT_ONCE = 8


class SupervisedBo(ModelSearch):
    """S searches, each with an encoder trained on its own queries.

    Fields of the recipe: those of Bayesian optimisation, and under "Supervised counterparts"
    `evaluate_in_train_mode`, `directed` and `variance_bug`. Queries are always distinct: that the
    released baseline gets right. With `released_draws` the initial cells are the released ones.

    Deterministic; a search has the same queries alone and in company. A round of one search costs
    some 0.5 TFLOP per 100 queries and 10 million operations a cell of the pool.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self.recipe = problem.recipe
        device = torch.device(problem.device)
        self._layout = problem.benchmark.cells.layout
        self._codes = problem.benchmark.cells.to_torch(device)
        self._draws = [ReleasedDraws(int(seed), len(self._codes)) for seed in problem.seeds]
        self._order: NDArray[np.int64] | None = None
        first = initial_rows(problem)
        if self.recipe.released_draws:
            self._order = np.stack([draw.permutation(len(self._codes)) for draw in self._draws])
            first = self._released_first(problem, first.shape[1])
        self._vectors: list[NDArray[np.float32] | None] = [None] * len(problem.seeds)
        super().__init__(first, self.recipe.batch_size, device, _SEARCHES_AT_ONCE)

    def embeddings(self) -> list[NDArray[np.float32]]:
        """The pool's vectors [Q, D] under the encoder last trained, a search each.

        Zeros for a search that has trained none. They take S Q D floats.
        """
        none = np.zeros((len(self._codes), _LATENT), np.float32)
        return [none if vectors is None else vectors for vectors in self._vectors]

    def _released_first(self, problem: SearchProblem, count: int) -> NDArray[np.int64]:
        """Initial rows: NumPy's permutation of a pool that torch has permuted."""
        assert self._order is not None
        permutations = (np.random.RandomState(seed) for seed in problem.seeds)
        at = np.stack([p.permutation(len(self._codes))[:count] for p in permutations])
        rows: NDArray[np.int64] = np.take_along_axis(self._order, at, 1)
        return rows

    def _propose(self, batch: Batch) -> NDArray[np.int64]:
        points = self._codes[torch.from_numpy(batch.rows.ravel()).to(self.device)]
        adjacency, node_ops = (
            part.unflatten(0, batch.rows.shape)
            for part in functional.unpack_cells(points, self._layout)
        )
        rewards = torch.from_numpy(batch.rewards).to(self.device)
        targets, shift, scale = _normalized(rewards, self.recipe)
        draws = [self._draws[search] for search in batch.searches]
        order, start = self._shuffles(draws, batch.rows.shape[1])
        stack = GinStack(
            self._layout,
            [draw.linear for draw in draws],
            directed=self.recipe.directed,
            device=self.device,
        )
        stack.train(adjacency, node_ops, targets.float(), order)
        pool = self._embed(stack, batch)
        known = self._known(stack, adjacency, node_ops, pool, batch)
        regression = BayesianLinearRegression(released=not self.recipe.squared_residual)
        regression.fit(torch.tanh(known), targets, start)
        mean, std = regression.predict(torch.tanh(pool))
        best = rewards.max(1, keepdim=True).values
        target = best if self.recipe.target is None else torch.full_like(best, self.recipe.target)
        scores = _scores(mean, std, (target - shift) / scale, self.recipe)
        return self._largest(scores, batch)

    def _shuffles(self, draws: list[ReleasedDraws], num_points: int) -> tuple[Tensor, Tensor]:
        """Shuffles [s, E, M] and the start of the evidence search [s, 2]."""
        drawn = [released_draws(draw.key(), _EPOCHS, num_points) for draw in draws]
        order = torch.from_numpy(np.stack([shuffles for shuffles, _ in drawn])).long()
        start = torch.from_numpy(np.stack([at for _, at in drawn]))
        return order.to(self.device), start.to(self.device)

    @torch.no_grad()
    def _embed(self, stack: GinStack, batch: Batch) -> Tensor:
        """Vectors [s, Q, D] of the pool."""
        if not self.recipe.evaluate_in_train_mode:
            encoders = [
                readout_encoder(stack.model(place), self._layout)
                for place in range(len(batch.searches))
            ]
            vectors = torch.stack([encode(self._codes) for encode in encoders])
        else:
            vectors = self._embed_in_windows(stack, batch)
        for search, own in zip(batch.searches, vectors.cpu().numpy(), strict=True):
            self._vectors[search] = own
        return vectors

    def _embed_in_windows(self, stack: GinStack, batch: Batch) -> Tensor:
        """As the released code predicts: every 512 cells, in its order, share their statistics."""
        rows = np.arange(len(self._codes))[None].repeat(len(batch.searches), 0)
        if self._order is not None:
            rows = self._order[batch.searches]
        vectors = torch.empty(*rows.shape, _LATENT, device=self.device)
        search = torch.arange(len(rows), device=self.device)[:, None]
        for window in torch.from_numpy(rows).to(self.device).split(_WINDOW, 1):
            parts = functional.unpack_cells(self._codes[window.flatten()], self._layout)
            adjacency, node_ops = (part.unflatten(0, window.shape) for part in parts)
            vectors[search, window] = stack.encode(adjacency, node_ops)
        return vectors

    @torch.no_grad()
    def _known(
        self, stack: GinStack, adjacency: Tensor, node_ops: Tensor, pool: Tensor, batch: Batch
    ) -> Tensor:
        """Vectors [s, M, D] of the cells queried, as the regression is fitted to them."""
        if self.recipe.evaluate_in_train_mode:
            return stack.encode(adjacency, node_ops)
        rows = torch.from_numpy(batch.rows).to(self.device)
        return pool.gather(1, rows[..., None].expand(-1, -1, pool.shape[2]))

    def _largest(self, scores: Tensor, batch: Batch) -> NDArray[np.int64]:
        """The unvisited rows [s, batch_size] of the largest scores [s, Q], best first."""
        rows = torch.from_numpy(batch.rows).to(self.device)
        scores = scores.scatter(1, rows, -math.inf).cpu()
        proposed = np.full((len(scores), self.recipe.batch_size), -1, np.int64)
        for place, search, score in zip(proposed, batch.searches, scores, strict=True):
            order = np.arange(len(score)) if self._order is None else self._order[search]
            in_order = score[torch.from_numpy(order)]
            last = torch.argsort(in_order)[-len(place) :].flip(0)
            last = last[in_order[last] > -math.inf]
            place[: len(last)] = order[last.numpy()]
        return proposed


def _normalized(rewards: Tensor, recipe: SearchRecipe) -> tuple[Tensor, Tensor, Tensor]:
    """Targets [s, M] in units of the fit, and their shift and scale [s, 1]."""
    if not recipe.normalize_targets:
        return rewards, torch.zeros_like(rewards[:, :1]), torch.ones_like(rewards[:, :1])
    shift, spread = rewards.mean(1, keepdim=True), rewards.std(1, correction=0, keepdim=True)
    scale = torch.where(spread > 0, spread, 1)
    return (rewards - shift) / scale, shift, scale


def _scores(mean: Tensor, std: Tensor, target: Tensor, recipe: SearchRecipe) -> Tensor:
    """What ranks the pool, [s, Q]: expected improvement, as the recipe has it."""
    if recipe.variance_bug:
        # The released baseline writes u = mean - target / variance for (mean - target) / variance.
        mean, variance = mean.float(), std.square().float()
        u = mean - target.float() / variance
        normal = torch.distributions.Normal(0.0, 1.0)
        scores: Tensor = variance * (torch.exp(normal.log_prob(u)) + u * normal.cdf(u))
    elif not recipe.standard_deviation:
        scores = released_expected_improvement(mean.float(), std.square().float(), target.float())
    else:
        scores = log_expected_improvement(mean, std, target)
    # NaN is the least promising; -inf marks what was queried.
    return scores.nan_to_num(
        nan=-torch.finfo(scores.dtype).max, neginf=-torch.finfo(scores.dtype).max
    )

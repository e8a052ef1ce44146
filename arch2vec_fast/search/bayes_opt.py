# SPDX-License-Identifier: Apache-2.0
"""Bayesian optimisation with DNGO: `arch2vec-bo` on embeddings, `bo` on one-hot cells.

A round fits S surrogates from scratch to all that their searches were told and scores the whole
pool for each (`surrogates.dngo`). The recipe decides what the released code got wrong and the paper
got right; both are this one loop.

Source: Yan et al. 2020, section 4.2; the released search_methods/dngo.py and
dngo_search_NB201_8x8.py.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast.search.base import SearchProblem
from arch2vec_fast.search.candidates import Candidates
from arch2vec_fast.search.gp_search import GpSearch
from arch2vec_fast.search.neighbours import one_hot_encoding
from arch2vec_fast.search.observations import (
    Batch,
    ModelSearch,
    initial_rows,
    network_device,
)
from arch2vec_fast.search.recipes import SearchRecipe
from arch2vec_fast.search.released import ReleasedDraws, released_order
from arch2vec_fast.surrogates.dngo import DNGO, DngoRecipe

__all__ = ["DngoSearch", "arch2vec_bo", "discrete_bo", "one_hot_encoding"]

_HIDDEN = 128
_SEARCHES_AT_ONCE = 25
_SCORES_AT_ONCE = 1 << 23


def arch2vec_bo(problem: SearchProblem) -> DngoSearch | GpSearch:
    """`arch2vec-bo`: the recipe's surrogate over the embeddings of the problem.

    ValueError if it has none.
    """
    if problem.embeddings is None:
        raise ValueError("embeddings: none given; arch2vec-bo searches among the vectors of cells")
    if problem.recipe.surrogate == "gp":
        return GpSearch(problem)
    return DngoSearch(problem, problem.embeddings.vectors)


def discrete_bo(problem: SearchProblem) -> DngoSearch:
    """`bo`: the paper's discrete baseline, DNGO over one-hot cells."""
    return DngoSearch(problem, one_hot_encoding(problem.benchmark.cells))


class DngoSearch(ModelSearch):
    """S searches by DNGO and expected improvement among the rows of `vectors` [Q, D].

    Fields of the recipe: those listed under Bayesian optimisation in `SearchRecipe`. With
    `released_draws`, initial cells, networks, shuffles and the start of the evidence search are
    those of the released code for the same seed, and ties in the acquisition fall as they do there.

    Deterministic; a search has the same queries alone and in company. A round costs one fit (3 ms
    at 100 points) and one pass over the distinct vectors (1 ms for NAS-Bench-201) a search.
    """

    def __init__(self, problem: SearchProblem, vectors: NDArray[np.float32]) -> None:
        self.recipe = problem.recipe
        self.seeds = problem.seeds
        device = network_device(problem, vectors.shape[1])
        self._vectors = torch.from_numpy(vectors).to(device)
        self._surrogate = _dngo_recipe(self.recipe)
        released = self.recipe.released_draws
        self._candidates = Candidates(vectors, device, last_first=released)
        self._order = released_order(problem) if released else None
        refits = len(vectors) if self.recipe.shuffled_pool else 0
        drawn = self.seeds if released else ()
        self._draws = [ReleasedDraws(int(seed), refits) for seed in drawn]
        fits = max(1, _SCORES_AT_ONCE // len(self._candidates.vectors))
        most = min(_SEARCHES_AT_ONCE, fits)
        super().__init__(initial_rows(problem, self._order), self.recipe.batch_size, device, most)

    def _propose(self, batch: Batch) -> NDArray[np.int64]:
        """The next rows [s, batch_size] of some searches."""
        model = self._fit(batch)
        count = self.recipe.batch_size
        candidates, visited = self._candidates, None
        if self.recipe.distinct_queries:
            visited = torch.from_numpy(candidates.exhausted(batch.rows)).to(self.device)
        # One more than is needed shows whether the last place was decided by a tie.
        groups, improvement = (
            torch.as_tensor(part).cpu().numpy()
            for part in model.acquire(candidates.vectors, count + 1, visited)
        )
        proposed = np.array(
            [
                candidates.rows(group[:count], count, told if visited is not None else None)
                for group, told in zip(groups, batch.rows, strict=True)
            ]
        )
        tied = np.flatnonzero((improvement[:, 1:] == improvement[:, :-1]).any(1))
        if self._order is not None and len(tied):
            proposed[tied] = self._by_released_order(model, tied, batch)
        # The released code queries the end of an ascending sort, worst of the best first.
        return proposed[:, ::-1] if self.recipe.released_draws else proposed

    def _fit(self, batch: Batch) -> DNGO:
        points = self._vectors[torch.from_numpy(batch.rows).to(self.device)]
        rewards = torch.from_numpy(batch.rewards)
        seeds = self.seeds[batch.searches]
        if not self.recipe.released_draws:
            # One key a seed and round: Philox keeps the streams apart.
            keys = (seeds + (self._round << 32)).tolist()
            return DNGO(self._surrogate, seeds=keys, device=self.device).fit(points, rewards)
        draws = [self._draws[search] for search in batch.searches]
        sizes = ((_HIDDEN, points.shape[2]), (1, _HIDDEN))
        parameters = torch.stack(
            [
                torch.cat([part.flatten() for size in sizes for part in draw.linear(*size)])
                for draw in draws
            ]
        )
        keys = [draw.key() for draw in draws]
        model = DNGO(self._surrogate, seeds=keys, device=self.device)
        return model.fit(points, rewards, parameters=parameters)

    def _by_released_order(
        self, model: DNGO, tied: NDArray[np.int64], batch: Batch
    ) -> NDArray[np.int64]:
        """The rows [t, batch_size] of the searches `tied` [t] of a batch, best first.

        The released code holds NAS-Bench-201 in an order that depends on the seed. Where the fixed
        target is out of reach every improvement underflows to the same zero, and one cell,
        whichever torch's sort puts last, is queried again and again.
        """
        assert self._order is not None
        count = self.recipe.batch_size
        scores = torch.as_tensor(model.improvement(self._candidates.vectors, tied)).cpu()
        by_row = scores[:, torch.from_numpy(self._candidates.group)]
        rows = np.empty((len(tied), count), np.int64)
        for place, search, score in zip(rows, tied, by_row, strict=True):
            if self.recipe.distinct_queries:
                score[torch.from_numpy(batch.rows[search])] = -math.inf
            order = self._order[batch.searches[search]]
            last = torch.argsort(score[torch.from_numpy(order)])[-count:].flip(0)
            place[:] = order[last.numpy()]
        return rows


def _dngo_recipe(recipe: SearchRecipe) -> DngoRecipe:
    return DngoRecipe(
        squared_residual=recipe.squared_residual,
        normalize_targets=recipe.normalize_targets,
        standard_deviation=recipe.standard_deviation,
        target=recipe.target,
        numpy_draws=recipe.released_draws,
    )

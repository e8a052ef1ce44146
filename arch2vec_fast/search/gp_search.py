# SPDX-License-Identifier: Apache-2.0
"""Bayesian optimisation with an exact Gaussian process: what the `best` recipe searches with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.search.observations import initial_rows
from arch2vec_fast.spaces import wl_histogram
from arch2vec_fast.surrogates import GaussianProcess, GpRecipe

__all__ = ["GpSearch"]


class GpSearch:
    """Random rows first, then the unvisited rows of largest expected improvement, a batch a round.

    The process sees embeddings, if there are any, and the Weisfeiler-Lehman histograms of the
    simplified cells: cells that the benchmark holds equal have one histogram.
    """

    def __init__(self, problem: SearchProblem) -> None:
        recipe, benchmark = problem.recipe, problem.benchmark
        self._batch = recipe.batch_size
        self._initial = initial_rows(problem)
        self._asked = False
        self._process = GaussianProcess(
            None if problem.embeddings is None else problem.embeddings.vectors,
            wl_histogram(benchmark.space.simplify(benchmark.cells)),
            num_searches=len(problem.seeds),
            recipe=GpRecipe(targets=recipe.gp_targets),
            device=problem.device,
        )

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        if not self._asked:
            self._asked = True
            return Proposals(np.where(active[:, None], self._initial, -1))
        rows = self._process.propose(self._batch)
        return Proposals(np.where(active[:, None], rows, -1))

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        self._process.extend(rows, rewards)

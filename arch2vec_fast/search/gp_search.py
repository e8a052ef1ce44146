# SPDX-License-Identifier: Apache-2.0
"""Bayesian optimisation with an exact Gaussian process: what the `best` recipe searches with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.search.observations import Pending, initial_rows
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
        self._pending = Pending(len(problem.seeds))
        self._answers: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        self._process = GaussianProcess(
            None if problem.embeddings is None else problem.embeddings.vectors,
            wl_histogram(benchmark.space.simplify(benchmark.cells)),
            num_searches=len(problem.seeds),
            recipe=GpRecipe(targets=recipe.gp_targets),
            device=problem.device,
        )

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        """`num_initial` random cells, then `batch_size` by expected improvement each time.

        Cells without an answer yet are believed to be what is expected of them, as those of a batch
        are (`GaussianProcess.propose`).
        """
        rows = self._by_model() if self._asked else self._initial
        self._asked = True
        rows = np.where(active[:, None], rows, -1)
        self._pending.expect(rows)
        return Proposals(rows)

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Keeps the answers until the next `ask`."""
        self._pending.drop(rows)
        self._answers.append((rows, rewards))

    def _by_model(self) -> NDArray[np.int64]:
        if self._answers:
            rows, rewards = (np.concatenate(parts, 1) for parts in zip(*self._answers))
            self._answers.clear()
            self._process.extend(rows, rewards)
        if not all(self._process.rows):  # not one answer to go by
            return np.full((len(self._process.rows), self._batch), -1)
        return self._process.propose(self._batch, self._pending.rows)

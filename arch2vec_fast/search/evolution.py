# SPDX-License-Identifier: Apache-2.0
"""Regularised evolution (Real et al., AAAI 2019): the oldest dies, not the worst."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.benchmarks.base import Benchmark
from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.search.random_search import distinct_rows

__all__ = ["RegularizedEvolution", "pool_neighbours"]


class RegularizedEvolution:
    """A population in order of age; each query is an edit of the best of a random tournament.

    First `population` random cells. Then, one at a time: `tournament` members are drawn with
    replacement, the best of them is changed by one edit, queried, and takes the place of the
    oldest. Edits lead to neighbours in the pool; from a cell without any, to a random cell. Cells
    may come again, and then cost again, as published.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._benchmark = problem.benchmark
        self._recipe = problem.recipe
        self._generators = problem.generators("evolution")
        self._populations: list[deque[tuple[int, float]]] = [
            deque(maxlen=self._recipe.population) for _ in self._generators
        ]
        self._started = False

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        if not self._started:
            self._started = True
            count, size = self._recipe.population, len(self._benchmark.cells)
            return Proposals(distinct_rows(self._generators, size, count))
        searches = np.flatnonzero(active).tolist()
        parents = np.array([self._parent(search) for search in searches], np.int64)
        children = np.full((len(active), 1), -1, np.int64)
        for search, options in zip(searches, pool_neighbours(self._benchmark, parents)):
            generator = self._generators[search]
            chosen = generator.choice(options) if len(options) else self._anywhere(generator)
            children[search] = chosen
        return Proposals(children)

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        for population, cells, scores in zip(self._populations, rows.tolist(), rewards.tolist()):
            population.extend(
                (row, score) for row, score in zip(cells, scores) if not np.isnan(score)
            )

    def _parent(self, search: int) -> int:
        population = self._populations[search]
        drawn = self._generators[search].integers(len(population), size=self._recipe.tournament)
        return max((population[member] for member in drawn), key=lambda member: member[1])[0]

    def _anywhere(self, generator: np.random.Generator) -> int:
        return int(generator.integers(len(self._benchmark.cells)))


def pool_neighbours(benchmark: Benchmark, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of the pool that are one edit away from each of `rows` [n], without itself."""
    neighbours, owner = benchmark.space.neighbours(benchmark.cells[rows])
    found = benchmark.find(neighbours)
    kept = (found >= 0) & (found != rows[owner])
    found, owner = found[kept], owner[kept]
    bounds = np.searchsorted(owner, np.arange(len(rows) + 1))
    return [np.unique(found[low:high]) for low, high in zip(bounds, bounds[1:])]

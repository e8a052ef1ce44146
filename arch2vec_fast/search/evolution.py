# SPDX-License-Identifier: Apache-2.0
"""Regularised evolution (Real et al., AAAI 2019): the oldest dies, not the worst."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.search.neighbours import PoolNeighbours
from arch2vec_fast.search.random_search import distinct_rows

__all__ = ["RegularizedEvolution"]


class RegularizedEvolution:
    """A population in order of age; each query is an edit of the best of a random tournament.

    First `population` random cells. Then, one at a time: `tournament` members are drawn with
    replacement, the best of them is changed by one edit, queried, and takes the place of the
    oldest. Edits lead to neighbours in the pool (`PoolNeighbours`). Cells may come again, and then
    cost again, as published. The population is what has been answered, in that order.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._size = len(problem.benchmark.cells)
        self._neighbours = PoolNeighbours(problem.benchmark)
        self._recipe = problem.recipe
        self._generators = problem.generators("evolution")
        self._populations: list[deque[tuple[int, float]]] = [
            deque(maxlen=self._recipe.population) for _ in self._generators
        ]
        self._started = False

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        if not self._started:
            self._started = True
            count = self._recipe.population
            return Proposals(distinct_rows(self._generators, self._size, count))
        searches = [s for s in np.flatnonzero(active).tolist() if self._populations[s]]
        parents = np.array([self._parent(search) for search in searches], np.int64)
        children = np.full((len(active), 1), -1, np.int64)
        for search, parent, options in zip(searches, parents, self._neighbours.of(parents)):
            generator = self._generators[search]
            children[search] = generator.choice(options) if len(options) else parent
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

# SPDX-License-Identifier: Apache-2.0
"""Local search (White et al., "Exploring the Loss Landscape in NAS", UAI 2021)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.search.neighbours import PoolNeighbours
from arch2vec_fast.search.random_search import Shuffle

__all__ = ["LocalSearch"]


class LocalSearch:
    """Query all neighbours, move to the best if it is better, else start anew at a random cell.

    Cells already known are not queried again. What a neighbour is, `PoolNeighbours` says.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._neighbours = PoolNeighbours(problem.benchmark)
        generators = problem.generators("local")
        size = len(problem.benchmark.cells)
        self._restarts = [Shuffle(size, generator) for generator in generators]
        self._known: list[dict[int, float]] = [{} for _ in generators]
        self._climbs: list[int | None] = [None] * len(generators)  # None: start anew
        self._around: list[list[int] | None] = [None] * len(generators)  # None: not looked yet

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        asked: list[list[int]] = [[] for _ in active]
        climbing = [search for search in np.flatnonzero(active).tolist() if self._advance(search)]
        while climbing:
            at = np.array([self._climbs[search] for search in climbing], np.int64)
            for search, options in zip(climbing, self._neighbours.of(at)):
                self._around[search] = around = options.tolist()
                asked[search] = [row for row in around if row not in self._known[search]]
            # Where all around is known there is nothing to query: go on at once.
            climbing = [s for s in climbing if not asked[s] and self._advance(s)]
        for search in np.flatnonzero(active).tolist():
            asked[search] = asked[search] or self._restart(search)
        rows = np.full((len(active), max(map(len, asked), default=0)), -1, np.int64)
        for search, cells in enumerate(asked):
            rows[search, : len(cells)] = cells
        return Proposals(rows)

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        for known, cells, scores in zip(self._known, rows.tolist(), rewards.tolist()):
            known.update((row, score) for row, score in zip(cells, scores) if not np.isnan(score))

    def _advance(self, search: int) -> bool:
        """Move to the best neighbour if it is better. False where a new start is due."""
        known, at, around = self._known[search], self._climbs[search], self._around[search]
        if at is None:
            return False
        if around is not None:
            best = max(around, key=known.__getitem__, default=at)
            self._climbs[search] = best if known[best] > known[at] else None
            self._around[search] = None
        return self._climbs[search] is not None

    def _restart(self, search: int) -> list[int]:
        """A random unknown cell, the start of a new climb; none when all are known."""
        while drawn := self._restarts[search].take(1):
            if drawn[0] not in self._known[search]:
                self._climbs[search], self._around[search] = drawn[0], None
                return drawn
        return []

# SPDX-License-Identifier: Apache-2.0
"""Random search, and the random distinct rows that other methods start from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.search.base import Proposals, SearchProblem

__all__ = ["RandomSearch", "Shuffle", "distinct_rows"]

_ROUND = 64


class RandomSearch:
    """Cells without replacement, uniformly; the baseline of every plot."""

    def __init__(self, problem: SearchProblem) -> None:
        self._orders = [
            Shuffle(len(problem.benchmark.cells), generator)
            for generator in problem.generators("random")
        ]

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        rows = np.full((len(active), _ROUND), -1, np.int64)
        for search in np.flatnonzero(active):
            drawn = self._orders[search].take(_ROUND)
            rows[search, : len(drawn)] = drawn
        return Proposals(rows)

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Nothing to learn."""


def distinct_rows(
    generators: list[np.random.Generator], num_rows: int, count: int
) -> NDArray[np.int64]:
    """`count` different rows below `num_rows` for each of S generators, [S, count]."""
    count = min(count, num_rows)
    return np.stack([Shuffle(num_rows, generator).take(count) for generator in generators])


class Shuffle:
    """The head of a random permutation of 0 .. n - 1 (Fisher-Yates), at the cost of the head."""

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        self._size, self._generator = size, generator
        self._moved: dict[int, int] = {}
        self._taken = 0

    def take(self, count: int) -> list[int]:
        """The next `count` items, fewer where none are left."""
        count = min(count, self._size - self._taken)
        low = np.arange(self._taken, self._taken + count)
        drawn = []
        for position, chosen in zip(low.tolist(), self._generator.integers(low, self._size)):
            drawn.append(self._moved.get(int(chosen), int(chosen)))
            self._moved[int(chosen)] = self._moved.pop(position, position)
        self._taken += count
        return drawn

# SPDX-License-Identifier: Apache-2.0
"""Which cells of a pool lie next to a cell: what evolution, local search and BANANAS climb by.

In a whole space these are the cells one edit away. A pool that is a sample of a large space holds
next to none of them (600,000 DARTS cells: one in seventy cells has one), and a search that finds no
neighbour draws at random. There the nearest cells of the pool stand in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.benchmarks.base import Benchmark
from arch2vec_fast.spaces import CellBatch

__all__ = ["PoolNeighbours", "one_hot_encoding"]

_SPARSE = 8  # a cell with less than an eighth of its edits in the pool is lonely
_NEVER = 255  # farther than cells can be, which differ in fewer bits


def one_hot_encoding(cells: CellBatch) -> NDArray[np.float32]:
    """Upper triangle of the adjacency and one-hot operations of each cell, flattened [Q, D].

    Entries that all cells share are left out: NAS-Bench-201 keeps the 30 that tell the operations
    of its six edges apart.
    """
    adjacency, node_ops = cells.to_dense(one_hot=True)
    upper = adjacency[:, *np.triu_indices(adjacency.shape[1], 1)]
    flat = np.concatenate([upper, node_ops.reshape(len(cells), -1)], 1)
    varies = (flat != flat[:1]).any(0)
    return flat[:, varies].astype(np.float32)


class PoolNeighbours:
    """Neighbours among the Q cells of a benchmark.

    Where fewer than an eighth of a cell's E edits are in the pool, its neighbours are those that
    are and the nearest other cells, E in all: nearest in the number of edges and operations that
    differ (an operation counts twice), lower rows first. Deterministic.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        self._bits: NDArray[np.uint16] | None = None  # [W, Q], made for the first lonely cell
        self._known: dict[int, NDArray[np.int64]] = {}  # of lonely cells

    def of(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Rows of the neighbours of each of `rows` [n], ascending, without itself."""
        benchmark = self._benchmark
        new = np.array([row for row in np.unique(rows).tolist() if row not in self._known], int)
        neighbours, owner = benchmark.space.neighbours(benchmark.cells[new])
        found = benchmark.find(neighbours)
        edits = np.bincount(owner, minlength=len(new)).tolist()
        kept = (found >= 0) & (found != new[owner])
        found, owner = found[kept], owner[kept]
        bounds = np.searchsorted(owner, np.arange(len(new) + 1))
        around = {}
        for row, count, low, high in zip(new.tolist(), edits, bounds, bounds[1:]):
            around[row] = near = np.unique(found[low:high])
            if _SPARSE * len(near) < count:
                self._known[row] = self._filled(row, near, count)
        return [self._known[row] if row in self._known else around[row] for row in rows.tolist()]

    def _filled(self, row: int, near: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """`near` and the nearest other rows, `count` in all."""
        distances = self._distances(row)
        distances[[row, *near]] = _NEVER
        # The last distance of which some are taken, and of its rows the first ones.
        count = min(count - len(near), len(distances) - 1 - len(near))
        last = int(np.searchsorted(np.bincount(distances).cumsum(), count))
        closer, tied = np.flatnonzero(distances < last), np.flatnonzero(distances == last)
        return np.sort(np.concatenate([near, closer, tied[: count - len(closer)]]))

    def _distances(self, row: int) -> NDArray[np.uint8]:
        """Bits of the one-hot encoding in which each cell of the pool differs from a row's."""
        if self._bits is None:
            self._bits = _pack(one_hot_encoding(self._benchmark.cells))
        total = np.zeros(self._bits.shape[1], np.uint8)
        for word in self._bits:
            total += _BITS_SET[word ^ word[row]]
        return total


def _pack(points: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Ones and zeros [Q, D] as bits, 16 to a word, [W, Q]."""
    padded = np.zeros((len(points), -(-points.shape[1] // 16) * 16), np.bool_)
    padded[:, : points.shape[1]] = points > 0
    words = np.packbits(padded, axis=1).view(np.uint16)
    return np.ascontiguousarray(words.T)


_WORDS = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
_BITS_SET = np.unpackbits(_WORDS, axis=1).sum(1, dtype=np.uint8)  # of each 16-bit word

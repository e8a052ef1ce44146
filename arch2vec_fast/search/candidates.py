# SPDX-License-Identifier: Apache-2.0
"""The pool as an acquisition function sees it: every distinct vector once.

A symmetrised encoder gives many cells of NAS-Bench-101 one vector, so a third of the scores would
be computed twice. Scoring works on the distinct vectors, proposals are rows again.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Candidates:
    """Distinct vectors [U, D] of a pool of Q rows.

    Args:
        vectors: float32 [Q, D].
        device: where `vectors` goes.
        last_first: rows count from the end, so that ties fall to the highest row: what sorting in
            ascending order and taking the last does.

    Attributes:
        vectors: float32 tensor [U, D] in the order of the first row of each.
        group: which of them each row has, int64 [Q].

    >>> pool = Candidates(np.array([[1.], [2.], [1.]], np.float32))
    >>> pool.vectors.tolist(), pool.rows(np.array([0, 1]), 2, visited=np.array([0]))
    ([[1.0], [2.0]], array([2, 1]))
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        device: str | torch.device = "cpu",
        *,
        last_first: bool = False,
    ) -> None:
        rows = np.arange(len(vectors))[:: -1 if last_first else 1]
        first, group = _distinct(np.ascontiguousarray(vectors[rows]))
        self.group = np.empty(len(rows), np.int64)
        self.group[rows] = group
        self._sizes = np.bincount(group, minlength=len(first))
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._members = rows[np.argsort(group, kind="stable")]
        self.vectors: Tensor = torch.from_numpy(vectors[rows[first]]).to(device)

    def exhausted(self, visited: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which vectors have no row left, bool [s, U], once the rows [s, M] are visited."""
        gone = np.zeros((len(visited), len(self._sizes)), np.bool_)
        for mask, rows in zip(gone, visited, strict=True):
            group, count = np.unique(self.group[np.unique(rows)], return_counts=True)
            mask[group[count == self._sizes[group]]] = True
        return gone

    def rows(
        self,
        groups: NDArray[np.int64],
        count: int,
        visited: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """The first `count` rows of the vectors `groups` [K], best first, that are not `visited`.

        -1 where the groups hold fewer; negative groups hold none.
        """
        spans = [self._members[self._starts[g] : self._starts[g + 1]] for g in groups if g >= 0]
        found = np.concatenate(spans) if spans else np.empty(0, np.int64)
        if visited is not None:
            found = found[~np.isin(found, visited)]
        missing = max(0, count - len(found))
        return np.concatenate([found[:count], np.full(missing, -1, np.int64)])


def _distinct(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of each distinct vector [U], ascending, and which one each row has [Q]."""
    weights = np.random.default_rng(0).integers(2**63, size=vectors.shape[1], dtype=np.uint64) | 1
    with np.errstate(over="ignore"):
        keys = (vectors.view(np.uint32).astype(np.uint64) * weights).sum(1, dtype=np.uint64)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    if not (vectors[first[group]] == vectors).all():  # two vectors share a 64-bit key: keep all
        everything = np.arange(len(vectors))
        return everything, everything
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[group]

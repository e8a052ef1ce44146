# SPDX-License-Identifier: Apache-2.0
"""What a search hands over besides its pick: the few best cells, to be trained again in full."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast import spaces
from arch2vec_fast.search.trace import Trace
from arch2vec_fast.spaces import CellBatch, CellSpace

__all__ = ["FINALISTS", "finalists"]

FINALISTS = 5


def finalists(
    trace: Trace, count: int = FINALISTS, space: CellSpace | None = None
) -> list[NDArray[np.int64]]:
    """Where in the trace each search queried its best cells: positions [<= count], best first.

    A reward is noisy, so its best cell need not be the best one, and training a few of the best
    again costs little beside the search. They are different networks: of cells that compute the
    same (`CellSpace.simplify`) the one with the best reward stands for all. Only cells that were
    trained longest take part; the first query wins ties, so the first finalist is the pick.

    space: of the cells, where it is none of `spaces.names()`; without it, cells are told apart by
    their rows alone. Deterministic.
    """
    if count < 1:
        raise ValueError(f"count: {count} is below 1")
    networks = _networks(trace, space)
    found = []
    for _, rows in trace.searches():
        fidelity = trace["fidelity"][rows]
        longest = np.flatnonzero(fidelity == fidelity.max())
        order = longest[np.argsort(-trace["validation"][rows][longest], kind="stable")]
        _, first = np.unique(networks[rows][order], return_index=True)
        found.append(rows.start + order[np.sort(first)[:count]])
    return found


def _networks(trace: Trace, space: CellSpace | None) -> NDArray[np.int64]:
    """A number for each query [n], equal where the cells compute the same."""
    name = str(trace.metadata.get("space"))
    if space is None and name in spaces.names():
        space = spaces.get(name)
    _, first, cell = np.unique(trace["row"], return_index=True, return_inverse=True)
    if space is None or not len(trace):
        return cell
    cells = CellBatch(trace.cells[first], space.layout)
    codes = space.simplify(cells).canonical().codes
    network = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    numbers: NDArray[np.int64] = network[cell]
    return numbers

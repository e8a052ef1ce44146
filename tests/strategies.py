# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for layouts and cells, and random cells by the thousand."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from arch2vec_fast.spaces import CellBatch, CellLayout


def layouts(*, max_nodes: int = 16, max_op_types: int = 254) -> st.SearchStrategy[CellLayout]:
    """Any layout, small and odd ones first."""
    return st.builds(
        CellLayout, st.integers(2, max_nodes), st.integers(1, 12) | st.integers(1, max_op_types)
    )


@st.composite
def dense_cells(
    draw: st.DrawFn, layout: CellLayout, *, max_cells: int = 5
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``(adjacency, node_ops)`` of up to ``max_cells`` cells, legal in no space in particular.

    Absent nodes stand anywhere and may have edges: what a decoder can write.
    """
    count = draw(st.integers(0, max_cells))
    n = layout.num_nodes
    full = draw(hnp.arrays(np.uint8, (count, n, n), elements=st.integers(0, 1)))
    labels = st.integers(-1, layout.num_op_types - 1)
    node_ops = draw(hnp.arrays(np.int64, (count, n), elements=labels))
    return np.triu(full, 1), node_ops


@st.composite
def cell_batches(
    draw: st.DrawFn, *, max_nodes: int = 16, max_op_types: int = 254, max_cells: int = 5
) -> CellBatch:
    """A batch of representable cells of any layout."""
    layout = draw(layouts(max_nodes=max_nodes, max_op_types=max_op_types))
    return CellBatch.from_dense(*draw(dense_cells(layout, max_cells=max_cells)), layout)


def random_cells(
    layout: CellLayout, count: int, seed: int, *, density: float = 0.5, junk: bool = True
) -> CellBatch:
    """Many cells at once; with ``junk`` absent nodes may stand anywhere."""
    rng = np.random.default_rng(seed)
    n = layout.num_nodes
    adjacency = np.triu(rng.random((count, n, n)) < density, 1)
    node_ops = rng.integers(-1 if junk else 0, layout.num_op_types, (count, n))
    return CellBatch.from_dense(adjacency, node_ops, layout)


def topological_permutations(
    cells: CellBatch, seed: int, *, absent_last: bool = False
) -> NDArray[np.int64]:
    """A random permutation [B, N] for every cell that keeps sources before targets."""
    rng = np.random.default_rng(seed)
    adjacency, node_ops = cells.to_dense()
    late = 0.5 * (absent_last & (node_ops < 0))
    count, n = adjacency.shape[:2]
    placed = np.zeros((count, n), bool)
    moves = np.empty((count, n), np.int64)
    rows = np.arange(count)
    for position in range(n):
        ready = ~placed & ~(adjacency.astype(bool) & ~placed[:, :, None]).any(axis=1)
        node = np.where(ready, (0.5 + 0.5 * rng.random((count, n))) - late, -1.0).argmax(axis=1)
        placed[rows, node] = True
        moves[rows, node] = position
    return moves

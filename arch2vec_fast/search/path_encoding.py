# SPDX-License-Identifier: Apache-2.0
"""Path encoding: which sequences of operations lead from a cell's input to its output.

A path is its input and the operations of the inner nodes it passes, in order; a cell is the set of
its paths. A sequence of operations is a number in bijective base K (1 for the first operation, K
for the last; 0 for the edge from input to output), so shorter sequences come first and truncation
keeps the shortest, which are the likely ones. One pass over the nodes carries, for all cells at
once, the set of sequences that reach a node.

Source: White et al., "BANANAS", AAAI 2021, section 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.spaces import CellBatch, CellSpace

__all__ = ["num_paths", "path_encoding"]

_CHUNK = 1 << 13


def num_paths(space: CellSpace, limit: int = 1024) -> int:
    """P: paths up to the greatest length of which no more than `limit` exist.

    >>> from arch2vec_fast import spaces
    >>> [num_paths(spaces.get(name)) for name in ("nasbench101", "nasbench201", "darts")]
    [364, 781, 146]
    """
    alphabet, inputs = len(_symbols(space)), max(1, len(space.input_ops))
    total, longest = 1, 1
    for _ in range(space.layout.num_nodes - len(space.input_ops) - 1):
        longest *= alphabet
        if (total + longest) * inputs > limit:
            break
        total += longest
    return total * inputs


def path_encoding(
    cells: CellBatch, space: CellSpace, *, limit: int = 1024, chunk_size: int = _CHUNK
) -> NDArray[np.bool_]:
    """Whether each cell has each path, bool [B, P] with P = `num_paths(space, limit)`.

    The operations of inner nodes are in the order of `space.op_names`; of a space with several
    inputs the paths from the first come first. Longer paths are left out. Memory beyond the
    result: N P `chunk_size` bytes. About 5 us a cell of NAS-Bench-101.

    Raises ValueError for cells of another space.

    >>> from arch2vec_fast import spaces
    >>> space = spaces.get("nasbench101")
    >>> cell = space.from_matrix([[0, 1, 1], [0, 0, 1], [0, 0, 0]],
    ...                          ["input", "conv3x3-bn-relu", "output"])
    >>> path_encoding(cell, space)[0].nonzero()[0].tolist()  # the edge alone; the convolution
    [0, 2]
    """
    if cells.layout != space.layout:
        raise ValueError(f"cells: are not of {space.name}; encode them with their own space")
    encoded = np.empty((len(cells), num_paths(space, limit)), np.bool_)
    for start in range(0, len(cells), chunk_size):
        chunk = cells[start : start + chunk_size]
        encoded[start : start + len(chunk)] = _encode(chunk, space, encoded.shape[1])
    return encoded


def _encode(cells: CellBatch, space: CellSpace, size: int) -> NDArray[np.bool_]:
    adjacency, node_ops = cells.to_dense()
    edges = adjacency.astype(np.bool_)
    count, nodes = node_ops.shape
    inputs, output = len(space.input_ops), len(space.op_names) - 1
    symbols = _symbols(space)
    # Sequences that end at a node, it included, by the input where they begin.
    starts = max(1, inputs)
    reached = np.zeros((nodes, count, starts, size // starts), np.bool_)
    found = np.zeros(reached.shape[1:], np.bool_)
    for node in range(nodes):
        arriving = np.zeros_like(found)
        for source in range(node):
            arriving |= reached[source] & edges[:, source, node, None, None]
        for op in np.unique(node_ops[:, node]):
            of_op = np.flatnonzero(node_ops[:, node] == op)
            if op == output:
                found[of_op] |= arriving[of_op]
            elif 0 <= op < inputs:
                reached[node, of_op, op, 0] = True
            elif op in symbols:
                reached[node, of_op] = _append(arriving[of_op], symbols.index(op), len(symbols))
    return found.reshape(count, size)


def _append(sequences: NDArray[np.bool_], symbol: int, alphabet: int) -> NDArray[np.bool_]:
    """The sets of sequences [n, I, T] with one more symbol at the end of each sequence."""
    longer = np.zeros_like(sequences)
    places = longer[..., symbol + 1 :: alphabet]
    places[:] = sequences[..., : places.shape[-1]]
    return longer


def _symbols(space: CellSpace) -> list[int]:
    """The operation types that paths are made of."""
    return list(range(len(space.input_ops), len(space.op_names) - 1))

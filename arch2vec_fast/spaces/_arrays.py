# SPDX-License-Identifier: Apache-2.0
"""Checks of arrays that users hand in: one line, the argument first, then what to do."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_array(value: ArrayLike, name: str) -> NDArray[Any]:
    """``np.asarray`` that names the argument when rows have different lengths."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: rows of different lengths; pad the cells to one size") from None


def require_integers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Integers or booleans pass; floats, objects and strings raise TypeError."""
    if array.dtype.kind not in "iub" and array.size > 0:
        raise TypeError(f"{name}: expected integers, got {array.dtype}; convert it first")
    if array.dtype == np.uint64 and array.size > 0 and int(array.max()) > np.iinfo(np.int64).max:
        return array.view(np.int64)
    return array


def require_binary(value: ArrayLike, name: str) -> NDArray[np.uint8]:
    """Anything numeric that holds only 0 and 1, as uint8."""
    array = as_array(value, name)
    if array.dtype.kind not in "iubf" and array.size > 0:
        raise TypeError(f"{name}: expected numbers 0 and 1, got {array.dtype}; convert it first")
    if array.dtype != bool:
        bad = (array != 0) & (array != 1)
        if bad.any():
            at = [int(i) for i in np.argwhere(bad)[0]]
            raise ValueError(
                f"{name}: value {array[tuple(at)]} at {at}; only 0 and 1 are allowed, round first"
            )
    return np.ascontiguousarray(array, dtype=np.uint8)


def node_labels(value: ArrayLike, num_op_types: int) -> NDArray[np.int16]:
    """Integer or one-hot ``node_ops`` as int16 ``[B, N]`` with -1 for absent nodes."""
    array = as_array(value, "node_ops")
    if array.ndim == 3:
        return _from_one_hot(require_binary(array, "node_ops"), num_op_types)
    if array.ndim != 2:
        raise ValueError(
            f"node_ops: expected integers [B, N] or one-hot [B, N, F], got {list(array.shape)}"
        )
    labels = require_integers(array, "node_ops")
    bad = (labels < -1) | (labels >= num_op_types)
    if bad.any():
        cell, node = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"node_ops: cell {cell} has operation {labels[cell, node]} at node {node}; "
            f"use -1 (absent) to {num_op_types - 1}"
        )
    return np.ascontiguousarray(labels, dtype=np.int16)


def _from_one_hot(rows: NDArray[np.uint8], num_op_types: int) -> NDArray[np.int16]:
    if rows.shape[2] != num_op_types:
        raise ValueError(
            f"node_ops: {rows.shape[2]} operation types, the layout has {num_op_types}; "
            "is it another space?"
        )
    ones = rows.sum(axis=2)
    if (ones > 1).any():
        cell, node = (int(i) for i in np.argwhere(ones > 1)[0])
        raise ValueError(
            f"node_ops: cell {cell} has {ones[cell, node]} operations at node {node}; "
            "one-hot rows hold one 1, or none for an absent node"
        )
    return np.where(ones == 1, rows.argmax(axis=2), -1).astype(np.int16)


def require_seed(seed: int) -> int:
    """Any Python or numpy integer, folded into 64 bits."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: expected an int, got {type(seed).__name__}")
    return int(seed) % 2**64


def require_index(index: ArrayLike, size: int) -> NDArray[Any]:
    """Rows of a batch of ``size`` cells, integers or a mask ``[size]``."""
    array = as_array(index, "index")
    if array.size == 0 and array.dtype != bool:  # an empty list has the dtype of floats
        array = array.astype(np.intp)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise IndexError(
            f"index: expected a slice, an int, or integers or a mask in one dimension, got "
            f"{array.dtype} {list(array.shape)}"
        )
    if array.dtype == bool and len(array) != size:
        raise IndexError(f"index: a mask of {len(array)} does not fit a batch of {size} cells")
    if array.dtype != bool and array.size and not -size <= array.min() <= array.max() < size:
        outside = array[(array < -size) | (array >= size)][0]
        raise IndexError(f"index: {outside} is outside a batch of {size} cells")
    return array


def require_int(value: int, name: str) -> None:
    """An int, of Python or numpy; no bool."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")


def require_count(count: int) -> None:
    """A non-negative number of cells."""
    require_int(count, "count")
    if count < 0:
        raise ValueError(f"count: {count} is negative; ask for 0 cells or more")

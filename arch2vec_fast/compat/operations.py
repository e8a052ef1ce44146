# SPDX-License-Identifier: Apache-2.0
"""Operation names and the released validity checks, one decoded cell at a time.

What: `to_ops_*`, `to_operations_darts`, `one_hot_darts`, `is_valid_nasbench201`, `is_valid_darts`,
`load_json`. Why: the released pretraining and search scripts call them on single cells. New code
wants `spaces.get(name).validity`,
    which judges a batch and gives a reason; the checks here keep the released ones' blind spots.
Source: `utils/utils.py` of the released code (MSU-MLSys-Lab/arch2vec, commit ea01b0c),
`to_ops_nasbench101` from info-NAS.
"""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arch2vec_fast import spaces
from arch2vec_fast._files import read_json

_NASBENCH101 = tuple(spaces.get("nasbench101").op_names)
_NASBENCH201 = tuple(spaces.get("nasbench201").op_names)
_DARTS = tuple(spaces.get("darts").op_names)


def load_json(f_name: str | PathLike[str]) -> Any:
    """The parsed JSON file `f_name`. Raises OSError, or ValueError when the file is not JSON."""
    return read_json(Path(f_name))


def _names(idx: Iterable[Any], names: Sequence[str]) -> list[str]:
    labels = [int(label) for label in idx]
    for label in labels:
        if not 0 <= label < len(names):
            raise ValueError(f"idx: operation {label} is outside 0..{len(names) - 1}")
    return [names[label] for label in labels]


def to_ops_nasbench101(idx: Iterable[Any]) -> list[str]:
    """Names of NAS-Bench-101 operation indices (a tensor, an array or integers)."""
    return _names(idx, _NASBENCH101)


def to_ops_nasbench201(idx: Iterable[Any]) -> list[str]:
    """Names of NAS-Bench-201 operation indices (a tensor, an array or integers).

    >>> to_ops_nasbench201([0, 2, 6])
    ['input', 'nor_conv_3x3', 'output']
    """
    return _names(idx, _NASBENCH201)


def to_ops_darts(idx: Iterable[Any]) -> list[str]:
    """Names of DARTS operation indices (a tensor, an array or integers)."""
    return _names(idx, _DARTS)


def to_operations_darts(ops: Sequence[int]) -> npt.NDArray[np.int8]:
    """One-hot [11,11] int8 of one DARTS cell's operation indices; rows past `len(ops)` are zero."""
    one_hot = np.zeros((len(_DARTS), len(_DARTS)), dtype=np.int8)
    one_hot[np.arange(len(ops)), np.asarray(ops, dtype=np.int64)] = 1
    return one_hot


def one_hot_darts(ops: Sequence[int]) -> npt.NDArray[np.int8]:
    """`to_operations_darts` under its second released name."""
    return to_operations_darts(ops)


def is_valid_nasbench201(adj: Any, ops: Sequence[str]) -> bool:
    """The released check of one decoded NAS-Bench-201 cell: node names only.

    Kept: node 1 and the adjacency are never looked at; the published 79.41 % rests on that.
    `spaces.get("nasbench201").validity(cells, rule="strict")` checks both.
    """
    return (
        ops[0] == "input"
        and ops[-1] == "output"
        and all(op in _NASBENCH201[1:-1] for op in ops[2:-1])
    )


def is_valid_darts(adj: Any, ops: Sequence[str]) -> bool:
    """The released check of one decoded DARTS cell (11 nodes, adjacency 11 x 11).

    Kept: an operation needs some earlier source and no later one (the latter cannot fail on an
    upper-triangular matrix); paired sources, a single source per operation, distinct inputs and the
    output row are not looked at. `spaces.get("darts").validity(cells, rule="strict")` checks all of
    it.
    """
    if tuple(ops[:2]) != _DARTS[:2] or ops[-1] != _DARTS[-1]:
        return False
    if not all(op in _DARTS[2:-1] for op in ops[2:-1]):
        return False
    matrix = np.asarray(adj)
    for block in range(4):
        first = 2 * block + 2
        columns = matrix[:, first : first + 2]
        if (columns[:first].sum(axis=0) == 0).any():
            return False
        # The last block's outgoing rows are not checked by the released code either.
        if block < 3 and (columns[first + 2 :].sum(axis=0) > 0).any():
            return False
    return True

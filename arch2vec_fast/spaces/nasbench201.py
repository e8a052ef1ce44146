# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-201: 15,625 cells, one of five operations on each of six edges of a fixed graph.

The benchmark puts operations on the edges of a four-node graph; a packed cell has one node per edge
instead, nodes 1..6 for the edges 0>1, 0>2, 1>2, 0>3, 1>3, 2>3, the order in which the arch string
``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`` names them. So all cells share one adjacency, differ in six
labels of a 52-bit code, and everything here is arithmetic on one integer a cell.

Source: Dong and Yang, "NAS-Bench-201", ICLR 2020; matrix form of Yan et al., NeurIPS 2020.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.spaces import _arrays
from arch2vec_fast.spaces.base import CellSpace
from arch2vec_fast.spaces.cell_batch import CellBatch
from arch2vec_fast.spaces.layout import CellLayout

_LAYOUT: Final = CellLayout(num_nodes=8, num_op_types=7)
_OP_NAMES: Final = (
    "input",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "none",
    "output",
)
_CONV1X1, _CONV3X3, _SKIP, _NONE = 1, 2, 4, 5
_TEMPLATE: Final = ((0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7))
_NUM_CELLS: Final = 5**6

# The benchmark numbers its cells by shuffling the lexicographic list over this operation order with
# Python's generator, seed 88. The digest holds that order down should `random.shuffle` ever change.
_OFFICIAL_OPS: Final = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_OFFICIAL_SEED: Final = 88
_OFFICIAL_SHA256: Final = "1d3bb98de011b645ca1cf0585b09293d60b9456cac5d10e6ca296bbb3c55513e"

_ARCH: Final = re.compile(
    r"\|([^|~]+)~0\|\+\|([^|~]+)~0\|([^|~]+)~1\|\+\|([^|~]+)~0\|([^|~]+)~1\|([^|~]+)~2\|"
)

_EDGE_MASK: Final = (1 << _LAYOUT.edge_bits) - 1
_TEMPLATE_BITS: Final = sum(1 << (x + y * (y - 1) // 2) for x, y in _TEMPLATE)
_OP_SHIFTS: Final = _LAYOUT.edge_bits + _LAYOUT.op_bits * np.arange(8, dtype=np.int64)
_OP_TO_DIGIT: Final = np.array([0, *(_OFFICIAL_OPS.index(op) for op in _OP_NAMES[1:6]), 0])
_DIGIT_TO_OP: Final = np.array([_OP_NAMES.index(op) for op in _OFFICIAL_OPS], dtype=np.int64)
_PLACES: Final = 5 ** np.arange(5, -1, -1, dtype=np.int64)


@cache
def _official_order() -> NDArray[np.int64]:
    """Lexicographic rank of each cell of the benchmark, by official index [15625]."""
    ranks = list(range(_NUM_CELLS))
    random.Random(_OFFICIAL_SEED).shuffle(ranks)
    order = np.array(ranks, dtype=np.int64)
    if hashlib.sha256(order.astype("<u2").tobytes()).hexdigest() != _OFFICIAL_SHA256:
        raise RuntimeError(
            "nasbench201: this Python's random.shuffle gives another order than the benchmark's; "
            "use CPython 3.11 to 3.13"
        )
    order.setflags(write=False)
    return order


@cache
def _official_index() -> NDArray[np.int64]:
    """Official index of each cell, by lexicographic rank [15625]: the inverse of the order."""
    return np.argsort(_official_order())


def _pack(node_ops: NDArray[np.int64]) -> CellBatch:
    """Cells of the template from operation types [B, 6], 1..5."""
    labels = np.full((len(node_ops), 8), len(_OP_NAMES), dtype=np.int64)  # output: type 6, label 7
    labels[:, 0] = 1
    labels[:, 1:7] = node_ops + 1
    codes = (labels << _OP_SHIFTS).sum(axis=1) | _TEMPLATE_BITS
    return CellBatch._trusted(codes[:, None], _LAYOUT)


def _pack_ranks(ranks: NDArray[np.int64]) -> CellBatch:
    return _pack(_DIGIT_TO_OP[ranks[:, None] // _PLACES % 5])


def _labels(cells: CellBatch) -> NDArray[np.int64]:
    """Operation types [B, 8], -1 for absent nodes."""
    return ((cells.codes >> _OP_SHIFTS) & 7) - 1


@cache
def _simplest() -> NDArray[np.int64]:
    """For each lexicographic rank, the rank of the simplest cell of the same expression.

    A node is the sum of its incoming terms, held as a sorted tuple of term numbers: `none` and any
    operation on an empty sum add nothing, `skip_connect` adds the terms of its source as they are.
    """
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}

    def terms(op: int, source: tuple[int, ...]) -> tuple[int, ...]:
        if op == _NONE or not source:
            return ()
        return source if op == _SKIP else (numbers.setdefault((op, source), len(numbers)),)

    best: dict[tuple[int, ...], tuple[int, int]] = {}
    outputs = []
    digits = np.arange(_NUM_CELLS)[:, None] // _PLACES % 5
    for rank, ops in enumerate(_DIGIT_TO_OP[digits].tolist()):
        one = terms(ops[0], (-1,))  # -1: the cell's input
        two = tuple(sorted(terms(ops[1], (-1,)) + terms(ops[2], one)))
        out = tuple(sorted(terms(ops[3], (-1,)) + terms(ops[4], one) + terms(ops[5], two)))
        outputs.append(out)
        simplicity = (6 - ops.count(_NONE), rank)
        best[out] = min(best.get(out, simplicity), simplicity)
    return np.array([best[out][1] for out in outputs], dtype=np.int64)


class NasBench201(CellSpace):
    """The NAS-Bench-201 space; ``enumerate()[i]`` is the cell the benchmark numbers i.

    Reasons of ``validity``: the strict rule asks for the fixed graph and an operation on each of
    nodes 1..6; the released rule is the check of the released arch2vec code, which looks at no
    edge and skips node 1.

    Examples
    --------
    >>> space = NasBench201()
    >>> space.to_string(space.enumerate()[0])
    ['|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|']
    >>> space.index_of(space.from_string(space.to_string(space.enumerate()[[3, 9930]])))
    array([   3, 9930])
    """

    reasons = (
        "valid",
        "node 0 is not the input",
        "node 7 is not the output",
        "a node carries no operation of the space",
        "the edges are not those of the fixed graph",
    )

    orders = ("canonical", "official")

    def __init__(self) -> None:
        super().__init__(_LAYOUT.num_nodes, _OP_NAMES, name="nasbench201", max_edges=len(_TEMPLATE))
        self.num_cells = _NUM_CELLS

    def enumerate(self, order: str = "official") -> CellBatch:
        """All 15,625 cells, row i the one the benchmark numbers i.

        No two cells are isomorphic and the space keeps one order: ``"canonical"`` gives the same.
        """
        self._check_order(order)
        return _pack_ranks(_official_order())

    def stream(self, chunk_size: int = 65_536) -> Iterator[CellBatch]:
        """The cells of ``enumerate``, in its order, in batches of at most ``chunk_size``."""
        if chunk_size < 1:
            raise ValueError(f"chunk_size: {chunk_size}; give at least 1")
        cells = self.enumerate()
        return (cells[i : i + chunk_size] for i in range(0, len(cells), chunk_size))

    def sample(self, count: int, *, seed: int) -> CellBatch:
        """``count`` cells, independent and uniform over the 15,625; the same for the same seed."""
        _arrays.require_count(count)
        rng = np.random.default_rng(_arrays.require_seed(seed))
        return _pack_ranks(rng.integers(_NUM_CELLS, size=count))

    def mutate(self, cells: CellBatch, *, seed: int) -> CellBatch:
        """One of the six operations of each cell replaced by another, uniform over the 24 ways."""
        digits = self._ranks(cells)[:, None] // _PLACES % 5
        rng = np.random.default_rng(_arrays.require_seed(seed))
        rows, edges = np.arange(len(cells)), rng.integers(6, size=len(cells))
        shift = rng.integers(1, 5, size=len(cells))
        digits[rows, edges] = (digits[rows, edges] + shift) % 5
        return _pack(_DIGIT_TO_OP[digits])

    def neighbours(self, cells: CellBatch) -> tuple[CellBatch, NDArray[np.int64]]:
        """The 24 cells that differ from each in one operation, and ``owner`` int64 [24 B]."""
        digits = np.repeat(self._ranks(cells)[:, None] // _PLACES % 5, 24, axis=0)
        changes = np.arange(len(digits)) % 24
        edges, shift = changes // 4, changes % 4 + 1
        rows = np.arange(len(digits))
        digits[rows, edges] = (digits[rows, edges] + shift) % 5
        return _pack(_DIGIT_TO_OP[digits]), rows // 24

    def validity(self, cells: CellBatch, *, rule: str = "strict") -> NDArray[np.uint8]:
        """Reason code of each cell, uint8 [B], 0 = valid; words in ``reasons``."""
        self._check_rule(rule)
        labels = _labels(self._checked(cells))
        first = 1 if rule == "strict" else 2  # the released loop starts at node 2
        inner = labels[:, first:7]
        faults = [
            labels[:, 0] != 0,
            labels[:, 7] != len(_OP_NAMES) - 1,
            ((inner < 1) | (inner > 5)).any(axis=1),
        ]
        if rule == "strict":
            faults.append((cells.codes[:, 0] & _EDGE_MASK) != _TEMPLATE_BITS)
        return np.select(faults, list(range(1, len(faults) + 1)), 0).astype(np.uint8)

    def simplify(self, cells: CellBatch) -> CellBatch:
        """The simplest cell that computes the same expression, for each valid cell.

        `none` and everything that reads or feeds only zeros is dropped, `skip_connect`
        contracted; of all cells equal after that, the one with the most `none` (then the first in
        lexicographic order) stands for them: 4,930 remain. As in the benchmark's own string,
        which tells 6,466 apart because it keeps zeros inside sums, two operations with weights of
        their own equal one used twice. Test accuracy varies as little inside these classes as
        inside those (rms .26 and .25 points, CIFAR-10, 200 epochs). ValueError for invalid cells.
        """
        return _pack_ranks(_simplest()[self._ranks(cells)])

    def num_parameters(self, cells: CellBatch) -> NDArray[np.int64]:
        """Trainable parameters of the CIFAR-10 network (C = 16, 3 x 5 cells), int64 [B].

        73,306 plus 243,040 a 3x3 and 28,000 a 1x1 convolution. ValueError for invalid cells.
        """
        inner = self._valid_labels(cells)[:, 1:7]
        convolutions = [(inner == op).sum(axis=1) for op in (_CONV3X3, _CONV1X1)]
        parameters: NDArray[np.int64] = 73_306 + np.array([243_040, 28_000]) @ convolutions
        return parameters

    def index_of(self, cells: CellBatch, order: str = "official") -> NDArray[np.int64]:
        """Row of each cell in ``enumerate(order)``, int64 [B]; ValueError for invalid cells.

        It is the benchmark's number of the cell, whichever the order.
        """
        self._check_order(order)
        return _official_index()[self._ranks(cells)]

    def to_string(self, cells: CellBatch) -> list[str]:
        """Arch strings ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``; ValueError for invalid cells."""
        return [
            "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*(_OP_NAMES[op] for op in ops))
            for ops in self._valid_labels(cells)[:, 1:7].tolist()
        ]

    def from_string(self, archs: str | Sequence[str]) -> CellBatch:
        """Cells of one arch string or of B; the inverse of ``to_string``.

        Raises ValueError naming the first text that is no arch string or has an unknown operation.
        """
        texts = [archs] if isinstance(archs, str) else list(archs)
        node_ops = np.empty((len(texts), 6), dtype=np.int64)
        for row, text in enumerate(texts):
            match = _ARCH.fullmatch(text.strip()) if isinstance(text, str) else None
            if match is None:
                raise ValueError(
                    f"archs[{row}]: {text!r:.120} is no arch string; "
                    "write |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
                )
            for edge, op in enumerate(match.groups()):
                if op not in _OFFICIAL_OPS:
                    raise ValueError(
                        f"archs[{row}]: unknown operation {op!r:.80}; "
                        f"choose one of {', '.join(_OFFICIAL_OPS)}"
                    )
                node_ops[row, edge] = _OP_NAMES.index(op)
        return _pack(node_ops)

    def describe(self, cell: CellBatch) -> str:
        """The arch string of a valid cell, matrix and operations of any other."""
        if len(self._checked(cell)) == 1 and self.is_valid(cell)[0]:
            return self.to_string(cell)[0]
        return super().describe(cell)

    def _valid_labels(self, cells: CellBatch) -> NDArray[np.int64]:
        self._require_valid(cells)
        return _labels(cells)

    def _ranks(self, cells: CellBatch) -> NDArray[np.int64]:
        """Lexicographic rank of each valid cell in the benchmark's operation order."""
        return _OP_TO_DIGIT[self._valid_labels(cells)[:, 1:7]] @ _PLACES

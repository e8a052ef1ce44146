# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-101: 423,624 cells of up to seven nodes, nine edges and three operations.

Everything structural of the benchmark is recomputed here, nothing is downloaded: its cells, its
pruning, its names (md5 hashes) and their order, the labelling it stores, the size of its networks.

Source: Ying et al., "NAS-Bench-101", ICML 2019.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast import _cells
from arch2vec_fast.spaces import _arrays
from arch2vec_fast.spaces.base import CellSpace
from arch2vec_fast.spaces.cell_batch import CellBatch

_OP_NAMES: Final = ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output")
_NUM_CELLS: Final = 423_624


class NasBench101(CellSpace):
    """The NAS-Bench-101 space.

    Two rules of validity: ``"released"`` is the benchmark's own, which prunes first; ``"strict"``
    also asks that pruning removes nothing. Cells are judged as decoded: the output is looked for at
    the last present node.

    Examples
    --------
    >>> space = NasBench101()
    >>> cells = space.enumerate()
    >>> len(cells), np.bincount(cells.num_present()).tolist()
    (423624, [0, 0, 1, 6, 84, 2441, 62010, 359082])
    >>> space.describe(cells[1])
    'input, conv1x1-bn-relu, output; 0>1 1>2'
    >>> space.num_parameters(cells[:2]).tolist()
    [882570, 1920138]
    """

    reasons = (
        "valid",
        "no path leads from the first node to the last",
        "more than 9 edges are left after pruning",
        "the first node is not the input",
        "the last node is not the output",
        "an inner node carries no operation of the space",
        "pruning removes nodes",
    )

    orders = ("canonical", "official")
    _prunes_edits = True

    def __init__(self) -> None:
        super().__init__(7, _OP_NAMES, name="nasbench101", max_edges=9, variable_size=True)
        self.num_cells = _NUM_CELLS
        self._canonical: CellBatch | None = None
        self._official: CellBatch | None = None

    def enumerate(self, order: str = "canonical") -> CellBatch:
        """All 423,624 classes; computed once, then kept (3.4 MB).

        ``"canonical"``: canonical cells by number of nodes, then by code, a fraction of a second.
        ``"official"``: the benchmark's own iteration order (sorted hash), each cell in the
        labelling that the benchmark stores, so row i is entry i of the released ``data.json``; a
        few seconds.
        """
        self._check_order(order)
        if self._canonical is None:
            self._canonical = super().enumerate()
        if order == "canonical":
            return self._canonical
        if self._official is None:
            # two big-endian words sort as the hexadecimal text does
            words = _cells.nasbench101_hash(self._canonical.codes).view(">u8")
            by_hash = np.lexsort((words[:, 1], words[:, 0]))
            self._official = self.benchmark_labelling(self._canonical[by_hash])
        return self._official

    def sample(self, count: int, *, seed: int) -> CellBatch:
        """``count`` independent canonical cells, uniform over the 423,624 classes."""
        _arrays.require_count(count)
        rng = np.random.default_rng(_arrays.require_seed(seed))
        cells = self.enumerate()
        return cells[rng.integers(len(cells), size=count)]

    def validity(self, cells: CellBatch, *, rule: str = "strict") -> NDArray[np.uint8]:
        """Reason code of each cell, uint8 ``[B]``; see the class for the two rules."""
        self._check_rule(rule)
        return _cells.nasbench101_faults(self._checked(cells).codes, strict=rule == "strict")

    def simplify(self, cells: CellBatch) -> CellBatch:
        """Pruned as the benchmark does: nodes on no path from the first to the last node removed.

        A cell without such a path has nothing to be pruned to and comes back as it is.
        """
        return CellBatch._trusted(_cells.nasbench101_prune(self._checked(cells).codes), self.layout)

    prune = simplify

    def benchmark_labelling(self, cells: CellBatch) -> CellBatch:
        """The isomorphic cell that the benchmark stores: smallest edge bits, then operations.

        Cells are pruned first; raises ValueError for one the benchmark would refuse.
        """
        codes = _cells.nasbench101_labelling(self._pruned_valid(cells).codes)
        return CellBatch._trusted(codes, self.layout)

    def nasbench_hash(self, cells: CellBatch) -> list[str]:
        """The benchmark's name of each cell, 32 hexadecimal digits.

        Cells are pruned first, so any encoding of a cell has its name; raises ValueError for one
        the benchmark would refuse.
        """
        text = _cells.nasbench101_hash(self._pruned_valid(cells).codes).tobytes().hex()
        return [text[i : i + 32] for i in range(0, len(text), 32)]

    def num_parameters(self, cells: CellBatch) -> NDArray[np.int64]:
        """Trainable parameters of the benchmark's CIFAR-10 network, int64 ``[B]``.

        Stem of 128 channels, three stacks of three cells, channels doubled from stack to stack.
        Where the output's channels do not divide among its inputs the benchmark favours low node
        numbers, so the count is made on its own labelling, whatever the one given. Cells are pruned
        first.
        """
        return _cells.nasbench101_num_parameters(self._pruned_valid(cells).codes)

    def index_of(self, cells: CellBatch, order: str = "canonical") -> NDArray[np.int64]:
        """Row of each cell in ``enumerate(order)``, int64 ``[B]``; any encoding will do."""
        table = self.enumerate(order).canonical().codes[:, 0]
        codes = self._pruned_valid(cells).canonical().codes[:, 0]
        rows = np.argsort(table, kind="stable")
        return rows[np.searchsorted(table, codes, sorter=rows)].astype(np.int64)

    def _pruned_valid(self, cells: CellBatch) -> CellBatch:
        reasons = self.validity(cells, rule="released")
        if reasons.any():
            bad = int((reasons != 0).argmax())
            raise ValueError(
                f"cells: cell {bad} is not a cell of {self.name}: {self.reasons[reasons[bad]]}"
            )
        return self.simplify(cells)

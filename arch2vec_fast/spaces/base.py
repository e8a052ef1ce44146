# SPDX-License-Identifier: Apache-2.0
"""CellSpace: a set of cells that can be enumerated, streamed, sampled, mutated and judged.

The class serves any user-defined space of up to 16 nodes as it stands, and is what the benchmark
spaces build on: they replace the methods for which they have a better answer, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arch2vec_fast import _cells
from arch2vec_fast._atomic import read_json, write_json
from arch2vec_fast.spaces import _arrays
from arch2vec_fast.spaces.cell_batch import CellBatch
from arch2vec_fast.spaces.layout import CellLayout

Rule = Callable[[CellBatch], NDArray[np.bool_]]

_SAMPLE_ATTEMPTS = 1_000_000  # draws for one cell before the space counts as too thin to sample
_SAMPLE_ROUNDS = 1_000


class CellSpace:
    """A space of cells: labelled directed acyclic graphs with at most ``num_nodes`` nodes.

    Parameters
    ----------
    num_nodes
        N, 2..16.
    op_names
        Names of the F operation types in the order of their indices: first the inputs, then the
        inner operations, last the output.
    name
        For messages and file names.
    input_ops
        The first of ``op_names``; each labels exactly one node at the front, into which nothing
        flows. Empty for a space without marked inputs.
    output_op
        The last of ``op_names``; labels exactly the last present node, out of which nothing flows.
        None for a space without a marked output.
    max_edges
        Most edges of a cell; default no limit.
    variable_size
        Whether cells may have fewer than N nodes (the rest absent, at the end).
    allow_dangling
        By default every node but an input needs a predecessor and every node but the output a
        successor (where the space has inputs, respectively an output); True drops that.
    rule
        A further condition, a function from a ``CellBatch`` to a bool mask ``[B]``. It must give
        isomorphic cells the same answer.

    Raises
    ------
    TypeError, ValueError
        One line naming the argument.

    Examples
    --------
    >>> space = CellSpace(5, ("input", "conv", "pool", "output"), max_edges=6)
    >>> len(space.enumerate())
    264
    >>> space.describe(space.sample(1, seed=0))
    'input, pool, pool, pool, output; 0>1 1>2 1>3 0>4 2>4 3>4'
    """

    reasons: tuple[str, ...] = (
        "valid",
        "an absent node stands before a present one",
        "an edge touches an absent node",
        "the cell has too few nodes",
        "the input nodes are not exactly at the front",
        "the output is not exactly the last present node",
        "an edge runs into an input",
        "the cell has too many edges",
        "a node has no predecessor",
        "a node has no successor",
        "the rule of the space is not met",
    )

    #: Orders that ``enumerate`` knows; "official" where a benchmark numbers its cells.
    orders: tuple[str, ...] = ("canonical",)
    #: Encodings, where only those have been counted.
    num_genotypes: int | None = None
    _prunes_edits = False

    def __init__(
        self,
        num_nodes: int,
        op_names: Sequence[str],
        *,
        name: str = "custom",
        input_ops: Sequence[str] = ("input",),
        output_op: str | None = "output",
        max_edges: int | None = None,
        variable_size: bool = False,
        allow_dangling: bool = False,
        rule: Rule | None = None,
    ) -> None:
        if isinstance(op_names, str) or not all(isinstance(op, str) for op in op_names):
            raise TypeError("op_names: expected a sequence of names")
        self.name = name
        self.op_names = tuple(op_names)
        self.layout = CellLayout(num_nodes, len(self.op_names))
        self.input_ops = tuple(input_ops)
        self.output_op = output_op
        self._check_op_names()
        if max_edges is not None:
            _arrays.require_int(max_edges, "max_edges")
        self.max_edges = self.layout.edge_bits if max_edges is None else int(max_edges)
        if self.max_edges < 0:
            raise ValueError(f"max_edges: {max_edges} is negative; give a limit or None")
        self.variable_size = variable_size
        self.allow_dangling = allow_dangling
        self.rule = rule
        self.num_cells: int | None = None
        """Isomorphism classes in the space; None until known (``enumerate`` of a general space)."""
        self._rules = _cells.SpaceRules(
            num_inputs=len(self.input_ops),
            has_output=output_op is not None,
            variable_size=variable_size,
            allow_dangling=allow_dangling,
            max_edges=min(self.max_edges, self.layout.edge_bits),
        )

    def _check_op_names(self) -> None:
        if len(set(self.op_names)) != len(self.op_names):
            raise ValueError(f"op_names: {list(self.op_names)} names an operation twice")
        count = len(self.input_ops)
        if self.op_names[:count] != self.input_ops:
            raise ValueError(
                f"input_ops: {list(self.input_ops)} are not the first of op_names; "
                "put the inputs first, or pass input_ops=() for a space without"
            )
        if self.output_op is not None and self.output_op != self.op_names[-1]:
            raise ValueError(
                f"output_op: {self.output_op!r} is not the last of op_names; "
                "put the output last, or pass output_op=None for a space without"
            )
        if count + (self.output_op is not None) > min(self.layout.num_nodes, len(self.op_names)):
            raise ValueError(
                f"input_ops: {count} inputs and the output need more than "
                f"{self.layout.num_nodes} nodes; raise num_nodes"
            )
        if count == self.layout.num_nodes:
            raise ValueError("input_ops: every node would be an input; raise num_nodes")

    def __repr__(self) -> str:
        sizes = f"N={self.layout.num_nodes}, F={self.layout.num_op_types}"
        return f"{type(self).__name__}({self.name!r}, {sizes})"

    def _shape_args(self) -> tuple[int, int]:
        return self.layout.num_nodes, self.layout.num_op_types

    def _checked(self, cells: CellBatch) -> CellBatch:
        """The batch itself, if it is one of this layout."""
        if not isinstance(cells, CellBatch):
            raise TypeError(
                f"cells: expected a CellBatch, got {type(cells).__name__}; use CellBatch.from_dense"
            )
        if cells.layout != self.layout:
            raise ValueError(
                f"cells: packed for {cells.layout}, {self.name} has {self.layout}; "
                "do they come from another space?"
            )
        return cells

    def _rule_mask(self, cells: CellBatch) -> NDArray[np.bool_]:
        if self.rule is None or len(cells) == 0:
            return np.ones(len(cells), dtype=np.bool_)
        mask = np.asarray(self.rule(cells))
        if mask.shape != (len(cells),) or mask.dtype != np.bool_:
            raise ValueError(
                f"rule: returned {mask.dtype} {list(mask.shape)}; return one bool per cell"
            )
        return mask

    # ---- the whole space -------------------------------------------------------------------------

    def enumerate(self, order: str = "canonical") -> CellBatch:
        """All isomorphism classes, one canonical cell each.

        Sorted by number of nodes, then by code. The work is shared by all cores; the result is not
        affected. Memory is 8 W bytes a cell; ``stream`` needs none.
        """
        self._check_order(order)
        codes = _cells.enumerate_cells(*self._shape_args(), self._rules)
        cells = CellBatch._trusted(codes, self.layout)
        if self.rule is not None:
            cells = cells[self._rule_mask(cells)]
        self.num_cells = len(cells)
        return cells

    def _check_order(self, order: str) -> None:
        if order not in self.orders:
            known = ", ".join(self.orders)
            raise ValueError(f"order: unknown order {order!r}; choose one of {known}")

    def stream(self, chunk_size: int = 65_536) -> Iterator[CellBatch]:
        """The classes of ``enumerate`` in batches of at most ``chunk_size``, in constant memory.

        Cells grow node by node, and whether one is the chosen member of its class is decided from
        the cell alone (canonical augmentation, McKay 1998), so nothing that was emitted has to be
        remembered. The order is fixed, by number of nodes, but within one size not by code. One
        thread; the GIL is released; microseconds a cell up to 16 nodes.
        """
        if chunk_size < 1:
            raise ValueError(f"chunk_size: {chunk_size}; give at least 1")
        walk = _cells.Enumerator(*self._shape_args(), self._rules)
        while True:
            codes = walk.next(chunk_size)
            cells = CellBatch._trusted(codes, self.layout)
            kept = cells if self.rule is None else cells[self._rule_mask(cells)]
            if len(kept) > 0:
                yield kept
            if len(cells) < chunk_size:
                return

    # ---- random cells ----------------------------------------------------------------------------

    def sample(self, count: int, *, seed: int) -> CellBatch:
        """``count`` independent cells, uniform over the labelled encodings of the space.

        A class with more topological labelings is drawn more often; spaces that know their classes
        (NAS-Bench-101) draw uniformly over those. Cells are drawn with at most ``max_edges`` edges
        and rejected until they satisfy the space, so a space that few such cells satisfy is refused
        with a ValueError after a million draws for one cell. Deterministic in ``seed``, on any
        number of cores; the first cells of a longer sample are those of a shorter one.
        """
        _arrays.require_count(count)
        seed = _arrays.require_seed(seed)
        codes = np.empty((count, self.layout.words), np.int64)
        pending = np.arange(count, dtype=np.int64)
        for attempt in range(_SAMPLE_ROUNDS):
            if len(pending) == 0:
                return CellBatch._trusted(codes, self.layout)
            drawn, failed = _cells.sample(
                *self._shape_args(),
                self._rules,
                seed=seed,
                items=pending,
                round=attempt,
                max_attempts=_SAMPLE_ATTEMPTS,
            )
            if failed >= 0:
                break
            codes[pending] = drawn
            pending = pending[~self._rule_mask(CellBatch._trusted(drawn, self.layout))]
        if len(pending) == 0:
            return CellBatch._trusted(codes, self.layout)
        raise ValueError(
            f"count: {self.name} is too thin for sampling by rejection ({_SAMPLE_ATTEMPTS} draws "
            "without a valid cell); draw from enumerate() or loosen max_edges"
        )

    def mutate(self, cells: CellBatch, *, seed: int) -> CellBatch:
        """A random neighbour of each cell: one edit, valid again, not isomorphic to its parent.

        Edits: add or remove an edge; change the operation of an inner node; where the size may
        vary, split an edge by a new inner node, or take an inner node out and join its predecessors
        to its successors. Uniform over the edits of a cell whose result qualifies. Cell i depends
        on ``seed``, i and the cell alone.

        Raises ValueError for cells that are not valid themselves or have no neighbour.
        """
        seed = _arrays.require_seed(seed)
        self._require_valid(cells)
        parents = cells.canonical().codes
        codes = cells.codes.copy()
        pending = np.arange(len(cells), dtype=np.int64)
        start = np.zeros(len(cells), np.int64)
        while len(pending) > 0:
            children, start = self._edit(cells[pending], pending, start, seed)
            if (start < 0).any():
                raise ValueError(
                    f"cells: cell {int(pending[(start < 0).argmax()])} has no valid neighbour "
                    f"in {self.name}"
                )
            moved = (children.canonical().codes != parents[pending]).any(axis=1)
            good = moved & self.is_valid(children)
            codes[pending[good]] = children.codes[good]
            pending, start = pending[~good], start[~good]
        return CellBatch._trusted(codes, self.layout)

    def neighbours(self, cells: CellBatch) -> tuple[CellBatch, NDArray[np.int64]]:
        """All neighbours of each cell: what ``mutate`` may return, isomorphic ones once.

        Returns the cells ``[n]`` and ``owner`` int64 ``[n]``, ascending: neighbour i is one of cell
        ``owner[i]``. Cells keep the numbering of an edit, not the canonical one. The order within
        an owner depends on the cell alone. Raises ValueError for cells that are not valid.
        """
        self._require_valid(cells)
        found, owners = [], []
        pending = np.arange(len(cells), dtype=np.int64)
        start = np.zeros(len(cells), np.int64)
        while len(pending) > 0:
            children, start = self._edit(cells[pending], np.zeros_like(pending), start, 0)
            left = start >= 0
            found.append(children[left])
            owners.append(pending[left])
            pending, start = pending[left], start[left]
        if not found:
            return cells, pending
        edited, owner = CellBatch.concat(found), np.concatenate(owners)
        valid = self.is_valid(edited)
        return _distinct(cells, edited[valid], owner[valid])

    def _edit(
        self, cells: CellBatch, items: NDArray[np.int64], start: NDArray[np.int64], seed: int
    ) -> tuple[CellBatch, NDArray[np.int64]]:
        """The next edit of every cell in its own random order, and where that order goes on.

        Where the space prunes, an edit may leave nodes hanging: they are pruned away.
        """
        codes, after = _cells.edit(
            cells.codes,
            *self._shape_args(),
            self._rules,
            items=items,
            start=start,
            seed=seed,
            checked=not self._prunes_edits,
        )
        edited = CellBatch._trusted(codes, self.layout)
        return (self.simplify(edited) if self._prunes_edits else edited), after

    # ---- judging ---------------------------------------------------------------------------------

    def validity(self, cells: CellBatch, *, rule: str = "strict") -> NDArray[np.uint8]:
        """Reason code of each cell, uint8 ``[B]``; 0 is valid, ``reasons`` has the words.

        Any representable cell is judged, decoded junk included. ``rule="strict"`` asks for the
        exact form of the space; ``"released"`` repeats the released arch2vec code's check, which
        only the benchmark spaces have, and is the same here.
        """
        self._check_rule(rule)
        self._checked(cells)
        faults = _cells.faults(cells.codes, *self._shape_args(), self._rules)
        faults[(faults == 0) & ~self._rule_mask_where(cells, faults == 0)] = len(self.reasons) - 1
        return faults

    def _rule_mask_where(self, cells: CellBatch, where: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The rule's answer where it is asked, True elsewhere: rules may count on sound cells."""
        mask = np.ones(len(cells), dtype=np.bool_)
        if self.rule is not None:
            mask[where] = self._rule_mask(cells[where])
        return mask

    @staticmethod
    def _check_rule(rule: str) -> None:
        if rule not in ("strict", "released"):
            raise ValueError(f"rule: unknown rule {rule!r}; choose 'strict' or 'released'")

    def is_valid(self, cells: CellBatch, *, rule: str = "strict") -> NDArray[np.bool_]:
        """``validity(...) == 0``, bool ``[B]``."""
        valid: NDArray[np.bool_] = self.validity(cells, rule=rule) == 0
        return valid

    def _require_valid(self, cells: CellBatch) -> None:
        reasons = self.validity(cells)
        if reasons.any():
            bad = int((reasons != 0).argmax())
            raise ValueError(
                f"cells: cell {bad} is not a cell of {self.name}: {self.reasons[reasons[bad]]}"
            )

    def simplify(self, cells: CellBatch) -> CellBatch:
        """The smallest cell the benchmark holds equal to each; here each stands for itself."""
        return self._checked(cells)

    def num_parameters(self, cells: CellBatch) -> NDArray[np.int64]:
        """Trainable parameters of the benchmark's network, int64 ``[B]``; benchmark spaces only."""
        raise ValueError(f"num_parameters: {self.name} defines no network; use a benchmark space")

    # ---- files -----------------------------------------------------------------------------------

    def from_json(self, records: Mapping[str, Any]) -> CellBatch:
        """Cells of the space's released records, parsed; here those of ``CellBatch.to_json``."""
        return CellBatch.from_json(records, self.layout)

    def to_json(self, cells: CellBatch) -> dict[str, Any]:
        """The released records of cells; inverse of ``from_json``."""
        return self._checked(cells).to_json()

    def load_json(self, path: str | Path) -> CellBatch:
        """``from_json`` of a file; raises OSError or ValueError naming the file."""
        records = read_json(Path(path))
        try:
            return self.from_json(records)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None

    def save_json(self, cells: CellBatch, path: str | Path) -> None:
        """Write ``to_json`` to a file, whole or not at all."""
        write_json(Path(path), self.to_json(cells), indent=None)

    # ---- one cell, for people --------------------------------------------------------------------

    def from_matrix(self, matrix: ArrayLike, ops: Sequence[str]) -> CellBatch:
        """One cell from an upper-triangular ``[n, n]`` matrix and n operation names, n <= N."""
        unknown = [op for op in ops if op not in self.op_names]
        if unknown:
            raise ValueError(
                f"ops: unknown operation {unknown[0]!r}; {self.name} has {', '.join(self.op_names)}"
            )
        labels = [[self.op_names.index(op) for op in ops]]
        return CellBatch.from_dense(_arrays.as_array(matrix, "matrix")[None], labels, self.layout)

    def to_matrix(self, cell: CellBatch) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Inverse of ``from_matrix``: matrix and names of nodes up to the last present one."""
        if len(self._checked(cell)) != 1:
            raise ValueError(f"cell: expected one cell, got {len(cell)}; index the batch first")
        adjacency, node_ops = cell.to_dense()
        present = np.flatnonzero(node_ops[0] >= 0)
        nodes = int(present[-1]) + 1 if len(present) else 0
        names = tuple("absent" if op < 0 else self.op_names[op] for op in node_ops[0, :nodes])
        return adjacency[0, :nodes, :nodes], names

    def describe(self, cell: CellBatch) -> str:
        """One line: the operations by node, then the edges."""
        matrix, names = self.to_matrix(cell)
        edges = " ".join(f"{x}>{y}" for y in range(len(names)) for x in range(y) if matrix[x, y])
        return f"{', '.join(names)}; {edges}"


def _distinct(
    cells: CellBatch, edited: CellBatch, owner: NDArray[np.int64]
) -> tuple[CellBatch, NDArray[np.int64]]:
    """The edits of each owner that differ from it and from one another, sorted by owner."""
    codes = edited.canonical().codes
    moved = (codes != cells.canonical().codes[owner]).any(axis=1)
    _, first = np.unique(np.column_stack((owner, codes))[moved], axis=0, return_index=True)
    rows = np.flatnonzero(moved)[first]
    return edited[rows], owner[rows]

# SPDX-License-Identifier: Apache-2.0
"""The DARTS space: genotypes as 11-node cells, 99 bits each, normal cell = reduction cell.

Nodes 0 and 1 are the cell inputs, 2..9 the operations (two for each inner node of the genotype),
10 the output. An operation that reads an inner node has an edge from both of that node's
operations, so a valid cell and its genotype determine each other, order of the two operations of
a node included. As a labelled graph the cell says a little less: two inner nodes that nobody
reads may exchange operations unseen.

Source: Liu et al., "DARTS", ICLR 2019; matrix form and sampling of Yan et al., NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, overload

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast import _cells
from arch2vec_fast.spaces import _arrays
from arch2vec_fast.spaces.base import CellSpace
from arch2vec_fast.spaces.cell_batch import CellBatch
from arch2vec_fast.spaces.darts_cost import (
    CIFAR10,
    IMAGENET,
    DartsNetwork,
    NetworkCost,
    cost_table,
    network_cost,
)
from arch2vec_fast.spaces.darts_genotype import (
    NUM_NODES,
    OPERATIONS,
    Genotype,
    edges_to_genotypes,
    genotypes_to_edges,
)
from arch2vec_fast.spaces.layout import CellLayout

__all__ = [
    "CIFAR10",
    "IMAGENET",
    "NUM_GENOTYPES",
    "Darts",
    "DartsNetwork",
    "Genotype",
    "NetworkCost",
    "cell_to_genotype",
    "genotype_to_cell",
    "network_cost",
]

_LAYOUT: Final = CellLayout(num_nodes=11, num_op_types=11)
_OP_NAMES: Final = ("c_k-2", "c_k-1", *OPERATIONS, "output")

# Ordered pairs of distinct inputs of genotype node n, [n(n-1), 2].
_SOURCES: Final = tuple(
    np.array([(a, b) for a in range(n) for b in range(n) if a != b], dtype=np.uint8)
    for n in range(2, 2 + NUM_NODES)
)

NUM_GENOTYPES: Final = 1 * 3 * 6 * 10 * len(OPERATIONS) ** 8
"""Genotypes that differ in more than the order of the two operations of a node."""

# Change k of an input: an edge of node 3, 4 or 5, and which of the inputs its node does not read.
_INPUT_EDITS: Final = np.array([(e, c) for e in range(2, 8) for c in range(e // 2)], dtype=np.intp)
_NUM_EDITS: Final = 8 * 7 + len(_INPUT_EDITS)

# Cells drawn at a time: fixed, so that a sample is the beginning of any larger one of its seed.
_CHUNK: Final = 1 << 16
_PATIENCE: Final = 64  # chunks in a row without one new cell before a request is called impossible

Edges = NDArray[np.uint8]


def genotype_to_cell(
    genotype: Genotype, *, part: Literal["normal", "reduce"] | None = None
) -> CellBatch:
    """The cell of a genotype, a batch of one.

    A packed cell stands for both cells of the network, so a genotype whose cells differ has to
    name the ``part`` it means; ValueError otherwise.
    """
    return Darts.from_genotypes([genotype], part=part)


def cell_to_genotype(cell: CellBatch) -> Genotype:
    """The genotype of a batch of one valid cell; ValueError for any other batch."""
    if len(cell) != 1:
        raise ValueError(f"cell: {len(cell)} cells; give one, or use Darts.to_genotypes")
    return Darts().to_genotypes(cell)[0]


class Darts(CellSpace):
    """The DARTS space as arch2vec searches it.

    ``validity``: the strict rule accepts exactly the cells that have a genotype; the released
    rule is what the check of the released code comes to, labels and one edge into each operation
    from before its own inner node (its other clauses look below the diagonal).

    Examples
    --------
    >>> space = Darts()
    >>> cells = space.sample(3, seed=0, max_mult_adds=600e6)
    >>> bool((space.mult_adds(cells) < 600e6).all()), space.is_valid(cells).tolist()
    (True, [True, True, True])
    >>> space.from_genotypes(space.to_genotypes(cells)) == cells
    True
    """

    num_genotypes = NUM_GENOTYPES
    reasons = (
        "valid",
        "nodes 0 and 1 are not the cell inputs c_k-2 and c_k-1",
        "node 10 is not the output",
        "one of nodes 2..9 carries no operation of the space",
        "an edge joins the two cell inputs",
        "an operation reads nothing",
        "an operation reads something else than one input or both operations of one earlier node",
        "both operations of a node read the same input",
        "the output is not fed by the eight operations alone",
    )

    def __init__(self) -> None:
        super().__init__(_LAYOUT.num_nodes, _OP_NAMES, name="darts", input_ops=("c_k-2", "c_k-1"))

    @staticmethod
    def from_genotypes(
        genotypes: Sequence[Genotype], *, part: Literal["normal", "reduce"] | None = None
    ) -> CellBatch:
        """Cells of B genotypes: see ``genotype_to_cell`` for genotypes with two different cells."""
        if part not in (None, "normal", "reduce"):
            raise ValueError(f"part: {part!r}; give 'normal' or 'reduce'")
        if part is None:
            for index, genotype in enumerate(genotypes):
                if genotype.normal != genotype.reduce:
                    raise ValueError(
                        f"genotypes[{index}]: normal and reduction cell differ and a packed cell "
                        "holds one; name it by part='normal' or part='reduce'"
                    )
        return _pack(genotypes_to_edges(genotypes, reduce=part == "reduce"))

    def to_genotypes(self, cells: CellBatch) -> list[Genotype]:
        """Genotypes of B valid cells, reduction = normal cell; ValueError if one is not valid."""
        return edges_to_genotypes(self.edges(cells))

    def enumerate(self, order: str = "canonical") -> CellBatch:
        """Refused: 3,019,898,880 genotypes do not fit in memory. Use ``stream`` or ``sample``."""
        raise ValueError(
            f"darts: {NUM_GENOTYPES:,} genotypes are too many to enumerate at once; "
            "use stream() or sample()"
        )

    def stream(self, chunk_size: int = 65_536) -> Iterator[CellBatch]:
        """Every genotype once, the inputs of each node ascending, in batches of ``chunk_size``.

        3,019,898,880 cells in a fixed order and constant memory. Isomorphic cells (the same network
        with its inner nodes numbered otherwise) are not merged.
        """
        return iter(self.batches(chunk_size))

    def batches(self, chunk_size: int = 65_536) -> Sequence[CellBatch]:
        """The batches of ``stream`` by number, each made when it is asked for.

        So that processes which share the space need not walk through each other's parts.
        """
        if chunk_size < 1:
            raise ValueError(f"chunk_size: {chunk_size}; give at least 1")
        return _Batches(chunk_size)

    def sample(
        self,
        count: int,
        *,
        seed: int,
        max_mult_adds: float | None = None,
        distinct: bool | None = None,
    ) -> CellBatch:
        """Draw cells uniformly over the genotypes: two distinct inputs a node, any operations.

        Parameters
        ----------
        count
            Number of cells.
        seed
            Same seed, same cells; a smaller count gives the beginning of a larger one.
        max_mult_adds
            Keep only cells whose ImageNet network (48 channels, 14 cells, 224x224) stays below
            this many multiply-adds; 600e6 is the mobile setting of the released data set.
        distinct
            Keep the first cell of each isomorphism class of labelled graphs. Left out: true if
            ``max_mult_adds`` is given (such a sample is a data set), else false (independent
            draws).

        Raises
        ------
        ValueError
            A negative count, or a limit that leaves fewer than ``count`` cells.
        """
        _arrays.require_count(count)
        distinct = max_mult_adds is not None if distinct is None else distinct
        limit = np.inf if max_mult_adds is None else float(max_mult_adds)
        lowest = int(cost_table(IMAGENET).base[0])
        if count and not lowest < limit:
            raise ValueError(
                f"max_mult_adds: {limit:g} is not above {lowest:,}, the least there is; raise it"
            )
        rng = np.random.default_rng(_arrays.require_seed(seed))
        seen: set[bytes] = set()
        kept, total, barren = [_pack(np.empty((0, 8, 2), np.uint8))], 0, 0
        while total < count:
            edges = _draw(rng, _CHUNK)
            if max_mult_adds is not None:
                cost = cost_table(IMAGENET).of_edges(edges, edges)
                edges = edges[cost.mult_adds < limit]
            cells = _pack(edges)
            if distinct:
                cells = cells[_new_classes(cells, seen)]
            kept.append(cells)
            total += len(cells)
            barren = 0 if len(cells) else barren + 1
            if barren == _PATIENCE:
                raise ValueError(
                    f"count: {count} asked for, {total} cells found below max_mult_adds={limit:g} "
                    f"before {_PATIENCE * _CHUNK:,} draws in vain; raise the limit or ask for fewer"
                )
        return CellBatch.concat(kept)[:count]

    def mutate(self, cells: CellBatch, *, seed: int) -> CellBatch:
        """One edit of each cell: half the time another operation, else another input for one.

        Uniform over the 56 changes of an operation and over the 12 changes of an input that keep
        the inputs of a node distinct (the two mutations of Real et al., AAAI 2019). Invalid cells
        raise ValueError.
        """
        edges = self.edges(cells).copy()
        rng = np.random.default_rng(_arrays.require_seed(seed))
        size = len(cells)
        changes_op = rng.integers(2, size=size).astype(bool)
        rows, edge = np.flatnonzero(changes_op), rng.integers(8, size=size)[changes_op]
        step = rng.integers(1, 8, size=size)[changes_op]
        edges[rows, edge, 1] = (edges[rows, edge, 1] + step) % 8

        edge, choice = _INPUT_EDITS[rng.integers(len(_INPUT_EDITS), size=size)[~changes_op]].T
        rows = np.flatnonzero(~changes_op)
        used = np.sort(np.stack((edges[rows, edge, 0], edges[rows, edge ^ 1, 0])), axis=0)
        choice = choice + (choice >= used[0])
        edges[rows, edge, 0] = choice + (choice >= used[1])
        return _pack(edges)

    def neighbours(self, cells: CellBatch) -> tuple[CellBatch, NDArray[np.int64]]:
        """The 68 edits that ``mutate`` draws from, and ``owner`` int64 [68 B].

        56 change an operation, 12 an input. Some are isomorphic to one another.
        """
        edges = self.edges(cells)
        variants = np.repeat(edges, _NUM_EDITS, axis=0)
        rows = np.arange(len(variants))
        edit = rows % _NUM_EDITS
        ops = rows[edit < 56]
        edge, step = edit[ops] // 7, edit[ops] % 7 + 1
        variants[ops, edge, 1] = (variants[ops, edge, 1] + step) % 8
        inputs = rows[edit >= 56]
        edge, choice = _INPUT_EDITS[edit[inputs] - 56].T
        used = np.sort(np.stack((variants[inputs, edge, 0], variants[inputs, edge ^ 1, 0])), axis=0)
        choice = choice + (choice >= used[0])
        variants[inputs, edge, 0] = choice + (choice >= used[1])
        return _pack(variants), rows // _NUM_EDITS

    def validity(self, cells: CellBatch, *, rule: str = "strict") -> NDArray[np.uint8]:
        """Reason code of each cell, uint8 [B], 0 = valid; words in ``reasons``."""
        self._check_rule(rule)
        codes = self._checked(cells).codes
        faults: NDArray[np.uint8]
        if rule == "released":
            faults = _cells.darts_released_fault(codes)
        else:
            _, faults = _cells.darts_unpack(codes)
        return faults

    def cost(self, cells: CellBatch, network: DartsNetwork = IMAGENET) -> NetworkCost:
        """Multiply-adds and parameters of networks built from valid cells, normal = reduction."""
        edges = self.edges(cells)
        return cost_table(network).of_edges(edges, edges)

    def mult_adds(self, cells: CellBatch) -> NDArray[np.int64]:
        """Multiply-adds of the ImageNet network (48 channels, 14 cells, 224x224), int64 [B]."""
        return self.cost(cells).mult_adds

    def num_parameters(self, cells: CellBatch) -> NDArray[np.int64]:
        """Trainable parameters of the CIFAR-10 network (36 channels, 20 cells), int64 [B]."""
        return self.cost(cells, CIFAR10).parameters

    def describe(self, cell: CellBatch) -> str:
        """``input:operation|...`` of a valid cell, matrix and operations of any other."""
        if len(self._checked(cell)) == 1 and self.is_valid(cell)[0]:
            return self.to_genotypes(cell)[0].to_items()[0]
        return super().describe(cell)

    def edges(self, cells: CellBatch) -> Edges:
        """Edges uint8 [B, 8, 2] = (input, operation) of valid cells; ValueError if one is not."""
        self._require_valid(cells)
        edges: Edges = _cells.darts_unpack(cells.codes)[0]
        return edges

    def from_json(self, records: Mapping[str, Any]) -> CellBatch:
        """Cells of the released data: ``{hash: [adjacency, labels, [[input, operation] x 8]]}``.

        Raises ValueError naming the first record that is no such triple, no valid cell, or whose
        genotype is not that of its matrix. Hashes are not looked at. Records of
        ``CellBatch.to_json`` are read too.
        """
        if not isinstance(records, Mapping):
            raise ValueError(
                "records: not an object of cells by hash; give the parsed released JSON"
            )
        keys, rows = list(records), list(records.values())
        if rows and isinstance(rows[0], Mapping):
            return super().from_json(records)
        for key, row in zip(keys, rows, strict=True):
            if not isinstance(row, (list, tuple)) or len(row) != 3:
                raise ValueError(f"records[{key!r}]: not [adjacency, labels, genotype]")
        if not rows:
            return _pack(np.empty((0, 8, 2), np.uint8))
        cells = CellBatch.from_dense([row[0] for row in rows], [row[1] for row in rows], _LAYOUT)
        reasons = self.validity(cells)
        if reasons.any():
            bad = int(np.argmax(reasons != 0))
            raise ValueError(f"records[{keys[bad]!r}]: {self.reasons[reasons[bad]]}")
        for key, row, edges in zip(keys, rows, self.edges(cells).tolist(), strict=True):
            if [list(item) for item in row[2]] != [[str(s), OPERATIONS[op]] for s, op in edges]:
                raise ValueError(f"records[{key!r}]: the genotype is not that of the matrix")
        return cells

    def to_json(self, cells: CellBatch) -> dict[str, list[Any]]:
        """The released data of valid cells; keys are the hashes the released code deduplicates by.

        Isomorphic cells have one hash, so only the last of them is kept.
        """
        edges = self.edges(cells).tolist()
        adjacency, labels = cells.to_dense()
        genotypes = [[[str(source), OPERATIONS[op]] for source, op in cell] for cell in edges]
        keys = [digest.tobytes().hex() for digest in _cells.darts_hash(cells.codes)]
        rows = zip(adjacency.tolist(), labels.tolist(), genotypes, strict=True)
        return dict(zip(keys, map(list, rows), strict=True))


class _Batches(Sequence[CellBatch]):
    """All genotypes in batches of one size, the last one smaller."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return -(-NUM_GENOTYPES // self._size)

    @overload
    def __getitem__(self, index: int) -> CellBatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[CellBatch]: ...
    def __getitem__(self, index: int | slice) -> CellBatch | list[CellBatch]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        first = range(len(self))[index] * self._size
        return _pack(_unrank(np.arange(first, min(first + self._size, NUM_GENOTYPES))))


def _pack(edges: Edges) -> CellBatch:
    return CellBatch._trusted(_cells.darts_pack(np.ascontiguousarray(edges)), _LAYOUT)


def _unrank(ranks: NDArray[np.int64]) -> Edges:
    """Genotypes by rank 0..NUM_GENOTYPES-1: operations in the low digits, then inputs."""
    edges = np.empty((len(ranks), 8, 2), dtype=np.uint8)
    edges[:, :, 1] = ranks[:, None] >> (3 * np.arange(8)) & 7
    rest = ranks >> 24
    for index, pairs in enumerate(_SOURCES):
        ascending = pairs[pairs[:, 0] < pairs[:, 1]]
        rest, choice = np.divmod(rest, len(ascending))
        edges[:, 2 * index : 2 * index + 2, 0] = ascending[choice]
    return edges


def _draw(rng: np.random.Generator, count: int) -> Edges:
    """Uniform genotypes, edges uint8 [count, 8, 2]."""
    edges = np.empty((count, 8, 2), dtype=np.uint8)
    for index, pairs in enumerate(_SOURCES):
        edges[:, 2 * index : 2 * index + 2, 0] = pairs[rng.integers(len(pairs), size=count)]
    edges[:, :, 1] = rng.integers(len(OPERATIONS), size=(count, 8), dtype=np.uint8)
    return edges


def _new_classes(cells: CellBatch, seen: set[bytes]) -> NDArray[np.intp]:
    """Indices of cells isomorphic to none before them nor to one in ``seen``, which grows."""
    keys: list[bytes] = cells.canonical().codes.view("V16").ravel().tolist()
    fresh = []
    for index, key in enumerate(keys):
        if key not in seen:
            seen.add(key)
            fresh.append(index)
    return np.array(fresh, dtype=np.intp)

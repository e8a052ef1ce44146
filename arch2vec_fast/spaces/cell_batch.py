# SPDX-License-Identifier: Apache-2.0
"""CellBatch: B packed cells that slice and concatenate like one array.

A cell is a handful of bits (see ``layout.py``), so a batch is an int64 array ``[B, W]`` and
everything structural works on it in C++. Whole NAS-Bench-101 takes 3.4 MB this way; dense float32
takes 142 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arch2vec_fast import _cells
from arch2vec_fast._atomic import read_json, write_json
from arch2vec_fast.spaces import _arrays
from arch2vec_fast.spaces.layout import CellLayout

if TYPE_CHECKING:
    import torch

Index = int | np.integer[Any] | slice | Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]


class CellBatch:
    """An immutable batch of packed cells.

    Parameters
    ----------
    codes
        int64 ``[B, W]``; copied unless it is already a contiguous read-only array.
    layout
        Number of nodes and operation types of every cell.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, a node label beyond the layout, or bits set beyond the last field.

    Notes
    -----
    Any upper-triangular labelled graph can be held, legal in its search space or not:
    an absent node between present ones, edges at absent nodes, an input in the middle.
    ``CellSpace.validity`` judges.

    Examples
    --------
    >>> layout = CellLayout(num_nodes=3, num_op_types=3)
    >>> cells = CellBatch.from_dense([[[0, 1, 0], [0, 0, 1], [0, 0, 0]]], [[0, 1, 2]], layout)
    >>> cells.codes.tolist()
    [[461]]
    >>> len(cells), cells.num_edges().tolist()
    (1, [2])
    """

    __slots__ = ("_codes", "_layout")

    def __init__(self, codes: ArrayLike, layout: CellLayout) -> None:
        array = _arrays.require_integers(np.asarray(codes), "codes")
        if array.ndim != 2 or array.shape[1] != layout.words:
            raise ValueError(
                f"codes: expected shape [B, {layout.words}] for {layout}, got {list(array.shape)}; "
                "use CellBatch.from_dense for matrices"
            )
        array = np.ascontiguousarray(array, dtype=np.int64)
        bad = _cells.first_malformed(array, layout.num_nodes, layout.num_op_types)
        if bad >= 0:
            raise ValueError(
                f"codes: cell {bad} holds bits that {layout} does not use; "
                "was it packed for another space?"
            )
        if array.flags.writeable:
            array = array.copy()
        self._set(array, layout)

    def _set(self, codes: NDArray[np.int64], layout: CellLayout) -> None:
        codes.setflags(write=False)
        self._codes = codes
        self._layout = layout

    @classmethod
    def _trusted(cls, codes: NDArray[np.int64], layout: CellLayout) -> Self:
        """Wraps codes made by the core itself: nothing is checked, nothing is copied."""
        batch = cls.__new__(cls)
        batch._set(np.ascontiguousarray(codes), layout)
        return batch

    @classmethod
    def from_dense(cls, adjacency: ArrayLike, node_ops: ArrayLike, layout: CellLayout) -> Self:
        """Packs dense cells.

        Parameters
        ----------
        adjacency
            ``[B, N, N]`` of any numeric dtype, row = source, upper triangular, only 0 and 1.
        node_ops
            Integers ``[B, N]`` with -1 for an absent node, or one-hot ``[B, N, F]`` with a zero
            row.
        layout
            The layout to pack for; cells with fewer nodes are padded with absent nodes at the end.

        Raises
        ------
        TypeError, ValueError
            One line naming the argument, the first offending cell and what to do.
        """
        matrix = _arrays.require_binary(adjacency, "adjacency")
        if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2]:
            raise ValueError(f"adjacency: expected shape [B, N, N], got {list(matrix.shape)}")
        labels = _arrays.node_labels(node_ops, layout.num_op_types)
        if labels.shape != matrix.shape[:2]:
            raise ValueError(
                f"node_ops: describes {list(labels.shape)} cells x nodes, "
                f"adjacency {list(matrix.shape[:2])}; make them agree"
            )
        missing = layout.num_nodes - matrix.shape[1]
        if missing < 0:
            raise ValueError(
                f"adjacency: {matrix.shape[1]} nodes are more than the layout's "
                f"{layout.num_nodes}; use a larger layout"
            )
        if missing > 0:
            matrix = np.pad(matrix, ((0, 0), (0, missing), (0, missing)))
            labels = np.pad(labels, ((0, 0), (0, missing)), constant_values=-1)
        codes = _cells.from_dense(matrix, labels, layout.num_nodes, layout.num_op_types)
        return cls._trusted(codes, layout)

    def to_dense(self, one_hot: bool = False) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Unpacks into ``adjacency`` uint8 ``[B, N, N]`` and ``node_ops``.

        ``node_ops`` is ``[B, N]`` (int8, or int16 where F exceeds 127) with -1 for absent nodes, or
        with ``one_hot=True`` uint8 ``[B, N, F]`` with a zero row for them.
        """
        adjacency, labels = _cells.to_dense(self._codes, *self._shape_args())
        if one_hot:
            table = np.eye(self._layout.num_op_types + 1, dtype=np.uint8)[:, 1:]
            return adjacency, table[labels.astype(np.intp) + 1]
        return adjacency, labels.astype(np.int8 if self._layout.num_op_types <= 127 else np.int16)

    @classmethod
    def from_json(
        cls,
        records: Mapping[str, Mapping[str, Any]] | Iterable[Mapping[str, Any]],
        layout: CellLayout | None = None,
    ) -> Self:
        """Reads released records: ``module_adjacency`` and one-hot ``module_operations``.

        ``records`` is the parsed ``data.json``, a mapping of "0", "1", ... to records, or a
        sequence of them. Without ``layout`` the sizes of the first record are taken.
        """
        if not isinstance(records, Iterable):
            raise TypeError("records: expected a JSON object or list of cells")
        rows = list(records.values() if isinstance(records, Mapping) else records)
        if not rows and layout is None:
            raise ValueError("records: empty, so the layout is unknown; pass layout=")
        try:
            adjacency = np.asarray([row["module_adjacency"] for row in rows])
            node_ops = np.asarray([row["module_operations"] for row in rows])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "records: each needs a module_adjacency and a module_operations of one size "
                f"({error}); is this the released data.json?"
            ) from None
        if not rows:
            assert layout is not None
            return cls._trusted(np.empty((0, layout.words), np.int64), layout)
        if adjacency.ndim != 3 or node_ops.ndim != 3 or adjacency.shape[1] != adjacency.shape[2]:
            raise ValueError(
                "records: module_adjacency must be a square matrix, module_operations one-hot rows"
            )
        layout = layout or CellLayout(adjacency.shape[1], node_ops.shape[2])
        return cls.from_dense(adjacency, node_ops, layout)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """The released ``{"0": {"module_adjacency": ..., "module_operations": ...}, ...}``."""
        adjacency, node_ops = self.to_dense(one_hot=True)
        pairs = zip(adjacency.tolist(), node_ops.tolist(), strict=True)
        return {
            str(i): {"module_adjacency": matrix, "module_operations": rows}
            for i, (matrix, rows) in enumerate(pairs)
        }

    @classmethod
    def load_json(cls, path: str | Path, layout: CellLayout | None = None) -> Self:
        """``from_json`` of a file; raises OSError or ValueError naming the file."""
        records = read_json(Path(path))
        try:
            return cls.from_json(records, layout)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None

    def save_json(self, path: str | Path) -> None:
        """Writes ``to_json`` to a file, whole or not at all."""
        write_json(Path(path), self.to_json(), indent=None)

    def to_torch(self, device: torch.device | str | None = None) -> torch.Tensor:
        """The codes as an int64 tensor ``[B, W]`` of its own memory, on ``device``."""
        import torch

        tensor = torch.from_numpy(self._codes.copy())
        return tensor if device is None else tensor.to(device)

    @classmethod
    def from_torch(cls, codes: torch.Tensor, layout: CellLayout) -> Self:
        """The inverse of ``to_torch``, from any device; checks as the constructor does."""
        return cls(codes.detach().cpu().numpy(), layout)

    def to_pyg(self) -> list[Any]:
        """One ``torch_geometric.data.Data`` per cell, absent nodes left out.

        ``x`` float32 one-hot ``[nodes, F]``, ``edge_index`` int64 ``[2, edges]``, source row first.
        Raises ImportError where torch_geometric is not installed.
        """
        import torch

        try:
            from torch_geometric.data import Data
        except ImportError:
            raise ImportError("to_pyg needs torch_geometric: pip install torch_geometric") from None
        adjacency, node_ops = self.to_dense(one_hot=True)
        items = []
        for matrix, rows in zip(adjacency, node_ops, strict=True):
            keep = np.flatnonzero(rows.any(axis=1) | matrix.any(axis=0) | matrix.any(axis=1))
            sources, targets = np.nonzero(matrix[np.ix_(keep, keep)])
            edges = torch.from_numpy(np.stack([sources, targets]).astype(np.int64))
            items.append(Data(x=torch.from_numpy(rows[keep].astype(np.float32)), edge_index=edges))
        return items

    @property
    def codes(self) -> NDArray[np.int64]:
        """int64 ``[B, W]``, read-only."""
        return self._codes

    @property
    def layout(self) -> CellLayout:
        """The layout all cells share."""
        return self._layout

    def __len__(self) -> int:
        return int(self._codes.shape[0])

    def __getitem__(self, index: Index) -> Self:
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index: {index} is outside a batch of {len(self)} cells")
            index = slice(int(index) % len(self), int(index) % len(self) + 1)
        elif not isinstance(index, slice):
            index = _arrays.require_index(index, len(self))
        return self._trusted(self._codes[index], self._layout)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Same layout and same codes; compare ``canonical()`` for isomorphism."""
        if not isinstance(other, CellBatch):
            return NotImplemented
        return self._layout == other._layout and np.array_equal(self._codes, other._codes)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        sizes = f"N={self._layout.num_nodes}, F={self._layout.num_op_types}"
        return f"CellBatch({len(self)} cells, {sizes})"

    @classmethod
    def concat(cls, batches: Sequence[CellBatch]) -> Self:
        """Joins batches of one layout, in order."""
        if not batches:
            raise ValueError("batches: nothing to join; pass at least one CellBatch")
        layout = batches[0].layout
        if any(batch.layout != layout for batch in batches):
            raise ValueError("batches: layouts differ; join cells of one space only")
        return cls._trusted(np.concatenate([batch.codes for batch in batches]), layout)

    def num_present(self) -> NDArray[np.int64]:
        """Nodes that are not absent, ``[B]``."""
        return _cells.num_present(self._codes, *self._shape_args())

    def num_edges(self) -> NDArray[np.int64]:
        """Edges, ``[B]``."""
        return _cells.num_edges(self._codes, *self._shape_args())

    def canonical(self, *, threads: int = 0) -> Self:
        """One representative per isomorphism class.

        Two cells get the same code exactly when a relabeling of the nodes that keeps labels and
        edges takes one to the other. The representative is topologically ordered and places, at
        each position, the smallest available (operation, predecessors); an absent node counts as an
        operation above all others, so absent nodes go last. Exact for every layout; microseconds a
        cell; the result does not depend on ``threads`` (0 = all cores).
        """
        codes = _cells.canonical(self._codes, *self._shape_args(), threads=threads)
        return self._trusted(codes, self._layout)

    def unique(self) -> tuple[Self, NDArray[np.int64], NDArray[np.int64]]:
        """The first cell of every isomorphism class, in order of appearance.

        Returns ``(cells, first, inverse)`` with ``cells == self[first]`` and ``cells[inverse]``
        isomorphic to ``self``, cell by cell.
        """
        _, first, inverse = np.unique(
            self.canonical().codes, axis=0, return_index=True, return_inverse=True
        )
        order = np.argsort(first, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        first = first[order].astype(np.int64)
        return self[first], first, rank[inverse.reshape(-1)]

    def relabel(self, permutations: ArrayLike) -> Self:
        """Moves node v of cell b to position ``permutations[b, v]``; ``[B, N]``.

        Raises ValueError where a row is no permutation or the result is not topologically ordered.
        """
        n = self._layout.num_nodes
        moves = _arrays.require_integers(np.asarray(permutations), "permutations")
        if moves.shape != (len(self), n):
            raise ValueError(f"permutations: expected [{len(self)}, {n}], got {list(moves.shape)}")
        if not np.array_equal(np.sort(moves, axis=1), np.tile(np.arange(n), (len(self), 1))):
            raise ValueError(f"permutations: every row must hold 0..{n - 1} once")
        source = np.argsort(moves, axis=1)
        adjacency, node_ops = self.to_dense()
        rows = np.arange(len(self))[:, None]
        moved = adjacency[rows[:, :, None], source[:, :, None], source[:, None, :]]
        backwards = np.tril(moved).any(axis=(1, 2))
        if backwards.any():
            raise ValueError(
                f"permutations: cell {int(backwards.argmax())} would get an edge against the "
                "order; keep sources before targets"
            )
        return self.from_dense(moved, node_ops[rows, source], self._layout)

    def _shape_args(self) -> tuple[int, int]:
        return self._layout.num_nodes, self._layout.num_op_types

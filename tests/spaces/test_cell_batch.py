# SPDX-License-Identifier: Apache-2.0
"""CellBatch and CellLayout: bits, conversions, array behaviour, refused input."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arch2vec_fast.spaces import CellBatch, CellLayout
from strategies import cell_batches, dense_cells, layouts, random_cells

NB101 = CellLayout(7, 5)
DARTS = CellLayout(11, 11)


def pack_slowly(adjacency: np.ndarray, node_ops: np.ndarray, layout: CellLayout) -> list[int]:
    """One cell as words, straight from the definition of the format, with Python's integers."""
    bits = 0
    for y in range(layout.num_nodes):
        for x in range(y):
            bits |= int(adjacency[x, y]) << (x + y * (y - 1) // 2)
    for v in range(layout.num_nodes):
        bits |= (int(node_ops[v]) + 1) << (layout.edge_bits + v * layout.op_bits)
    words = [bits >> (64 * w) & (2**64 - 1) for w in range(layout.words)]
    return [word - 2**64 if word >= 2**63 else word for word in words]


@pytest.mark.parametrize(
    ("layout", "num_bits", "words"),
    [(NB101, 42, 1), (CellLayout(8, 7), 52, 1), (DARTS, 99, 2), (CellLayout(16, 254), 248, 4)],
)
def test_layout_sizes(layout: CellLayout, num_bits: int, words: int) -> None:
    assert (layout.num_bits, layout.words) == (num_bits, words)


@given(st.data())
def test_codes_follow_the_format(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    adjacency, node_ops = data.draw(dense_cells(layout))
    cells = CellBatch.from_dense(adjacency, node_ops, layout)
    slow = [pack_slowly(a, o, layout) for a, o in zip(adjacency, node_ops, strict=True)]
    assert cells.codes.tolist() == slow


@given(st.data())
def test_dense_round_trip(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    adjacency, node_ops = data.draw(dense_cells(layout))
    cells = CellBatch.from_dense(adjacency, node_ops, layout)
    got_adjacency, got_ops = cells.to_dense()
    np.testing.assert_array_equal(got_adjacency, adjacency)
    np.testing.assert_array_equal(got_ops, node_ops)
    assert CellBatch.from_dense(*cells.to_dense(one_hot=True), layout) == cells
    assert CellBatch(cells.codes, layout) == cells


@given(cell_batches())
def test_counts_match_dense(cells: CellBatch) -> None:
    adjacency, node_ops = cells.to_dense()
    assert cells.num_edges().tolist() == adjacency.sum(axis=(1, 2)).tolist()
    assert cells.num_present().tolist() == (node_ops >= 0).sum(axis=1).tolist()


def test_one_hot_has_zero_rows_for_absent_nodes() -> None:
    cells = CellBatch.from_dense(np.zeros((1, 7, 7)), [[0, -1, 4, -1, -1, -1, -1]], NB101)
    adjacency, rows = cells.to_dense(one_hot=True)
    assert (adjacency.dtype, rows.dtype, rows.shape) == (np.uint8, np.uint8, (1, 7, 5))
    assert rows.sum(axis=2).tolist() == [[1, 0, 1, 0, 0, 0, 0]]


def test_smaller_cells_are_padded_with_absent_nodes() -> None:
    cells = CellBatch.from_dense([[[0, 1], [0, 0]]], [[0, 4]], NB101)
    assert cells.to_dense()[1].tolist() == [[0, 4, -1, -1, -1, -1, -1]]


@pytest.mark.parametrize("dtype", [np.bool_, np.int64, np.float32, np.uint8])
def test_from_dense_takes_any_number_type(dtype: type) -> None:
    reference = random_cells(NB101, 33, seed=0)
    adjacency, node_ops = reference.to_dense()
    assert CellBatch.from_dense(adjacency.astype(dtype), node_ops, NB101) == reference


def test_slices_like_an_array() -> None:
    cells = random_cells(DARTS, 17, seed=1)
    assert cells[-1] == cells[16]
    assert len(cells[3]) == 1
    assert cells[2:9:3].codes.tolist() == cells.codes[2:9:3].tolist()
    assert cells[[5, 5, 0]].codes.tolist() == cells.codes[[5, 5, 0]].tolist()
    mask = np.arange(17) % 3 == 0
    assert cells[mask].codes.tolist() == cells.codes[mask].tolist()
    assert len(cells[[]]) == 0
    assert CellBatch.concat([cells[:5], cells[5:]]) == cells
    assert CellBatch.concat(list(cells)) == cells
    with pytest.raises(IndexError, match="index: 17 is outside"):
        cells[17]


def test_is_immutable() -> None:
    source = random_cells(NB101, 3, seed=0).codes.copy()
    cells = CellBatch(source, NB101)
    source[0] = 0
    assert cells.codes[0, 0] != 0
    with pytest.raises(ValueError, match="read-only"):
        cells.codes[0] = 0
    with pytest.raises(TypeError):
        hash(cells)


def test_equality_needs_the_layout() -> None:
    empty = np.zeros((1, 1), np.int64)
    assert CellBatch(empty, CellLayout(3, 3)) != CellBatch(empty, CellLayout(3, 2))
    assert CellBatch(empty, NB101) != "cells"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([[0, 1]], r"in one dimension, got int64 \[1, 2\]"),
        (np.zeros((5, 5), bool), r"in one dimension, got bool \[5, 5\]"),
        ([0.5], "got float64"),
        (["a"], "got <U1"),
        ([0, 5], "5 is outside a batch of 5 cells"),
        ([-6], "-6 is outside a batch of 5 cells"),
        ([True, False], "a mask of 2 does not fit a batch of 5 cells"),
    ],
)
def test_a_bad_index_is_named(index: Any, message: str) -> None:
    cells = random_cells(NB101, 5, seed=0)
    with pytest.raises(IndexError, match=f"^index: .*{message}"):
        _ = cells[index]
    assert len(cells[[]]) == 0
    assert cells[[-1, 0]] == cells[::-1][[0, 4]]


def test_empty_batch() -> None:
    cells = CellBatch(np.empty((0, 2), np.int64), DARTS)
    assert len(cells.canonical()) == len(cells.unique()[0]) == len(cells.to_json()) == 0
    assert cells.to_dense()[0].shape == (0, 11, 11)


def test_json_round_trip(tmp_path: Path) -> None:
    cells = random_cells(NB101, 9, seed=2)
    cells.save_json(tmp_path / "data.json")
    assert CellBatch.load_json(tmp_path / "data.json") == cells
    records = json.loads((tmp_path / "data.json").read_text())
    assert list(records) == [str(i) for i in range(9)]
    assert np.shape(records["3"]["module_operations"]) == (7, 5)
    assert CellBatch.from_json(list(records.values()), NB101) == cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("3", "expected a JSON object"),
        ('{"0": {}}', "module_adjacency"),
        ("{}", "records: empty"),
        ('[{"module_adjacency": [[0, 1]], "module_operations": [[1]]}]', "a square matrix"),
        ('[{"module_adjacency": [0, 1], "module_operations": [1]}]', "a square matrix"),
    ],
)
def test_load_json_rejects(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"data.json: .*{message}"):
        CellBatch.load_json(path)


def test_torch_round_trip() -> None:
    cells = random_cells(DARTS, 5, seed=3)
    tensor = cells.to_torch()
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.int64, (5, 2))
    assert CellBatch.from_torch(tensor, DARTS) == cells
    tensor.zero_()
    assert cells == random_cells(DARTS, 5, seed=3)


@dataclass
class FakeData:
    """What `torch_geometric.data.Data` keeps, so that the conversion is tested without it."""

    x: torch.Tensor
    edge_index: torch.Tensor


def test_to_pyg_leaves_absent_nodes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch_geometric.data")
    module.Data = FakeData  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_geometric", ModuleType("torch_geometric"))
    monkeypatch.setitem(sys.modules, "torch_geometric.data", module)
    adjacency = np.zeros((1, 7, 7), np.uint8)
    adjacency[0, 0, 1] = adjacency[0, 1, 2] = adjacency[0, 0, 2] = 1
    labels = np.array([[0, 2, 4, -1, -1, -1, -1]])
    (cell,) = CellBatch.from_dense(adjacency, labels, CellLayout(7, 5)).to_pyg()
    assert cell.x.tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert cell.edge_index.T.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert (cell.x.dtype, cell.edge_index.dtype) == (torch.float32, torch.int64)


def test_to_pyg_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    with pytest.raises(ImportError, match="to_pyg needs torch_geometric: pip install"):
        random_cells(CellLayout(7, 5), 1, 0).to_pyg()


@given(cell_batches(max_nodes=6, max_op_types=3, max_cells=8))
def test_unique_keeps_the_first_of_each_class(cells: CellBatch) -> None:
    kept, first, inverse = cells.unique()
    assert kept == cells[first]
    assert list(first) == sorted(first)
    assert kept[inverse].canonical() == cells.canonical()
    assert len({tuple(row) for row in kept.canonical().codes.tolist()}) == len(kept)


def test_relabel_moves_nodes() -> None:
    cells = CellBatch.from_dense([[[0, 0, 1], [0, 0, 1], [0, 0, 0]]], [[0, 1, 2]], CellLayout(3, 3))
    adjacency, node_ops = cells.relabel([[1, 0, 2]]).to_dense()
    assert node_ops.tolist() == [[1, 0, 2]]
    assert adjacency.tolist() == [[[0, 0, 1], [0, 0, 1], [0, 0, 0]]]
    with pytest.raises(ValueError, match="permutations: cell 0 would get an edge against"):
        cells.relabel([[0, 2, 1]])
    with pytest.raises(ValueError, match="permutations: every row must hold"):
        cells.relabel([[0, 0, 1]])
    with pytest.raises(ValueError, match=r"permutations: expected \[1, 3\]"):
        cells.relabel([[0, 1]])


# ---- refused input: the message names the argument, the place and the way out ----


def dense(count: int = 2, nodes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, nodes, nodes), np.uint8), np.zeros((count, nodes), np.int64)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ((1, 3, 2), 1, "adjacency: cell 1 has edge 3 -> 2 on or below the diagonal"),
        ((0, 4, 4), 1, "adjacency: cell 0 has edge 4 -> 4 on or below the diagonal"),
        ((1, 0, 2), 2, r"adjacency: value 2 at \[1, 0, 2\]"),
    ],
)
def test_rejects_edges(at: tuple[int, ...], value: int, message: str) -> None:
    adjacency, node_ops = dense()
    adjacency[at] = value
    with pytest.raises(ValueError, match=message):
        CellBatch.from_dense(adjacency, node_ops, NB101)


def test_rejects_a_cycle() -> None:
    adjacency, node_ops = dense()
    adjacency[0, 1, 2] = adjacency[0, 2, 1] = 1
    with pytest.raises(ValueError, match=r"edge 2 -> 1 .*sort the nodes topologically"):
        CellBatch.from_dense(adjacency, node_ops, NB101)


@pytest.mark.parametrize("value", [-2, 5, 260, -300, 70_000])
def test_rejects_unknown_operations(value: int) -> None:
    adjacency, node_ops = dense()
    node_ops[1, 3] = value
    message = f"node_ops: cell 1 has operation {value} at node 3; use -1 .absent. to 4"
    with pytest.raises(ValueError, match=message):
        CellBatch.from_dense(adjacency, node_ops, NB101)


def test_rejects_shapes() -> None:
    adjacency, node_ops = dense()
    with pytest.raises(ValueError, match=r"adjacency: expected shape \[B, N, N\], got \[7, 7\]"):
        CellBatch.from_dense(adjacency[0], node_ops, NB101)
    with pytest.raises(ValueError, match=r"node_ops: describes \[1, 7\]"):
        CellBatch.from_dense(adjacency, node_ops[:1], NB101)
    with pytest.raises(ValueError, match=r"node_ops: expected integers \[B, N\]"):
        CellBatch.from_dense(adjacency, node_ops[0], NB101)
    with pytest.raises(ValueError, match="node_ops: 4 operation types, the layout has 5"):
        CellBatch.from_dense(adjacency, np.zeros((2, 7, 4)), NB101)
    with pytest.raises(ValueError, match="node_ops: cell 0 has 5 operations at node 0"):
        CellBatch.from_dense(adjacency, np.ones((2, 7, 5)), NB101)
    with pytest.raises(ValueError, match="adjacency: 8 nodes are more than the layout's 7"):
        CellBatch.from_dense(*dense(nodes=8), NB101)
    with pytest.raises(ValueError, match="adjacency: rows of different lengths"):
        CellBatch.from_dense([[[0, 1], [0]]], node_ops, NB101)


def test_rejects_types() -> None:
    adjacency, node_ops = dense()
    with pytest.raises(TypeError, match="node_ops: expected integers, got float64"):
        CellBatch.from_dense(adjacency, node_ops.astype(float), NB101)
    with pytest.raises(TypeError, match="adjacency: expected numbers 0 and 1"):
        CellBatch.from_dense(np.full((2, 7, 7), "0"), node_ops, NB101)
    with pytest.raises(ValueError, match="adjacency: value nan"):
        CellBatch.from_dense(np.full((2, 7, 7), np.nan), node_ops, NB101)
    with pytest.raises(TypeError, match="codes: expected integers, got float64"):
        CellBatch(np.zeros((1, 1)), NB101)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 1)])
def test_rejects_wrong_number_of_words(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"codes: expected shape \[B, 1\]"):
        CellBatch(np.zeros(shape, np.int64), NB101)


@pytest.mark.parametrize("code", [1 << 42, -1, 6 << 21, 7 << 39])
def test_rejects_bits_that_no_field_uses(code: int) -> None:
    with pytest.raises(ValueError, match=r"codes: cell 1 holds bits .* another space"):
        CellBatch(np.array([[0], [code]]), NB101)


@pytest.mark.parametrize(
    ("nodes", "ops", "message"),
    [
        (1, 5, "num_nodes: 1 "),
        (17, 5, "num_nodes: 17 "),
        (7, 0, "num_op_types: 0 "),
        (7, 255, "255"),
    ],
)
def test_layout_rejects_sizes(nodes: int, ops: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellLayout(nodes, ops)
    with pytest.raises(TypeError, match="num_nodes: expected an int"):
        CellLayout(7.0, 5)  # type: ignore[arg-type]


def test_concat_rejects_mixed_layouts() -> None:
    with pytest.raises(ValueError, match="batches: layouts differ"):
        CellBatch.concat([random_cells(NB101, 1, seed=0), random_cells(DARTS, 1, seed=0)])
    with pytest.raises(ValueError, match="batches: nothing to join"):
        CellBatch.concat([])

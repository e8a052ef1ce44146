# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-101: cells, names, order, pruning and sizes, from the published rules."""

import csv
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from arch2vec_fast.spaces import CellBatch, CellSpace, get
from arch2vec_fast.spaces.nasbench101 import NasBench101
from strategies import dense_cells, random_cells, topological_permutations

LISTED = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")  # the benchmark's order


@pytest.fixture(scope="module")
def space() -> NasBench101:
    found = get("nasbench101")
    assert isinstance(found, NasBench101)
    return found


def test_number_of_cells_by_size(space: NasBench101) -> None:
    cells = space.enumerate()
    assert len(cells) == space.num_cells == 423_624
    sizes = np.bincount(cells.num_present(), minlength=8)
    assert sizes.tolist() == [0, 0, 1, 6, 84, 2441, 62010, 359082]
    assert len(np.unique(cells.codes)) == len(cells)


def test_enumeration_is_canonical_and_strictly_valid(space: NasBench101) -> None:
    cells = space.enumerate()
    assert cells.canonical() == cells
    assert not space.validity(cells, rule="strict").any()
    assert (np.diff(cells.codes[:, 0]) > 0).all()


def test_stream_gives_the_same_cells(space: NasBench101) -> None:
    streamed = CellBatch.concat(list(space.stream(50_000)))
    np.testing.assert_array_equal(np.sort(streamed.codes[:, 0]), space.enumerate().codes[:, 0])


def test_general_space_gives_the_same_cells(space: NasBench101) -> None:
    general = CellSpace(7, space.op_names, max_edges=9, variable_size=True)
    assert general.enumerate() == space.enumerate()


# ---- pruning and validity: a plain twin of the published rule ----


def prune_slowly(
    matrix: NDArray[np.int64], ops: list[int]
) -> tuple[NDArray[np.int64], list[int]] | None:
    """ModelSpec._prune: depth first from both ends, keep what both saw."""

    def reach(start: int, neighbours: NDArray[np.int64]) -> set[int]:
        seen, frontier = {start}, [start]
        while frontier:
            for v in np.flatnonzero(neighbours[frontier.pop()]).tolist():
                if v not in seen:
                    seen.add(v)
                    frontier.append(v)
        return seen

    keep = sorted(reach(0, matrix) & reach(len(ops) - 1, matrix.T))
    if len(keep) < 2:
        return None
    return matrix[np.ix_(keep, keep)], [ops[v] for v in keep]


def judge_slowly(matrix: NDArray[np.int64], ops: list[int]) -> bool:
    pruned = prune_slowly(matrix, ops)
    if pruned is None:
        return False
    kept, names = pruned
    inner = all(1 <= op <= 3 for op in names[1:-1])
    return bool(kept.sum() <= 9) and names[0] == 0 and names[-1] == 4 and inner


def up_to_last_present(cells: CellBatch) -> list[tuple[NDArray[np.int64], list[int]]]:
    adjacency, node_ops = cells.to_dense()
    sizes = [int(np.flatnonzero(row >= 0).max(initial=0)) + 1 for row in node_ops]
    return [
        (adjacency[b, :n, :n].astype(np.int64), node_ops[b, :n].tolist())
        for b, n in enumerate(sizes)
    ]


def check_against_twin(space: NasBench101, cells: CellBatch) -> None:
    valid = space.is_valid(cells, rule="released")
    strict = space.is_valid(cells, rule="strict")
    simplified = space.simplify(cells)
    for b, (matrix, ops) in enumerate(up_to_last_present(cells)):
        assert valid[b] == judge_slowly(matrix, ops)
        pruned = prune_slowly(matrix, ops)
        if pruned is None:
            assert simplified[b] == cells[b]
        else:
            kept, labels = pruned
            assert simplified[b] == CellBatch.from_dense(kept[None], [labels], space.layout)
    np.testing.assert_array_equal(strict, valid & (simplified.codes == cells.codes)[:, 0])


@given(st.data())
def test_pruning_and_validity_match_the_twin(data: st.DataObject) -> None:
    space = NasBench101()
    adjacency, node_ops = data.draw(dense_cells(space.layout))
    check_against_twin(space, CellBatch.from_dense(adjacency, node_ops, space.layout))


@pytest.mark.parametrize("density", [0.2, 0.35, 0.6])
def test_pruning_and_validity_match_the_twin_on_plausible_cells(
    space: NasBench101, density: float
) -> None:
    """Input and output where they belong, so that a good share is valid."""
    adjacency, node_ops = random_cells(space.layout, 1500, seed=7, density=density).to_dense()
    node_ops[:, 0], node_ops[:, 6] = 0, 4
    node_ops[:, 1:6] = np.where(node_ops[:, 1:6] == 0, 3, node_ops[:, 1:6])
    cells = CellBatch.from_dense(adjacency, node_ops, space.layout)
    check_against_twin(space, cells)
    assert space.is_valid(cells, rule="released").mean() > 0.05


@pytest.mark.parametrize(
    ("node_ops", "edges", "reason"),
    [
        ([0, 4], [(0, 1)], "valid"),
        ([0, 4], [], "no path leads from the first node to the last"),
        ([0, 1, 4], [(0, 2)], "pruning removes nodes"),
        ([0, -1, 4], [(0, 2)], "pruning removes nodes"),
        ([0, -1, 4], [(0, 1), (1, 2)], "an inner node carries no operation of the space"),
        ([0, 0, 4], [(0, 1), (1, 2)], "an inner node carries no operation of the space"),
        ([1, 2, 4], [(0, 1), (1, 2)], "the first node is not the input"),
        ([0, 2, 2], [(0, 1), (1, 2)], "the last node is not the output"),
        ([0, 1, 1, 1, 4], [(x, y) for y in range(5) for x in range(y)], "more than 9 edges"),
    ],
)
def test_reasons(
    space: NasBench101, node_ops: list[int], edges: list[tuple[int, int]], reason: str
) -> None:
    adjacency = np.zeros((1, len(node_ops), len(node_ops)), np.uint8)
    for x, y in edges:
        adjacency[0, x, y] = 1
    cells = CellBatch.from_dense(adjacency, [node_ops], space.layout)
    assert reason in space.reasons[space.validity(cells)[0]]


# ---- names ----


def hash_slowly(matrix: NDArray[np.int64], ops: list[int]) -> str:
    """The published hash, message by message."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    labels = [{0: -1, 1: 1, 2: 0, 3: 2, 4: -2}[op] for op in ops]
    degrees = zip(matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist(), labels, strict=True)
    hashes = [md5(str(item)) for item in degrees]
    for _ in ops:
        hashes = [
            md5(
                "".join(sorted(hashes[w] for w in np.flatnonzero(matrix[:, v])))
                + "|"
                + "".join(sorted(hashes[w] for w in np.flatnonzero(matrix[v])))
                + "|"
                + hashes[v]
            )
            for v in range(len(ops))
        ]
    return md5(str(sorted(hashes)))


def test_hash_matches_the_twin(space: NasBench101) -> None:
    cells = CellBatch.concat([space.enumerate()[:200], space.sample(300, seed=1)])
    slow = [hash_slowly(matrix, ops) for matrix, ops in up_to_last_present(cells)]
    assert space.nasbench_hash(cells) == slow


@pytest.mark.parametrize(
    ("rows", "ops", "name"),
    [
        (
            "0100110 0010000 0001001 0000010 0000010 0000001 0000000",
            (0, 2, 0, 0, 1),
            "00005c142e6f48ac74fdcf73e3439874",
        ),
        (
            "0100000 0010000 0001000 0000111 0000010 0000001 0000000",
            (1, 1, 0, 1, 0),
            "0000718c96730a92ea6d5242f8ce77e2",
        ),
        (
            "0100010 0010010 0001000 0000101 0000010 0000001 0000000",
            (0, 2, 1, 2, 1),
            "0000cb5372fad9d62c470df699ac6d52",
        ),
        (
            "0101000 0010000 0001001 0000100 0000010 0000001 0000000",
            (1, 0, 2, 1, 2),
            "0000fa05697179112aaf69c2f0a51a0f",
        ),
    ],
)
def test_hashes_of_published_cells(
    space: NasBench101, rows: str, ops: tuple[int, ...], name: str
) -> None:
    matrix = np.array([list(map(int, row)) for row in rows.split()])
    cell = space.from_matrix(matrix, ("input", *(LISTED[op] for op in ops), "output"))
    assert space.nasbench_hash(cell) == [name]
    assert space.benchmark_labelling(cell) == cell
    assert space.nasbench_hash(cell.canonical()) == [name]


def test_names_ignore_what_pruning_removes(space: NasBench101) -> None:
    bare = space.from_matrix([[0, 1], [0, 0]], ("input", "output"))
    loose = space.from_matrix(
        [[0, 1, 1], [0, 0, 0], [0, 0, 0]], ("input", "conv3x3-bn-relu", "output")
    )
    assert space.nasbench_hash(loose) == space.nasbench_hash(bare)
    assert space.num_parameters(loose).tolist() == space.num_parameters(bare).tolist()
    assert len(space.nasbench_hash(space.enumerate()[:0])) == 0


def test_relabeling_changes_neither_name_nor_size(space: NasBench101) -> None:
    cells = space.sample(2000, seed=2)
    moved = cells.relabel(topological_permutations(cells, seed=3, absent_last=True))
    assert space.nasbench_hash(moved) == space.nasbench_hash(cells)
    assert space.num_parameters(moved).tolist() == space.num_parameters(cells).tolist()
    assert space.benchmark_labelling(moved) == space.benchmark_labelling(cells)
    assert space.index_of(moved).tolist() == space.index_of(cells).tolist()


def test_index_of_inverts_enumeration(space: NasBench101) -> None:
    rows = np.random.default_rng(0).integers(423_624, size=3000)
    assert space.index_of(space.enumerate()[rows]).tolist() == rows.tolist()


def test_refuses_what_the_benchmark_refuses(space: NasBench101) -> None:
    good = space.enumerate()[:1]
    broken = CellBatch.from_dense(np.zeros((1, 7, 7)), [[0, 1, 1, 1, 1, 1, 4]], space.layout)
    cells = CellBatch.concat([good, broken])
    for method in (space.nasbench_hash, space.num_parameters, space.benchmark_labelling):
        with pytest.raises(ValueError, match="cells: cell 1 is not a cell of nasbench101: no path"):
            method(cells)
    with pytest.raises(ValueError, match="order: unknown order 'random'"):
        space.enumerate("random")


# ---- random cells ----


def test_samples_are_uniform_over_classes(space: NasBench101) -> None:
    cells = space.sample(50_000, seed=0)
    assert space.is_valid(cells).all()
    assert cells == space.sample(50_000, seed=0)
    share = (cells.num_present() == 7).mean()
    assert abs(share - 359_082 / 423_624) < 5 * 0.36 / np.sqrt(50_000)


def test_mutants_are_valid_new_and_of_every_size(space: NasBench101) -> None:
    parents = space.enumerate()[:8000]
    children = space.mutate(parents, seed=0)
    assert space.is_valid(children).all()
    assert (children.canonical().codes != parents.codes).all()
    assert children == space.mutate(parents, seed=0)
    change = children.num_present() - parents.num_present()
    assert {-1, 0, 1} <= set(change.tolist())


# ---- the real tables ----


@pytest.mark.data
def test_official_order_labelling_and_sizes(space: NasBench101, data_dir: Path) -> None:
    """All 423,624 rows: cell by cell the benchmark's own matrices and parameter counts."""
    with np.load(data_dir / "nasbench101_test.npz") as table:
        bits, nodes = table["adj_bits"], table["n_vertices"].astype(int)
        ops, params = table["ops"].astype(int), table["params"]
    adjacency = np.zeros((len(bits), 7, 7), np.uint8)
    for q, (x, y) in enumerate((s, t) for t in range(7) for s in range(t)):
        adjacency[:, x, y] = bits >> q & 1
    node_ops = np.full((len(bits), 7), -1)
    node_ops[:, 0] = 0
    node_ops[:, 1:6] = np.where(ops == 255, -1, np.array([2, 1, 3])[np.minimum(ops, 2)])
    node_ops[np.arange(len(bits)), nodes - 1] = 4
    official = space.enumerate("official")
    assert official == CellBatch.from_dense(adjacency, node_ops, space.layout)
    np.testing.assert_array_equal(space.num_parameters(official), params)
    np.testing.assert_array_equal(space.num_parameters(official.canonical()[::50]), params[::50])
    rows = np.arange(0, len(bits), 1000)
    np.testing.assert_array_equal(space.index_of(official[rows], "official"), rows)


@pytest.mark.data
def test_hash_of_every_published_cell(space: NasBench101, data_dir: Path) -> None:
    with gzip.open(data_dir / "nasbench101_val30k.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30_001
    cells = []
    for row in rows:
        matrix = np.array([list(map(int, line)) for line in row["matrix"].split("/")])
        inner = row["inner_ops"].split(",") if row["inner_ops"] else []
        cells.append(space.from_matrix(matrix, ("input", *inner, "output")))
    batch = CellBatch.concat(cells)
    assert space.nasbench_hash(batch) == [row["hash"] for row in rows]
    assert space.num_parameters(batch).tolist() == [int(row["params"]) for row in rows]
    assert space.benchmark_labelling(batch) == batch

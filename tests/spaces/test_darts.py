# SPDX-License-Identifier: Apache-2.0
"""The DARTS space: genotype to cell and back, validity that checks, sampling, mutation, files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from arch2vec_fast import spaces
from arch2vec_fast.spaces import CellBatch
from arch2vec_fast.spaces.darts import (
    CIFAR10,
    OPERATIONS,
    Darts,
    Genotype,
    cell_to_genotype,
    genotype_to_cell,
    network_cost,
)

SPACE = Darts()
LAYOUT = SPACE.layout
BO = Genotype.from_items(
    "1:sep_conv_5x5|0:max_pool_3x3|0:skip_connect|1:dil_conv_3x3"
    "|1:sep_conv_5x5|0:sep_conv_3x3|2:dil_conv_5x5|0:sep_conv_3x3"
)


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    edges: list[tuple[str, int]] = []
    for node in range(2, 6):
        sources = draw(st.permutations(range(node)))[:2]
        edges += [(draw(st.sampled_from(OPERATIONS)), source) for source in sources]
    return Genotype(tuple(edges))


def dense_twin(genotype: Genotype) -> tuple[NDArray[np.uint8], list[str]]:
    """The matrix and node names of a genotype, edge by edge."""
    adjacency = np.zeros((11, 11), dtype=np.uint8)
    names = ["c_k-2", "c_k-1"]
    for position, (op, source) in enumerate(genotype.normal):
        node = 2 + position
        for predecessor in (source,) if source < 2 else (2 * source - 2, 2 * source - 1):
            adjacency[predecessor, node] = 1
        adjacency[node, 10] = 1
        names.append(op)
    return adjacency, [*names, "output"]


def test_is_registered() -> None:
    space = spaces.get("darts")
    assert isinstance(space, Darts)
    assert (space.name, space.variable_size, space.layout.num_bits) == ("darts", False, 99)
    assert space.op_names[2:10] == OPERATIONS


@given(genotypes())
def test_round_trip_by_the_matrix_written_out(genotype: Genotype) -> None:
    cell = genotype_to_cell(genotype)
    adjacency, node_ops = cell.to_dense()
    matrix, names = dense_twin(genotype)
    np.testing.assert_array_equal(adjacency[0], matrix)
    assert [SPACE.op_names[op] for op in node_ops[0]] == names
    assert cell_to_genotype(cell) == genotype
    assert SPACE.is_valid(cell).all()
    assert SPACE.is_valid(cell, rule="released").all()


@given(st.lists(genotypes(), max_size=6))
def test_batches_round_trip(batch: list[Genotype]) -> None:
    assert SPACE.to_genotypes(SPACE.from_genotypes(batch)) == batch


def test_order_of_operations_is_kept_but_not_counted() -> None:
    pairs = [BO.normal[i : i + 2] for i in range(0, 8, 2)]
    swapped = Genotype(tuple(edge for pair in pairs for edge in reversed(pair)))
    cells = SPACE.from_genotypes([BO, swapped])
    assert cells[0] != cells[1]
    assert SPACE.to_genotypes(cells) == [BO, swapped]
    assert len(cells.unique()[0]) == 1


def test_genotypes_with_two_cells_name_one() -> None:
    other = Genotype(BO.normal, SPACE.to_genotypes(SPACE.sample(1, seed=0))[0].normal)
    with pytest.raises(ValueError, match=r"genotypes\[0\]: normal and reduction cell differ"):
        genotype_to_cell(other)
    assert genotype_to_cell(other, part="normal") == genotype_to_cell(BO)
    assert cell_to_genotype(genotype_to_cell(other, part="reduce")).normal == other.reduce
    with pytest.raises(ValueError, match="part: 'both'"):
        genotype_to_cell(other, part="both")  # type: ignore[arg-type]


def edited(
    labels: dict[int, int] | None = None, edges: tuple[tuple[int, int], ...] = ()
) -> CellBatch:
    """The cell of arch2vec_bo with labels replaced and edges flipped."""
    adjacency, node_ops = genotype_to_cell(BO).to_dense()
    for node, op in (labels or {}).items():
        node_ops[0, node] = op
    for source, target in edges:
        adjacency[0, source, target] ^= 1
    return CellBatch.from_dense(adjacency, node_ops, LAYOUT)


@pytest.mark.parametrize(
    ("cell", "strict", "released"),
    [
        (edited(), 0, 0),
        (edited({0: 1}), 1, 1),
        (edited({1: -1}), 1, 1),
        (edited({10: 9}), 2, 2),
        (edited({10: -1}), 2, 2),
        (edited({5: 10}), 3, 3),
        (edited({2: 1}), 3, 3),
        (edited({9: -1}), 3, 3),
        (edited(edges=((0, 1),)), 4, 0),
        (edited(edges=((1, 2),)), 5, 5),  # node 2 read input 1 and nothing else
        (edited(edges=((1, 2), (0, 2), (0, 3))), 5, 5),
        (edited(edges=((0, 2),)), 6, 0),  # two sources
        (edited(edges=((2, 8),)), 6, 0),  # half of an earlier node
        (edited(edges=((0, 9), (4, 9))), 6, 0),  # the other half
        (edited(edges=((1, 5), (4, 5))), 6, 5),  # its own partner
        (edited(edges=((0, 3), (1, 3))), 7, 0),  # input 1 twice
        (edited(edges=((0, 9), (2, 9), (3, 9))), 7, 0),  # node 2 twice
        (edited(edges=((2, 10),)), 8, 0),
        (edited(edges=((0, 10),)), 8, 0),
    ],
)
def test_reasons(cell: CellBatch, strict: int, released: int) -> None:
    assert SPACE.validity(cell).tolist() == [strict]
    assert SPACE.validity(cell, rule="released").tolist() == [released]
    assert len(SPACE.reasons) == 9


def released_twin(adjacency: NDArray[np.uint8], names: list[str]) -> bool:
    """The released check in words, the clauses below the diagonal included."""
    if names[0] != "c_k-2" or names[1] != "c_k-1" or names[-1] != "output":
        return False
    if any(name not in OPERATIONS for name in names[2:-1]):
        return False
    for block in range(4):
        first = 2 + 2 * block
        for node in (first, first + 1):
            if not adjacency[:first, node].any() or adjacency[first + 2 :, node].any():
                return False
    return True


def strict_twin(adjacency: NDArray[np.uint8], names: list[str]) -> bool:
    """Some genotype has this matrix: read one off, write it out, compare."""
    edges = []
    for node in range(2, 10):
        sources = np.flatnonzero(adjacency[:, node])
        if len(sources) == 0 or names[node] not in OPERATIONS:
            return False
        edges.append((names[node], int(sources[0]) if sources[0] < 2 else int(sources[0]) // 2 + 1))
    try:
        matrix, written = dense_twin(Genotype(tuple(edges)))
    except ValueError:
        return False
    return bool((matrix == adjacency).all()) and written == names


def random_junk(count: int) -> CellBatch:
    """Valid cells, half of them damaged by a few label and edge changes, and pure noise."""
    rng = np.random.default_rng(0)
    adjacency, node_ops = SPACE.sample(count, seed=0).to_dense()
    flips = np.triu(rng.random((count, 11, 11)) < 0.01, 1)
    flips[: count // 10] = False
    adjacency = adjacency ^ flips
    wrong = rng.random((count, 11)) < 0.01
    node_ops = np.where(wrong, rng.integers(-1, 11, size=(count, 11)), node_ops)
    noise = slice(-count // 10, None)
    adjacency[noise] = np.triu(rng.integers(0, 2, size=adjacency[noise].shape), 1)
    return CellBatch.from_dense(adjacency, node_ops, LAYOUT)


def test_both_rules_equal_their_twins_on_junk() -> None:
    cells = random_junk(8_000)
    adjacency, node_ops = cells.to_dense()
    named = [["absent" if op < 0 else SPACE.op_names[op] for op in row] for row in node_ops]
    pairs = list(zip(adjacency, named, strict=True))
    strict, released = SPACE.is_valid(cells), SPACE.is_valid(cells, rule="released")
    assert strict.tolist() == [strict_twin(*pair) for pair in pairs]
    assert released.tolist() == [released_twin(*pair) for pair in pairs]
    assert released[strict].all()
    assert 0.1 < strict.mean() < released.mean() < 0.95
    assert set(SPACE.validity(cells).tolist()) == set(range(9))


@pytest.mark.parametrize("method", ["to_genotypes", "mult_adds", "num_parameters", "to_json"])
def test_invalid_cells_are_named(method: str) -> None:
    cells = CellBatch.concat([edited(), edited(edges=((0, 3), (1, 3)))])
    with pytest.raises(ValueError, match="cells: cell 1 is not a cell of darts: both operations"):
        getattr(SPACE, method)(cells)
    with pytest.raises(ValueError, match="cells: cell 1 is not a cell of darts"):
        SPACE.mutate(cells, seed=0)


def test_cells_of_another_space_are_refused() -> None:
    other = spaces.get("nasbench201").sample(2, seed=0)
    for call in (SPACE.validity, SPACE.mult_adds, SPACE.to_genotypes):
        with pytest.raises(ValueError, match="cells: "):
            call(other)


def test_unknown_rule() -> None:
    with pytest.raises(ValueError, match="rule: "):
        SPACE.validity(edited(), rule="loose")


def test_cost_of_a_cell_is_that_of_its_genotype() -> None:
    cells = SPACE.sample(100, seed=5)
    made = SPACE.to_genotypes(cells)
    np.testing.assert_array_equal(SPACE.mult_adds(cells), network_cost(made).mult_adds)
    np.testing.assert_array_equal(
        SPACE.num_parameters(cells), network_cost(made, CIFAR10).parameters
    )
    assert SPACE.mult_adds(genotype_to_cell(BO)).tolist() == [579_849_984]


def test_data_set_sample_is_distinct_below_the_limit_and_repeatable() -> None:
    cells = SPACE.sample(20_000, max_mult_adds=600e6, seed=0)
    assert len(cells) == len(cells.unique()[0]) == 20_000
    assert SPACE.is_valid(cells).all()
    assert SPACE.mult_adds(cells).max() < 600e6
    assert cells == SPACE.sample(20_000, max_mult_adds=600e6, seed=0)
    assert cells[:50] == SPACE.sample(50, max_mult_adds=600e6, seed=0)
    assert cells[:50] != SPACE.sample(50, max_mult_adds=600e6, seed=1)


def test_sample_crosses_chunks() -> None:
    cells = SPACE.sample(70_000, seed=0)
    assert len(cells) == 70_000
    assert cells[:10] == SPACE.sample(10, seed=0)


def test_plain_sample_is_uniform_over_genotypes() -> None:
    count = 8_000
    cells = SPACE.sample(count, seed=2)
    sources = np.array([[s for _, s in g.normal] for g in SPACE.to_genotypes(cells)])
    for node in range(2, 6):
        pair = sources[:, 2 * node - 4] * node + sources[:, 2 * node - 3]
        counts = np.unique(pair, return_counts=True)[1]
        expected = count / (node * (node - 1))
        assert len(counts) == node * (node - 1)
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    ops = np.bincount(cells.to_dense()[1][:, 2:10].ravel(), minlength=11)[2:10]
    assert np.abs(ops - count).max() < 5 * np.sqrt(count)


def test_distinct_can_be_chosen() -> None:
    repeated = SPACE.sample(30_000, seed=1, distinct=False)
    distinct = SPACE.sample(30_000, seed=1, distinct=True)
    assert len(repeated.unique()[0]) < 30_000
    assert len(distinct.unique()[0]) == 30_000
    first = repeated.unique()[0]
    assert distinct[: len(first)] == first


def test_impossible_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="count: -1"):
        SPACE.sample(-1, seed=0)
    with pytest.raises(ValueError, match=r"max_mult_adds: 1e\+06 is not above .*; raise it"):
        SPACE.sample(5, seed=0, max_mult_adds=1e6)
    with pytest.raises(ValueError, match="max_mult_adds: nan is not above"):
        SPACE.sample(5, seed=0, max_mult_adds=float("nan"))
    assert len(SPACE.sample(0, seed=0, max_mult_adds=600e6)) == 0


def test_batches_are_those_of_the_stream_by_number() -> None:
    batches, stream = SPACE.batches(1000), SPACE.stream(1000)
    assert len(batches) == 3_019_899
    first = [next(stream) for _ in range(3)]
    assert [batches[0], batches[1], batches[2]] == first == batches[:3]
    assert len(batches[-1]) == len(batches[3_019_898]) == 880
    with pytest.raises(IndexError):
        batches[3_019_899]
    with pytest.raises(ValueError, match="chunk_size: 0"):
        SPACE.batches(0)


def test_stream_starts_with_the_first_genotypes_and_repeats_none() -> None:
    stream = SPACE.stream(chunk_size=3_000)
    cells = CellBatch.concat([next(stream), next(stream)])
    assert SPACE.is_valid(cells).all()
    assert len(np.unique(cells.codes, axis=0)) == 6_000
    assert cells[:3_000] == next(SPACE.stream(3_000))
    with pytest.raises(ValueError, match="chunk_size: 0"):
        next(SPACE.stream(0))


def test_enumerate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3,019,898,880 genotypes .*; use stream"):
        SPACE.enumerate()


@given(genotypes(), st.integers(0, 2**32 - 1))
def test_mutation_is_one_edit(genotype: Genotype, seed: int) -> None:
    cells = SPACE.from_genotypes([genotype] * 30)
    changed = SPACE.mutate(cells, seed=seed)
    assert changed == SPACE.mutate(cells, seed=seed)
    for mutant in SPACE.to_genotypes(changed):
        pairs = list(zip(genotype.normal, mutant.normal, strict=True))
        assert sum((a[0] != b[0]) + (a[1] != b[1]) for a, b in pairs) == 1


def test_mutation_reaches_every_neighbour() -> None:
    cells = SPACE.from_genotypes([BO] * 20_000)
    found = SPACE.mutate(cells, seed=0)
    changes_op = (found.to_dense()[1] != cells.to_dense()[1]).any(axis=1)
    assert abs(changes_op.mean() - 0.5) < 0.02
    for part, neighbours in ((found[changes_op], 56), (found[~changes_op], 12)):
        counts = np.unique(part.codes, axis=0, return_counts=True)[1]
        assert len(counts) == neighbours
        expected = len(part) / neighbours
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_released_json_round_trip(tmp_path: Path) -> None:
    cells = SPACE.sample(50, seed=0, distinct=True)
    SPACE.save_json(cells, tmp_path / "data.json")
    assert SPACE.load_json(tmp_path / "data.json") == cells
    records = json.loads((tmp_path / "data.json").read_text())
    adjacency, labels, genotype = next(iter(records.values()))
    assert np.array(adjacency).shape == (11, 11)
    assert labels[:2] == [0, 1]
    assert labels[10] == 10
    assert genotype == [[str(s), op] for op, s in SPACE.to_genotypes(cells[0])[0].normal]
    assert SPACE.from_json({}) == cells[:0]


def test_json_keys_are_the_benchmark_hash() -> None:
    """Of arch2vec_bo by the published hash_module; of others by the algorithm written out."""
    assert list(SPACE.to_json(genotype_to_cell(BO))) == ["a14302c5985f64d342b1b59dab3deab9"]
    records = SPACE.to_json(SPACE.sample(40, seed=0, distinct=True))
    for key, (adjacency, labels, _) in records.items():
        assert key == hash_twin(np.array(adjacency), labels)


def hash_twin(adjacency: NDArray[np.int64], labels: list[int]) -> str:
    def md5(value: object) -> str:
        return hashlib.md5(str(value).encode(), usedforsecurity=False).hexdigest()

    degrees = zip(
        adjacency.sum(axis=1).tolist(), adjacency.sum(axis=0).tolist(), labels, strict=True
    )
    hashes = np.array([md5(triple) for triple in degrees])
    for _ in labels:
        sides = [
            "|".join("".join(sorted(hashes[row == 1])) for row in pair)
            for pair in zip(adjacency.T, adjacency, strict=True)
        ]
        hashes = np.array([md5(f"{s}|{h}") for s, h in zip(sides, hashes, strict=True)])
    return md5(sorted(hashes.tolist()))


def test_isomorphic_cells_share_a_key() -> None:
    pairs = [BO.normal[i : i + 2] for i in range(0, 8, 2)]
    swapped = Genotype(tuple(edge for pair in pairs for edge in reversed(pair)))
    assert len(SPACE.to_json(SPACE.from_genotypes([BO, swapped]))) == 1


def damaged(change: str) -> Any:
    key, (adjacency, labels, genotype) = next(iter(SPACE.to_json(genotype_to_cell(BO)).items()))
    if change == "pair":
        return {key: [adjacency, labels]}
    if change == "number":
        return {key: 3}
    if change == "list":
        return [[adjacency, labels, genotype]]
    if change == "genotype":
        genotype[0][1] = "none"
    if change == "edge":
        adjacency[2][10] = 0
    if change == "label":
        labels[4] = 99
    return {key: [adjacency, labels, genotype]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pair", "not .adjacency, labels, genotype"),
        ("number", "not .adjacency, labels, genotype"),
        ("list", "records: not an object of cells by hash"),
        ("genotype", "the genotype is not that of the matrix"),
        ("edge", "the output is not fed by the eight operations"),
        ("label", "node_ops: cell 0 has operation 99"),
    ],
)
def test_rejects_malformed_json(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(damaged(change)))
    with pytest.raises(ValueError, match=rf"data\.json: .*{message}"):
        SPACE.load_json(path)


def test_rejects_files_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"a": [')
    with pytest.raises(ValueError, match=r"data\.json: not a JSON file"):
        SPACE.load_json(path)
    with pytest.raises(OSError, match=r"none\.json"):
        SPACE.load_json(tmp_path / "none.json")


def test_describe() -> None:
    assert SPACE.describe(genotype_to_cell(BO)) == BO.to_items()[0]
    assert SPACE.describe(edited(edges=((0, 1),))) != BO.to_items()[0]
    with pytest.raises(ValueError, match="cell: 2 cells; give one"):
        cell_to_genotype(SPACE.sample(2, seed=0))

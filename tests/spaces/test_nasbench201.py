# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-201: every cell in every form, order, rules, simplification."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arch2vec_fast import spaces
from arch2vec_fast.spaces import CellBatch
from arch2vec_fast.spaces.nasbench201 import NasBench201

SPACE = NasBench201()
LAYOUT = SPACE.layout
OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
TEMPLATE = np.zeros((8, 8), dtype=np.uint8)
for x, y in ((0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7)):
    TEMPLATE[x, y] = 1


@pytest.fixture(scope="module")
def every() -> CellBatch:
    return SPACE.enumerate()


def arch_string(ops: tuple[str, ...]) -> str:
    items = [f"{op}~{source}" for op, source in zip(ops, (0, 0, 1, 0, 1, 2), strict=True)]
    return f"|{items[0]}|+|{items[1]}|{items[2]}|+|{items[3]}|{items[4]}|{items[5]}|"


def test_is_registered() -> None:
    space = spaces.get("nasbench201")
    assert isinstance(space, NasBench201)
    assert (space.name, space.num_cells, space.variable_size) == ("nasbench201", 15_625, False)
    assert space.layout.num_bits == 52


def test_official_order_by_its_known_cells(every: CellBatch) -> None:
    """The two cells the benchmark's generator asserts, and two of its published optima."""
    known = {
        0: "avg_pool_3x3 nor_conv_1x1 skip_connect nor_conv_1x1 skip_connect skip_connect",
        9: "avg_pool_3x3 none none skip_connect none nor_conv_3x3",
        6111: "nor_conv_3x3 nor_conv_3x3 nor_conv_3x3 skip_connect nor_conv_3x3 nor_conv_1x1",
        9930: "nor_conv_3x3 nor_conv_3x3 nor_conv_3x3 skip_connect nor_conv_3x3 nor_conv_3x3",
    }
    for index, ops in known.items():
        assert SPACE.to_string(every[index]) == [arch_string(tuple(ops.split()))], index


@pytest.mark.data
def test_order_and_parameters_of_the_benchmark_table(every: CellBatch, data_dir: Path) -> None:
    with np.load(data_dir / "nasbench201.npz") as table:
        ops, parameters = table["op_names"][table["ops"]], table["params_c10"]
    assert SPACE.to_string(every) == [arch_string(tuple(row)) for row in ops]
    np.testing.assert_array_equal(SPACE.num_parameters(every), parameters)


def test_every_cell_in_every_form(every: CellBatch) -> None:
    strings = SPACE.to_string(every)
    assert set(strings) == {arch_string(ops) for ops in itertools.product(OPS, repeat=6)}
    assert SPACE.from_string(strings) == every
    np.testing.assert_array_equal(SPACE.index_of(every), np.arange(15_625))
    adjacency, node_ops = every.to_dense(one_hot=True)
    assert (adjacency == TEMPLATE).all()
    assert CellBatch.from_dense(adjacency, node_ops, LAYOUT) == every
    assert SPACE.is_valid(every).all()
    assert SPACE.is_valid(every, rule="released").all()


def test_stream_is_enumerate_in_pieces(every: CellBatch) -> None:
    pieces = list(SPACE.stream(chunk_size=4_000))
    assert [len(piece) for piece in pieces] == [4_000, 4_000, 4_000, 3_625]
    assert CellBatch.concat(pieces) == every == SPACE.enumerate(order="canonical")
    with pytest.raises(ValueError, match="chunk_size: 0"):
        SPACE.stream(0)


def test_no_two_cells_are_isomorphic(every: CellBatch) -> None:
    assert len(every.unique()[0]) == 15_625


def test_released_matrix_of_one_cell() -> None:
    cell = SPACE.from_string(
        "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    )
    adjacency, node_ops = cell.to_dense()
    np.testing.assert_array_equal(adjacency[0], TEMPLATE)
    names = [SPACE.op_names[op] for op in node_ops[0]]
    inner = ["nor_conv_3x3", "none", "nor_conv_1x1", "skip_connect", "avg_pool_3x3", "nor_conv_3x3"]
    assert names == ["input", *inner, "output"]


def test_released_json_round_trip(every: CellBatch) -> None:
    part = every[::997]
    assert CellBatch.from_json(json.loads(json.dumps(part.to_json())), LAYOUT) == part


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"archs\[0\]: '' is no arch string; write"),
        ("|none~0|+|none~0|none~1|", "is no arch string"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "is no arch string"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|conv~2|", "unknown operation 'conv'; choose one"),
        ("|input~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'input'; choose"),
        ("x" * 9_999, r"archs\[0\]: .{0,130} is no arch string"),
    ],
)
def test_rejects_malformed_strings(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.from_string(text)


def test_names_the_malformed_string_of_a_list() -> None:
    good = arch_string(("none",) * 6)
    with pytest.raises(ValueError, match=r"archs\[2\]: None is no arch string"):
        SPACE.from_string([good, f" {good}\n", None])  # type: ignore[list-item]


def junk(edit_labels: dict[int, int], edit_edges: tuple[tuple[int, int], ...] = ()) -> CellBatch:
    """A valid cell with labels replaced and edges flipped."""
    labels = np.array([[0, 1, 2, 3, 4, 5, 1, 6]])
    adjacency = TEMPLATE[None].copy()
    for node, op in edit_labels.items():
        labels[0, node] = op
    for source, target in edit_edges:
        adjacency[0, source, target] ^= 1
    return CellBatch.from_dense(adjacency, labels, LAYOUT)


@pytest.mark.parametrize(
    ("cell", "strict", "released"),
    [
        (junk({}), 0, 0),
        (junk({0: 1}), 1, 1),
        (junk({0: -1}), 1, 1),
        (junk({7: 5}), 2, 2),
        (junk({7: -1}), 2, 2),
        (junk({1: 0}), 3, 0),  # the released loop never looks at node 1
        (junk({2: 6}), 3, 3),
        (junk({6: -1}), 3, 3),
        (junk({}, ((0, 1),)), 4, 0),  # nor at any edge
        (junk({}, ((6, 7), (1, 2))), 4, 0),
        (junk({0: 6, 7: 0, 3: 0}, ((2, 3),)), 1, 1),
    ],
)
def test_reasons(cell: CellBatch, strict: int, released: int) -> None:
    assert SPACE.validity(cell).tolist() == [strict]
    assert SPACE.validity(cell, rule="released").tolist() == [released]


def released_twin(labels: list[int]) -> bool:
    """The released check, in words: first and last node, then an operation on nodes 2..6."""
    names = ["absent" if op < 0 else SPACE.op_names[op] for op in labels]
    if names[0] != "input" or names[-1] != "output":
        return False
    return all(name in OPS for name in names[2:-1])


def test_released_rule_on_random_junk() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 7, size=(20_000, 8))
    labels[:, 0] = np.where(rng.random(20_000) < 0.9, 0, labels[:, 0])
    labels[:, 7] = np.where(rng.random(20_000) < 0.9, 6, labels[:, 7])
    adjacency = np.triu(rng.integers(0, 2, size=(20_000, 8, 8)), 1)
    adjacency[::2] = TEMPLATE
    cells = CellBatch.from_dense(adjacency, labels, LAYOUT)
    valid = SPACE.is_valid(cells, rule="released")
    assert valid.tolist() == [released_twin(row) for row in labels.tolist()]
    assert 0 < valid.mean() < 1
    strict = SPACE.is_valid(cells)
    in_words = valid & (labels[:, 1] > 0) & (labels[:, 1] < 6)
    np.testing.assert_array_equal(strict, in_words & (adjacency == TEMPLATE).all(axis=(1, 2)))


@pytest.mark.parametrize("method", ["index_of", "to_string", "num_parameters", "simplify"])
def test_invalid_cells_are_named(every: CellBatch, method: str) -> None:
    cells = CellBatch.concat([every[:3], junk({}, ((0, 7),))])
    with pytest.raises(ValueError, match="cells: cell 3 is not a cell of nasbench201: the edges"):
        getattr(SPACE, method)(cells)


def test_cells_of_another_space_are_refused() -> None:
    other = spaces.get("nasbench101").sample(2, seed=0)
    with pytest.raises(ValueError, match="cells: "):
        SPACE.validity(other)


def test_unknown_rule_and_order() -> None:
    with pytest.raises(ValueError, match="rule: "):
        SPACE.validity(junk({}), rule="loose")
    with pytest.raises(ValueError, match="order: unknown order 'sorted'"):
        SPACE.enumerate(order="sorted")


def test_sample_is_uniform_and_repeatable() -> None:
    cells = SPACE.sample(50_000, seed=3)
    assert cells == SPACE.sample(50_000, seed=3)
    assert cells != SPACE.sample(50_000, seed=4)
    counts = np.bincount(SPACE.index_of(cells), minlength=15_625)
    assert abs(((counts - 3.2) ** 2 / 3.2).sum() / 15_624 - 1) < 0.06  # chi-square: 5 sigma = 0.057
    assert len(SPACE.sample(0, seed=0)) == 0


@given(st.integers(0, 15_624), st.integers(0, 2**32 - 1))
def test_mutation_changes_one_operation(index: int, seed: int) -> None:
    cell = SPACE.enumerate()[[index] * 20]
    changed = SPACE.mutate(cell, seed=seed)
    assert SPACE.is_valid(changed).all()
    assert ((changed.to_dense()[1] != cell.to_dense()[1]).sum(axis=1) == 1).all()
    assert changed == SPACE.mutate(cell, seed=seed)


def test_mutation_reaches_all_24_neighbours() -> None:
    changed = SPACE.mutate(SPACE.enumerate()[np.zeros(2_000, dtype=np.int64)], seed=0)
    counts = np.unique(changed.codes, return_counts=True)[1]
    assert len(counts) == 24
    assert counts.min() > 40  # 83 expected


def simplified(ops: str) -> str:
    """Simplify a cell in letters: 0 none, s skip, 1 and 3 convolutions, a average pooling."""
    letters = dict(zip("0s13a", OPS, strict=True))
    cell = SPACE.simplify(SPACE.from_string(arch_string(tuple(letters[c] for c in ops))))
    names = SPACE.to_string(cell)[0].replace("+", "").strip("|").replace("||", "|").split("|")
    return "".join(next(k for k, v in letters.items() if v == name.split("~")[0]) for name in names)


@pytest.mark.parametrize(
    ("ops", "simple"),
    [
        ("000000", "000000"),
        ("300000", "000000"),  # nothing reads node 1
        ("003333", "000300"),  # nodes 1 and 2 are zero: only the direct edge is left
        ("0s0003", "000300"),  # a convolution behind a skip
        ("s00010", "000100"),
        ("1s0aa0", "010a0a"),  # node 2 is dead: the first of two cells with one inner node
        ("131131", "131131"),
    ],
)
def test_simplify(ops: str, simple: str) -> None:
    assert simplified(ops) == simple


def test_simplify_everything(every: CellBatch) -> None:
    simple = SPACE.simplify(every)
    assert SPACE.is_valid(simple).all()
    assert SPACE.simplify(simple) == simple
    assert len(np.unique(simple.codes)) == 4_930
    nones = [(cells.to_dense()[1] == 5).sum(axis=1) for cells in (every, simple)]
    assert (nones[0] <= nones[1]).all()


def benchmark_string(ops: list[int]) -> str:
    """The string by which the benchmark counts 6,466 topologies (`none` and `skip` in mind)."""
    nodes, edge = {0: "0"}, iter(ops)
    for node in (1, 2, 3):
        terms = []
        for source in range(node):
            op = SPACE.op_names[next(edge)]
            if op == "none" or nodes[source] == "#":
                terms.append("#")
            elif op == "skip_connect":
                terms.append(nodes[source])
            else:
                terms.append(f"({nodes[source]})@{op}")
        nodes[node] = "+".join(sorted(terms))
    return nodes[3]


def test_simplify_never_splits_what_the_benchmark_calls_equal(every: CellBatch) -> None:
    simple = SPACE.simplify(every).codes[:, 0].tolist()
    classes: dict[str, set[int]] = {}
    for ops, code in zip(every.to_dense()[1][:, 1:7].tolist(), simple, strict=True):
        classes.setdefault(benchmark_string(ops), set()).add(code)
    assert len(classes) == 6_466
    assert all(len(codes) == 1 for codes in classes.values())


def test_describe(every: CellBatch) -> None:
    assert SPACE.describe(every[5]) == SPACE.to_string(every[5])[0]
    assert "|" not in SPACE.describe(junk({0: -1}, ((2, 3),))).split("\n")[0][:1]

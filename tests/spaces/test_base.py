# SPDX-License-Identifier: Apache-2.0
"""CellSpace: enumeration against brute force, streams, samples, mutation, validity, bad input."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from arch2vec_fast import spaces
from arch2vec_fast.spaces import CellBatch, CellLayout, CellSpace
from strategies import random_cells

OPS = ("input", "conv", "pool", "output")
TWO_INPUTS = ("left", "right", "conv", "pool", "sum")


def make_space(name: str) -> CellSpace:
    return {
        "fixed": lambda: CellSpace(5, OPS),
        "few edges": lambda: CellSpace(5, OPS, max_edges=5),
        "variable": lambda: CellSpace(5, OPS, variable_size=True, max_edges=6),
        "dangling": lambda: CellSpace(4, OPS, variable_size=True, allow_dangling=True),
        "two inputs": lambda: CellSpace(
            5, TWO_INPUTS, input_ops=TWO_INPUTS[:2], output_op="sum", variable_size=True
        ),
        "no boundary": lambda: CellSpace(4, ("a", "b"), input_ops=(), output_op=None),
        "no output": lambda: CellSpace(4, ("input", "a", "b"), output_op=None, variable_size=True),
        "no input": lambda: CellSpace(4, ("a", "b", "output"), input_ops=(), variable_size=True),
        "one inner operation": lambda: CellSpace(5, ("input", "a", "output"), variable_size=True),
        "no inner operation": lambda: CellSpace(4, ("input", "output"), variable_size=True),
        "rule": lambda: CellSpace(5, OPS, rule=lambda cells: cells.num_edges() % 2 == 0),
    }[name]()


NAMES = (
    "fixed",
    "few edges",
    "variable",
    "dangling",
    "two inputs",
    "no boundary",
    "no output",
    "no input",
    "one inner operation",
    "no inner operation",
    "rule",
)
everywhere = pytest.mark.parametrize("name", NAMES)


def every_labelled_cell(layout: CellLayout) -> CellBatch:
    """All codes there are: every upper-triangular matrix with every labelling."""
    n = layout.num_nodes
    edges = np.array(list(itertools.product((0, 1), repeat=layout.edge_bits)), np.uint8)
    labels = np.array(list(itertools.product(range(-1, layout.num_op_types), repeat=n)))
    adjacency = np.zeros((len(edges), n, n), np.uint8)
    for q, (x, y) in enumerate((s, t) for t in range(n) for s in range(t)):
        adjacency[:, x, y] = edges[:, q]
    return CellBatch.from_dense(
        np.repeat(adjacency, len(labels), axis=0), np.tile(labels, (len(edges), 1)), layout
    )


def as_rows(cells: CellBatch) -> set[tuple[int, ...]]:
    return {tuple(row) for row in cells.codes.tolist()}


@everywhere
def test_enumerates_every_class_once(name: str) -> None:
    """Against all codes filtered by the Python twin of the rules, one per canonical form."""
    space = make_space(name)
    if space.layout.num_nodes > 4:
        space = CellSpace(
            4,
            space.op_names,
            input_ops=space.input_ops,
            output_op=space.output_op,
            max_edges=space.max_edges,
            variable_size=space.variable_size,
            rule=space.rule,
        )
    labelled = every_labelled_cell(space.layout)
    wanted = labelled[satisfies(space, labelled)].canonical()
    cells = space.enumerate()
    assert len(as_rows(cells)) == len(cells) == space.num_cells
    assert as_rows(cells) == as_rows(wanted)


def satisfies(space: CellSpace, cells: CellBatch) -> NDArray[np.bool_]:
    """The rules of a space, written down once more on dense arrays."""
    adjacency, node_ops = (a.astype(np.int64) for a in cells.to_dense())
    n = node_ops.shape[1]
    count = len(space.input_ops)
    present = (node_ops >= 0).sum(axis=1)
    node = np.arange(n)
    inside = node < present[:, None]
    ok = (inside == (node_ops >= 0)).all(axis=1)
    ok &= ~(adjacency.any(axis=1) & ~inside).any(axis=1)
    ok &= present >= (count + 1 if space.variable_size else n)
    ok &= adjacency.sum(axis=(1, 2)) <= space.max_edges
    is_input = node < count
    ok &= np.where(is_input, node_ops == node, ~inside | (node_ops >= count)).all(axis=1)
    ok &= ~adjacency[:, :, :count].any(axis=(1, 2))
    inner = inside & ~is_input
    if space.output_op is not None:
        is_output = node == present[:, None] - 1
        ok &= ((node_ops == len(space.op_names) - 1) == is_output).all(axis=1)
        if not space.allow_dangling:
            ok &= (adjacency.any(axis=2) | ~inside | is_output).all(axis=1)
    if count > 0 and not space.allow_dangling:
        ok &= (adjacency.any(axis=1) | ~inner).all(axis=1)
    if space.rule is not None:
        ok &= space.rule(cells)
    return ok


@everywhere
def test_validity_agrees_with_the_twin(name: str) -> None:
    space = make_space(name)
    cells = random_cells(space.layout, 4000, seed=1)
    sound = space.sample(50, seed=0) if name != "no inner operation" else space.enumerate()
    cells = CellBatch.concat([cells, sound, space.enumerate()[:300]])
    np.testing.assert_array_equal(space.is_valid(cells), satisfies(space, cells))


@everywhere
@pytest.mark.parametrize("chunk_size", [1, 7, 100_000])
def test_stream_is_the_enumeration_in_chunks(name: str, chunk_size: int) -> None:
    space = make_space(name)
    chunks = list(space.stream(chunk_size))
    assert all(0 < len(chunk) <= chunk_size for chunk in chunks)
    streamed = CellBatch.concat(chunks)
    assert len(streamed) == len(as_rows(streamed))
    assert as_rows(streamed) == as_rows(space.enumerate())
    assert (np.diff(streamed.num_present()) >= 0).all()


@everywhere
def test_enumeration_is_canonical_valid_and_sorted(name: str) -> None:
    space = make_space(name)
    cells = space.enumerate()
    assert cells.canonical() == cells
    assert space.is_valid(cells).all()
    words = [tuple(row[::-1]) for row in cells.codes.astype(np.uint64).tolist()]
    assert words == sorted(words)
    assert (np.diff(cells.num_present()) >= 0).all()


def test_threads_do_not_matter() -> None:
    from arch2vec_fast import _cells

    rules = _cells.SpaceRules(
        num_inputs=1, has_output=True, variable_size=True, allow_dangling=False, max_edges=8
    )
    reference = _cells.enumerate_cells(6, 4, rules, threads=1)
    for threads in (2, 3, 16):
        np.testing.assert_array_equal(
            _cells.enumerate_cells(6, 4, rules, threads=threads), reference
        )


def test_streams_sixteen_nodes() -> None:
    """The first cells of a space far too large to enumerate."""
    space = CellSpace(16, OPS)
    cells = next(space.stream(500))
    assert len(as_rows(cells)) == 500
    assert space.is_valid(cells).all()
    assert cells.canonical() == cells


def test_two_word_space() -> None:
    """A chain of 12 nodes with 20 operations: 66 + 60 bits, and one class per sequence."""
    space = CellSpace(12, ("input", *"abcdefghijklmnopqr", "output"), max_edges=11)
    assert space.layout.words == 2
    cells = next(space.stream(1000))
    assert len(as_rows(cells)) == 1000
    assert space.is_valid(cells).all()
    assert cells.num_edges().tolist() == [11] * 1000


# ---- sampling ----


@pytest.mark.parametrize("name", [name for name in NAMES if name != "no inner operation"])
def test_samples_are_valid_and_reproducible(name: str) -> None:
    space = make_space(name)
    cells = space.sample(500, seed=3)
    assert space.is_valid(cells).all()
    assert cells == space.sample(500, seed=3)
    assert cells[:70] == space.sample(70, seed=3)
    assert cells != space.sample(500, seed=4)
    assert len(space.sample(0, seed=0)) == 0


@pytest.mark.parametrize("name", ["few edges", "variable", "rule", "no boundary"])
def test_samples_are_uniform_over_encodings(name: str) -> None:
    """Chi-squared over all labelled encodings of a small space, five standard deviations."""
    space = make_space(name)
    small = CellSpace(
        4,
        space.op_names,
        input_ops=space.input_ops,
        output_op=space.output_op,
        max_edges=space.max_edges,
        variable_size=space.variable_size,
        rule=space.rule,
    )
    labelled = every_labelled_cell(small.layout)
    encodings = as_rows(labelled[small.is_valid(labelled)])
    count = 60 * len(encodings)
    codes, counts = np.unique(small.sample(count, seed=0).codes, axis=0, return_counts=True)
    assert {tuple(row) for row in codes.tolist()} == encodings
    chi2 = ((counts - 60) ** 2 / 60).sum()
    freedom = len(encodings) - 1
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_sampling_refuses_an_empty_space() -> None:
    space = CellSpace(6, OPS, max_edges=3)
    assert len(space.enumerate()) == 0
    with pytest.raises(ValueError, match="count: custom is too thin for sampling"):
        space.sample(1, seed=0)


# ---- mutation ----


LONELY = ("no inner operation", "no input", "few edges")  # hold cells without any neighbour


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LONELY])
def test_mutants_are_valid_new_and_reproducible(name: str) -> None:
    space = make_space(name)
    parents = space.sample(300, seed=0)
    children = space.mutate(parents, seed=1)
    assert space.is_valid(children).all()
    assert (children.canonical().codes != parents.canonical().codes).any(axis=1).all()
    assert children == space.mutate(parents, seed=1)
    assert children[:9] == space.mutate(parents[:9], seed=1)
    assert children != space.mutate(parents, seed=2)


@pytest.mark.parametrize("name", ["fixed", "rule", "no boundary"])
def test_mutation_is_one_edit(name: str) -> None:
    """Where the size is fixed: one edge, or one label."""
    space = make_space(name)
    parents = space.sample(300, seed=0)
    children = space.mutate(parents, seed=1)
    (a, p), (b, q) = parents.to_dense(), children.to_dense()
    changed = (a != b).sum(axis=(1, 2)) + (p != q).sum(axis=1)
    assert changed.tolist() == [1] * 300


def test_mutation_reaches_the_whole_space() -> None:
    space = CellSpace(4, OPS, variable_size=True)
    wanted = as_rows(space.enumerate())
    cells = space.enumerate()[:1]
    seen = as_rows(cells)
    for seed in range(200):
        children = space.mutate(cells, seed=seed).canonical()
        cells, _, _ = CellBatch.concat([cells, children]).unique()
        seen |= as_rows(children)
    assert seen == wanted


def test_mutation_refuses() -> None:
    space = CellSpace(3, ("input", "conv", "output"), max_edges=2)
    only = space.enumerate()
    assert len(only) == 1
    with pytest.raises(ValueError, match="cells: cell 0 has no valid neighbour in custom"):
        space.mutate(only, seed=0)
    junk = CellBatch.from_dense(np.zeros((1, 3, 3)), [[0, 1, 2]], space.layout)
    with pytest.raises(ValueError, match="cell 1 is not a cell of custom: a node has no predecess"):
        space.mutate(CellBatch.concat([only, junk]), seed=0)


# ---- judging and describing ----


@pytest.mark.parametrize(
    ("node_ops", "edges", "reason"),
    [
        ([0, 1, 2, 3, -1], [(0, 1), (1, 2), (2, 3)], "valid"),
        ([0, -1, 2, 3, -1], [(0, 2), (2, 3)], "an absent node stands before a present one"),
        ([0, 1, 3, -1, -1], [(0, 1), (1, 2), (2, 4)], "an edge touches an absent node"),
        ([-1, -1, -1, -1, -1], [], "the cell has too few nodes"),
        ([0, 0, 3, -1, -1], [(0, 1), (1, 2)], "the input nodes are not exactly at the front"),
        ([1, 1, 3, -1, -1], [(0, 1), (1, 2)], "the input nodes are not exactly at the front"),
        ([0, 3, 3, -1, -1], [(0, 1), (1, 2)], "the output is not exactly the last present node"),
        ([0, 1, 2, -1, -1], [(0, 1), (1, 2)], "the output is not exactly the last present node"),
        ([0, 1, 1, 3, -1], [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], "too many edges"),
        ([0, 1, 2, 3, -1], [(0, 1), (1, 3), (2, 3)], "a node has no predecessor"),
        ([0, 1, 2, 3, -1], [(0, 1), (0, 2), (2, 3)], "a node has no successor"),
        ([0, 2, 2, 3, -1], [(0, 1), (1, 2), (2, 3)], "the rule of the space is not met"),
    ],
)
def test_reasons(node_ops: list[int], edges: list[tuple[int, int]], reason: str) -> None:
    space = CellSpace(
        5,
        OPS,
        variable_size=True,
        max_edges=5,
        rule=lambda cells: (cells.to_dense()[1] == 1).any(axis=1),
    )
    adjacency = np.zeros((1, 5, 5), np.uint8)
    for x, y in edges:
        adjacency[0, x, y] = 1
    cells = CellBatch.from_dense(adjacency, [node_ops], space.layout)
    assert reason in space.reasons[space.validity(cells)[0]]


def test_edge_into_an_input() -> None:
    space = CellSpace(4, TWO_INPUTS, input_ops=TWO_INPUTS[:2], output_op="sum")
    matrix = [[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    cells = CellBatch.from_dense([matrix], [[0, 1, 2, 4]], space.layout)
    assert space.reasons[space.validity(cells)[0]] == "an edge runs into an input"


@given(st.integers(0, 2**63 - 1), st.sampled_from(NAMES))
def test_anything_representable_is_judged(seed: int, name: str) -> None:
    space = make_space(name)
    reasons = space.validity(random_cells(space.layout, 20, seed=seed))
    assert reasons.dtype == np.uint8
    assert (reasons < len(space.reasons)).all()


def test_matrix_round_trip_and_description() -> None:
    space = CellSpace(7, OPS, variable_size=True)
    cell = space.from_matrix([[0, 1, 1], [0, 0, 1], [0, 0, 0]], ("input", "pool", "output"))
    matrix, names = space.to_matrix(cell)
    assert matrix.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert names == ("input", "pool", "output")
    assert space.describe(cell) == "input, pool, output; 0>1 0>2 1>2"
    assert space.simplify(cell) == cell
    with pytest.raises(
        ValueError, match="ops: unknown operation 'sigmoid'; custom has input, conv"
    ):
        space.from_matrix([[0, 1], [0, 0]], ("input", "sigmoid"))
    with pytest.raises(ValueError, match="cell: expected one cell, got 2"):
        space.describe(CellBatch.concat([cell, cell]))
    with pytest.raises(ValueError, match="custom defines no network"):
        space.num_parameters(cell)


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_nodes": 17}, "num_nodes: 17 is outside"),
        ({"op_names": ("input", "input", "output")}, "op_names: .* twice"),
        ({"op_names": ("conv", "input", "output")}, "input_ops: .* not the first of op_names"),
        ({"output_op": "sum"}, "output_op: 'sum' is not the last of op_names"),
        ({"max_edges": -1}, "max_edges: -1 is negative"),
        ({"num_nodes": 2, "input_ops": ("input", "conv")}, "need more than 2 nodes"),
        ({"op_names": ()}, "num_op_types: 0"),
    ],
)
def test_rejects_impossible_spaces(arguments: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"num_nodes": 5, "op_names": OPS} | arguments
    if values["op_names"] == ():
        values |= {"input_ops": (), "output_op": None}
    with pytest.raises(ValueError, match=message):
        CellSpace(**values)  # type: ignore[arg-type]


def test_rejects_arguments() -> None:
    space = CellSpace(5, OPS)
    with pytest.raises(ValueError, match="order: unknown order 'official'"):
        space.enumerate("official")
    with pytest.raises(ValueError, match="chunk_size: 0"):
        next(space.stream(0))
    with pytest.raises(ValueError, match="count: -1 is negative"):
        space.sample(-1, seed=0)
    with pytest.raises(TypeError, match="seed: expected an int, got float"):
        space.sample(1, seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rule: unknown rule 'loose'"):
        space.validity(space.enumerate(), rule="loose")
    with pytest.raises(ValueError, match=r"cells: packed for .* another space"):
        space.validity(random_cells(CellLayout(7, 5), 1, seed=0))
    with pytest.raises(TypeError, match="cells: expected a CellBatch, got ndarray"):
        space.validity(np.zeros((1, 1)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="op_names: expected a sequence"):
        CellSpace(5, "input")


def test_rejects_a_rule_that_answers_otherwise() -> None:
    space = CellSpace(5, OPS, rule=lambda cells: cells.num_edges())  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="rule: returned int64"):
        space.enumerate()


def test_registry() -> None:
    assert spaces.names() == ("nasbench101", "nasbench201", "darts")
    assert spaces.get("nasbench101") is spaces.get("nasbench101")
    with pytest.raises(ValueError, match="name: unknown space 'nasbench301'; choose one of"):
        spaces.get("nasbench301")


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts"])
def test_every_space_has_the_same_rules_for_counts_and_seeds(name: str) -> None:
    space = spaces.get(name)
    for count, error in ((-1, ValueError), ("a", TypeError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=r"^count: "):
            space.sample(count, seed=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^seed: "):
        space.sample(1, seed="a")  # type: ignore[arg-type]
    assert len(space.sample(2, seed=-1)) == 2


def test_max_edges_is_a_whole_number() -> None:
    with pytest.raises(TypeError, match="max_edges: expected an int, got float"):
        CellSpace(4, ("input", "conv", "output"), max_edges=2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201"])
def test_index_of_inverts_every_order(name: str) -> None:
    space: Any = spaces.get(name)
    for order in space.orders:
        cells = space.enumerate(order)[[3, 700, 9_999]]
        assert space.index_of(cells, order).tolist() == [3, 700, 9_999]
    with pytest.raises(ValueError, match="order: unknown order 'random'"):
        space.index_of(cells, "random")

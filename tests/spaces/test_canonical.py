# SPDX-License-Identifier: Apache-2.0
"""Canonical form: one code per isomorphism class, never one for two, quick where symmetric."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from arch2vec_fast.spaces import CellBatch, CellLayout
from strategies import cell_batches, random_cells, topological_permutations


def smallest_over_permutations(cells: CellBatch) -> NDArray[np.int64]:
    """A complete invariant the slow way: the smallest (labels, matrix) over all N! relabelings."""
    adjacency, node_ops = cells.to_dense()
    count, n = node_ops.shape
    weights = 1 << np.arange(n * n)
    smallest = np.full(count, np.iinfo(np.int64).max)
    for order in map(list, itertools.permutations(range(n))):
        matrix = adjacency[:, order][:, :, order].reshape(count, -1).astype(np.int64) @ weights
        labels = (node_ops[:, order].astype(np.int64) + 1) @ (4 ** np.arange(n))
        smallest = np.minimum(smallest, labels << (n * n) | matrix)
    return smallest


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("density", [0.3, 0.6])
def test_agrees_with_brute_force(nodes: int, density: float) -> None:
    """Same classes as the N! search, so invariant and separating at once; absent nodes anywhere."""
    cells = random_cells(CellLayout(nodes, 2), 3000, seed=nodes, density=density)
    pairs = set(
        zip(
            smallest_over_permutations(cells).tolist(),
            cells.canonical().codes[:, 0].tolist(),
            strict=True,
        )
    )
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_all_graphs_of_four_nodes() -> None:
    """Every labelled cell of 4 nodes and 2 operations, none left out."""
    layout = CellLayout(4, 2)
    slots = [(x, y) for y in range(4) for x in range(y)]
    edges = np.array(list(itertools.product((0, 1), repeat=6)))
    labels = np.array(list(itertools.product((-1, 0, 1), repeat=4)))
    adjacency = np.zeros((len(edges), 4, 4), np.uint8)
    for column, (x, y) in enumerate(slots):
        adjacency[:, x, y] = edges[:, column]
    cells = CellBatch.from_dense(
        np.repeat(adjacency, len(labels), axis=0), np.tile(labels, (len(edges), 1)), layout
    )
    assert len(np.unique(smallest_over_permutations(cells))) == len(cells.unique()[0])


@given(cell_batches(max_op_types=3), st.integers(0, 2**32))
def test_invariant_under_relabeling(cells: CellBatch, seed: int) -> None:
    moved = cells.relabel(topological_permutations(cells, seed))
    assert moved.canonical() == cells.canonical()


@pytest.mark.parametrize(("nodes", "ops"), [(7, 5), (8, 7), (11, 11), (13, 1), (16, 1), (16, 3)])
@pytest.mark.parametrize("density", [0.15, 0.4])
def test_invariant_on_many(nodes: int, ops: int, density: float) -> None:
    cells = random_cells(CellLayout(nodes, ops), 400, seed=nodes + ops, density=density)
    canonical = cells.canonical()
    assert canonical.canonical() == canonical
    for seed in range(5):
        assert cells.relabel(topological_permutations(cells, seed)).canonical() == canonical


@given(cell_batches(max_op_types=4))
def test_keeps_what_a_cell_is_made_of(cells: CellBatch) -> None:
    canonical = cells.canonical()
    assert canonical.num_edges().tolist() == cells.num_edges().tolist()
    before, after = cells.to_dense()[1], canonical.to_dense()[1]
    np.testing.assert_array_equal(np.sort(before, axis=1), np.sort(after, axis=1))


def test_absent_nodes_go_last() -> None:
    cells = CellBatch.from_dense(
        [[[0, 0, 1, 0], [0] * 4, [0] * 4, [0] * 4]], [[0, -1, 1, -1]], CellLayout(4, 2)
    )
    assert cells.canonical().to_dense()[1].tolist() == [[0, 1, -1, -1]]


def test_edges_at_absent_nodes_are_kept() -> None:
    """A decoder can write them; such cells are neither dropped nor confused with sound ones."""
    layout = CellLayout(3, 1)
    sound = CellBatch.from_dense([[[0, 1, 0], [0] * 3, [0] * 3]], [[0, 0, -1]], layout)
    junk = CellBatch.from_dense([[[0, 0, 1], [0] * 3, [0] * 3]], [[0, 0, -1]], layout)
    assert junk.canonical().num_edges().tolist() == [1]
    assert junk.canonical() != sound.canonical()


def two_layers(lower: list[set[int]]) -> NDArray[np.int64]:
    """Node i of the lower eight feeds 8 + j for j in ``lower[i]``."""
    matrix = np.zeros((16, 16), np.int64)
    for i, targets in enumerate(lower):
        matrix[i, [8 + j for j in targets]] = 1
    return matrix


def symmetric_cells() -> dict[str, NDArray[np.int64]]:
    """Sixteen equal nodes each: large automorphism groups, ties that colours cannot break."""
    ring = [{i, (i + 1) % 8} for i in range(8)]
    two_rings = [{i, (i + 1) % 4} if i < 4 else {i, 4 + (i + 1) % 4} for i in range(8)]
    subsets = sorted(range(16), key=lambda s: (s.bit_count(), s))
    cube = np.array([[s & t == s and (s ^ t).bit_count() == 1 for t in subsets] for s in subsets])
    return {
        "empty": np.zeros((16, 16), np.int64),
        "complete": np.triu(np.ones((16, 16), np.int64), 1),
        "eight edges": two_layers([{i} for i in range(8)]),
        "ring of 16": two_layers(ring),
        "two rings of 8": two_layers(two_rings),
        "crown": two_layers([set(range(8)) - {i} for i in range(8)]),
        "complete bipartite": two_layers([set(range(8))] * 8),
        "Moebius-Kantor": two_layers([{i, (i + 1) % 8, (i + 3) % 8} for i in range(8)]),
        "cube": cube.astype(np.int64),
    }


def test_symmetric_cells_are_told_apart() -> None:
    """Among them two rings of 8 and one of 16, which colour refinement alone cannot separate."""
    layout = CellLayout(16, 1)
    matrices = np.stack(list(symmetric_cells().values()))
    cells = CellBatch.from_dense(matrices, np.zeros((len(matrices), 16), np.int64), layout)
    canonical = cells.canonical()
    assert len(cells.unique()[0]) == len(cells)
    for seed in range(20):
        assert cells.relabel(topological_permutations(cells, seed)).canonical() == canonical


def test_threads_do_not_matter() -> None:
    cells = random_cells(CellLayout(11, 11), 10_000, seed=5)
    reference = cells.canonical(threads=1)
    assert all(cells.canonical(threads=threads) == reference for threads in (0, 2, 3, 7))

# SPDX-License-Identifier: Apache-2.0
"""Weisfeiler-Lehman histograms: equal for isomorphic cells, and those of a plain computation."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arch2vec_fast import spaces
from arch2vec_fast.spaces import CellBatch, CellLayout, WlHistogram, wl_histogram
from strategies import cell_batches, random_cells, topological_permutations


def rows(found: WlHistogram) -> list[dict[int, int]]:
    """Each cell's counts by colour."""
    spans = zip(found.starts[:-1], found.starts[1:])
    return [
        dict(zip(found.colours[a:b].tolist(), found.counts[a:b].tolist(), strict=True))
        for a, b in spans
    ]


def plain_rows(cells: CellBatch, depth: int) -> list[Counter[tuple]]:
    """Colours as nested tuples."""
    result = []
    for matrix, ops in zip(*cells.to_dense(), strict=True):
        nodes = range(len(ops))
        colours: list = [(int(op),) for op in ops]
        counted = Counter((0, colours[v]) for v in nodes if ops[v] >= 0)
        for level in range(1, depth + 1):
            colours = [
                (
                    colours[v],
                    tuple(sorted(colours[u] for u in nodes if matrix[u, v])),
                    tuple(sorted(colours[u] for u in nodes if matrix[v, u])),
                )
                for v in nodes
            ]
            counted.update((level, colours[v]) for v in nodes if ops[v] >= 0)
        result.append(counted)
    return result


@given(cells=cell_batches(max_nodes=7, max_op_types=4), depth=st.integers(0, 3))
def test_counts_are_those_of_nested_colours(cells: CellBatch, depth: int) -> None:
    """The same counts, and one number for each colour."""
    found = wl_histogram(cells, depth=depth)
    for mine, plain in zip(rows(found), plain_rows(cells, depth), strict=True):
        assert sorted(mine.values()) == sorted(plain.values())
        # Numbers of a round stand together, so that sorted counts of each round must agree too.
        assert sum(mine.values()) == sum(plain.values())
        assert all(0 <= colour < found.num_colours for colour in mine)
    everything = plain_rows(cells, depth)
    distinct = {colour for row in everything for colour in row}
    used = {colour for row in rows(found) for colour in row}
    assert len(used) == len(distinct)
    # Products of rows tell whether equal colours have equal numbers across cells.
    for a, plain_a in zip(rows(found), everything, strict=True):
        for b, plain_b in zip(rows(found), everything, strict=True):
            mine = sum(count * b.get(colour, 0) for colour, count in a.items())
            assert mine == sum(count * plain_b[colour] for colour, count in plain_a.items())


@pytest.mark.parametrize("layout", [CellLayout(7, 5), CellLayout(11, 11), CellLayout(16, 3)])
def test_isomorphic_cells_have_one_histogram(layout: CellLayout) -> None:
    cells = random_cells(layout, 300, seed=1, density=0.3)
    moved = cells.relabel(topological_permutations(cells, seed=2))
    both = rows(wl_histogram(CellBatch.concat([cells, moved, cells.canonical()]), depth=3))
    assert both[:300] == both[300:600] == both[600:]


def test_directions_are_told_apart() -> None:
    """Two edges that leave a node, two that enter one."""
    layout = CellLayout(3, 1)
    fork = CellBatch.from_dense([[[0, 1, 1], [0, 0, 0], [0, 0, 0]]], [[0, 0, 0]], layout)
    join = CellBatch.from_dense([[[0, 0, 1], [0, 0, 1], [0, 0, 0]]], [[0, 0, 0]], layout)
    first, second = rows(wl_histogram(CellBatch.concat([fork, join]), depth=1))
    assert first != second


def test_norms_and_order() -> None:
    found = wl_histogram(spaces.get("nasbench101").sample(50, seed=0))
    np.testing.assert_allclose(
        found.norms() ** 2, [sum(c * c for c in row.values()) for row in rows(found)]
    )
    squares = np.add.reduceat(found.normalized() ** 2, found.starts[:-1])
    np.testing.assert_allclose(squares, 1)
    for a, b in zip(found.starts[:-1], found.starts[1:]):
        assert (np.diff(found.colours[a:b]) > 0).all()


def test_nothing_and_nonsense() -> None:
    cells = spaces.get("darts").sample(2, seed=0)
    assert len(wl_histogram(cells[:0])) == 0
    absent = CellBatch(np.zeros((2, 1), np.int64), CellLayout(7, 5))
    assert wl_histogram(absent).norms().tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"depth: 17 is outside 0 .. 16"):
        wl_histogram(cells, depth=17)
    with pytest.raises(TypeError, match="cells: expected a CellBatch, got ndarray"):
        wl_histogram(cells.codes)  # type: ignore[arg-type]

# SPDX-License-Identifier: Apache-2.0
"""Path encoding: the set of operation sequences from input to output, in any space."""

import itertools

import numpy as np
import pytest

from arch2vec_fast import spaces
from arch2vec_fast.search.path_encoding import num_paths, path_encoding
from arch2vec_fast.spaces import CellBatch, CellSpace

NB101 = spaces.get("nasbench101")
_CONV1, _CONV3, _POOL = "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"


def by_walking(cell: CellBatch, space: CellSpace, size: int) -> set[int]:
    """Numbers of all paths, found by following every edge."""
    adjacency, node_ops = (part[0] for part in cell.to_dense())
    inputs, output = len(space.input_ops), len(space.op_names) - 1
    alphabet, block = output - inputs, size // inputs
    found = set()

    def walk(node: int, start: int, number: int) -> None:
        op = int(node_ops[node])
        if op == output:
            if number < block:
                found.add(start * block + number)
            return
        if op >= inputs:
            number = number * alphabet + op - inputs + 1
        for after in np.flatnonzero(adjacency[node]):
            walk(int(after), start, number)

    for node in np.flatnonzero((node_ops >= 0) & (node_ops < inputs)):
        walk(int(node), int(node_ops[node]), 0)
    return found


def test_hand_made_cells() -> None:
    """0 is the direct edge, then single operations in the order of the space, then pairs."""
    order = [list(NB101.op_names).index(op) - 1 for op in (_CONV1, _CONV3, _POOL)]
    one, three, pool = (place + 1 for place in order)
    chain = NB101.from_matrix(np.eye(4, k=1, dtype=int), ["input", _CONV3, _POOL, "output"])
    both = NB101.from_matrix(
        [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]],
        ["input", _CONV1, _CONV3, "output"],
    )
    assert path_encoding(chain, NB101)[0].nonzero()[0].tolist() == [3 * three + pool]
    assert set(path_encoding(both, NB101)[0].nonzero()[0]) == {0, one, three}


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts"])
def test_equals_walking_every_path(name: str) -> None:
    space = spaces.get(name)
    cells = space.sample(60, seed=1)
    encoded = path_encoding(cells, space, chunk_size=17)
    assert encoded.shape == (60, num_paths(space))
    for cell in range(len(cells)):
        wanted = by_walking(cells[cell], space, encoded.shape[1])
        assert set(encoded[cell].nonzero()[0]) == wanted


def test_truncation_keeps_the_shortest() -> None:
    cells = NB101.sample(50, seed=0)
    short = path_encoding(cells, NB101, limit=40)
    assert short.shape == (50, 40)  # 1 + 3 + 9 + 27
    np.testing.assert_array_equal(short, path_encoding(cells, NB101)[:, :40])


def test_isomorphic_cells_have_the_same_paths() -> None:
    cells = NB101.sample(50, seed=2)
    np.testing.assert_array_equal(
        path_encoding(cells, NB101), path_encoding(cells.canonical(), NB101)
    )


def test_no_cells() -> None:
    assert path_encoding(NB101.sample(0, seed=0), NB101).shape == (0, 364)


def test_rejects_cells_of_another_space() -> None:
    cells = spaces.get("nasbench201").enumerate()[:2]
    with pytest.raises(ValueError, match=r"^cells: are not of nasbench101"):
        path_encoding(cells, NB101)


def test_every_sequence_has_its_own_number() -> None:
    numbers = {
        sum((op + 1) * 3 ** (len(ops) - 1 - place) for place, op in enumerate(ops))
        for length in range(6)
        for ops in itertools.product(range(3), repeat=length)
    }
    assert numbers == set(range(num_paths(NB101)))

# SPDX-License-Identifier: Apache-2.0
"""Neighbours: all that a mutation can reach, once."""

import numpy as np
import pytest

from arch2vec_fast import spaces
from arch2vec_fast.spaces import CellSpace

SPACES = [
    spaces.get("nasbench101"),
    spaces.get("nasbench201"),
    spaces.get("darts"),
    CellSpace(5, ("input", "conv", "pool", "output"), max_edges=6),
    CellSpace(6, ("input", "a", "b", "output"), variable_size=True),
]


@pytest.mark.parametrize(
    "space", SPACES, ids=lambda space: space.name + str(space.layout.num_nodes)
)
def test_holds_every_mutation_and_nothing_else(space: CellSpace) -> None:
    parent = space.sample(1, seed=4)
    around, owner = space.neighbours(parent)
    assert space.is_valid(around).all()
    assert (owner == 0).all()
    reached = {
        space.mutate(parent, seed=seed).canonical().codes[0].tobytes() for seed in range(1500)
    }
    listed = [codes.tobytes() for codes in around.canonical().codes]
    assert reached <= set(listed)
    assert len(set(listed) - reached) <= len(listed) // 20  # rare edits may not have been drawn


@pytest.mark.parametrize(
    "space", SPACES, ids=lambda space: space.name + str(space.layout.num_nodes)
)
def test_cells_do_not_mix(space: CellSpace) -> None:
    parents = space.sample(7, seed=1)
    around, owner = space.neighbours(parents)
    assert (np.diff(owner) >= 0).all()
    for index in range(7):
        alone, _ = space.neighbours(parents[index : index + 1])
        assert alone == around[owner == index]


def test_nothing_of_nothing() -> None:
    around, owner = SPACES[0].neighbours(SPACES[0].sample(1, seed=0)[:0])
    assert len(around) == len(owner) == 0

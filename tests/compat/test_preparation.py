# SPDX-License-Identifier: Apache-2.0
"""The five released preprocessing methods and the normalisation they share."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from arch2vec_fast import compat


@pytest.fixture
def cells() -> tuple[Tensor, Tensor]:
    """Two cells of four nodes: a diamond, and a chain of two followed by two absent nodes."""
    adjacency = torch.zeros(2, 4, 4)
    for cell, source, target in ((0, 0, 1), (0, 0, 2), (0, 1, 3), (0, 2, 3), (1, 0, 1)):
        adjacency[cell, source, target] = 1.0
    return adjacency, torch.eye(4).repeat(2, 1, 1)


def test_methods_0_and_1_return_two_values(cells: tuple[Tensor, Tensor]) -> None:
    adjacency, node_ops = cells
    assert compat.preprocessing(adjacency, node_ops, 0) == (adjacency, node_ops)
    prepared, operations = compat.preprocessing(adjacency, node_ops, 1)
    assert prepared.shape == (2, 5, 5)
    assert operations.shape == (2, 5, 5)
    assert torch.equal(operations[:, -1], torch.eye(5)[4].expand(2, 5))
    assert torch.equal(node_ops, cells[1])
    assert torch.isfinite(prepared).all()
    # Edge 1 -> 3, transposed: node 3 now has one edge out (to the global node), node 1 one in.
    assert prepared[0, 3, 1] == 1


def test_method_2_is_undone_by_its_reverse(cells: tuple[Tensor, Tensor]) -> None:
    adjacency, node_ops = cells
    prepared, operations, prep_reverse = compat.preprocessing(adjacency, node_ops, 2, 0.3)
    assert torch.isfinite(prepared).all()
    back, same = prep_reverse(prepared, operations)
    assert_close(back, 0.3 * adjacency)
    assert same is operations


def test_method_3_mixes_both_directions(cells: tuple[Tensor, Tensor]) -> None:
    adjacency, node_ops = cells
    prepared, _, prep_reverse = compat.preprocessing(adjacency, node_ops, 3, 0.5)
    assert torch.equal(prepared, 0.5 * (adjacency + adjacency.mT))
    assert torch.equal(prep_reverse(prepared, node_ops)[0], adjacency)


def test_method_4_is_undirected_and_its_reverse_takes_the_upper_triangle(
    cells: tuple[Tensor, Tensor],
) -> None:
    adjacency, node_ops = cells
    prepared, _, prep_reverse = compat.preprocessing(
        adjacency, node_ops, **compat.configs[4]["prep"]
    )
    assert torch.equal(prepared, adjacency + adjacency.mT)
    assert torch.equal(prep_reverse(prepared, node_ops)[0], adjacency)


def test_normalisation_is_the_symmetric_one_and_leaves_absent_nodes_at_zero(
    cells: tuple[Tensor, Tensor],
) -> None:
    undirected = cells[0] + cells[0].mT
    normalized = compat.normalize_adj(undirected)
    degree = undirected[0].sum(0)
    expected = undirected[0] / torch.outer(degree, degree).sqrt()
    assert_close(normalized[0], expected)
    assert normalized[1, 0, 1] == 1
    assert normalized[1].sum() == 2
    assert torch.isfinite(compat.normalize_adj(cells[0])).all()


def test_stacked_products_are_batched_products() -> None:
    left, right = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    assert torch.equal(compat.stacked_mm(left, right), left @ right)
    assert torch.equal(compat.stacked_spmm(left, right), left @ right)


@pytest.mark.parametrize("method", [2, 3])
def test_rejects_a_missing_mixing_weight(cells: tuple[Tensor, Tensor], method: int) -> None:
    with pytest.raises(ValueError, match=f"lbd: method {method}"):
        compat.preprocessing(*cells, method)


def test_rejects_unknown_methods_and_ranks(cells: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="method: 5"):
        compat.preprocessing(*cells, 5)
    with pytest.raises(ValueError, match="A: expected 3 dimensions"):
        compat.preprocessing(cells[0][0], cells[1][0], 4)
    with pytest.raises(ValueError, match="B: expected 3 dimensions"):
        compat.stacked_mm(cells[0], cells[0][0])

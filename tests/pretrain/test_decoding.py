# SPDX-License-Identifier: Apache-2.0
"""Decoding: raw cells are the most likely labels and edges, legal ones the most likely cells."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from arch2vec_fast import spaces
from arch2vec_fast.models.decoder import Decoded
from arch2vec_fast.pretrain import legal_paths
from arch2vec_fast.pretrain.decoding import legal_cells, raw_cells
from arch2vec_fast.pretrain.legal_paths import PathRule, best_path_cells
from arch2vec_fast.spaces import CellBatch, CellSpace

NAMES = ("nasbench101", "nasbench201", "darts")


def random_decoded(
    space: CellSpace, count: int, seed: int, *, absent: bool, scale: float = 3.0, shift: float = 0.0
) -> Decoded:
    generator = torch.Generator().manual_seed(seed)
    nodes, classes = space.layout.num_nodes, space.layout.num_op_types + absent
    node_logits = scale * torch.randn(count, nodes, classes, generator=generator)
    edge_logits = scale * torch.randn(count, nodes, nodes, generator=generator) + shift
    return Decoded(node_logits, edge_logits)


def certain(cells: CellBatch, *, absent: bool, confidence: float = 4.0) -> Decoded:
    """Logits of a decoder that is sure of `cells`."""
    adjacency, labels = cells.to_dense()
    index = torch.from_numpy(np.where(labels < 0, cells.layout.num_op_types, labels)).long()
    one_hot = torch.nn.functional.one_hot(index, cells.layout.num_op_types + 1).float()
    node_logits = confidence * (2 * one_hot - 1)
    edge_logits = confidence * (2 * torch.from_numpy(adjacency).float() - 1)
    return Decoded(node_logits if absent else node_logits[:, :, :-1], edge_logits)


def score(cells: CellBatch, decoded: Decoded) -> Tensor:
    """Log-likelihood of cell b under row b (or of all cells under one row), up to a constant."""
    adjacency, labels = (torch.from_numpy(part) for part in cells.to_dense())
    logits = decoded.node_logits
    if logits.shape[2] == cells.layout.num_op_types:
        logits = torch.cat([logits, torch.zeros_like(logits[:, :, :1])], 2)
    logits = logits.expand(len(cells), -1, -1)
    index = torch.where(labels < 0, cells.layout.num_op_types, labels).long()
    nodes = logits.gather(2, index.unsqueeze(2)).sum((1, 2))
    return nodes + (adjacency * decoded.edge_logits).sum((1, 2))


# -- raw -----------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_raw_cells_are_the_likeliest_labels_and_edges(name: str, absent: bool) -> None:
    space = spaces.get(name)
    decoded = random_decoded(space, 33, 1, absent=absent)
    adjacency, labels = raw_cells(decoded, space).to_dense()
    upper = np.triu(np.ones(adjacency.shape[1:], bool), 1)
    np.testing.assert_array_equal(adjacency, (decoded.edge_logits.numpy() > 0) & upper)
    likeliest = decoded.node_logits.numpy().argmax(2)
    likeliest[likeliest == space.layout.num_op_types] = -1
    np.testing.assert_array_equal(labels, likeliest)


@pytest.mark.parametrize("name", NAMES)
def test_certain_logits_give_the_cell_back(name: str) -> None:
    space = spaces.get(name)
    cells = space.sample(50, seed=3)
    decoded = certain(cells, absent=space.variable_size)
    assert raw_cells(decoded, space) == cells
    assert legal_cells(decoded, space) == cells


@pytest.mark.parametrize("name", NAMES)
def test_empty_batch(name: str) -> None:
    space = spaces.get(name)
    decoded = random_decoded(space, 0, 0, absent=False)
    assert len(raw_cells(decoded, space)) == len(legal_cells(decoded, space)) == 0


def test_rejects_logits_of_another_space() -> None:
    decoded = random_decoded(spaces.get("darts"), 2, 0, absent=False)
    with pytest.raises(ValueError, match=r"node_logits: expected shape \[B,7,5\]"):
        raw_cells(decoded, spaces.get("nasbench101"))
    good = random_decoded(spaces.get("nasbench101"), 2, 0, absent=False)
    with pytest.raises(ValueError, match="edge_logits: expected shape"):
        legal_cells(Decoded(good.node_logits, decoded.edge_logits), spaces.get("nasbench101"))


# -- legal ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(
    seed=st.integers(0, 2**31),
    absent=st.booleans(),
    scale=st.sampled_from([0.0, 0.1, 3.0, 80.0]),
    shift=st.sampled_from([-50.0, 0.0, 50.0]),
)
def test_legal_cells_are_always_valid(
    name: str, seed: int, absent: bool, scale: float, shift: float
) -> None:
    space = spaces.get(name)
    decoded = random_decoded(space, 17, seed, absent=absent, scale=scale, shift=shift)
    cells = legal_cells(decoded, space)
    assert space.is_valid(cells, rule="strict").all()
    assert space.is_valid(cells, rule="released").all()


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_of_the_space_scores_higher(name: str) -> None:
    space = spaces.get(name)
    decoded = random_decoded(space, 3, 5, absent=space.variable_size)
    best = score(legal_cells(decoded, space), decoded)
    others = space.sample(3_000, seed=0) if name != "nasbench201" else space.enumerate()
    for row in range(3):
        one = Decoded(decoded.node_logits[row : row + 1], decoded.edge_logits[row : row + 1])
        assert score(others, one).max() <= best[row] + 1e-3
        if name == "nasbench201":  # the whole space: the maximum is reached
            torch.testing.assert_close(score(others, one).max(), best[row])


@pytest.mark.parametrize("name", NAMES)
def test_legal_is_raw_where_raw_is_valid(name: str) -> None:
    space = spaces.get(name)
    decoded = certain(space.sample(200, seed=9), absent=space.variable_size)
    noise = random_decoded(space, 200, 10, absent=space.variable_size, scale=2.5)
    noisy = Decoded(*(a + b for a, b in zip(decoded, noise, strict=True)))
    raw, legal = raw_cells(noisy, space), legal_cells(noisy, space)
    valid = space.is_valid(raw, rule="strict")
    assert 0 < valid.sum() < len(valid)
    assert raw[valid] == legal[valid]


# -- the search over paths -----------------------------------------------------------------


def path_rule(num_nodes: int, max_edges: int, smallest: int = 2) -> PathRule:
    return PathRule(
        input_op=0,
        output_op=3,
        inner_ops=(1, 2),
        max_edges=max_edges,
        sizes=tuple(range(smallest, num_nodes + 1)),
    )


def best_by_enumeration(
    node_logits: Tensor, edge_logits: Tensor, rule: PathRule
) -> tuple[int, set[tuple[int, int]]]:
    num_nodes, best, answer = len(node_logits), -float("inf"), (0, set[tuple[int, int]]())
    for size in rule.sizes:
        pairs = [(x, y) for y in range(1, size) for x in range(y)]
        labels = node_logits[size - 1, rule.output_op].item()
        labels += sum(node_logits[v, list(rule.inner_ops)].max().item() for v in range(1, size - 1))
        labels += sum(node_logits[v, -1].item() for v in range(size, num_nodes))
        for mask in product((False, True), repeat=len(pairs)):
            edges = {pair for pair, chosen in zip(pairs, mask, strict=True) if chosen}
            connected = {x for x, _ in edges} == set(range(size - 1))
            connected &= {y for _, y in edges} == set(range(1, size))
            total = labels + sum(edge_logits[x, y].item() for x, y in edges)
            if connected and len(edges) <= rule.max_edges and total > best:
                best, answer = total, (size, edges)
    return answer


@pytest.mark.parametrize(
    ("num_nodes", "max_edges", "smallest"),
    [(2, 1, 2), (3, 2, 2), (4, 3, 2), (4, 6, 4), (5, 4, 2), (5, 5, 3), (5, 9, 2)],
)
def test_path_search_matches_brute_force(num_nodes: int, max_edges: int, smallest: int) -> None:
    generator = torch.Generator().manual_seed(num_nodes)
    node_logits = 2 * torch.randn(12, num_nodes, 5, generator=generator)
    edge_logits = 2 * torch.randn(12, num_nodes, num_nodes, generator=generator)
    rule = path_rule(num_nodes, max_edges, smallest)
    adjacency, labels = best_path_cells(node_logits, edge_logits, rule)
    for row in range(12):
        size, edges = best_by_enumeration(node_logits[row], edge_logits[row], rule)
        assert {(x, y) for x, y in adjacency[row].nonzero().tolist()} == edges
        assert (labels[row] >= 0).sum() == size


def test_path_search_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(31, 6, 5, generator=generator), torch.randn(31, 6, 6, generator=generator)
    whole = best_path_cells(*logits, path_rule(6, 7))
    monkeypatch.setattr(legal_paths, "_CHUNK_BYTES", 1)
    for a, b in zip(whole, best_path_cells(*logits, path_rule(6, 7)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("max_edges", [15, 16, 20, 60])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
def test_large_cells_are_repaired(max_edges: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(max_edges)
    node_logits = torch.randn(40, 16, 5, generator=generator)
    edge_logits = torch.randn(40, 16, 16, generator=generator) + shift
    adjacency, labels = best_path_cells(node_logits, edge_logits, path_rule(16, max_edges))
    for row in range(40):
        size = int((labels[row] >= 0).sum())
        matrix = adjacency[row, :size, :size].bool()
        assert adjacency[row].sum() == matrix.sum() <= max_edges
        assert matrix.any(1)[:-1].all()
        assert matrix.any(0)[1:].all()
        assert not matrix.tril().any()


def test_rejects_a_rule_without_cells() -> None:
    with pytest.raises(ValueError, match="max_edges: 3 edges cannot connect 6 nodes"):
        path_rule(6, 3)
    with pytest.raises(ValueError, match="at least two nodes"):
        PathRule(input_op=0, output_op=1, inner_ops=(2,), max_edges=9, sizes=(1, 2))

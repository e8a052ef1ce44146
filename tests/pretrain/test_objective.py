# SPDX-License-Identifier: Apache-2.0
"""The loss against its formulas written out cell by cell."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from arch2vec_fast.models import Recipe, Reconstruction
from arch2vec_fast.pretrain import objective

B, N, F, D = 5, 4, 3, 2


def case(classes: int = F) -> tuple[Reconstruction, Tensor, Tensor]:
    torch.manual_seed(1)
    adjacency = (torch.rand(B, N, N) < 0.5).double().triu(1)
    labels = torch.randint(0, F, (B, N))
    node_ops = torch.nn.functional.one_hot(labels, F).double()
    node_ops[0, 3] = 0  # an absent node
    draw = [torch.randn(*shape).double() for shape in [(B, N, classes), (B, N, N), (B, N, D)]]
    return Reconstruction(*draw, 0.3 * torch.randn(B, N, D).double()), adjacency, node_ops


def kl_of(reconstruction: Reconstruction, cell: int) -> float:
    assert reconstruction.log_sigma is not None
    mu, log_sigma = reconstruction.mu[cell], reconstruction.log_sigma[cell]
    return float(0.5 * (mu**2 + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum())


def softplus(value: float) -> float:
    return math.log1p(math.exp(-abs(value))) + max(value, 0.0)


def binary(logit: float, target: float) -> float:
    return softplus(-logit) if target else softplus(logit)


@pytest.mark.parametrize("absent_class", [False, True])
def test_elbo_is_the_sum_over_nodes_and_pairs(absent_class: bool) -> None:
    result, adjacency, node_ops = case(F + absent_class)
    recipe = replace(Recipe.paper(), beta=0.7)
    total, parts = objective(result, adjacency, node_ops, recipe)
    node = edge = kl = 0.0
    for b in range(B):
        for i in range(N):
            label = int(node_ops[b, i].argmax()) if node_ops[b, i].any() else F
            if label < result.node_logits.shape[2]:
                node -= float(result.node_logits[b, i].log_softmax(0)[label])
            for j in range(i + 1, N):
                edge += binary(float(result.edge_logits[b, i, j]), float(adjacency[b, i, j]))
        kl += 0.7 * kl_of(result, b)
    expected = {"node": node / B, "edge": edge / B, "kl": kl / B}
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected)
    assert float(total) == pytest.approx(sum(expected.values()))


@pytest.mark.parametrize("edge_loss", ["probabilities", "logits"])
def test_released_averages_over_all_pairs_and_twice_over_kl(edge_loss: str) -> None:
    result, adjacency, node_ops = case()
    recipe = replace(Recipe.released(), edge_loss=edge_loss)
    _, parts = objective(result, adjacency, node_ops, recipe)
    node = edge = 0.0
    for b in range(B):
        for i in range(N):
            for f in range(F):
                node += binary(float(result.node_logits[b, i, f]), float(node_ops[b, i, f]))
            for j in range(i + 1, N):
                edge += binary(float(result.edge_logits[b, i, j]), float(adjacency[b, i, j]))
    kl = sum(kl_of(result, b) for b in range(B)) / (B * N) ** 2
    expected = {"node": node / (B * N * F), "edge": edge / (B * N * N), "kl": kl}
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected)


def test_probabilities_saturate_in_float32_and_logits_do_not() -> None:
    """The released loss gives a wrong edge with a large logit no gradient."""
    adjacency, node_ops = torch.zeros(1, 2, 2), torch.eye(2)[None]
    gradients = {}
    for edge_loss in ("probabilities", "logits"):
        logits = torch.full((1, 2, 2), 90.0, requires_grad=True)
        result = Reconstruction(torch.zeros(1, 2, 2), logits, torch.zeros(1, 2, 1), None)
        recipe = replace(Recipe.released(), edge_loss=edge_loss)
        objective(result, adjacency, node_ops, recipe)[0].backward()
        assert logits.grad is not None
        gradients[edge_loss] = float(logits.grad[0, 0, 1])
    assert gradients["probabilities"] == 0.0
    assert gradients["logits"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("name", Recipe.names())
def test_gradients(name: str) -> None:
    result, adjacency, node_ops = case()
    leaves = [part.requires_grad_() for part in result if part is not None]

    def total(*parts: Tensor) -> Tensor:
        return objective(Reconstruction(*parts), adjacency, node_ops, Recipe.get(name))[0]

    assert torch.autograd.gradcheck(total, leaves)


def test_without_posterior_there_is_no_kl() -> None:
    result, adjacency, node_ops = case()
    _, parts = objective(result._replace(log_sigma=None), adjacency, node_ops, Recipe.gae())
    assert float(parts["kl"]) == 0.0

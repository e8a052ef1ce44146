# SPDX-License-Identifier: Apache-2.0
"""The pretraining loss: reconstruction of operations and edges, and the KL term.

`reduction="elbo"` is the paper's equation 5, negated and averaged over the cells of a batch:

    sum_i CE(x_i) + sum_{i<j} BCE(a_ij) + beta * KL(q(Z | X, A) || N(0, I)).

`reduction="released"` averages over all N*F labels and all N*N pairs (the lower triangle and the
diagonal count as right) and divides the averaged KL term by B*N once more.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast.models.gin_vae import Reconstruction
from arch2vec_fast.models.recipes import Recipe


def objective(
    reconstruction: Reconstruction, adjacency: Tensor, node_ops: Tensor, recipe: Recipe
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a batch and its parts, each a scalar tensor.

    reconstruction: logits and posterior of `model(adjacency, node_ops)`.
    adjacency: float [B,N,N], upper triangular; node_ops: one-hot float [B,N,F], zero rows absent.
    Returns (total, {"node", "edge", "kl"}) with total = node + edge + kl, in nats.
    Differentiable with respect to every field of reconstruction; deterministic.
    """
    batch, num_nodes, _ = node_ops.shape
    elbo = recipe.reduction == "elbo"

    if recipe.node_loss == "softmax":
        node = _softmax_loss(reconstruction.node_logits, node_ops)
        node = node / (batch if elbo else batch * num_nodes)
    else:
        node = _binary_loss(reconstruction.node_logits, node_ops, recipe)
        node = node * num_nodes * node_ops.shape[2] if elbo else node

    if elbo:
        upper = _upper_triangle(num_nodes, adjacency.device)
        logits = reconstruction.edge_logits.flatten(1)[:, upper]
        edge = _binary_loss(logits, adjacency.flatten(1)[:, upper], recipe) * upper.numel()
    elif recipe.edge_loss == "probabilities":
        probabilities = torch.sigmoid(reconstruction.edge_logits).triu(1)
        edge = F.binary_cross_entropy(probabilities, adjacency)
    else:
        upper = _upper_triangle(num_nodes, adjacency.device)
        logits = reconstruction.edge_logits.flatten(1)[:, upper]
        edge = _binary_loss(logits, adjacency.flatten(1)[:, upper], recipe)
        edge = edge * (num_nodes - 1) / (2 * num_nodes)

    kl = _kl(reconstruction, recipe)
    return node + edge + kl, {"node": node, "edge": edge, "kl": kl}


def _softmax_loss(logits: Tensor, node_ops: Tensor) -> Tensor:
    """Cross-entropy summed over nodes; absent nodes are a class of their own or count nothing."""
    absent = 1 - node_ops.sum(2, keepdim=True)
    if logits.shape[2] > node_ops.shape[2]:
        node_ops = torch.cat([node_ops, absent], 2)
    return -(node_ops * F.log_softmax(logits, 2)).sum()


def _binary_loss(logits: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    if recipe.edge_loss == "probabilities":
        return F.binary_cross_entropy(torch.sigmoid(logits), target)
    return F.binary_cross_entropy_with_logits(logits, target)


def _kl(reconstruction: Reconstruction, recipe: Recipe) -> Tensor:
    mu, log_sigma = reconstruction.mu, reconstruction.log_sigma
    if log_sigma is None:
        return mu.new_zeros(())
    terms = torch.sum(1 + 2 * log_sigma - mu.pow(2) - log_sigma.exp().pow(2), 2)
    batch, num_nodes = terms.shape
    if recipe.reduction == "elbo":
        return -0.5 * recipe.beta / batch * terms.sum()
    return -0.5 * recipe.beta / (batch * num_nodes) * torch.mean(terms)


@lru_cache
def _upper_triangle(num_nodes: int, device: torch.device) -> Tensor:
    rows, columns = torch.triu_indices(num_nodes, num_nodes, 1, device=device)
    index: Tensor = rows * num_nodes + columns
    return index

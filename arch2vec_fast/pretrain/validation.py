# SPDX-License-Identifier: Apache-2.0
"""How well a model reconstructs cells it is given, decoded from z = mu."""

from __future__ import annotations

import torch
from torch import Tensor

from arch2vec_fast.models.decoder import Decoded
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.gin_vae import AutoencoderBase, Reconstruction
from arch2vec_fast.models.inference import posterior_encoder
from arch2vec_fast.pretrain.objective import objective
from arch2vec_fast.spaces import CellBatch


@torch.no_grad()
def reconstruction(
    model: AutoencoderBase, cells: CellBatch, *, chunk_size: int = 1024
) -> dict[str, float]:
    """Loss and accuracies over cells, averaged; the model should be in evaluation mode.

    Returns "loss" and its parts "node", "edge", "kl" (of the recipe, in nats), and shares in
    [0, 1]: "exact" (every operation and edge right), "node_accuracy" (present nodes),
    "edge_accuracy" (pairs i < j).
    """
    if model.training:
        raise ValueError("model: is in training mode; call model.eval() first")
    device = next(model.parameters()).device
    encode = posterior_encoder(model, cells.layout)
    sums: dict[str, float] = {}
    for codes in cells.to_torch(device).split(chunk_size):
        adjacency, node_ops = unpack(codes, cells.layout)
        mu, log_sigma = encode(codes)
        decoded = model.decode(mu)
        result = Reconstruction(*decoded, mu, log_sigma)
        loss, parts = objective(result, adjacency, node_ops, model.recipe)
        values = {"loss": loss, **parts, **accuracies(decoded, adjacency, node_ops)}
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.item() * len(codes)
    return {name: value / len(cells) for name, value in sums.items()}


def accuracies(decoded: Decoded, adjacency: Tensor, node_ops: Tensor) -> dict[str, Tensor]:
    """Shares "exact", "node_accuracy" and "edge_accuracy" of a batch, as scalar tensors.

    An absent node is right if the decoder says "absent", or if it has no such class, whatever it
    says.
    """
    num_nodes, num_op_types = node_ops.shape[1:]
    present = node_ops.sum(2) > 0
    target = torch.where(present, node_ops.argmax(2), num_op_types)
    right = decoded.node_logits.argmax(2) == target
    if decoded.node_logits.shape[2] == num_op_types:
        right |= ~present
    rows, columns = torch.triu_indices(num_nodes, num_nodes, 1, device=adjacency.device)
    edges = (decoded.edge_logits > 0)[:, rows, columns] == (adjacency > 0)[:, rows, columns]
    return {
        "exact": (right.all(1) & edges.all(1)).double().mean(),
        "node_accuracy": right[present].double().mean(),
        "edge_accuracy": edges.double().mean(),
    }

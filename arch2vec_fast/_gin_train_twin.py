# SPDX-License-Identifier: Apache-2.0
"""`gin_train` in plain PyTorch: the whole step over a dictionary of parameters, with autograd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast import _philox
from arch2vec_fast._gin_train import GinTrainBuffers, GinTrainConfig

Parameters = dict[str, Tensor]


def train_step(
    buffers: GinTrainBuffers,
    adjacency: Tensor,
    node_ops: Tensor,
    noise: Tensor | None,
    keep: Tensor | None,
    config: GinTrainConfig,
    learning_rate: float,
    step: int,
) -> tuple[Tensor, Tensor]:
    """One step of one model, buffers of shape [P] and [L*K,2,H] changed in place.

    adjacency [B,N,N], node_ops [B,N,F], noise and keep [B,N,D] in the buffers' dtype. step: 1, 2,
    ... of Adam. Returns losses [5] and mu [B,N,D].
    """
    flat = buffers.parameters.detach().clone().requires_grad_()
    parameters = config.split(flat)
    x = _encode(parameters, buffers.running, adjacency, node_ops, config)
    mu = _linear(parameters, "mu", x)
    log_sigma = _linear(parameters, "log_sigma", x) if config.variational else None
    z = mu if log_sigma is None or noise is None else mu + torch.exp(log_sigma) * noise
    z = z if keep is None else z * keep / (1 - config.dropout)
    node_logits, edge_logits = _decode(parameters, z, config)
    parts = [
        _node_loss(node_logits, node_ops, config),
        _edge_loss(edge_logits, adjacency, config),
        _kl(mu, log_sigma, config),
    ]
    loss = torch.stack(parts).sum()
    (gradient,) = torch.autograd.grad(loss, flat)
    norm = torch.linalg.vector_norm(gradient)
    gradient = gradient * torch.clamp(config.grad_clip / (norm + 1e-6), max=1.0)
    _adam(buffers, gradient, learning_rate, step)
    return torch.stack([loss, *parts, norm]).detach(), mu.detach()


def draw(
    config: GinTrainConfig, seed: int, step: int, batch: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Philox's noise and kept elements of a step, [B,N,D] each."""
    shape = (batch, config.layout.num_nodes, config.latent_dim)
    count = torch.Size(shape).numel()
    noise = _philox.normals(seed, step, count, device).view(shape)
    return noise, _philox.keep_mask(seed, step, count, config.dropout, device).view(shape)


def _linear(parameters: Parameters, name: str, x: Tensor) -> Tensor:
    return F.linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])


def _encode(
    parameters: Parameters,
    running: Tensor,
    adjacency: Tensor,
    node_ops: Tensor,
    config: GinTrainConfig,
) -> Tensor:
    x = node_ops
    for layer in range(config.num_layers):
        successors, predecessors = adjacency @ x, adjacency.mT @ x
        if config.gated:
            gates = parameters[f"gates.{layer}"]
            successors, predecessors = gates[0] * successors, gates[1] * predecessors
        x = (1 + parameters["eps"][layer]) * x + successors + predecessors
        for k in range(config.num_mlp_layers):
            x = _linear(parameters, f"linear.{layer}.{k}", x)
            mean, variance = running[layer * config.num_mlp_layers + k]
            weight, bias = (parameters[f"norm.{layer}.{k}.{part}"] for part in ("weight", "bias"))
            rows = F.batch_norm(
                x.flatten(0, 1), mean, variance, weight, bias, config.batch_mode, 0.1, 1e-5
            )
            x = rows.view_as(x)
            x = F.relu(x)
    return x


def _decode(parameters: Parameters, z: Tensor, config: GinTrainConfig) -> tuple[Tensor, Tensor]:
    if config.node_mixing:
        hidden = F.relu(_linear(parameters, "mixer_in", z.flatten(1)))
        z = z + _linear(parameters, "mixer_out", hidden).view_as(z)
    node_logits = _linear(parameters, "op_head", z)
    source = z @ parameters["bilinear"] if config.bilinear else z
    edge_logits = source @ z.mT
    if config.position_bias:
        node_logits = node_logits + parameters["node_bias"]
        edge_logits = edge_logits + parameters["edge_bias"]
    return node_logits, edge_logits


def _binary(logits: Tensor, target: Tensor, config: GinTrainConfig) -> Tensor:
    if config.logits:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    return F.binary_cross_entropy(torch.sigmoid(logits), target, reduction="sum")


def _node_loss(logits: Tensor, node_ops: Tensor, config: GinTrainConfig) -> Tensor:
    batch, num_nodes, num_op_types = node_ops.shape
    if not config.softmax:
        total = _binary(logits, node_ops, config)
        return total / (batch if config.elbo else batch * num_nodes * num_op_types)
    if config.num_classes > num_op_types:
        node_ops = torch.cat([node_ops, 1 - node_ops.sum(2, keepdim=True)], 2)
    total = -(node_ops * F.log_softmax(logits, 2)).sum()
    return total / (batch if config.elbo else batch * num_nodes)


def _edge_loss(logits: Tensor, adjacency: Tensor, config: GinTrainConfig) -> Tensor:
    batch, num_nodes, _ = adjacency.shape
    rows, columns = torch.triu_indices(num_nodes, num_nodes, 1, device=logits.device)
    total = _binary(logits[:, rows, columns], adjacency[:, rows, columns], config)
    return total / (batch if config.elbo else batch * num_nodes * num_nodes)


def _kl(mu: Tensor, log_sigma: Tensor | None, config: GinTrainConfig) -> Tensor:
    if log_sigma is None:
        return mu.new_zeros(())
    total = -(1 + 2 * log_sigma - mu**2 - torch.exp(2 * log_sigma)).sum()
    cells = len(mu) if config.elbo else (len(mu) * mu.shape[1]) ** 2
    return 0.5 * config.beta / cells * total


def _adam(buffers: GinTrainBuffers, gradient: Tensor, learning_rate: float, step: int) -> None:
    buffers.exp_avg.lerp_(gradient, 0.1)
    buffers.exp_avg_sq.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
    root = buffers.exp_avg_sq.sqrt() / (1 - 0.999**step) ** 0.5 + 1e-8
    buffers.parameters.addcdiv_(buffers.exp_avg, root, value=-learning_rate / (1 - 0.9**step))

# SPDX-License-Identifier: Apache-2.0
"""Encoding without training: batch norm folded into the linears, read-out before the head.

In evaluation mode batch norm is y = x s + t with s = weight / sqrt(var + tiny). A linear layer
W x + b before it becomes (s W) x + (s b + t). The read-out is linear, so it commutes with the head
`fc1`: N times fewer rows reach it. Results equal `model.readout(mu, node_ops)` up to
rounding (about 1e-6 relative).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch2vec_fast.models.gin_vae import AutoencoderBase, GinVae, Mlp

CellEncoder = Callable[[Tensor, Tensor], Tensor]


def inference_encoder(model: AutoencoderBase) -> CellEncoder:
    """A function (adjacency [B,N,N], node_ops [B,N,F]) -> embedding [B,D] of `model` as it is now.

    Later changes of the model's weights do not reach it. Not differentiable.
    """
    if not isinstance(model, GinVae):

        def encode(adjacency: Tensor, node_ops: Tensor) -> Tensor:
            return model.readout(model.encode(adjacency, node_ops)[0], node_ops)

        return torch.no_grad()(encode)
    return torch.no_grad()(_FoldedGin(model))


class _FoldedGin:
    @torch.no_grad()
    def __init__(self, model: GinVae) -> None:
        head = model.fc if model.fc1 is None else model.fc1
        assert head is not None
        self.head = (head.weight.clone(), head.bias.clone())
        self.readout = model.readout
        self.scales = (1 + model.eps).tolist()
        self.gates = None if model.gates is None else [gate.clone() for gate in model.gates]
        self.layers = []
        for mlp, norm in zip(model.mlps, model.batch_norms):
            assert isinstance(mlp, Mlp)
            assert isinstance(norm, nn.BatchNorm1d)
            self.layers.append(
                [_fold(*pair) for pair in zip(mlp.linear_layers(), [*mlp.norm_layers(), norm])]
            )

    def __call__(self, adjacency: Tensor, node_ops: Tensor) -> Tensor:
        batch, num_nodes, _ = node_ops.shape
        reverse = adjacency.transpose(1, 2)
        both = adjacency + reverse
        x = node_ops
        for layer, linears in enumerate(self.layers):
            if self.gates is None:
                x = torch.baddbmm(x, both, x, beta=self.scales[layer])
            else:
                forward_gate, backward_gate = self.gates[layer]
                total = torch.baddbmm(x, adjacency, x * forward_gate, beta=self.scales[layer])
                x = total.baddbmm_(reverse, x * backward_gate)
            x = x.view(batch * num_nodes, -1)
            for weight, bias in linears:
                x = F.linear(x, weight, bias).relu_()
            x = x.view(batch, num_nodes, -1)
        weight, bias = self.head
        # A sum adds the head's bias once a node, a mean once.
        times = self.readout(x.new_ones(batch, num_nodes, 1), node_ops)
        return F.linear(self.readout(x, node_ops), weight) + times * bias


def _fold(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Weight and bias of norm(linear(x)) in evaluation mode."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    return linear.weight * scale[:, None], linear.bias * scale + shift

# SPDX-License-Identifier: Apache-2.0
"""Decoder heads: node vectors to logits of operations and edges.

With every option off this is the decoder of the paper (section 3.1, equations 3 and 4): a linear
layer to operations and the inner product z_i . z_j to edges. The options replace z by
z + MLP(all nodes), whose last layer starts at zero, so that training starts at that decoder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch2vec_fast.models.recipes import Recipe


class Decoded(NamedTuple):
    """Logits of a batch of cells.

    node_logits: [B,N,C]; C is F, or F+1 where the last class means "absent".
    edge_logits: [B,N,N]; entries i < j are meant.
    """

    node_logits: Tensor
    edge_logits: Tensor


class Decoder(nn.Module):
    """Latents [B,N,D] to `Decoded`. `weight` is the released code's name of the operation head."""

    def __init__(self, num_nodes: int, num_classes: int, recipe: Recipe) -> None:
        super().__init__()
        latent_dim, width = recipe.latent_dim, recipe.node_mixing
        self.dropout = recipe.dropout
        self.weight = nn.Linear(latent_dim, num_classes)
        self.mixer: nn.Sequential | None = None
        if width:
            last = nn.Linear(width, num_nodes * latent_dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.mixer = nn.Sequential(nn.Linear(num_nodes * latent_dim, width), nn.ReLU(), last)
        self.bilinear: nn.Parameter | None = None
        if recipe.edge_form == "bilinear":
            self.bilinear = nn.Parameter(torch.eye(latent_dim))
        self.node_bias: nn.Parameter | None = None
        self.edge_bias: nn.Parameter | None = None
        if recipe.position_bias:
            self.node_bias = nn.Parameter(torch.zeros(num_nodes, num_classes))
            self.edge_bias = nn.Parameter(torch.zeros(num_nodes, num_nodes))

    def forward(self, z: Tensor) -> Decoded:
        z = F.dropout(z, p=self.dropout, training=self.training)
        if self.mixer is not None:
            z = z + self.mixer(z.flatten(1)).view_as(z)
        node_logits = self.weight(z)
        source = z if self.bilinear is None else z @ self.bilinear
        edge_logits = torch.matmul(source, z.transpose(1, 2))
        if self.node_bias is not None and self.edge_bias is not None:
            node_logits = node_logits + self.node_bias
            edge_logits = edge_logits + self.edge_bias
        return Decoded(node_logits, edge_logits)

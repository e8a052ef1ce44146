# SPDX-License-Identifier: Apache-2.0
"""The leanest encoder that plain PyTorch allows: the baseline of `functional.gin_encode`.

Batch norm is folded into the linears, cells go through in batches, and the read-out comes before
the head, to which it commutes: N times fewer rows reach it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast import spaces
from arch2vec_fast.functional import GinShape, unpack_cells
from arch2vec_fast.models.gin_vae import GinVae
from arch2vec_fast.models.inference import FoldedGin
from bench.harness import Contender


class LeanEncoder:
    """Embeddings [B,D] of packed cells [B,W], as `FoldedGin` gives them."""

    def __init__(self, model: GinVae, layout: spaces.CellLayout) -> None:
        folded = FoldedGin(model, layout)
        self.shape: GinShape = folded.shape
        self.gated = model.gates is not None
        parts = self.shape.split(folded.weights)
        self.head = parts[-2:]
        size = 2 + 2 * self.shape.num_mlp_layers
        layers = [parts[i : i + size] for i in range(0, len(parts) - 2, size)]
        self.layers = [(float(scale), *rest) for scale, *rest in layers]

    @torch.no_grad()
    def __call__(self, codes: Tensor) -> Tensor:
        return self.encode(*unpack_cells(codes, self.shape.layout))

    def encode(self, adjacency: Tensor, node_ops: Tensor) -> Tensor:
        """The same of dense cells [B,N,N] and [B,N,F]."""
        batch, num_nodes, _ = node_ops.shape
        reverse = adjacency.transpose(1, 2)
        both = adjacency + reverse
        x = node_ops
        for scale, gates, *linears in self.layers:
            if self.gated:
                total = torch.baddbmm(x, adjacency, x * gates[0], beta=scale)
                x = total.baddbmm_(reverse, x * gates[1])
            else:
                x = torch.baddbmm(x, both, x, beta=scale)
            x = x.view(batch * num_nodes, -1)
            for weight, bias in zip(linears[::2], linears[1::2], strict=True):
                x = F.linear(x, weight, bias).relu_()
            x = x.view(batch, num_nodes, -1)
        weight, bias = self.head
        if not self.shape.sum_readout:
            return F.linear(x.mean(1), weight, bias)
        present = node_ops.sum(2)
        readout = torch.einsum("bnh,bn->bh", x, present)
        return F.linear(readout, weight) + present.sum(1, keepdim=True) * bias


def embedding(model: GinVae, cells: spaces.CellBatch, *, chunk_size: int = 1024) -> Contender:
    """All cells; the node states of a chunk (4 MB for NAS-Bench-101) stay in cache."""
    encoder = LeanEncoder(model, cells.layout)

    def work() -> float:
        for codes in cells.to_torch().split(chunk_size):
            encoder(codes)
        return len(cells)

    return work

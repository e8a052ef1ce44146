# SPDX-License-Identifier: Apache-2.0
"""Plain-PyTorch twins of `functional`: same names, same signatures, no kernels.

They are written to be read and serve as the oracle of the tests; use them to understand, not in a
loop.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast._checks import PackedLayout, check_codes, check_gin_encode
from arch2vec_fast._gin_shape import GinShape

__all__ = ["gin_encode", "unpack_cells"]


def unpack_cells(codes: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor]:
    """Unpacks cells from bits to dense float32 as `functional.unpack_cells`, on any device."""
    check_codes(codes, layout)
    num_nodes, edge_bits = layout.num_nodes, layout.edge_bits
    position = torch.arange(64 * layout.words, device=codes.device)
    bits = (codes[:, position // 64] >> (position % 64)) & 1

    target, source = torch.tril_indices(num_nodes, num_nodes, -1, device=codes.device)
    adjacency = torch.zeros(len(codes), num_nodes, num_nodes, device=codes.device)
    adjacency[:, source, target] = bits[:, :edge_bits].float()

    fields = bits[:, edge_bits : layout.num_bits].view(len(codes), num_nodes, layout.op_bits)
    stored = (fields << torch.arange(layout.op_bits, device=codes.device)).sum(-1)
    corrupt = (stored > layout.num_op_types).any(-1) | bits[:, layout.num_bits :].any(-1)
    if corrupt.any():
        raise ValueError(
            f"codes: cell {int(corrupt.nonzero()[0])} is not a cell of {num_nodes} nodes and "
            f"{layout.num_op_types} operation types; check the layout it was packed with"
        )
    one_hot = stored.unsqueeze(-1) == torch.arange(1, layout.num_op_types + 1, device=codes.device)
    return adjacency, one_hot.float()


def gin_encode(
    codes: Tensor,
    weights: Tensor,
    shape: GinShape,
    *,
    output: str = "readout",
    precision: str = "fp32",
) -> Tensor:
    """Encodes packed cells as `functional.gin_encode`, in the dtype of `weights`, on any device.

    `precision` is checked and has no effect: this is what the others are compared with.
    """
    check_gin_encode(codes, weights, shape, output, precision, dtypes=None)
    adjacency, node_ops = (part.to(weights.dtype) for part in unpack_cells(codes, shape.layout))
    present = node_ops.sum(2, keepdim=True)
    share = present if shape.sum_readout else torch.full_like(present, 1 / shape.layout.num_nodes)
    parts = iter(shape.split(weights))
    x, readouts = node_ops, []
    for _ in range(shape.num_layers):
        scale, gates = next(parts), next(parts)
        successors, predecessors = adjacency @ (gates[0] * x), adjacency.mT @ (gates[1] * x)
        x = scale * x + successors + predecessors
        for _ in range(shape.num_mlp_layers):
            x = F.linear(x, next(parts), next(parts)).relu()
        readouts.append((share * x).sum(1))
    if output == "hidden":
        return torch.cat(readouts, 1)
    mu = F.linear(x, next(parts), next(parts))
    return mu if output == "nodes" else (share * mu).sum(1)

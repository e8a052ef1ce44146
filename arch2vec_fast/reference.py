# SPDX-License-Identifier: Apache-2.0
"""Plain-PyTorch twins of `functional`: same names, same signatures, no kernels.

They are written to be read and serve as the oracle of the tests; use them to understand, not in a
loop.
"""

import torch
from torch import Tensor

from arch2vec_fast._checks import PackedLayout, check_codes

__all__ = ["unpack_cells"]


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

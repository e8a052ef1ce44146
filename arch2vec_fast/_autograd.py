# SPDX-License-Identifier: Apache-2.0
"""Raw operators as Python callables, with their gradients where they have any.

The only module besides `_fakes` and `_library` that touches `torch.ops`. Arguments were checked by
the caller (`functional`).
"""

import torch
from torch import Tensor

from arch2vec_fast import _fakes  # noqa: F401  (loads the operators and registers their fake kernels)


def unpack_cells(codes: Tensor, num_nodes: int, num_op_types: int) -> tuple[Tensor, Tensor]:
    """Packed cells to dense float32; integers in, so there is no gradient."""
    adjacency, node_ops = torch.ops.arch2vec_fast.unpack_cells(codes, num_nodes, num_op_types)
    return adjacency, node_ops

# SPDX-License-Identifier: Apache-2.0
"""Fake kernels: shapes, dtypes and devices of the operators' results, for `torch.compile`.

Schemas stand in csrc/library.cpp. A fake must not look at values; it may assume that the public
function has checked its arguments.
"""

import torch
from torch import Tensor

from arch2vec_fast import _library  # noqa: F401  (loads the operators that are described here)


@torch.library.register_fake("arch2vec_fast::unpack_cells")  # type: ignore[untyped-decorator]
def _unpack_cells(codes: Tensor, num_nodes: int, num_op_types: int) -> tuple[Tensor, Tensor]:
    adjacency = codes.new_empty((codes.shape[0], num_nodes, num_nodes), dtype=torch.float32)
    node_ops = codes.new_empty((codes.shape[0], num_nodes, num_op_types), dtype=torch.float32)
    return adjacency, node_ops

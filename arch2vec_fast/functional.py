# SPDX-License-Identifier: Apache-2.0
"""Fast functions on packed cells. Each has a plain-PyTorch twin of its name in `reference`."""

from torch import Tensor

from arch2vec_fast import _autograd
from arch2vec_fast._checks import PackedLayout, check_codes, check_cpu

__all__ = ["unpack_cells"]


def unpack_cells(codes: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor]:
    """Unpacks cells from bits to the dense float32 matrices that models read.

    For cell b, with E = N(N-1)/2 and k = ceil(log2(F+1)):

        adjacency[b, x, y] = bit x + y(y-1)/2 where x < y, else 0
        node_ops[b, v, f] = 1 where bits E + k*v ... E + k*(v+1) - 1 hold f + 1, else 0

    An absent node holds 0: its row is zero.

    Args:
        codes: packed cells, int64 [B, W], as `CellBatch.codes`. Any strides; B may be 0.
        layout: `spaces.CellLayout` the cells were packed with.

    Returns:
        `adjacency` float32 [B, N, N], strictly upper triangular (edge x -> y), and `node_ops`
        float32 [B, N, F].

    Raises:
        TypeError: `codes` is not an int64 tensor.
        ValueError: W does not belong to the layout, the device has no kernels, or a cell (named)
            holds an operation that the layout lacks or bits above the layout's.

    Not differentiable (integers in). Deterministic. One pass over the outputs, B * N * (N + F) * 4
    bytes, on torch's intra-op threads; works under `torch.compile(fullgraph=True)`.

    Example:
        >>> import torch
        >>> from arch2vec_fast.spaces import CellLayout
        >>> layout = CellLayout(num_nodes=2, num_op_types=3)  # 1 bit of edges, 2 bits a node
        >>> adjacency, node_ops = unpack_cells(torch.tensor([[0b11_01_1]]), layout)
        >>> adjacency[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]
        >>> node_ops[0].tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_codes(codes, layout)
    check_cpu("codes", codes)
    return _autograd.unpack_cells(codes, layout.num_nodes, layout.num_op_types)

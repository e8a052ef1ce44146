# SPDX-License-Identifier: Apache-2.0
"""Packed cells to the dense matrices that models read, on any device."""

from torch import Tensor

from arch2vec_fast import _library, functional, reference
from arch2vec_fast.spaces import CellLayout


def unpack(codes: Tensor, layout: CellLayout) -> tuple[Tensor, Tensor]:
    """Dense (adjacency, node_ops) of codes; in plain PyTorch on devices without a kernel."""
    if codes.is_cpu or (codes.is_cuda and _library.has_cuda_kernel("unpack_cells")):
        return functional.unpack_cells(codes, layout)
    return reference.unpack_cells(codes, layout)

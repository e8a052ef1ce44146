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


def pack_latents(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of points, their norms and their frame; no gradient."""
    codes, norms, frame = torch.ops.arch2vec_fast.pack_latents(points)
    return codes, norms, frame


def nearest_latent(
    packed: tuple[Tensor, Tensor, Tensor, Tensor], queries: Tensor, visited: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """Distances and indices of the nearest of packed points; no gradient."""
    distances, indices = torch.ops.arch2vec_fast.nearest_latent(*packed, queries, visited, k)
    return distances, indices


def gin_encode(
    codes: Tensor, weights: Tensor, config: list[int], output: int, precision: str
) -> Tensor:
    """Encodings of packed cells by a folded encoder; made for inference, without a gradient."""
    encoded: Tensor = torch.ops.arch2vec_fast.gin_encode(codes, weights, config, output, precision)
    return encoded

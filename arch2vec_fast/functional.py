# SPDX-License-Identifier: Apache-2.0
"""Fast functions on packed cells. Each has a plain-PyTorch twin of its name in `reference`."""

import torch
from torch import Tensor

from arch2vec_fast import _autograd, _latents
from arch2vec_fast._checks import (
    GIN_OUTPUTS,
    PackedLayout,
    check_codes,
    check_gin_encode,
    check_kernels,
)
from arch2vec_fast._gin_shape import GinShape
from arch2vec_fast._latents import PackedLatents

__all__ = [
    "GinShape",
    "gin_encode",
    "nearest_latent",
    "pack_latents",
    "pack_visited",
    "unpack_cells",
]


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
            holds an operation that the layout lacks or bits above the layout's. On CUDA such a
            cell does not raise, because that would wait for the device: all its outputs are NaN.

    Not differentiable (integers in). Deterministic. One pass over the outputs, B * N * (N + F) * 4
    bytes, on torch's intra-op threads or the current CUDA stream (no synchronisation, may be
    captured into a CUDA graph); works under `torch.compile(fullgraph=True)`.

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
    check_kernels("codes", codes, "unpack_cells")
    return _autograd.unpack_cells(codes, layout.num_nodes, layout.num_op_types)


def pack_latents(points: Tensor) -> PackedLatents:
    """Prepares points for many calls of `nearest_latent`.

    On the CPU each coordinate also becomes one byte: u = round((x - low) / step), with the lowest
    value of its dim and the widest range of any dim in 255 steps. CUDA scans the points themselves.

    Args:
        points: float32 [Q, D], Q < 2^31, D in 1 .. 1024, finite. Any strides; Q may be 0.

    Returns:
        `PackedLatents`: the points, contiguous (shared, not copied, where they are already), and
        D + 4 bytes more for each; on CUDA nothing more.

    Raises:
        TypeError: `points` is no float32 tensor.
        ValueError: the shape is wrong, or a row (named) holds a NaN or an infinity.

    Not differentiable. Deterministic. Three passes over the points, one thread (30 ms for 423,624
    points of 16 dims); on CUDA it waits for the device, to look for NaNs.

    Example:
        >>> import torch
        >>> pack_latents(torch.tensor([[0.0, 1.0], [5.1, 1.0]])).codes[0, 0, :2].tolist()
        [[0, 0, 0, 0], [255, 0, 0, 0]]
    """
    _latents.check_latents(points)
    check_kernels("points", points, "nearest_latent")
    if points.is_cuda:
        _latents.check_finite("points", points)  # the CPU's operator looks itself
    points = points.contiguous()
    return PackedLatents(points, *_autograd.pack_latents(points))


def pack_visited(visited: Tensor) -> Tensor:
    """Packs a mask of points into bits for `nearest_latent`.

    Point i is bit i % 64 of word i // 64; bits above the last point are zero.

    Args:
        visited: bool or uint8 (not zero: visited) [..., Q], on any device.

    Returns:
        int64 [..., ceil(Q / 64)].

    Raises:
        TypeError: `visited` is neither bool nor uint8.

    Not differentiable. Deterministic. Works under `torch.compile(fullgraph=True)`.

    Example:
        >>> import torch
        >>> pack_visited(torch.tensor([True, False, True])).tolist()
        [5]
    """
    if not isinstance(visited, Tensor) or visited.dtype not in (torch.bool, torch.uint8):
        got = visited.dtype if isinstance(visited, Tensor) else type(visited).__name__
        raise TypeError(f"visited: expected bool or uint8, got {got}")
    return _latents.pack_visited(visited)


def nearest_latent(
    points: Tensor | PackedLatents, queries: Tensor, k: int = 1, visited: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Finds the k nearest unvisited points of each query, exactly.

        distance(m, i) = sum over d, ascending, of (points[i, d] - queries[m, d])^2

    Each operation is rounded to float32 and none is fused, so that a distance has one value
    everywhere; among equal distances the lowest index comes first (36 % of the NAS-Bench-101 cells
    share their embedding with another). The result is therefore the same to the bit for every
    instruction set, number of threads and device.

    Args:
        points: float32 [Q, D], finite, or what `pack_latents` made of them: packing takes as long
            as a hundred queries, so do it once.
        queries: float32 [M, D], on the same device. Any strides; M may be 0.
        k: K neighbours of each, 1 .. 1024.
        visited: points to skip: bool or uint8 [Q] (for all queries) or [M, Q] (row m for query m),
            or the same as bits, int64 from `pack_visited`. None: no point is skipped.

    Returns:
        `distances` float32 [M, K], squared, ascending, and `indices` int64 [M, K]. Where a query
        has fewer than K unvisited points, the rest holds infinity and -1.

    Raises:
        TypeError: a tensor of another dtype, or `k` is no int.
        ValueError: shapes or devices do not fit, `k` is out of range, an input requires a gradient,
            or a row of points or queries (named) holds a NaN or an infinity. On CUDA queries do not
            raise, because that would wait for the device: one with a NaN finds nothing.

    Not differentiable: for a gradient, compute the distances of the indices anew, as below. Bitwise
    repeatable. Cost on the CPU: one pass over D + 4 bytes a point for each four queries, and 4 D
    bytes of the few points that this leaves in question, on torch's intra-op threads (423,624
    points of 16 dims: about 0.3 ms a query on one thread of a 2.4 GHz Zen 3, k = 1). On CUDA one
    pass over the points for each 16 queries where k = 1, else for each query, on the current stream
    (no synchronisation, may be captured into a CUDA graph). Works under
    `torch.compile(fullgraph=True)`.

    Source: the search step of arch2vec (Yan et al. 2020, section 3.3) moves to the nearest cell
    that was not visited yet.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [9.0, 9.0]])
        >>> query = torch.tensor([[3.0, 3.0]])
        >>> distances, indices = nearest_latent(points, query, k=2)
        >>> distances.tolist(), indices.tolist()
        ([[1.0, 1.0]], [[1, 2]])
        >>> nearest_latent(points, query, visited=torch.tensor([0, 1, 1, 0]).bool())[1].tolist()
        [[0]]
        >>> (query[:, None] - points[indices]).square().sum(-1).tolist()
        [[1.0, 1.0]]
    """
    packed = points if isinstance(points, PackedLatents) else pack_latents(points)
    _latents.check_search(packed.points, queries, k, visited)
    if visited is not None:
        visited = visited if visited.dtype == torch.int64 else pack_visited(visited)
        visited = visited.view(-1, visited.shape[-1])
    return _autograd.nearest_latent(packed, queries, visited, k)


def gin_encode(
    codes: Tensor,
    weights: Tensor,
    shape: GinShape,
    *,
    output: str = "readout",
    precision: str = "fp32",
    share: bool | None = None,
) -> Tensor:
    """Encodes packed cells with a graph isomorphism network whose batch norm is folded away.

    Node states X start as one-hot operations (zero for an absent node). Layer l of L is

        X <- (1+eps) X + A (g1 * X) + A^T (g2 * X);  K times X <- relu(X W^T + b)

    and the head gives mu = X W^T + b. `models.inference.FoldedGin` makes the weights from a model.

    Args:
        codes: packed cells, int64 [B, W], as `CellBatch.codes`. Any strides; B may be 0.
        weights: float32 [shape.num_weights], as `GinShape` lays them out, on the device of `codes`.
        shape: sizes of the encoder; its layout is that of the cells.
        output: what to return of each cell:
            "readout" [B, D]: mu summed over the nodes it has (`shape.sum_readout`), else averaged
                over all N rows, absent nodes included;
            "nodes" [B, N, D]: mu of every row;
            "hidden" [B, L*H]: the same read-out of the states after each layer.
        precision: of the products. "fp32" (3xTF32 on CUDA); "bf16" (on the CPU only where it has
            AVX-512 BF16: about 2e-2 relative); "tf32" (CUDA only: about 1e-3 relative).
        share: CPU only, changes no result: compute equal sub-structures of different cells once
            (True), never (False), or as long as it pays (None).

    Returns:
        float32 of the shape that `output` names.

    Raises:
        TypeError: `codes` is not int64 or `weights` not float32.
        ValueError: sizes do not go together, the device or processor has no kernels for the
            precision, the weights require a gradient, or a cell (named) is none of the layout.

    Not differentiable: train with the model, encode with this. Deterministic; on the CPU a cell's
    bits depend neither on the other cells of the call nor on threads, and isomorphic cells get the
    same bits. About 2 N H^2 ((L-1) K + 1) operations a cell, on torch's intra-op threads; memory
    beyond the result is at most 1 GB, whatever B is. Works under `torch.compile(fullgraph=True)`.
    Source: Yan et al. 2020, section 3.1, equation 2.

    Example:
        >>> import torch
        >>> from arch2vec_fast.spaces import CellLayout
        >>> shape = GinShape(
        ...     layout=CellLayout(2, 3), hidden_dim=4, latent_dim=2, num_layers=1, num_mlp_layers=1
        ... )
        >>> weights = torch.zeros(shape.num_weights)
        >>> weights[-2:] = torch.tensor([1.0, 2.0])  # the head's bias
        >>> gin_encode(torch.tensor([[0b11_01_1]]), weights, shape)
        tensor([[1., 2.]])
    """
    check_gin_encode(codes, weights, shape, output, precision)
    check_kernels("codes", codes, "gin_encode")
    config = [
        *(shape.layout.num_nodes, shape.layout.num_op_types, shape.hidden_dim, shape.latent_dim),
        *(shape.num_layers, shape.num_mlp_layers, int(shape.sum_readout)),
        -1 if share is None else int(share),
    ]
    return _autograd.gin_encode(codes, weights, config, GIN_OUTPUTS.index(output), precision)

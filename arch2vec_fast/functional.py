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
from arch2vec_fast._checks_gp import GpCandidates, gp_candidates
from arch2vec_fast._edges import (
    REDUCTIONS,
    check_choice,
    check_direction,
    check_edges,
    check_eps,
    check_nodes,
    check_parameter,
    check_target,
)
from arch2vec_fast._functional_dngo import dngo_acquire, dngo_draw, dngo_evidence, dngo_fit
from arch2vec_fast._functional_gp import gp_acquire, gp_extend
from arch2vec_fast._gin_shape import GinShape
from arch2vec_fast._gin_train import GinTrainBuffers, GinTrainConfig, check_gin_train
from arch2vec_fast._latents import PackedLatents

__all__ = [
    "GinShape",
    "GinTrainBuffers",
    "GinTrainConfig",
    "GpCandidates",
    "dngo_acquire",
    "dngo_draw",
    "dngo_evidence",
    "dngo_fit",
    "gin_aggregate",
    "gin_encode",
    "gin_train",
    "gp_acquire",
    "gp_candidates",
    "gp_extend",
    "inner_product_decode",
    "inner_product_loss",
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
    value of its dim and the widest range of any dim in 255 steps, and the points are put in the
    order of a k-d tree's leaves, every 32 of them in a box. CUDA scans the points themselves.

    Args:
        points: float32 [Q, D], Q < 2^31, D in 1 .. 1024, finite. Any strides; Q may be 0.

    Returns:
        `PackedLatents`: the points, contiguous (shared, not copied, where they are already), and
        5/4 D + 8 bytes more for each; on CUDA nothing more.

    Raises:
        TypeError: `points` is no float32 tensor.
        ValueError: the shape is wrong, or a row (named) holds a NaN or an infinity.

    Not differentiable. Deterministic. One thread, O(Q (D + log Q)), 0.1 to 0.2 s for 423,624
    points of 16 dims; on CUDA it waits for the device, to look for NaNs.

    Example:
        >>> import torch
        >>> packed = pack_latents(torch.tensor([[0.0, 1.0], [5.1, 1.0]]))
        >>> packed.codes[0, 0, :2].tolist(), packed.order.tolist()
        ([[0, 0, 0, 0], [255, 0, 0, 0]], [0, 1])
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
        ValueError: it has no dims.

    Not differentiable. Deterministic. Works under `torch.compile(fullgraph=True)`.

    Example:
        >>> import torch
        >>> pack_visited(torch.tensor([True, False, True])).tolist()
        [5]
    """
    _latents.check_mask(visited)
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
            as hundreds of queries, so do it once.
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
    repeatable. Cost on the CPU: the boxes that lie nearer than the k-th best point, D + 4 bytes for
    each point in them and 4 D of the few that these leave in question, on torch's intra-op threads.
    It depends on the points: where their boxes tell a query's neighbours apart it looks into a
    hundredth of them, at worst (many dims, all alike, k large) into all, as a plain scan would but
    up to a third slower. On CUDA one pass over the points for each 16 queries where k = 1, else for
    each query, on the current stream (no synchronisation, may be captured into a CUDA graph). Works
    under `torch.compile(fullgraph=True)`.

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
        precision: of the products. "fp32" (on CUDA three products of operands split into two
            scaled fp16: the 22 bits of 3xTF32); "bf16" (on the CPU only where it has AVX-512 BF16:
            about 2e-2 relative); "tf32" (CUDA only, 11 bits an operand: about 1e-3 relative).
        share: CPU only, changes no result: compute equal cells and equal sub-structures of
            different cells once (True), never (False), or as long as it pays (None).

    Returns:
        float32 of the shape that `output` names.

    Raises:
        TypeError: `codes` is not int64 or `weights` not float32.
        ValueError: sizes do not go together, the device or processor has no kernels for the
            precision, H exceeds 256 on CUDA, the weights require a gradient, or a cell (named) is
            none of the layout. On CUDA such a cell's results are NaN instead: an error would have
            to wait for the device.

    Not differentiable: train with the model, encode with this. Deterministic; on the CPU a cell's
    bits depend neither on the other cells of the call nor on threads, and isomorphic cells get the
    same bits. About 2 N H^2 ((L-1) K + 1) operations a cell, on torch's intra-op threads; memory
    beyond the result is a few hundred MB and 60 bytes a cell. Compiles with
    `torch.compile(fullgraph=True)`. Source: Yan et al. 2020, section 3.1, equation 2.

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


def gin_aggregate(
    x: Tensor,
    adjacency: Tensor,
    eps: Tensor | float = 0.0,
    gates: Tensor | None = None,
    *,
    direction: str = "symmetric",
    layout: PackedLayout | None = None,
) -> Tensor:
    """Adds to each node what its neighbours hold: the aggregation of a GIN layer, batched.

        out = (1 + eps) x + A (g1 * x) + A^T (g2 * x)

    Node i collects its successors (A[i, j], edge i -> j) weighed by g1 and its predecessors weighed
    by g2, channel by channel. Without gates both are one.

    Args:
        x: node vectors, float32 or float64 [B, N, H]. Any strides; B may be 0.
        adjacency: weights of edges [B, N, N], any numbers, of any dtype (converted to x's); or,
            with `layout`, packed cells int64 [B, W], of which only the edge bits are read.
        eps: self weight: a number, or a tensor with one element.
        gates: [2, H] of x's dtype, rows g1 and g2; only with direction "symmetric".
        direction: "symmetric" adds both; "successors" and "predecessors" add one direction.
        layout: `spaces.CellLayout` of packed cells; None for dense weights.

    Returns:
        [B, N, H] of x's dtype, contiguous. Half-precision x is computed, and returned, in float32
        under autocast and refused outside.

    Raises:
        TypeError: a dtype or type that is not listed above.
        ValueError: shapes that do not go together, different devices, an unknown direction.

    Differentiable once with respect to x, eps, gates and a dense adjacency (its gradient is taken
    for all N * N entries). Deterministic: the same bits for any number of threads and, on the CPU,
    for any instruction set. Reads and writes B * N * H numbers once, at a step an edge and channel;
    torch's intra-op threads or the current CUDA stream (no synchronisation, may be captured into a
    CUDA graph); works under `torch.compile(fullgraph=True)`.

    Source: Xu et al., "How powerful are graph neural networks?", ICLR 2019, equation 4.1; arch2vec,
    section 3.1, equation 2.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[1.0], [10.0], [100.0]]])
        >>> chain = torch.tensor([[[0, 1, 0], [0, 0, 1], [0, 0, 0]]])  # 0 -> 1 -> 2
        >>> gin_aggregate(x, chain).flatten().tolist()
        [11.0, 111.0, 110.0]
        >>> gin_aggregate(x, chain, direction="predecessors").flatten().tolist()
        [1.0, 11.0, 110.0]
    """
    x = check_nodes("x", x)
    edges = check_edges(adjacency, x, layout)
    check_parameter("gates", gates, [2, x.shape[2]], x)
    successors, predecessors = check_direction(direction, gates)
    check_kernels("x", x, "gin_aggregate")
    return _autograd.gin_aggregate(x, edges, check_eps(eps, x), gates, successors, predecessors)


def inner_product_decode(
    z: Tensor, bilinear: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Scores every ordered pair of nodes of a cell as an edge.

        logits[b, i, j] = z[b, i] . W z[b, j] + bias[i, j]

    Args:
        z: node vectors, float32 or float64 [B, N, D]. Any strides; B may be 0.
        bilinear: W, [D, D] of z's dtype; None stands for the identity.
        bias: [N, N] of z's dtype, one number a pair of positions; None stands for zero.

    Returns:
        logits [B, N, N] of z's dtype, contiguous; sigmoid makes probabilities of them. In DAGs
        whose nodes are in topological order the entries i < j are meant. Half-precision z is
        computed in float32 under autocast and refused outside.

    Raises:
        TypeError: a dtype or type that is not listed above.
        ValueError: shapes that do not go together, different devices.

    Differentiable once with respect to all arguments. Deterministic: the same bits for any number
    of threads. B * N * D * (D + N) multiplications; torch's intra-op threads or the current CUDA
    stream (no synchronisation, may be captured into a CUDA graph); works under
    `torch.compile(fullgraph=True)`.

    Source: Kipf and Welling, "Variational graph auto-encoders", 2016; arch2vec, section 3.1,
    equation 4.

    Example:
        >>> import torch
        >>> z = torch.tensor([[[1.0, 0.0], [2.0, 1.0]]])
        >>> inner_product_decode(z).tolist()
        [[[1.0, 2.0], [2.0, 5.0]]]
    """
    z = check_nodes("z", z)
    check_parameter("bilinear", bilinear, [z.shape[2]] * 2, z)
    check_parameter("bias", bias, [z.shape[1]] * 2, z)
    check_kernels("z", z, "inner_product_decode")
    return _autograd.inner_product_decode(z, bilinear, bias)


def inner_product_loss(
    z: Tensor,
    adjacency: Tensor,
    bilinear: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
    layout: PackedLayout | None = None,
) -> Tensor:
    """Binary cross-entropy of decoded edges, without writing their logits to memory.

        loss = sum over b and i < j of log(1 + exp(l)) - adjacency[b, i, j] * l,
        l = z[b, i] . W z[b, j] + bias[i, j]

    What `F.binary_cross_entropy_with_logits` makes of the entries above the diagonal of
    `inner_product_decode(z, bilinear, bias)`; no logit is too large for it.

    Args:
        z, bilinear, bias: as in `inner_product_decode`.
        adjacency: targets [B, N, N], usually 0 or 1, of any dtype (converted to z's); or, with
            `layout`, packed cells int64 [B, W], of which only the edge bits are read.
        reduction: "mean" over the B * N(N-1)/2 pairs, or "sum". The evidence lower bound of a
            batch takes the sum divided by B.
        layout: `spaces.CellLayout` of packed cells; None for dense targets.

    Returns:
        a scalar of z's dtype; the mean over no pairs is NaN.

    Raises:
        TypeError: a dtype or type that is not listed above.
        ValueError: shapes that do not go together, different devices, an unknown reduction, a
            target that requires a gradient.

    Differentiable once with respect to z, bilinear and bias; their gradients are made in the same
    pass as the loss where one of them requires a gradient. Deterministic: the same bits for any
    number of threads. Reads z once and writes its gradient; torch's intra-op threads or the current
    CUDA stream (no synchronisation, may be captured into a CUDA graph); works under
    `torch.compile(fullgraph=True)`.

    Source: arch2vec, section 3.1, equation 5, first term.

    Example:
        >>> import torch
        >>> z = torch.tensor([[[2.0], [3.0]]])
        >>> edge = torch.tensor([[[0, 1], [0, 0]]])
        >>> round(inner_product_loss(z, edge).item(), 6)  # log(1 + exp(-6))
        0.002476
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_target(adjacency)
    z = check_nodes("z", z)
    edges = check_edges(adjacency, z, layout)
    check_parameter("bilinear", bilinear, [z.shape[2]] * 2, z)
    check_parameter("bias", bias, [z.shape[1]] * 2, z)
    check_kernels("z", z, "inner_product_loss")
    wanted = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (z, bilinear, bias)
    )
    total = _autograd.inner_product_loss(z, edges, bilinear, bias, wanted)
    if reduction == "sum":
        return total
    batch, num_nodes, _ = z.shape
    return total / (batch * num_nodes * (num_nodes - 1) // 2)


def gin_train(
    buffers: GinTrainBuffers,
    codes: Tensor,
    order: Tensor,
    learning_rate: Tensor,
    seed: Tensor,
    config: GinTrainConfig,
    *,
    batch_size: int,
    first_step: int = 0,
    noise: Tensor | None = None,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Trains GIN autoencoders for S = ceil(T / B) whole steps on packed cells, in place.

    A step unpacks its cells, encodes, samples z = mu + sigma * noise, drops out, decodes, takes the
    loss and its gradient, clips the gradient's norm and applies Adam, as `pretrain` does in plain
    PyTorch (`models.GinVae`, `pretrain.objective`, `pretrain.flat`).

    Args:
        buffers: what is trained, float32: parameters, Adam's moments, running statistics of G
            models, one row each. **Changed in place**; views of them, such as a module's
            parameters, see the changes.
        codes: packed cells, int64 [Q, W], as `CellBatch.codes`.
        order: int64 [G, T], rows of `codes`: model g's step s takes s*B .. s*B + B - 1, the last
            step what is left.
        learning_rate: float64 [S].
        seed: int64 [G], of noise and dropout.
        config: sizes and flags of the step.
        batch_size: B, cells of a step.
        first_step: steps taken before this call: Adam's count, and the counter of the random
            numbers, which depend on nothing but (seed, step, element).
        noise: float32 [G, T, N, D] instead of drawn normals.
        keep: uint8 [G, T, N, D] instead of a drawn dropout mask; 0 drops.

    Returns:
        `losses` float32 [G, S, 5]: loss, its node, edge and KL parts, and the gradient's norm
        before clipping; and `moments` float64 [G, 2, N*D], sums of mu and mu^2 over the cells of
        the call.

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: shapes or devices do not fit, a buffer is not contiguous or requires a gradient,
            `order` names no row of `codes`, or a code is no cell of the layout. Nothing has changed
            then.

    Not differentiable: it contains the backward pass. Bitwise repeatable for a given device,
    instruction set and number of threads. Losses that stop being finite are returned as they are.
    Cost for NAS-Bench-101 and H = 128: about 5.1 MFLOP a cell, on torch's intra-op threads; memory
    4 H (2 L K + 2) bytes a node of a batch in batch mode, a few MB in frozen mode. Works under
    `torch.compile(fullgraph=True)`.

    Example:
        >>> import torch
        >>> from arch2vec_fast.spaces import CellLayout
        >>> config = GinTrainConfig(
        ...     layout=CellLayout(2, 3),
        ...     num_classes=3,
        ...     hidden_dim=8,
        ...     latent_dim=2,
        ...     num_layers=1,
        ...     num_mlp_layers=2,
        ... )
        >>> buffers = GinTrainBuffers.zeros(config)
        >>> buffers.parameters.uniform_(-0.5, 0.5).shape
        torch.Size([1, 182])
        >>> codes = torch.tensor([[0b11_01_1], [0b01_10_0], [0b10_11_1]])
        >>> order = torch.tensor([[0, 2, 1, 0]])
        >>> rates, seed = torch.full((2,), 1e-3, dtype=torch.float64), torch.tensor([0])
        >>> losses, moments = gin_train(buffers, codes, order, rates, seed, config, batch_size=2)
        >>> losses.shape, moments.shape
        (torch.Size([1, 2, 5]), torch.Size([1, 2, 4]))
    """
    check_gin_train(
        *(buffers, codes, order, learning_rate, seed, config, batch_size, first_step, noise, keep)
    )
    check_kernels("parameters", buffers.parameters, "gin_train")
    inputs = (codes, order, learning_rate, seed, noise, keep)
    return _autograd.gin_train(
        buffers, inputs, batch_size, first_step, config.sizes, config.settings
    )

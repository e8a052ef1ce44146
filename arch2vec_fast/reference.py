# SPDX-License-Identifier: Apache-2.0
"""Plain-PyTorch twins of `functional`: same names, same signatures, no kernels.

They are written to be read and serve as the oracle of the tests; use them to understand, not in a
loop.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast._checks import PackedLayout, check_codes, check_gin_encode
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
from arch2vec_fast._gin_shape import GinShape
from arch2vec_fast._gin_train import GinTrainBuffers, GinTrainConfig, check_gin_train
from arch2vec_fast._gin_train_twin import draw, train_step
from arch2vec_fast._latents import (
    FAN,
    GROUP,
    PackedLatents,
    check_finite,
    check_latents,
    check_mask,
    check_search,
    visited_words,
)
from arch2vec_fast._reference_dngo import dngo_acquire, dngo_draw, dngo_evidence, dngo_fit
from arch2vec_fast._reference_gp import gp_acquire, gp_extend

__all__ = [
    "dngo_acquire",
    "dngo_draw",
    "dngo_evidence",
    "dngo_fit",
    "gin_aggregate",
    "gin_encode",
    "gin_train",
    "gp_acquire",
    "gp_extend",
    "inner_product_decode",
    "inner_product_loss",
    "nearest_latent",
    "pack_latents",
    "pack_visited",
    "unpack_cells",
]


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
    share: bool | None = None,
) -> Tensor:
    """Encodes packed cells as `functional.gin_encode`, in the dtype of `weights`, on any device.

    `precision` and `share` have no effect: this is what the others are compared with.
    """
    check_gin_encode(codes, weights, shape, output, precision, dtypes=None)
    adjacency, node_ops = (part.to(weights.dtype) for part in unpack_cells(codes, shape.layout))
    present = node_ops.sum(2, keepdim=True)
    weight = present if shape.sum_readout else torch.full_like(present, 1 / shape.layout.num_nodes)
    parts = iter(shape.split(weights))
    x, readouts = node_ops, []
    for _ in range(shape.num_layers):
        scale, gates = next(parts), next(parts)
        successors, predecessors = adjacency @ (gates[0] * x), adjacency.mT @ (gates[1] * x)
        x = scale * x + successors + predecessors
        for _ in range(shape.num_mlp_layers):
            x = F.linear(x, next(parts), next(parts)).relu()
        readouts.append((weight * x).sum(1))
    if output == "hidden":
        return torch.cat(readouts, 1)
    mu = F.linear(x, next(parts), next(parts))
    return mu if output == "nodes" else (weight * mu).sum(1)


def pack_latents(points: Tensor) -> PackedLatents:
    """Packs points as `functional.pack_latents` on the CPU."""
    check_latents(points)
    check_finite("points", points)
    count, dim = points.shape
    blocks, quads = (count + 15) // 16, (dim + 3) // 4
    exact = points.double()
    low = exact.amin(0) if count else exact.new_zeros(dim)
    range_ = float((exact.amax(0) - low).max()) if count else 0.0
    step = range_ / 255 if range_ > 0 else 1.0
    offset = exact - low
    codes = (offset * (1 / step) + 0.5).clamp(max=255).floor()
    error = (offset - codes * step).square().sum(1).sqrt().max() if count else exact.new_zeros(())
    norms = codes.square().sum(1)
    largest = norms.max() if count else norms.new_zeros(())

    order = _latent_order(codes.long())
    rows = F.pad(codes[order], (0, 4 * quads - dim, 0, 16 * blocks - count)).to(torch.uint8)
    norms = F.pad(norms[order].float(), (0, 16 * blocks - count), value=torch.inf)
    boxes = [_boxes(points[order], size) for size in (GROUP, GROUP * FAN)]
    return PackedLatents(
        points=points.contiguous(),
        codes=rows.view(blocks, 16, quads, 4).transpose(1, 2).contiguous(),
        norms=norms.view(blocks, 16),
        frame=torch.cat([low, torch.stack([low.new_tensor(step), error, largest])]),
        order=order.int(),
        boxes=torch.cat(boxes),
    )


def _latent_order(codes: Tensor) -> Tensor:
    """Leaves of a k-d tree over codes [Q, D], left to right, int64 [Q].

    A node of more than 32 points is cut across the dim in which its points vary most (judged by at
    most 64 of them); the left part is the largest 32 * 2^n that leaves a right one.
    """

    def leaves(points: Tensor) -> Tensor:
        if len(points) <= GROUP:
            return points
        left = GROUP
        while 2 * left < len(points):
            left *= 2
        some = codes[points[:: max(1, len(points) // 32)]]
        spread = len(some) * some.square().sum(0) - some.sum(0).square()
        dim = spread.tolist().index(spread.max())
        lower = torch.zeros(len(points), dtype=torch.bool)
        lower[codes[points, dim].sort(stable=True).indices[:left]] = True
        return torch.cat([leaves(points[lower]), leaves(points[~lower])])

    return leaves(torch.arange(len(codes)))


def _boxes(points: Tensor, size: int) -> Tensor:
    """Lowest and highest values of each `size` points [Q, D], sixteen a row, [., D, 2, 16]."""
    parts = points.split(size) if len(points) else ()
    corners = [torch.stack([part.amin(0), part.amax(0)], 1) for part in parts]
    rows = -(-len(corners) // FAN)
    corners += [points.new_zeros(points.shape[1], 2)] * (FAN * rows - len(corners))
    if not corners:
        return points.new_zeros(0, points.shape[1], 2, FAN)
    boxes = torch.stack(corners).view(rows, FAN, points.shape[1], 2)
    return boxes.movedim(1, -1).contiguous()


def pack_visited(visited: Tensor) -> Tensor:
    """Packs a mask into bits as `functional.pack_visited`."""
    check_mask(visited)
    words = visited_words(visited.shape[-1])
    bits = F.pad((visited != 0).long(), (0, 64 * words - visited.shape[-1]))
    bits = bits.view(*visited.shape[:-1], words, 64)
    return (bits << torch.arange(64, device=visited.device)).sum(-1)


def nearest_latent(
    points: Tensor | PackedLatents, queries: Tensor, k: int = 1, visited: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sorts all points by distance, in the dtype of the inputs (float32 or float64)."""
    rows = points.points if isinstance(points, PackedLatents) else points
    check_latents(rows, dtypes=None)
    check_search(rows, queries, k, visited, dtypes=None)
    check_finite("queries", queries)
    distance = queries.new_zeros(len(queries), len(rows))
    for d in range(rows.shape[1]):
        difference = rows[:, d] - queries[:, d, None]
        distance = distance + difference * difference
    if visited is not None:
        if visited.dtype == torch.int64:
            bits = visited[..., None] >> torch.arange(64, device=visited.device) & 1
            visited = bits.flatten(-2)[..., : len(rows)]
        distance = distance.masked_fill(visited != 0, torch.nan)  # sorts behind infinity

    distance = F.pad(distance, (0, k), value=torch.nan)
    nearest, indices = (part[:, :k] for part in distance.sort(dim=1, stable=True))
    missing = nearest.isnan()
    return nearest.masked_fill(missing, torch.inf), indices.masked_fill(missing, -1)


def gin_aggregate(
    x: Tensor,
    adjacency: Tensor,
    eps: Tensor | float = 0.0,
    gates: Tensor | None = None,
    *,
    direction: str = "symmetric",
    layout: PackedLayout | None = None,
) -> Tensor:
    """Two batched products, as `functional.gin_aggregate`; any device."""
    x = check_nodes("x", x)
    edges = _dense_edges(adjacency, x, layout)
    check_parameter("gates", gates, [2, x.shape[2]], x)
    successors, predecessors = check_direction(direction, gates)
    to, back = (1, 1) if gates is None else gates
    total = (1 + check_eps(eps, x)) * x
    if successors:
        total = total + edges @ (to * x)
    if predecessors:
        total = total + edges.mT @ (back * x)
    return total


def inner_product_decode(
    z: Tensor, bilinear: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """One or two batched products, as `functional.inner_product_decode`; any device."""
    z = check_nodes("z", z)
    check_parameter("bilinear", bilinear, [z.shape[2]] * 2, z)
    check_parameter("bias", bias, [z.shape[1]] * 2, z)
    logits = (z if bilinear is None else z @ bilinear) @ z.mT
    return logits if bias is None else logits + bias


def inner_product_loss(
    z: Tensor,
    adjacency: Tensor,
    bilinear: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
    layout: PackedLayout | None = None,
) -> Tensor:
    """Binary cross-entropy of decoded logits, as `functional.inner_product_loss`; any device."""
    check_choice("reduction", reduction, REDUCTIONS)
    check_target(adjacency)
    z = check_nodes("z", z)
    rows, columns = torch.triu_indices(z.shape[1], z.shape[1], 1, device=z.device)
    targets = _dense_edges(adjacency, z, layout)[:, rows, columns]
    logits = inner_product_decode(z, bilinear, bias)[:, rows, columns]
    return F.binary_cross_entropy_with_logits(logits, targets, reduction=reduction)


def _dense_edges(adjacency: Tensor, nodes: Tensor, layout: PackedLayout | None) -> Tensor:
    edges = check_edges(adjacency, nodes, layout)
    return edges if layout is None else unpack_cells(edges, layout)[0].to(nodes.dtype)


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
    """Trains as `functional.gin_train` with autograd, in the dtype of the buffers, on any device.

    In float64 the loss on probabilities does not saturate where float32 does; compare it in
    float32.
    """
    check_gin_train(
        *(buffers, codes, order, learning_rate, seed, config, batch_size, first_step, noise, keep),
        dtypes=(torch.float32, torch.float64),
    )
    outside = order[(order < 0) | (order >= len(codes))]
    if len(outside):
        raise ValueError(f"order: {int(outside[0])} is not a row of the {len(codes)} codes")
    dtype, training = buffers.parameters.dtype, config.batch_mode
    adjacency, node_ops = (part.to(dtype) for part in unpack_cells(codes, config.layout))
    losses, moments = [], []
    for model, rows in enumerate(order):
        one = GinTrainBuffers(*(buffer[model] for buffer in buffers))
        mu = []
        for step, batch in enumerate(rows.split(batch_size)):
            drawn = draw(config, int(seed[model]), first_step + step, len(batch), codes.device)
            given = slice(step * batch_size, step * batch_size + len(batch))
            normals = drawn[0] if noise is None else noise[model, given]
            kept = drawn[1] if keep is None else keep[model, given]
            values, mu_here = train_step(
                one,
                adjacency[batch],
                node_ops[batch],
                normals.to(dtype) if training else None,
                kept.to(dtype) if training and config.dropout else None,
                config,
                float(learning_rate[step]),
                first_step + step + 1,
            )
            losses.append(values)
            mu.append(mu_here)
        flat = torch.cat(mu).double().flatten(1)
        moments.append(torch.stack([flat.sum(0), flat.square().sum(0)]))
    return torch.stack(losses).view(len(order), -1, 5), torch.stack(moments)

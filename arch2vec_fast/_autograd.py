# SPDX-License-Identifier: Apache-2.0
"""Raw operators as Python callables, with their gradients where they have any.

The only module besides `_fakes` and `_library` that touches `torch.ops`. Arguments were checked by
the caller (`functional`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from arch2vec_fast import _fakes  # noqa: F401  (loads the operators and registers their fake kernels)
from arch2vec_fast._latents import PackedLatents


def unpack_cells(codes: Tensor, num_nodes: int, num_op_types: int) -> tuple[Tensor, Tensor]:
    """Packed cells to dense float32; integers in, so there is no gradient."""
    adjacency, node_ops = torch.ops.arch2vec_fast.unpack_cells(codes, num_nodes, num_op_types)
    return adjacency, node_ops


def pack_latents(points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Codes of points, their norms, frame, order and boxes; no gradient."""
    codes, norms, frame, order, boxes = torch.ops.arch2vec_fast.pack_latents(points)
    return codes, norms, frame, order, boxes


def nearest_latent(
    packed: PackedLatents, queries: Tensor, visited: Tensor | None, k: int
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


class _GinAggregate(torch.autograd.Function):
    """(x, edges, eps, gates, successors, predecessors) -> (1 + eps) x + neighbours of x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        edges: Tensor,
        eps: Tensor,
        gates: Tensor | None,
        successors: bool,
        predecessors: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, edges, eps, gates)
        ctx.directions = successors, predecessors
        out: Tensor = torch.ops.arch2vec_fast.gin_aggregate(
            x, edges, eps, gates, successors, predecessors
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out_grad: Tensor) -> tuple[Tensor | None, ...]:
        x, edges, eps, gates = ctx.saved_tensors
        x_grad, sums = torch.ops.arch2vec_fast.gin_aggregate_backward(
            out_grad, x, edges, eps, gates, *ctx.directions
        )
        edges_grad = None
        if ctx.needs_input_grad[1]:
            edges_grad = _edges_gradient(out_grad, x, gates, *ctx.directions)
        gates_grad = None if gates is None else sums[:2]
        return x_grad, edges_grad, sums[2].sum(), gates_grad, None, None


def gin_aggregate(
    x: Tensor,
    edges: Tensor,
    eps: Tensor,
    gates: Tensor | None,
    successors: bool,
    predecessors: bool,
) -> Tensor:
    """Node vectors and what their neighbours hold; differentiable."""
    out: Tensor = _GinAggregate.apply(  # type: ignore[no-untyped-call]
        x, edges, eps, gates, successors, predecessors
    )
    return out


def _edges_gradient(
    out_grad: Tensor, x: Tensor, gates: Tensor | None, successors: bool, predecessors: bool
) -> Tensor:
    """Of dense weights: batched products, for which torch has the right kernels already."""
    to, back = (1, 1) if gates is None else gates
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    if successors:
        total = total + out_grad @ (to * x).mT
    if predecessors:
        total = total + (back * x) @ out_grad.mT
    return total


class _InnerProductDecode(torch.autograd.Function):
    """(z, bilinear, bias) -> logits."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, bilinear: Tensor | None, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(z, bilinear)
        ctx.has_bias = bias is not None
        logits: Tensor = torch.ops.arch2vec_fast.inner_product_decode(z, bilinear, bias)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, logits_grad: Tensor) -> tuple[Tensor | None, ...]:
        z, bilinear = ctx.saved_tensors
        z_grad, bilinear_grad, bias_grad = torch.ops.arch2vec_fast.inner_product_decode_backward(
            logits_grad, z, bilinear, ctx.has_bias
        )
        return (
            z_grad,
            None if bilinear is None else bilinear_grad,
            bias_grad if ctx.has_bias else None,
        )


def inner_product_decode(z: Tensor, bilinear: Tensor | None, bias: Tensor | None) -> Tensor:
    """Logits of edges; differentiable."""
    logits: Tensor = _InnerProductDecode.apply(z, bilinear, bias)  # type: ignore[no-untyped-call]
    return logits


class _InnerProductLoss(torch.autograd.Function):
    """(z, edges, bilinear, bias, want_gradients) -> sum of the losses.

    The gradients are made with the loss, because they need the same logits; backward scales them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        edges: Tensor,
        bilinear: Tensor | None,
        bias: Tensor | None,
        want_gradients: bool,
    ) -> Tensor:
        loss, *gradients = torch.ops.arch2vec_fast.inner_product_loss(
            z, edges, bilinear, bias, want_gradients
        )
        ctx.save_for_backward(*gradients)
        ctx.has = bilinear is not None, bias is not None
        total: Tensor = loss
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor) -> tuple[Tensor | None, ...]:
        z_grad, bilinear_grad, bias_grad = ctx.saved_tensors
        has_bilinear, has_bias = ctx.has
        return (
            loss_grad * z_grad,
            None,
            loss_grad * bilinear_grad if has_bilinear else None,
            loss_grad * bias_grad if has_bias else None,
            None,
        )


def inner_product_loss(
    z: Tensor, edges: Tensor, bilinear: Tensor | None, bias: Tensor | None, want_gradients: bool
) -> Tensor:
    """Sum of the losses of all pairs; differentiable where gradients were wanted."""
    total: Tensor = _InnerProductLoss.apply(  # type: ignore[no-untyped-call]
        z, edges, bilinear, bias, want_gradients
    )
    return total


def gin_train(
    buffers: tuple[Tensor, Tensor, Tensor, Tensor],
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    batch_size: int,
    first_step: int,
    sizes: list[int],
    settings: list[float],
) -> tuple[Tensor, Tensor]:
    """Training steps in place, without a gradient: tells autograd that the buffers changed."""
    losses, moments = torch.ops.arch2vec_fast.gin_train(
        *buffers, *inputs, batch_size, first_step, sizes, settings
    )
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(buffers)
    return losses, moments


def dngo_draw(
    seed: Tensor, num_inputs: int, num_hidden: int, num_epochs: int, num_points: int
) -> tuple[Tensor, Tensor]:
    """Initial parameters and shuffles; integers in, so there is no gradient."""
    parameters, order = torch.ops.arch2vec_fast.dngo_draw(
        seed, num_inputs, num_hidden, num_epochs, num_points
    )
    return parameters, order


def dngo_fit(
    parameters: Tensor,
    points: Tensor,
    targets: Tensor,
    order: Tensor,
    num_hidden: int,
    batch_size: int,
    learning_rate: float,
) -> Tensor:
    """Trains `parameters` in place; whoever saved them for a gradient is told."""
    losses: Tensor = torch.ops.arch2vec_fast.dngo_fit(
        parameters, points.detach(), targets.detach(), order, num_hidden, batch_size, learning_rate
    )
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(parameters)
    return losses


def dngo_evidence(
    eigenvalue: Tensor,
    energy: Tensor,
    residual: Tensor,
    start: Tensor,
    num_points: int,
    num_hidden: int,
    released: bool,
) -> Tensor:
    """log alpha and log(1 / beta) [S, 2]; not differentiable."""
    optimum: Tensor = torch.ops.arch2vec_fast.dngo_evidence(
        eigenvalue.detach(),
        energy.detach(),
        residual.detach(),
        start.detach(),
        num_points,
        num_hidden,
        released,
    )
    return optimum


def dngo_acquire(
    candidates: Tensor,
    weight: Tensor,
    bias: Tensor,
    coefficients: Tensor,
    factor: Tensor,
    noise: Tensor,
    target: Tensor,
    visited: Tensor | None,
    num_results: int,
    score: int,
    predictions: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, indices, mean and variance; not differentiable."""
    posterior = (part.detach() for part in (weight, bias, coefficients, factor, noise, target))
    scores, indices, mean, variance = torch.ops.arch2vec_fast.dngo_acquire(
        candidates.detach(), *posterior, visited, num_results, score, predictions
    )
    return scores, indices, mean, variance


def gp_extend(inputs: tuple[Tensor | int, ...], written: tuple[Tensor, ...]) -> None:
    """Writes the last tensors; whoever saved them for a gradient is told."""
    detached = (part.detach() if isinstance(part, Tensor) else part for part in inputs)
    torch.ops.arch2vec_fast.gp_extend(*detached, *written)
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(written)


def gp_acquire(
    posterior: tuple[Tensor, ...],
    visited: Tensor | None,
    num_candidates: int,
    num_results: int,
    predictions: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, indices, mean and variance; not differentiable."""
    detached = (part.detach() for part in posterior)
    scores, indices, mean, variance = torch.ops.arch2vec_fast.gp_acquire(
        *detached, visited, num_candidates, num_results, predictions
    )
    return scores, indices, mean, variance

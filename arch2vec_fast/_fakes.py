# SPDX-License-Identifier: Apache-2.0
"""Fake kernels: shapes, dtypes and devices of the operators' results, for `torch.compile`.

Schemas stand in csrc/library.cpp. A fake must not look at values; it may assume that the public
function has checked its arguments.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from arch2vec_fast import _library  # loads the operators that are described here

Fake = TypeVar("Fake", bound=Callable[..., Any])


def _describes(operator: str) -> Callable[[Fake], Fake]:
    """Registers a fake; ImportError where the library's operator has other arguments."""

    def register(fake: Fake) -> Fake:
        _library.check_arguments(operator, tuple(inspect.signature(fake).parameters))
        torch.library.register_fake(f"{_library.NAMESPACE}{operator}")(fake)
        return fake

    return register


@_describes("unpack_cells")
def _unpack_cells(codes: Tensor, num_nodes: int, num_op_types: int) -> tuple[Tensor, Tensor]:
    adjacency = codes.new_empty((codes.shape[0], num_nodes, num_nodes), dtype=torch.float32)
    node_ops = codes.new_empty((codes.shape[0], num_nodes, num_op_types), dtype=torch.float32)
    return adjacency, node_ops


@_describes("pack_latents")
def _pack_latents(points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    count, dim = points.shape
    quads, fields = (dim + 3) // 4, dim + 3
    if points.device.type == "cuda":  # scans the points themselves
        count, quads, fields = 0, 1, 0
    blocks, tiles = (count + 15) // 16, (count + 511) // 512
    return (
        points.new_empty((blocks, quads, 16, 4), dtype=torch.uint8),
        points.new_empty((blocks, 16)),
        points.new_empty((fields,), dtype=torch.float64),
        points.new_empty((count,), dtype=torch.int32),
        points.new_empty((tiles + (tiles + 15) // 16, dim, 2, 16)),
    )


@_describes("nearest_latent")
def _nearest_latent(
    points: Tensor,
    codes: Tensor,
    norms: Tensor,
    frame: Tensor,
    order: Tensor,
    boxes: Tensor,
    queries: Tensor,
    visited: Tensor | None,
    k: int,
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)


@_describes("gin_encode")
def _gin_encode(
    codes: Tensor, weights: Tensor, config: list[int], output: int, precision: str
) -> Tensor:
    num_nodes, _, hidden_dim, latent_dim, num_layers = config[:5]
    shape = [(latent_dim,), (num_nodes, latent_dim), (num_layers * hidden_dim,)][output]
    return weights.new_empty((codes.shape[0], *shape))


@_describes("gin_aggregate")
def _gin_aggregate(
    x: Tensor,
    edges: Tensor,
    eps: Tensor,
    gates: Tensor | None,
    successors: bool,
    predecessors: bool,
) -> Tensor:
    return x.new_empty(x.shape)


@_describes("gin_aggregate_backward")
def _gin_aggregate_backward(
    out_grad: Tensor,
    x: Tensor,
    edges: Tensor,
    eps: Tensor,
    gates: Tensor | None,
    successors: bool,
    predecessors: bool,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((3, x.shape[2]))


@_describes("inner_product_decode")
def _inner_product_decode(z: Tensor, bilinear: Tensor | None, bias: Tensor | None) -> Tensor:
    return z.new_empty((z.shape[0], z.shape[1], z.shape[1]))


def _decoder_gradients(
    z: Tensor, want_z: bool, want_bilinear: bool, want_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _, nodes, dim = z.shape
    return (
        z.new_empty(z.shape if want_z else (0,)),
        z.new_empty((dim, dim) if want_bilinear else (0,)),
        z.new_empty((nodes, nodes) if want_bias else (0,)),
    )


@_describes("inner_product_decode_backward")
def _inner_product_decode_backward(
    logits_grad: Tensor, z: Tensor, bilinear: Tensor | None, want_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _decoder_gradients(z, True, bilinear is not None, want_bias)


@_describes("inner_product_loss")
def _inner_product_loss(
    z: Tensor, edges: Tensor, bilinear: Tensor | None, bias: Tensor | None, want_gradients: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wanted = [want_gradients and parameter is not None for parameter in (z, bilinear, bias)]
    return (z.new_empty(()), *_decoder_gradients(z, *wanted))


@_describes("gin_train")
def _gin_train(
    parameters: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    running: Tensor,
    codes: Tensor,
    order: Tensor,
    learning_rate: Tensor,
    seed: Tensor,
    noise: Tensor | None,
    keep: Tensor | None,
    batch_size: int,
    first_step: int,
    config: list[int],
    settings: list[float],
) -> tuple[Tensor, Tensor]:
    models, steps = order.shape[0], learning_rate.shape[0]
    losses = parameters.new_empty((models, steps, 5))
    return losses, parameters.new_empty((models, 2, config[0] * config[4]), dtype=torch.float64)


@_describes("dngo_draw")
def _dngo_draw(
    seed: Tensor, num_inputs: int, num_hidden: int, num_epochs: int, num_points: int
) -> tuple[Tensor, Tensor]:
    size = num_hidden * (num_inputs + 2) + 1
    parameters = seed.new_empty((len(seed), size), dtype=torch.float32)
    return parameters, seed.new_empty((len(seed), num_epochs, num_points), dtype=torch.int32)


@_describes("dngo_fit")
def _dngo_fit(
    parameters: Tensor,
    points: Tensor,
    targets: Tensor,
    order: Tensor,
    num_hidden: int,
    batch_size: int,
    learning_rate: float,
) -> Tensor:
    return points.new_empty((points.shape[0], order.shape[1]))


@_describes("dngo_evidence")
def _dngo_evidence(
    eigenvalue: Tensor,
    energy: Tensor,
    residual: Tensor,
    start: Tensor,
    num_points: int,
    num_hidden: int,
    released: bool,
) -> Tensor:
    return torch.empty_like(start, memory_format=torch.contiguous_format)


@_describes("dngo_acquire")
def _dngo_acquire(
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
    seeds, predicted = weight.shape[0], candidates.shape[0] if predictions else 0
    scores = weight.new_empty((seeds, num_results))
    indices = weight.new_empty((seeds, num_results), dtype=torch.int64)
    mean, variance = (weight.new_empty((seeds, predicted)) for _ in range(2))
    return scores, indices, mean, variance


@_describes("gp_extend")
def _gp_extend(
    panels: Tensor,
    norms: Tensor,
    starts: Tensor,
    colours: Tensor,
    weights: Tensor,
    num_colours: int,
    rows: Tensor,
    first: Tensor,
    last: Tensor,
    factor: Tensor,
    kernel: Tensor,
    coefficients: Tensor,
    solved: Tensor,
    explained: Tensor,
    mean: Tensor,
) -> None:
    return None


@_describes("gp_acquire")
def _gp_acquire(
    mean: Tensor,
    explained: Tensor,
    scale: Tensor,
    target: Tensor,
    visited: Tensor | None,
    num_candidates: int,
    num_results: int,
    predictions: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    seeds, predicted = mean.shape[0], num_candidates if predictions else 0
    scores = mean.new_empty((seeds, num_results))
    indices = mean.new_empty((seeds, num_results), dtype=torch.int64)
    means, variances = (mean.new_empty((seeds, predicted)) for _ in range(2))
    return scores, indices, means, variances

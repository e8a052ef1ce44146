# SPDX-License-Identifier: Apache-2.0
"""The differentiable building blocks, forward and backward, against plain PyTorch and PyG."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from arch2vec_fast import functional, reference, spaces
from bench.contenders import pyg
from bench.harness import Absent, Contender

_HIDDEN, _LATENT = 128, 16

sizes = pytest.mark.parametrize(
    ("space_name", "batch"),
    [("nasbench101", 32), ("nasbench101", 1024), ("nasbench201", 1024), ("darts", 1024)],
)


def forward_and_backward(
    function: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor | None, calls: int
) -> Contender:
    """`calls` passes a turn, each from a leaf without a gradient, as in a training step."""
    leaf = x.clone().requires_grad_()

    def work() -> float:
        for _ in range(calls):
            leaf.grad = None
            function(leaf).backward(upstream)
        return calls

    return work


def problem(space_name: str, batch: int, width: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Cells packed and dense, node vectors [B,N,width], and how many calls make a turn."""
    space = spaces.get(space_name)
    codes = space.sample(batch, seed=0).to_torch()
    adjacency = functional.unpack_cells(codes, space.layout)[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, space.layout.num_nodes, width, generator=generator)
    return codes, adjacency, x, 20_000 // batch


@sizes
def test_gin_aggregate(
    race: Callable[..., dict[str, Any]], threads: int, quick: bool, space_name: str, batch: int
) -> None:
    layout = spaces.get(space_name).layout
    codes, adjacency, x, calls = problem(space_name, batch, _HIDDEN)
    calls = 2 if quick else calls
    upstream = torch.randn_like(x)
    eps = torch.tensor(0.1)
    both = adjacency + adjacency.mT
    layer = pyg.aggregation()
    race(
        f"gin_aggregate, forward and backward, {batch} {space_name} cells, H = {_HIDDEN}",
        {
            "arch2vec_fast": forward_and_backward(
                lambda x: functional.gin_aggregate(x, codes, eps, layout=layout), x, upstream, calls
            ),
            "eager": forward_and_backward(
                lambda x: reference.gin_aggregate(x, adjacency, eps), x, upstream, calls
            ),
            "PyG": layer
            if isinstance(layer, Absent)
            else forward_and_backward(lambda x: layer(x, both), x, upstream, calls),
        },
        unit="pass",
        flops=2 * (2 * _HIDDEN) * float(both.sum() + x.shape[0] * x.shape[1]),
        moved=4 * 4 * x.numel(),  # x and its gradient, in and out
    )


@sizes
def test_inner_product_decode(
    race: Callable[..., dict[str, Any]], threads: int, quick: bool, space_name: str, batch: int
) -> None:
    _, adjacency, z, calls = problem(space_name, batch, _LATENT)
    calls = 2 if quick else calls
    upstream = torch.randn_like(adjacency)
    num_nodes = z.shape[1]
    race(
        f"inner_product_decode, forward and backward, {batch} {space_name} cells",
        {
            name: forward_and_backward(module.inner_product_decode, z, upstream, calls)
            for name, module in (("arch2vec_fast", functional), ("eager", reference))
        },
        unit="pass",
        flops=3 * 2 * batch * num_nodes**2 * _LATENT,
        moved=4 * (3 * z.numel() + 2 * adjacency.numel()),
    )


@sizes
def test_inner_product_loss(
    race: Callable[..., dict[str, Any]], threads: int, quick: bool, space_name: str, batch: int
) -> None:
    layout = spaces.get(space_name).layout
    codes, adjacency, z, calls = problem(space_name, batch, _LATENT)
    calls = 2 if quick else calls
    num_nodes = z.shape[1]
    race(
        f"inner_product_loss, forward and backward, {batch} {space_name} cells",
        {
            "arch2vec_fast": forward_and_backward(
                lambda z: functional.inner_product_loss(z, codes, layout=layout), z, None, calls
            ),
            "eager": forward_and_backward(
                lambda z: reference.inner_product_loss(z, adjacency), z, None, calls
            ),
        },
        unit="pass",
        flops=3 * batch * num_nodes * (num_nodes - 1) * _LATENT,
        moved=4 * 2 * z.numel() + 8 * codes.numel(),
    )

# SPDX-License-Identifier: Apache-2.0
"""gin_aggregate, inner_product_decode and inner_product_loss on the GPU: agreement with the twins,
gradients, repeatability, CUDA graphs. The kernels' own tests, which need no GPU, are
tests/cuda_on_cpu.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from arch2vec_fast import functional, reference
from arch2vec_fast.spaces import CellLayout
from test_building_blocks import (
    DECODERS,
    DTYPES,
    OPTIONS,
    SIZES,
    aggregation,
    compare,
    decoder,
    normal,
)
from test_functional import random_codes

pytestmark = pytest.mark.cuda


def on_gpu(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: v.cuda() if isinstance(v, Tensor) else v for name, v in inputs.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gin_aggregate_matches_reference(
    size: tuple[int, int, int], option: str, dtype: torch.dtype, generator: torch.Generator
) -> None:
    batch, nodes, width = size
    weights = normal(generator, batch, nodes, nodes, dtype=dtype)
    dense = weights * (torch.rand(weights.shape, generator=generator) < 0.4)
    inputs = {"x": normal(generator, *size, dtype=dtype), "adjacency": dense}
    inputs |= aggregation(option, width, dtype)
    compare(functional.gin_aggregate, reference.gin_aggregate, on_gpu(inputs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("option", DECODERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_inner_product_matches_reference(
    size: tuple[int, int, int], option: str, dtype: torch.dtype, generator: torch.Generator
) -> None:
    batch, nodes, dim = size
    inputs = on_gpu(
        {"z": normal(generator, *size, dtype=dtype), **decoder(option, nodes, dim, dtype)}
    )
    compare(functional.inner_product_decode, reference.inner_product_decode, inputs)
    if nodes > 1:
        target = (torch.rand(batch, nodes, nodes, generator=generator) < 0.4).to(dtype)
        inputs["adjacency"] = target.cuda()
        compare(functional.inner_product_loss, reference.inner_product_loss, inputs)


def test_gradcheck(generator: torch.Generator) -> None:
    x, gates = normal(generator, 3, 4, 5).cuda(), normal(generator, 2, 5).cuda()
    dense, eps = normal(generator, 3, 4, 4).cuda(), normal(generator, 1).cuda()
    inputs = [value.requires_grad_() for value in (x, dense, eps, gates)]
    assert torch.autograd.gradcheck(functional.gin_aggregate, inputs)
    bilinear, bias = normal(generator, 5, 5).cuda(), normal(generator, 4, 4).cuda()
    inputs = [value.requires_grad_() for value in (x, bilinear, bias)]
    target = torch.rand(3, 4, 4, device="cuda", dtype=torch.float64)
    assert torch.autograd.gradcheck(functional.inner_product_decode, inputs)
    assert torch.autograd.gradcheck(
        lambda z, *parameters: functional.inner_product_loss(z, target, *parameters), inputs
    )


def everything(x: Tensor, codes: Tensor, gates: Tensor, bilinear: Tensor) -> list[Tensor]:
    layout = CellLayout(7, 5)
    out = functional.gin_aggregate(x, codes, 0.1, gates, layout=layout)
    logits = functional.inner_product_decode(x, bilinear)
    loss = functional.inner_product_loss(x, codes, bilinear, layout=layout)
    return [
        out,
        logits,
        loss,
        *torch.autograd.grad(out.square().sum(), (x, gates)),
        *torch.autograd.grad(logits.sigmoid().sum(), (x, bilinear)),
        *torch.autograd.grad(loss, (x, bilinear)),
    ]


def problem(generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    codes = random_codes(CellLayout(7, 5), batch, generator)
    shapes = [(batch, 7, 16), (2, 16), (16, 16)]
    x, gates, bilinear = (
        normal(generator, *shape, dtype=torch.float32).cuda().requires_grad_() for shape in shapes
    )
    return x, codes.cuda(), gates, bilinear


@pytest.mark.parametrize("batch", [1, 1001, 10_000])
def test_codes_match_the_cpu_and_runs_repeat(batch: int, generator: torch.Generator) -> None:
    arguments = problem(generator, batch)
    first, second = everything(*arguments), everything(*arguments)
    cpu = everything(
        *(value.detach().cpu().requires_grad_(value.requires_grad) for value in arguments)
    )
    for value, again, expected in zip(first, second, cpu, strict=True):
        assert torch.equal(value, again)
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-4 * batch**0.5)


def test_empty() -> None:
    x = torch.zeros(0, 7, 5, device="cuda", requires_grad=True)
    dense = torch.zeros(0, 7, 7, device="cuda")
    gates = torch.ones(2, 5, device="cuda", requires_grad=True)
    bias = torch.ones(7, 7, device="cuda", requires_grad=True)
    out = functional.gin_aggregate(x, dense, 0.0, gates)
    loss = functional.inner_product_loss(x, dense, bias=bias, reduction="sum")
    logits = functional.inner_product_decode(x, bias=bias)
    assert (out.shape, logits.shape, float(loss.detach())) == ((0, 7, 5), (0, 7, 7), 0.0)
    (out.sum() + logits.sum() + loss).backward()
    assert torch.equal(gates.grad, torch.zeros_like(gates))
    assert torch.equal(bias.grad, torch.zeros_like(bias))


def test_opcheck(generator: torch.Generator) -> None:
    x, codes, gates, bilinear = (value.detach() for value in problem(generator, 5))
    eps, operators = torch.zeros((), device="cuda"), torch.ops.arch2vec_fast
    aggregate = (x, codes, eps, gates, True, True)
    torch.library.opcheck(operators.gin_aggregate.default, aggregate)
    torch.library.opcheck(operators.gin_aggregate_backward.default, (x, *aggregate))
    torch.library.opcheck(operators.inner_product_decode.default, (x, bilinear, None))
    torch.library.opcheck(operators.inner_product_loss.default, (x, codes, bilinear, None, True))


def test_cuda_graph(generator: torch.Generator) -> None:
    static = problem(generator, 65)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # autograd wants its first pass outside of the capture
        everything(*static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = everything(*static)
    fresh = problem(generator, 65)
    with torch.no_grad():
        for target, source in zip(static, fresh, strict=True):
            target.copy_(source)
    graph.replay()
    for value, expected in zip(outputs, everything(*fresh), strict=True):
        assert torch.equal(value, expected)


def test_rejects_tensors_on_different_devices_and_cells_too_large() -> None:
    x, dense = torch.zeros(2, 7, 3, device="cuda"), torch.zeros(2, 7, 7)
    with pytest.raises(ValueError, match=r"^adjacency: on cpu, but the node vectors are on cuda"):
        functional.gin_aggregate(x, dense)
    with pytest.raises(ValueError, match=r"^bilinear: is torch.float32 on cpu"):
        functional.inner_product_decode(x, torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"^z: a cell of 300 x 300 numbers needs \d+ bytes"):
        functional.inner_product_decode(torch.zeros(1, 300, 300, device="cuda"))

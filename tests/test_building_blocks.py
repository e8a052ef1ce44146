# SPDX-License-Identifier: Apache-2.0
"""gin_aggregate, inner_product_decode, inner_product_loss: the differentiable building blocks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from arch2vec_fast import functional, reference
from arch2vec_fast.spaces import CellLayout
from test_functional import random_codes
from tolerances import REORDERED

DTYPES = [torch.float32, torch.float64]
# (B, N, H): the benchmarks' shapes, the smallest, sizes around every block width, many nodes.
SIZES = [(32, 7, 128), (5, 8, 7), (3, 11, 11), (1, 1, 1), (70, 2, 17), (3, 13, 77), (2, 40, 33)]
OPTIONS = ["plain", "eps", "gates", "successors", "predecessors"]


def normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def aggregation(option: str, width: int, dtype: torch.dtype) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    if option == "eps":
        return {"eps": torch.tensor(0.3, dtype=dtype)}
    if option == "gates":
        gates = normal(generator, 2, width, dtype=dtype)
        return {"eps": torch.tensor([-0.2], dtype=dtype), "gates": gates}
    return {"direction": "symmetric" if option == "plain" else option}


def decoder(option: str, nodes: int, dim: int, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    parameters = {}
    if option in ("bilinear", "both"):
        parameters["bilinear"] = normal(generator, dim, dim, dtype=dtype)
    if option in ("bias", "both"):
        parameters["bias"] = normal(generator, nodes, nodes, dtype=dtype)
    return parameters


DECODERS = ["plain", "bilinear", "bias", "both"]


def compare(
    function: Callable[..., Tensor],
    twin: Callable[..., Tensor],
    inputs: dict[str, Any],
) -> None:
    """Values and all gradients against the twin in float64, relative to the largest entry."""
    dtype = next(iter(inputs.values())).dtype
    generator = torch.Generator().manual_seed(2)

    def run(call: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        mine = {
            name: value.to(dtype).requires_grad_()
            if isinstance(value, Tensor) and value.is_floating_point() and name != "adjacency"
            else value.to(dtype)
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in inputs.items()
        }
        out = call(**mine)
        wanted = [value for value in mine.values() if getattr(value, "requires_grad", False)]
        weights = torch.randn(out.shape, generator=generator.manual_seed(2), dtype=torch.float64)
        return out, list(torch.autograd.grad((out * weights.to(out)).sum(), wanted))

    actual, actual_grads = run(function, dtype)
    expected, expected_grads = run(twin, torch.float64)
    tolerance = REORDERED[dtype]
    pairs = zip([actual.detach(), *actual_grads], [expected.detach(), *expected_grads])
    for mine, wanted in pairs:
        assert mine.dtype == dtype
        size = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(
            mine.double(), wanted, rtol=tolerance.rtol, atol=tolerance.atol * size
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gin_aggregate_matches_reference(
    size: tuple[int, int, int], option: str, dtype: torch.dtype, generator: torch.Generator
) -> None:
    batch, nodes, width = size
    x = normal(generator, *size, dtype=dtype)
    weights = normal(generator, batch, nodes, nodes, dtype=dtype)
    dense = weights * (torch.rand(weights.shape, generator=generator) < 0.4)
    inputs = {"x": x, "adjacency": dense, **aggregation(option, width, dtype)}
    compare(functional.gin_aggregate, reference.gin_aggregate, inputs)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("layout", [CellLayout(7, 5), CellLayout(11, 11), CellLayout(16, 254)])
def test_gin_aggregate_of_codes_matches_dense_bit_for_bit(
    layout: CellLayout, option: str, generator: torch.Generator
) -> None:
    codes = random_codes(layout, 67, generator)
    dense, _ = functional.unpack_cells(codes, layout)
    x = normal(generator, 67, layout.num_nodes, 37, dtype=torch.float32).requires_grad_()
    options = aggregation(option, 37, torch.float32)
    packed = functional.gin_aggregate(x, codes, layout=layout, **options)
    unpacked = functional.gin_aggregate(x, dense, **options)
    assert torch.equal(packed, unpacked)
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (packed, unpacked)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("option", DECODERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_inner_product_decode_matches_reference(
    size: tuple[int, int, int], option: str, dtype: torch.dtype, generator: torch.Generator
) -> None:
    z = normal(generator, *size, dtype=dtype)
    inputs = {"z": z, **decoder(option, *size[1:], dtype)}
    compare(functional.inner_product_decode, reference.inner_product_decode, inputs)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("option", DECODERS)
@pytest.mark.parametrize("size", [(33, 7, 16), (5, 8, 7), (3, 11, 19), (70, 2, 1), (2, 40, 33)])
def test_inner_product_loss_matches_reference(
    size: tuple[int, int, int],
    option: str,
    dtype: torch.dtype,
    reduction: str,
    generator: torch.Generator,
) -> None:
    batch, nodes, dim = size
    z = normal(generator, *size, dtype=dtype)
    target = (torch.rand(batch, nodes, nodes, generator=generator) < 0.4).to(dtype)
    inputs = {"z": z, "adjacency": target, **decoder(option, nodes, dim, dtype)}
    compare(
        lambda **arguments: functional.inner_product_loss(**arguments, reduction=reduction),
        lambda **arguments: reference.inner_product_loss(**arguments, reduction=reduction),
        inputs,
    )


@pytest.mark.parametrize("layout", [CellLayout(7, 5), CellLayout(11, 11), CellLayout(16, 254)])
def test_inner_product_loss_of_codes_matches_dense_bit_for_bit(
    layout: CellLayout, generator: torch.Generator
) -> None:
    codes = random_codes(layout, 67, generator)
    dense, _ = functional.unpack_cells(codes, layout)
    z = normal(generator, 67, layout.num_nodes, 16, dtype=torch.float32).requires_grad_()
    losses = [
        functional.inner_product_loss(z, codes, layout=layout),
        functional.inner_product_loss(z, dense.bool()),
    ]
    assert torch.equal(*losses)
    assert torch.equal(*(torch.autograd.grad(loss, z)[0] for loss in losses))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [30.0, 1e2, 1e4])
def test_inner_product_loss_survives_large_logits(size: float, dtype: torch.dtype) -> None:
    z = torch.tensor([[[size], [1.0]], [[-size], [1.0]]], dtype=dtype, requires_grad=True)
    edges = torch.tensor([[[0, 1], [0, 0]], [[0, 1], [0, 0]]])
    loss = functional.inner_product_loss(z, edges, reduction="sum")
    expected = torch.tensor(size, dtype=dtype)
    torch.testing.assert_close(loss.detach(), expected, **REORDERED[dtype]._asdict())
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(gradient).all()
    assert gradient[1].flatten().tolist() == pytest.approx([-1.0, size])


@pytest.mark.parametrize("option", OPTIONS)
def test_gin_aggregate_gradcheck(option: str, generator: torch.Generator) -> None:
    options = aggregation(option, 5, torch.float64)
    x = normal(generator, 3, 4, 5).requires_grad_()
    dense = normal(generator, 3, 4, 4).requires_grad_()
    eps = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    gates = options.pop("gates", None)
    options.pop("eps", None)
    gates = gates if gates is None else gates.requires_grad_()

    def call(*inputs: Tensor) -> Tensor:
        return functional.gin_aggregate(*inputs, **options)

    assert torch.autograd.gradcheck(call, (x, dense, eps, gates))


@pytest.mark.parametrize("option", DECODERS)
def test_inner_product_gradcheck(option: str, generator: torch.Generator) -> None:
    parameters = decoder(option, 4, 3, torch.float64)
    inputs = [normal(generator, 3, 4, 3), parameters.get("bilinear"), parameters.get("bias")]
    inputs = [value if value is None else value.requires_grad_() for value in inputs]
    edges = torch.rand(3, 4, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(functional.inner_product_decode, inputs)
    assert torch.autograd.gradcheck(
        lambda z, bilinear, bias: functional.inner_product_loss(z, edges, bilinear, bias), inputs
    )


def test_second_derivatives_are_refused(generator: torch.Generator) -> None:
    x = normal(generator, 2, 3, 4).requires_grad_()
    edges = torch.ones(2, 3, 3)
    for out in (
        functional.gin_aggregate(x, edges),
        functional.inner_product_decode(x),
        functional.inner_product_loss(x, edges),
    ):
        (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


_LEVELS_SCRIPT = """
import sys, torch
from arch2vec_fast import _library, functional
generator = torch.Generator().manual_seed(0)
normal = lambda *shape: torch.randn(*shape, generator=generator)
results = []
for nodes, width in ((7, 128), (8, 31), (11, 77), (3, 5), (13, 16)):
    for dtype in (torch.float32, torch.float64):
        x = normal(9, nodes, width).to(dtype).requires_grad_()
        gates = normal(2, width).to(dtype).requires_grad_()
        edges = (torch.rand(9, nodes, nodes, generator=generator) < 0.4).to(dtype)
        bilinear = (0.1 * normal(width, width)).to(dtype).requires_grad_()
        bias = normal(nodes, nodes).to(dtype).requires_grad_()
        out = functional.gin_aggregate(x, edges, 0.3, gates)
        results += [out, *torch.autograd.grad(out.square().sum(), (x, gates))]
        out = functional.inner_product_decode(x, bilinear, bias)
        results += [out, *torch.autograd.grad(out.square().sum(), (x, bilinear, bias))]
        loss = functional.inner_product_loss(x, edges, bilinear, bias)
        results += [loss, *torch.autograd.grad(loss, (x, bilinear, bias))]
torch.save([_library.simd_level(), results], sys.argv[1])
"""


def test_simd_levels_agree(tmp_path: Any) -> None:
    """Each level in a process of its own: it is chosen once. Same operations in the same order."""
    results = {}
    for level in ("scalar", "avx2", "avx512"):
        file = tmp_path / f"{level}.pt"
        run = subprocess.run(
            [sys.executable, "-c", _LEVELS_SCRIPT, str(file)],
            env={**os.environ, "A2V_SIMD": level},
            capture_output=True,
            text=True,
            check=False,
        )
        if "does not run" in run.stderr:
            continue
        assert run.returncode == 0, run.stderr
        used, results[level] = torch.load(file)
        assert used == level
    for level, values in results.items():
        for value, expected in zip(values, results["scalar"], strict=True):
            torch.testing.assert_close(value, expected, rtol=2e-6, atol=2e-6, msg=level)


@pytest.mark.parametrize("threads", [2, 3])
def test_deterministic_in_threads(threads: int, generator: torch.Generator) -> None:
    layout = CellLayout(7, 5)
    codes = random_codes(layout, 1001, generator)
    x = normal(generator, 1001, 7, 40, dtype=torch.float32).requires_grad_()
    gates = normal(generator, 2, 40, dtype=torch.float32).requires_grad_()
    bilinear = normal(generator, 40, 40, dtype=torch.float32).requires_grad_()

    def everything() -> list[Tensor]:
        out = functional.gin_aggregate(x, codes, 0.1, gates, layout=layout)
        logits = functional.inner_product_decode(x, bilinear)
        loss = functional.inner_product_loss(x, codes, bilinear, layout=layout)
        return [
            out,
            loss,
            *torch.autograd.grad(out.square().sum(), (x, gates)),
            *torch.autograd.grad(logits.sigmoid().sum(), (x, bilinear)),
            *torch.autograd.grad(loss, (x, bilinear)),
        ]

    expected = everything()
    torch.set_num_threads(threads)
    for _ in range(2):
        for value, wanted in zip(everything(), expected, strict=True):
            assert torch.equal(value, wanted)


def test_opcheck(generator: torch.Generator) -> None:
    operators = torch.ops.arch2vec_fast
    layout = CellLayout(7, 5)
    codes = random_codes(layout, 5, generator)
    for dtype in DTYPES:
        x, grad = normal(generator, 2, 5, 7, 6, dtype=dtype)
        dense = torch.ones(5, 7, 7, dtype=dtype)
        eps, gates = torch.tensor(0.1, dtype=dtype), torch.ones(2, 6, dtype=dtype)
        bilinear, bias = torch.ones(6, 6, dtype=dtype), torch.ones(7, 7, dtype=dtype)
        for edges in (codes, dense):
            for options in ((gates, True, True), (None, True, False)):
                arguments = (x, edges, eps, *options)
                torch.library.opcheck(operators.gin_aggregate.default, arguments)
                torch.library.opcheck(operators.gin_aggregate_backward.default, (grad, *arguments))
            for options in ((bilinear, bias, True), (None, None, False), (None, bias, True)):
                torch.library.opcheck(operators.inner_product_loss.default, (x, edges, *options))
        for options in ((bilinear, bias), (None, None)):
            torch.library.opcheck(operators.inner_product_decode.default, (x, *options))
        for options in ((bilinear, True), (None, False)):
            arguments = (dense, x, *options)
            torch.library.opcheck(operators.inner_product_decode_backward.default, arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")  # of torch's own compiler stack
def test_compile_fullgraph(generator: torch.Generator) -> None:
    layout = CellLayout(7, 5)

    def step(x: Tensor, codes: Tensor, eps: Tensor, gates: Tensor) -> Tensor:
        x = functional.gin_aggregate(x, codes, eps, gates, layout=layout).relu()
        edges = functional.inner_product_decode(x).sigmoid().mean()
        return edges + functional.inner_product_loss(x, codes, layout=layout)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    eps = torch.tensor(0.1, requires_grad=True)
    gates = normal(generator, 2, 6, dtype=torch.float32).requires_grad_()
    for batch in (4, 9):
        codes = random_codes(layout, batch, generator)
        x = normal(generator, batch, 7, 6, dtype=torch.float32).requires_grad_()
        results = []
        for call in (compiled, step):
            loss = call(x, codes, eps, gates)
            results.append([loss, *torch.autograd.grad(loss, (x, eps, gates))])
        for value, wanted in zip(*results, strict=True):
            torch.testing.assert_close(value, wanted)


def test_noncontiguous(generator: torch.Generator) -> None:
    x = normal(generator, 6, 9, 8).mT[::2, ::2]
    dense = (normal(generator, 4, 4, 3) > 0).double().permute(2, 0, 1)
    gates = normal(generator, 9, 2).t()
    square = normal(generator, 9, 9).t()
    for function, arguments in (
        (functional.gin_aggregate, (x, dense, 0.5, gates)),
        (functional.inner_product_decode, (x, square)),
        (functional.inner_product_loss, (x, dense, square)),
    ):
        copies = [value.clone(memory_format=torch.contiguous_format) for value in arguments[:2]]
        rest = [value.contiguous() if isinstance(value, Tensor) else value for value in arguments]
        assert torch.equal(function(*arguments), function(*copies, *rest[2:]))


@pytest.mark.parametrize("shape", [(0, 7, 5), (2, 7, 0), (2, 0, 5)])
def test_empty(shape: tuple[int, int, int]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    batch, nodes, _ = shape
    dense = torch.zeros(batch, nodes, nodes)
    bias = torch.full((nodes, nodes), 2.0, requires_grad=True)
    assert functional.gin_aggregate(x, dense).shape == shape
    logits = functional.inner_product_decode(x, bias=bias)
    assert torch.equal(logits, bias.expand(batch, nodes, nodes))
    loss = functional.inner_product_loss(x, dense, bias=bias, reduction="sum")
    expected = reference.inner_product_loss(x, dense, bias=bias, reduction="sum")
    torch.testing.assert_close(loss, expected)
    (loss + functional.gin_aggregate(x, dense).sum() + logits.sum()).backward()
    assert x.grad is not None
    assert x.grad.shape == shape
    assert functional.inner_product_loss(x[:0], dense[:0]).isnan()


def test_autocast_computes_in_float32(generator: torch.Generator) -> None:
    x = normal(generator, 3, 4, 5, dtype=torch.bfloat16)
    edges = torch.ones(3, 4, 4)
    with pytest.raises(TypeError, match=r"^x: expected float32 or float64, got torch.bfloat16"):
        functional.gin_aggregate(x, edges)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = functional.gin_aggregate(x, edges)
        loss = functional.inner_product_loss(torch.nn.functional.linear(x, x[0]), edges)
    assert out.dtype == loss.dtype == torch.float32
    assert torch.equal(out, functional.gin_aggregate(x.float(), edges))


def test_on_meta_tensors() -> None:
    x = torch.empty(3, 7, 5, device="meta")
    dense = torch.empty(3, 7, 7, device="meta")
    assert functional.gin_aggregate(x, dense).shape == (3, 7, 5)
    assert functional.inner_product_decode(x).shape == (3, 7, 7)
    assert functional.inner_product_loss(x, dense).shape == ()


X, A, LAYOUT = torch.zeros(2, 7, 3), torch.zeros(2, 7, 7), CellLayout(7, 5)
CODES = torch.zeros(2, 1, dtype=torch.int64)
REJECTED = [
    ("gin_aggregate", ([1], A), {}, TypeError, r"^x: expected a tensor, got list"),
    ("gin_aggregate", (X.int(), A), {}, TypeError, r"^x: expected float32 or float64"),
    ("gin_aggregate", (X[0], A), {}, ValueError, r"^x: expected shape \[B, N, \*\] .*\[7, 3\]"),
    ("gin_aggregate", (X, [1]), {}, TypeError, r"^adjacency: expected a tensor"),
    ("gin_aggregate", (X, A[0]), {}, ValueError, r"^adjacency: expected shape \[2, 7, 7\], got"),
    ("gin_aggregate", (X, CODES), {}, ValueError, r"^adjacency: .* packed codes need layout="),
    ("gin_aggregate", (X, A), {"layout": LAYOUT}, TypeError, r"^codes: expected int64"),
    ("gin_aggregate", (X[:, :6], CODES), {"layout": LAYOUT}, ValueError, r"2 cells of 7 nodes"),
    ("gin_aggregate", (X[:1], CODES), {"layout": LAYOUT}, ValueError, r"are of 1 cells of 7$"),
    ("gin_aggregate", (X, A.to("meta")), {}, ValueError, r"^adjacency: on meta, but"),
    ("gin_aggregate", (X, A, X), {}, ValueError, r"^eps: expected one number, got shape"),
    ("gin_aggregate", (X, A, [1.0]), {}, TypeError, r"^eps: expected a number or a tensor, got l"),
    ("gin_aggregate", (X, A, "1"), {}, TypeError, r"^eps: expected a number or a tensor, got str"),
    ("gin_aggregate", (X, A, 0.0, X[0]), {}, ValueError, r"^gates: expected shape \[2, 3\]"),
    ("gin_aggregate", (X, A, 0.0, X[0, :2].double()), {}, ValueError, r"^gates: is torch.float64"),
    ("gin_aggregate", (X, A), {"direction": "up"}, ValueError, r"^direction: unknown value 'up'"),
    (
        "gin_aggregate",
        (X, A, 0.0, X[0, :2]),
        {"direction": "successors"},
        ValueError,
        r"^gates: weigh both directions",
    ),
    ("inner_product_decode", (X, X[0]), {}, ValueError, r"^bilinear: expected shape \[3, 3\]"),
    ("inner_product_decode", (X, None, X[0]), {}, ValueError, r"^bias: expected shape \[7, 7\]"),
    ("inner_product_decode", (X, 3.0), {}, TypeError, r"^bilinear: expected a tensor, got float"),
    ("inner_product_loss", (X, A), {"reduction": "none"}, ValueError, r"^reduction: unknown value"),
    (
        "inner_product_loss",
        (X, A.clone().requires_grad_()),
        {},
        ValueError,
        r"^adjacency: requires a gradient",
    ),
]


@pytest.mark.parametrize("module", [functional, reference])
@pytest.mark.parametrize(("name", "arguments", "options", "error", "message"), REJECTED)
def test_rejects_bad_arguments_in_one_line(
    module: object,
    name: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as caught:
        getattr(module, name)(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_rejects_raw_operators_are_memory_safe() -> None:
    operators = torch.ops.arch2vec_fast
    eps = torch.zeros(())
    for call, message in (
        (lambda: operators.gin_aggregate(X, A[:1], eps, None, True, True), r"adjacency: expected"),
        (lambda: operators.gin_aggregate(X, CODES[:1], eps, None, True, True), r"codes: expected"),
        (lambda: operators.gin_aggregate(X, A, eps, X[0], True, True), r"gates: expected shape"),
        (lambda: operators.gin_aggregate(X, A.double(), eps, None, True, True), r"adjacency: exp"),
        (
            lambda: operators.gin_aggregate_backward(A, X, A, eps, None, True, True),
            r"out_grad: expected shape",
        ),
        (lambda: operators.inner_product_decode(X, X[0], None), r"bilinear: expected shape"),
        (
            lambda: operators.inner_product_decode_backward(X, X, None, True),
            r"logits_grad: expected shape",
        ),
        (lambda: operators.inner_product_loss(X, A, None, X[0], True), r"bias: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()

# SPDX-License-Identifier: Apache-2.0
"""Argument checks that several parts share, so that they refuse the same in the same words.

Each check raises `TypeError` or `ValueError` with one line: `name: what was wrong; how to fix`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from arch2vec_fast import _library

if TYPE_CHECKING:
    from arch2vec_fast._gin_shape import GinShape


class PackedLayout(Protocol):
    """What a function must know of `spaces.CellLayout`, which lies in another layer."""

    @property
    def num_nodes(self) -> int: ...
    @property
    def num_op_types(self) -> int: ...
    @property
    def edge_bits(self) -> int: ...
    @property
    def op_bits(self) -> int: ...
    @property
    def num_bits(self) -> int: ...
    @property
    def words(self) -> int: ...


def check_codes(codes: Tensor, layout: PackedLayout) -> None:
    """Accepts an int64 tensor [B, W], W being the words of the layout."""
    if not isinstance(codes, Tensor):
        raise TypeError(
            f"codes: expected a tensor, got {type(codes).__name__}; use CellBatch.to_torch()"
        )
    if codes.dtype != torch.int64:
        raise TypeError(
            f"codes: expected int64, got {codes.dtype}; packed cells are bits, do not convert them"
        )
    if codes.dim() != 2 or codes.shape[1] != layout.words:
        raise ValueError(
            f"codes: expected shape [B, {layout.words}] for cells of {layout.num_nodes} nodes and "
            f"{layout.num_op_types} operation types, got {list(codes.shape)}; check the layout"
        )


def check_kernels(name: str, tensor: Tensor, operator: str) -> None:
    """Refuses a device for which `operator` has no kernel, instead of falling back to a slow path.

    Accepts the CPU, the meta device, and CUDA where the operator's CUDA kernel is loaded.
    """
    device = tensor.device.type
    if device in ("cpu", "meta"):
        return
    if device == "cuda" and _library.has_cuda_kernel(operator):
        if not torch.compiler.is_compiling():  # which has seen the tensor run already
            _check_capability(name, tensor.device)
        return
    if device == "cuda" and (reason := _library.cuda_kernels()) is not None:
        raise ValueError(f"{name}: on {tensor.device}, but the CUDA kernels are missing: {reason}")
    raise ValueError(
        f"{name}: on {tensor.device}, but {operator} has no kernels for it; "
        f"pass {name}.cpu() and move the results"
    )


# The oldest architecture that _C_cuda is built for; see cmake/cuda.cmake.
_LEAST_CAPABILITY = (8, 0)


def check_device(device: str | torch.device) -> torch.device:
    """The device, if it exists here and the kernels run on it; else a ValueError that says why."""
    try:
        device = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: {device!r} is not a device; use cpu or cuda") from None
    if device.type == "cpu":
        if device.index is not None:
            raise ValueError(f"device: {device} has a number, but there is one cpu; use cpu")
        return device
    available = torch.cuda.is_available()
    count = torch.cuda.device_count() if available else 0
    if device.type != "cuda" or (device.index or 0) >= count:
        have = f"cpu, cuda (x{count})" if available else "cpu"
        why = "" if device.type != "cuda" or available else f": {_why_no_cuda()}"
        raise ValueError(f"device: {device} is not available here{why}; choose from {have}")
    _check_capability("device", device)
    return device


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()
    except Exception as error:  # RuntimeError without a driver, AssertionError, AcceleratorError
        return " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return "torch sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"


def _check_capability(name: str, device: torch.device) -> None:
    found = _capability(device)
    if found < _LEAST_CAPABILITY:
        raise ValueError(
            f"{name}: on {device}, a GPU of compute capability {'.'.join(map(str, found))}, but "
            f"the kernels need {'.'.join(map(str, _LEAST_CAPABILITY))}; use the cpu"
        )


@lru_cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def check_seed(seed: int) -> None:
    """Accepts an int of 0 .. 2^63 - 1, what every generator takes."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed: expected an int, got {type(seed).__name__}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed: {seed} is outside 0 .. 2^63 - 1; choose another")


def check_dense(adjacency: Tensor, node_ops: Tensor, num_op_types: int) -> None:
    """Accepts node_ops [B, N, F] of the model's F and adjacency [B, N, N]."""
    if node_ops.dim() != 3 or node_ops.shape[2] != num_op_types:
        raise ValueError(
            f"node_ops: expected shape [B, N, {num_op_types}], got {list(node_ops.shape)}; "
            "pass one-hot operations of the model's space"
        )
    wanted = [node_ops.shape[0], node_ops.shape[1], node_ops.shape[1]]
    if list(adjacency.shape) != wanted:
        raise ValueError(
            f"adjacency: expected shape {wanted} to go with node_ops, got {list(adjacency.shape)}"
        )


GIN_OUTPUTS = ("readout", "nodes", "hidden")  # in the order of GinEncodeOutput
PRECISIONS = ("fp32", "tf32", "bf16")


def check_gin_encode(
    codes: Tensor,
    weights: Tensor,
    shape: GinShape,
    output: str,
    precision: str,
    *,
    dtypes: tuple[torch.dtype, ...] | None = (torch.float32,),
) -> None:
    """Accepts codes of the layout and one flat buffer of folded weights on the same device."""
    check_codes(codes, shape.layout)
    if not isinstance(weights, Tensor):
        raise TypeError(f"weights: expected a tensor, got {type(weights).__name__}")
    if list(weights.shape) != [shape.num_weights]:
        raise ValueError(
            f"weights: expected shape [{shape.num_weights}] for this encoder, got "
            f"{list(weights.shape)}; fold the model again"
        )
    if dtypes is not None and weights.dtype not in dtypes:
        raise TypeError(f"weights: expected float32, got {weights.dtype}; convert them")
    if dtypes is not None and weights.requires_grad:
        raise ValueError("weights: require a gradient, but encoding has none; detach() them")
    if weights.device != codes.device:
        raise ValueError(
            f"weights: on {weights.device}, but codes on {codes.device}; move one of them"
        )
    if output not in GIN_OUTPUTS:
        raise ValueError(f"output: unknown {output!r}; choose one of {', '.join(GIN_OUTPUTS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: unknown {precision!r}; choose one of {', '.join(PRECISIONS)}")

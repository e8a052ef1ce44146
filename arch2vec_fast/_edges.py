# SPDX-License-Identifier: Apache-2.0
"""Arguments of the functions on node vectors and edges: `gin_aggregate`, `inner_product_*`.

Functions and twins share these checks, so that both refuse the same in the same words.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arch2vec_fast._checks import PackedLayout, check_codes

DIRECTIONS = ("symmetric", "successors", "predecessors")
REDUCTIONS = ("mean", "sum")
_DTYPES = (torch.float32, torch.float64)
_LARGEST = 2**15 - 1


def check_nodes(name: str, nodes: Tensor) -> Tensor:
    """Node vectors float32 or float64 [B, N, *]; half precision becomes float32 under autocast."""
    if not isinstance(nodes, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(nodes).__name__}")
    if nodes.dtype in (torch.float16, torch.bfloat16) and torch.is_autocast_enabled(
        nodes.device.type
    ):
        nodes = nodes.float()
    if nodes.dtype not in _DTYPES:
        raise TypeError(f"{name}: expected float32 or float64, got {nodes.dtype}; convert it")
    if nodes.dim() != 3 or max(nodes.shape[1:]) > _LARGEST:
        raise ValueError(
            f"{name}: expected shape [B, N, *] with sizes below {_LARGEST + 1}, "
            f"got {list(nodes.shape)}"
        )
    return nodes


def check_edges(adjacency: Tensor, nodes: Tensor, layout: PackedLayout | None) -> Tensor:
    """Codes [B, W] of `layout`, or dense weights [B, N, N], converted to the dtype of `nodes`."""
    batch, num_nodes, _ = nodes.shape
    if not isinstance(adjacency, Tensor):
        raise TypeError(f"adjacency: expected a tensor, got {type(adjacency).__name__}")
    if adjacency.device != nodes.device:
        raise ValueError(
            f"adjacency: on {adjacency.device}, but the node vectors are on {nodes.device}; "
            "move one of them"
        )
    if layout is not None:
        check_codes(adjacency, layout)
        if layout.num_nodes != num_nodes or adjacency.shape[0] != batch:
            raise ValueError(
                f"adjacency: holds {adjacency.shape[0]} cells of {layout.num_nodes} nodes, but the "
                f"node vectors are of {batch} cells of {num_nodes}"
            )
        return adjacency
    if list(adjacency.shape) != [batch, num_nodes, num_nodes]:
        raise ValueError(
            f"adjacency: expected shape {[batch, num_nodes, num_nodes]}, got "
            f"{list(adjacency.shape)}; packed codes need layout="
        )
    return adjacency.to(nodes.dtype)


def check_parameter(name: str, value: Tensor | None, shape: list[int], nodes: Tensor) -> None:
    """A parameter of exactly this shape, with the dtype and device of the node vectors."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if list(value.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {list(value.shape)}")
    if value.dtype != nodes.dtype or value.device != nodes.device:
        raise ValueError(
            f"{name}: is {value.dtype} on {value.device}, but the node vectors are {nodes.dtype} "
            f"on {nodes.device}; convert one of them"
        )


def check_eps(eps: Tensor | float, x: Tensor) -> Tensor:
    """The self weight as one number of x's dtype and device."""
    if isinstance(eps, str | list | tuple) or eps is None:
        raise TypeError(f"eps: expected a number or a tensor, got {type(eps).__name__}")
    if not isinstance(eps, Tensor):
        return torch.full((), float(eps), dtype=x.dtype, device=x.device)
    if eps.numel() != 1:
        raise ValueError(f"eps: expected one number, got shape {list(eps.shape)}")
    return eps.reshape(()).to(x)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """One of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: unknown value {value!r}; choose one of {', '.join(choices)}")


def check_direction(direction: str, gates: Tensor | None) -> tuple[bool, bool]:
    """Whether successors and predecessors count."""
    check_choice("direction", direction, DIRECTIONS)
    if gates is not None and direction != "symmetric":
        raise ValueError(
            "gates: weigh both directions, so direction must be symmetric; "
            "set one row to zero to leave a direction out"
        )
    return direction != "predecessors", direction != "successors"


def check_target(adjacency: Tensor) -> None:
    """Refuses a target that would silently get no gradient."""
    if isinstance(adjacency, Tensor) and adjacency.requires_grad:
        raise ValueError(
            "adjacency: requires a gradient, but the loss has none for its target; detach() it"
        )

# SPDX-License-Identifier: Apache-2.0
"""Argument checks of the `dngo_*` functions, for `functional` and `reference` alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_BATCH = 16  # kMaxDngoBatch
MAX_RESULTS = 1024  # kMaxDngoResults
SCORES = ("log_improvement", "released")  # in the order of DngoScore


def check_tensor(
    name: str, tensor: Tensor, shape: Sequence[int | str], dtypes: Sequence[torch.dtype]
) -> None:
    """Accepts a tensor of one of the dtypes and of `shape`, where a letter stands for any size."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(
            f"{name}: expected {wanted}, got {str(tensor.dtype).removeprefix('torch.')}; convert it"
        )
    fits = tensor.dim() == len(shape) and all(
        isinstance(wanted, str) or size == wanted
        for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        letters = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name}: expected shape [{letters}], got {list(tensor.shape)}")


def check_same_device(first: str, tensors: dict[str, Tensor | None]) -> None:
    """Refuses tensors on different devices; `first` names the one that decides."""
    wanted = tensors[first]
    assert wanted is not None
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != wanted.device:
            raise ValueError(
                f"{name}: on {tensor.device}, but {first} is on {wanted.device}; move one of them"
            )


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Accepts an integer, least <= value <= most."""
    if isinstance(value, bool | float | str | Tensor) or value is None:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name}: {value} is outside {least} .. {most}")


def check_rate(learning_rate: float) -> None:
    """Accepts a positive number."""
    if isinstance(learning_rate, bool | str | Tensor) or learning_rate is None:
        raise TypeError(f"learning_rate: expected a float, got {type(learning_rate).__name__}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate: {learning_rate} is no positive number")


def hidden_units(parameters: Tensor, num_inputs: int) -> int:
    """H of flat parameters [S, P], where P = H (D + 2) + 1."""
    size = parameters.shape[-1]
    if parameters.dim() != 2 or size <= 1 or (size - 1) % (num_inputs + 2):
        raise ValueError(
            f"parameters: expected shape [S, H (D + 2) + 1] with D = {num_inputs}, "
            f"got {list(parameters.shape)}; make them with dngo_draw"
        )
    return (size - 1) // (num_inputs + 2)


def check_fit(
    parameters: Tensor,
    points: Tensor,
    targets: Tensor,
    order: Tensor,
    batch_size: int,
    learning_rate: float,
    dtypes: Sequence[torch.dtype],
) -> tuple[int, int]:
    """Accepts the arguments of `dngo_fit`; returns H and the batch size in use."""
    check_rate(learning_rate)
    check_tensor("points", points, ("S", "M", "D"), dtypes)
    seeds, num_points, num_inputs = points.shape
    check_tensor("parameters", parameters, (seeds, "P"), (points.dtype,))
    hidden = hidden_units(parameters, num_inputs)
    check_tensor("targets", targets, (seeds, num_points), (points.dtype,))
    check_tensor("order", order, (seeds, "E", num_points), (torch.int32,))
    check_same_device(
        "parameters",
        {"parameters": parameters, "points": points, "targets": targets, "order": order},
    )
    if num_points == 0:
        raise ValueError("points: no points (M = 0); observe at least one")
    check_range("batch_size", batch_size, 1, MAX_BATCH)
    if not parameters.is_contiguous():
        raise ValueError("parameters: not contiguous, and trained in place; pass a contiguous copy")
    if parameters.requires_grad:
        raise ValueError("parameters: requires grad, but training is in place; pass .detach()")
    return hidden, min(batch_size, num_points)


def check_evidence(
    eigenvalue: Tensor, energy: Tensor, residual: Tensor, start: Tensor | None, released: bool
) -> None:
    """Accepts the arguments of `dngo_evidence`."""
    double = (torch.float64,)
    check_tensor("eigenvalue", eigenvalue, ("S", "R"), double)
    check_tensor("energy", energy, tuple(eigenvalue.shape), double)
    check_tensor("residual", residual, (len(eigenvalue),), double)
    if start is not None:
        check_tensor("start", start, (len(eigenvalue), 2), double)
    elif released:
        raise ValueError("start: the released search needs one; draw log alpha, log noise [S, 2]")
    check_same_device(
        "eigenvalue",
        {"eigenvalue": eigenvalue, "energy": energy, "residual": residual, "start": start},
    )


def check_acquire(
    candidates: Tensor,
    posterior: dict[str, Tensor],
    visited: Tensor | None,
    num_results: int,
    score: str,
    dtypes: Sequence[torch.dtype],
) -> None:
    """Accepts the arguments of `dngo_acquire`; `posterior` holds those between the others."""
    check_tensor("candidates", candidates, ("Q", "D"), dtypes)
    dtype = (candidates.dtype,)
    check_tensor("weight", posterior["weight"], ("S", "H", candidates.shape[1]), dtype)
    seeds, hidden, _ = posterior["weight"].shape
    shapes = {
        "bias": (seeds, hidden),
        "coefficients": (seeds, hidden),
        "factor": (seeds, hidden, hidden),
        "noise": (seeds,),
        "target": (seeds,),
    }
    for name, shape in shapes.items():
        check_tensor(name, posterior[name], shape, dtype)
    if visited is not None:
        check_tensor("visited", visited, (seeds, len(candidates)), (torch.bool,))
    check_same_device("candidates", {"candidates": candidates, **posterior, "visited": visited})
    check_range("num_results", num_results, 0, MAX_RESULTS)
    if score not in SCORES:
        raise ValueError(f"score: {score!r} is not a score; use {' or '.join(SCORES)}")

# SPDX-License-Identifier: Apache-2.0
"""What the nearest-neighbour functions share: packed points, visited bits, argument checks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MAXIMUM_DIM = 1024  # kMaxLatentDim of csrc/nearest_latent/nearest_latent.h
MAXIMUM_NEIGHBOURS = 1024  # kMaxNeighbours there
BLOCK = 16  # points of a block
GROUP = 32  # points of a box: kGroupPoints there
FAN = 16  # groups of a tile, tiles of a region: kFan there

# Times the eight bytes 0 or 1 of a word gathers them, first byte lowest, in its highest byte.
_GATHER = 0x0102040810204080


class PackedLatents(NamedTuple):
    """Points and what the CPU kernel reads instead of most of them; made by `pack_latents`.

    points: float32 [Q, D]. order: int32 [Q], which point stands at each place of codes and norms:
    neighbours together. codes: uint8 [ceil(Q/16), ceil(D/4), 16, 4], coordinates in 255 steps.
    norms: float32 [ceil(Q/16), 16], squared norms of the codes. frame: float64 [D + 3], lowest
    value of each dim, step, largest |point - what its codes say|, largest norm. boxes: float32
    [ceil(Q/512) + ceil(Q/8192), D, 2, 16], the lowest and highest values of each 32 places, sixteen
    such groups a row, then of each 512.
    """

    points: Tensor
    codes: Tensor
    norms: Tensor
    frame: Tensor
    order: Tensor
    boxes: Tensor


def visited_words(num_points: int) -> int:
    """64-bit words of one row of visited bits."""
    return (num_points + 63) // 64


def check_mask(visited: Tensor) -> None:
    """Accepts bool or uint8 [..., Q]."""
    if not isinstance(visited, Tensor) or visited.dtype not in (torch.bool, torch.uint8):
        got = visited.dtype if isinstance(visited, Tensor) else type(visited).__name__
        raise TypeError(f"visited: expected bool or uint8, got {got}")
    if visited.dim() == 0:
        raise ValueError("visited: expected shape [..., Q], got []")


def pack_visited(visited: Tensor) -> Tensor:
    """Bits of a mask: bool or uint8 [..., Q] to int64 [..., ceil(Q/64)]."""
    num_points = visited.shape[-1]
    mask = visited if visited.dtype == torch.bool else visited != 0
    missing = 64 * visited_words(num_points) - num_points
    mask = torch.nn.functional.pad(mask.to(torch.uint8), (0, missing))
    eights = mask.view(torch.int64) * _GATHER
    return (eights >> 56).to(torch.uint8).view(torch.int64)


def check_latents(
    points: Tensor, dtypes: tuple[torch.dtype, ...] | None = (torch.float32,)
) -> None:
    """Accepts points [Q, D]."""
    _check_rows("points", points, dtypes)
    if not 1 <= points.shape[1] <= MAXIMUM_DIM:
        raise ValueError(
            f"points: {points.shape[1]} dims are outside 1 .. {MAXIMUM_DIM}; reduce them first"
        )
    if len(points) >= 2**31:
        raise ValueError(f"points: {len(points)} rows, at most 2^31 - 1 are indexed; split them")


def check_search(
    points: Tensor,
    queries: Tensor,
    k: int,
    visited: Tensor | None,
    dtypes: tuple[torch.dtype, ...] | None = (torch.float32,),
) -> None:
    """Accepts queries [M, D], k neighbours and a mask, all on the device of the points."""
    _check_rows("queries", queries, dtypes)
    if queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"queries: expected shape [M, {points.shape[1]}] to go with points, got "
            f"{list(queries.shape)}"
        )
    if queries.device != points.device:
        raise ValueError(
            f"queries: on {queries.device}, but points on {points.device}; move one of them"
        )
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k: expected an int, got {type(k).__name__}")
    if not 1 <= k <= MAXIMUM_NEIGHBOURS:
        raise ValueError(f"k: {k} is outside 1 .. {MAXIMUM_NEIGHBOURS}")
    if visited is not None:
        _check_visited(visited, points, len(queries))


def check_finite(name: str, rows: Tensor) -> None:
    """Refuses NaN and infinity, as the CPU operators do themselves."""
    good = rows.isfinite().all(1)
    if not good.all():
        row = int((~good).nonzero()[0])
        raise ValueError(f"{name}: row {row} holds a NaN or an infinity; remove or repair it")


def _check_rows(name: str, rows: Tensor, dtypes: tuple[torch.dtype, ...] | None) -> None:
    if not isinstance(rows, Tensor):
        raise TypeError(
            f"{name}: expected a tensor, got {type(rows).__name__}; use torch.as_tensor"
        )
    if dtypes is not None and rows.dtype not in dtypes:
        raise TypeError(f"{name}: expected float32, got {rows.dtype}; convert with .float()")
    if rows.dim() != 2:
        raise ValueError(f"{name}: expected rows of vectors, got shape {list(rows.shape)}")
    if dtypes is not None and rows.requires_grad:
        raise ValueError(f"{name}: require a gradient, but the search has none; detach() them")


def _check_visited(visited: Tensor, points: Tensor, num_queries: int) -> None:
    if not isinstance(visited, Tensor) or visited.dtype not in (
        torch.bool,
        torch.uint8,
        torch.int64,
    ):
        got = visited.dtype if isinstance(visited, Tensor) else type(visited).__name__
        raise TypeError(f"visited: expected bool, uint8 or packed int64, got {got}")
    num_points = len(points)
    columns = visited_words(num_points) if visited.dtype == torch.int64 else num_points
    shape = list(visited.shape)
    if shape not in ([columns], [1, columns], [num_queries, columns]):
        raise ValueError(
            f"visited: expected shape [{columns}] or [{num_queries}, {columns}] for {visited.dtype}"
            f", {num_points} points and {num_queries} queries, got {shape}"
        )
    if visited.device != points.device:
        raise ValueError(
            f"visited: on {visited.device}, but points on {points.device}; move one of them"
        )

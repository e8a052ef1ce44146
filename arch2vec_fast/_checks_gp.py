# SPDX-License-Identifier: Apache-2.0
"""Argument checks of the `gp_*` functions, and the candidates that both engines read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arch2vec_fast._checks_dngo import MAX_RESULTS, check_range, check_same_device, check_tensor

LANES = 16  # candidates of a panel
MAX_POINTS = 1 << 16  # kMaxGpPoints


class GpCandidates(NamedTuple):
    """What the kernel of a Gaussian process knows about Q candidates; made by `gp_candidates`.

    Candidates lie in P = ceil(Q / 16) panels of sixteen. The histogram is there twice, by candidate
    and by colour: a row of the kernel is summed over the candidates that share its few colours.
    """

    panels: Tensor  # [P, D, 16] features
    norms: Tensor  # [P, 16] their squared lengths
    starts: Tensor  # int64 [Q + 1] entries of each candidate
    colours: Tensor  # int32 [E]
    weights: Tensor  # [E], counts over the length of their row
    holder_starts: Tensor  # int64 [C + 1] entries of each colour
    holders: Tensor  # int32 [E], candidates that hold a colour, ascending
    holder_weights: Tensor  # [E]

    @property
    def num_candidates(self) -> int:
        """Q."""
        return len(self.starts) - 1


def gp_candidates(
    features: Tensor,
    starts: Tensor | None = None,
    colours: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    num_colours: int = 0,
) -> GpCandidates:
    """Lays Q candidates out for `gp_extend`.

    Args:
        features: [Q, D], float32 (or float64 for the twin); D = 0 for a kernel of histograms alone.
        starts, colours, weights: rows of the normalised histogram (`spaces.wl_histogram`): int64
            [Q + 1], int32 [E], and of the dtype of the features [E]; None: no histogram.
        num_colours: C.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, rows that do not ascend, colours beyond C.

    Example:
        >>> gp_candidates(torch.zeros(20, 3)).panels.shape
        torch.Size([2, 3, 16])
    """
    check_tensor("features", features, ("Q", "D"), (torch.float32, torch.float64))
    count, device = len(features), features.device
    if starts is None or colours is None or weights is None:
        starts = torch.zeros(count + 1, dtype=torch.int64, device=device)
        colours = torch.zeros(0, dtype=torch.int32, device=device)
        weights = features.new_zeros(0)
    check_tensor("starts", starts, (count + 1,), (torch.int64,))
    check_tensor("colours", colours, ("E",), (torch.int32,))
    check_tensor("weights", weights, (len(colours),), (features.dtype,))
    lengths = starts.diff()
    if bool((lengths < 0).any()) or int(starts[0]) != 0 or int(starts[-1]) != len(colours):
        raise ValueError(f"starts: do not ascend from 0 to E = {len(colours)}")
    if len(colours) and not 0 <= int(colours.min()) <= int(colours.max()) < num_colours:
        raise ValueError(f"colours: outside 0 .. C - 1 = {num_colours - 1}")
    # Colour and entry in one number: sorting it is stable, and faster than a stable sort.
    entries = torch.arange(len(colours), device=device)
    order = ((colours.long() << 32) | entries).sort().values & 0xFFFFFFFF
    owners = torch.repeat_interleave(torch.arange(count, device=device), lengths)
    sizes = torch.bincount(colours, minlength=num_colours)
    return GpCandidates(
        panels=to_panels(features),
        norms=to_panels(features.square().sum(1, keepdim=True))[:, 0],
        starts=starts,
        colours=colours,
        weights=weights,
        holder_starts=torch.nn.functional.pad(sizes.cumsum(0), (1, 0)),
        holders=owners[order].int(),
        holder_weights=weights[order],
    )


def to_panels(values: Tensor) -> Tensor:
    """Candidates [Q, D] as panels [ceil(Q / 16), D, 16], zeros behind the last."""
    padded = torch.nn.functional.pad(values, (0, 0, 0, -len(values) % LANES))
    panels: Tensor = padded.unflatten(0, (-1, LANES))
    return panels.transpose(1, 2).contiguous()


def from_panels(panels: Tensor) -> Tensor:
    """Panels [P, D, 16] as columns [D, 16 P]."""
    return panels.transpose(0, 1).flatten(1)


def check_extend(
    candidates: GpCandidates,
    rows: Tensor,
    first: Tensor,
    last: Tensor,
    factor: Tensor,
    kernel: Tensor,
    solved: Tensor,
    explained: Tensor,
    dtypes: Sequence[torch.dtype],
) -> None:
    """Accepts the arguments of `gp_extend`."""
    check_tensor("panels", candidates.panels, ("P", "D", LANES), dtypes)
    panels, dtype = len(candidates.panels), (candidates.panels.dtype,)
    check_tensor("rows", rows, ("S", "M"), (torch.int64,))
    seeds, most = rows.shape
    check_tensor("first", first, (seeds,), (torch.int64,))
    check_tensor("last", last, (seeds,), (torch.int64,))
    check_tensor("factor", factor, (seeds, most, most), dtype)
    check_tensor("kernel", kernel, (seeds, 2), dtype)
    check_tensor("solved", solved, (seeds, panels, "C", LANES), dtype)
    check_tensor("explained", explained, (seeds, panels, LANES), dtype)
    check_range("rows: number of points", most, 0, min(solved.shape[2], MAX_POINTS))
    for name, tensor in (("solved", solved), ("explained", explained)):
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: not contiguous, and written in place; pass a contiguous one")
    given = {"rows": rows, "first": first, "last": last, "factor": factor, "kernel": kernel}
    written = {"solved": solved, "explained": explained}
    check_same_device("panels", {**candidates._asdict(), **given, **written})


def check_gp_acquire(
    solved: Tensor,
    explained: Tensor,
    posterior: dict[str, Tensor],
    visited: Tensor | None,
    num_candidates: int,
    num_results: int,
    dtypes: Sequence[torch.dtype],
) -> None:
    """Accepts the arguments of `gp_acquire`; `posterior` holds the four between the others."""
    check_tensor("solved", solved, ("S", "P", "C", LANES), dtypes)
    seeds, panels, capacity, _ = solved.shape
    dtype = (solved.dtype,)
    check_tensor("explained", explained, (seeds, panels, LANES), dtype)
    check_range("num_candidates", num_candidates, max(panels - 1, 0) * LANES, panels * LANES)
    check_tensor("coefficients", posterior["coefficients"], (seeds, "M"), dtype)
    points = posterior["coefficients"].shape[1]
    check_range("coefficients: number of points", points, 0, min(capacity, MAX_POINTS))
    check_tensor("counts", posterior["counts"], (seeds,), (torch.int64,))
    check_tensor("scale", posterior["scale"], (seeds,), dtype)
    check_tensor("target", posterior["target"], (seeds,), dtype)
    if visited is not None:
        check_tensor("visited", visited, (seeds, num_candidates), (torch.bool,))
    parts = {"solved": solved, "explained": explained, **posterior, "visited": visited}
    check_same_device("solved", parts)
    check_range("num_results", num_results, 0, MAX_RESULTS)

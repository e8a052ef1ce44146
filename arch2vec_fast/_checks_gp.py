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
_PART = 1 << 14


class GpCandidates(NamedTuple):
    """What the kernel of a Gaussian process knows about Q candidates; made by `gp_candidates`.

    Candidates lie in P = ceil(Q / 16) panels of sixteen.
    """

    panels: Tensor  # [P, D, 16] features
    norms: Tensor  # [P, 16] their squared lengths
    starts: Tensor  # int64 [Q + 1] entries of each candidate
    colours: Tensor  # int32 [E]
    weights: Tensor  # [E], counts over the length of their row
    num_colours: int  # all colours are below it

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
    return GpCandidates(
        panels=to_panels(features),
        norms=to_panels(squared_lengths(features).unsqueeze(1))[:, 0],
        starts=starts,
        colours=colours,
        weights=weights,
        num_colours=num_colours,
    )


def squared_lengths(values: Tensor) -> Tensor:
    """Of rows [Q, D], by parts that stay in cache."""
    if not len(values):
        return values.new_zeros(0)
    return torch.cat([part.square().sum(1) for part in values.split(_PART)])


def to_panels(values: Tensor) -> Tensor:
    """Candidates [Q, D] as panels [ceil(Q / 16), D, 16], zeros behind the last."""
    count, width = values.shape
    panels = values.new_empty(-(-count // LANES), width, LANES)
    whole = count // LANES
    panels[:whole] = values[: whole * LANES].unflatten(0, (whole, LANES)).transpose(1, 2)
    if whole < len(panels):
        panels[whole, :, count % LANES :] = 0
        panels[whole, :, : count % LANES] = values[whole * LANES :].T
    return panels


def from_panels(panels: Tensor) -> Tensor:
    """Panels [P, D, 16] as columns [D, 16 P]."""
    return panels.transpose(0, 1).flatten(1)


def check_extend(
    candidates: GpCandidates,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    written: tuple[Tensor, Tensor, Tensor],
    dtypes: Sequence[torch.dtype],
) -> None:
    """Accepts the arguments of `gp_extend`: those it reads and those it writes, in its order."""
    names = ("rows", "first", "last", "factor", "kernel", "coefficients")
    check_tensor("panels", candidates.panels, ("P", "D", LANES), dtypes)
    panels, dtype = len(candidates.panels), (candidates.panels.dtype,)
    check_tensor("rows", inputs[0], ("S", "M"), (torch.int64,))
    seeds, most = inputs[0].shape
    shapes = ((seeds,), (seeds,), (seeds, most, most), (seeds, 2), (seeds, most))
    for name, tensor, shape in zip(names[1:], inputs[1:], shapes):
        kinds = (torch.int64,) if name in ("first", "last") else dtype
        check_tensor(name, tensor, shape, kinds)
    solved = written[0]
    check_tensor("solved", solved, (seeds, panels, "C", LANES), dtype)
    check_range("rows: number of points", most, 0, min(solved.shape[2], MAX_POINTS))
    results = dict(zip(("solved", "explained", "mean"), written))
    for name, tensor in results.items():
        if tensor is not solved:
            check_tensor(name, tensor, (seeds, panels, LANES), dtype)
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: not contiguous, and written in place; pass a contiguous one")
    held = {k: part for k, part in candidates._asdict().items() if isinstance(part, Tensor)}
    check_same_device("panels", {**held, **dict(zip(names, inputs)), **results})


def check_gp_acquire(
    posterior: dict[str, Tensor],
    visited: Tensor | None,
    num_candidates: int,
    num_results: int,
    dtypes: Sequence[torch.dtype],
) -> None:
    """Accepts the arguments of `gp_acquire`; `posterior` holds the first four."""
    mean = posterior["mean"]
    check_tensor("mean", mean, ("S", "P", LANES), dtypes)
    seeds, panels, _ = mean.shape
    check_tensor("explained", posterior["explained"], (seeds, panels, LANES), (mean.dtype,))
    check_range("num_candidates", num_candidates, max(panels - 1, 0) * LANES, panels * LANES)
    check_tensor("scale", posterior["scale"], (seeds,), (mean.dtype,))
    check_tensor("target", posterior["target"], (seeds,), (mean.dtype,))
    if visited is not None:
        check_tensor("visited", visited, (seeds, num_candidates), (torch.bool,))
    check_same_device("mean", {**posterior, "visited": visited})
    check_range("num_results", num_results, 0, MAX_RESULTS)

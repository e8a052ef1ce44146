# SPDX-License-Identifier: Apache-2.0
"""Embedding all 423,624 cells of NAS-Bench-101 on the GPU, in each precision.

Rivals: plain PyTorch over chunks, as `embed --engine eager` runs it, and torch.compile of it. The
error is that of the embeddings against float64; recall is the share of cells whose nearest
neighbour among the float64 embeddings of the rest keeps its distance.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from arch2vec_fast import reference, spaces
from arch2vec_fast.models import GinVae, Recipe, build_model
from arch2vec_fast.models.inference import CellEncoder, FoldedGin, readout_encoder
from bench.gpu.report import OURS, Report, Work

_QUERIES = 1000
_STREAM = 20  # times the whole space, for the rate of a space that does not fit a cache
_MFLOP = 1.66  # a cell's arithmetic, dense


def embedding(report: Report, name: str) -> None:
    """Rows of one recipe."""
    space = spaces.get("nasbench101")
    codes = space.enumerate().to_torch("cuda")
    torch.manual_seed(0)
    model = build_model(Recipe.get(name, space.name), space.layout, variable_size=True)
    assert isinstance(model, GinVae)
    model = model.eval().cuda()
    eager = readout_encoder(model, space.layout, engine="eager")

    def chunks() -> None:
        for part in codes.split(65_536):
            eager(part)

    some = codes[:: len(codes) // 20_000]
    exact = oracle(model, some)
    rivals = {"fp32": {"eager": chunks}}
    for precision in ("fp32", "tf32", "bf16"):
        encode = readout_encoder(model, space.layout, precision=precision)
        row = f"embedding of 423,624 cells, {name}, {precision}"
        report.attempt(row, partial(race, report, row, encode, codes, rivals.get(precision, {})))
        report.attempt(
            f"exactness of {name}, {precision}",
            partial(exactness, report, f"{name}, {precision}", encode, some, exact),
        )
    encode, many = readout_encoder(model, space.layout), codes.repeat(_STREAM, 1)
    row = f"embedding of {len(many):,} cells, {name}, fp32"
    report.attempt(row, lambda: report.race(row, {OURS: lambda: encode(many)}))


def race(
    report: Report, row: str, encode: CellEncoder, codes: Tensor, rivals: dict[str, Work]
) -> None:
    """One precision; the goal is that of the default one, which has rivals."""
    report.race(
        row,
        {OURS: lambda: encode(codes), **rivals},
        goal=5e-3 if rivals else None,
        flops=_MFLOP * 1e6 * len(codes),
    )


def exactness(report: Report, what: str, encode: CellEncoder, codes: Tensor, exact: Tensor) -> None:
    """Error and recall against embeddings in float64."""
    vectors = encode(codes).double()
    error = float((vectors - exact).abs().max() / exact.abs().max())
    report.add(f"largest error of {what}", error, "of the largest entry")
    report.add(f"recall at 1 of {what}", recall(vectors, exact), "share")


def oracle(model: GinVae, codes: Tensor) -> Tensor:
    """Embeddings in float64 by the plain twin."""
    folded = FoldedGin(model, spaces.get("nasbench101").layout)
    weights = folded.weights.double()
    parts = [reference.gin_encode(c, weights, folded.shape) for c in codes.split(2048)]
    return torch.cat(parts).double()


def recall(vectors: Tensor, exact: Tensor) -> float:
    """Whether the nearest other cell found with `vectors` is as near as the true one."""
    kept = 0
    for first in range(0, _QUERIES, 250):
        rows = torch.arange(first, first + 250, device=exact.device)
        found, true = (
            torch.cdist(points[rows], points).index_put_(
                (rows - first, rows), torch.tensor(torch.inf, dtype=torch.float64, device="cuda")
            )
            for points in (vectors, exact)
        )
        at = true.gather(1, found.argmin(1, keepdim=True)).squeeze(1)
        kept += int((at <= true.amin(1) * (1 + 1e-6) + 1e-9).sum())
    return kept / _QUERIES


def run(report: Report) -> None:
    """Rows of the encoder."""
    for name in ("released", "best"):
        report.attempt(f"embedding, {name}", partial(embedding, report, name))

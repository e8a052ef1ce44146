# SPDX-License-Identifier: Apache-2.0
"""Embedding of whole spaces."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from arch2vec_fast import spaces
from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.inference import inference_encoder
from bench.contenders import released as released_way
from bench.harness import Contender


def chunks(cells: spaces.CellBatch, recipe: Recipe) -> Contender:
    """Lean eager: batch norm folded into the linears, 1,024 cells at a time."""
    torch.manual_seed(0)
    encoder = inference_encoder(build_model(recipe, cells.layout).eval())

    def work() -> float:
        for codes in cells.to_torch().split(1024):
            encoder(*unpack(codes, cells.layout))
        return len(cells)

    return work


def test_embedding_nasbench101(
    race: Callable[..., dict[str, Any]],
    threads: int,
    quick: bool,
    nasbench101: spaces.CellBatch,
    released: SimpleNamespace,
) -> None:
    cells = nasbench101[:: 1 if quick else 10]
    recipe = Recipe.released("nasbench101")
    race(
        "embed all NAS-Bench-101 cells",
        {
            "arch2vec_fast": chunks(cells, recipe),
            "released": released_way.embedding(released, cells, count=50 if quick else 500),
        },
        unit="cell",
        amount=423_624,
        flops=1.66e6,
    )

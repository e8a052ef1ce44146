# SPDX-License-Identifier: Apache-2.0
"""Embedding of whole spaces."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from arch2vec_fast import spaces
from arch2vec_fast.embeddings import embed_chunks
from arch2vec_fast.models import GinVae, Recipe
from bench.contenders import lean
from bench.contenders import released as released_way
from bench.harness import Contender


def ours(model: GinVae, cells: spaces.CellBatch, **options: Any) -> Contender:
    """What `embed` does."""

    def work() -> float:
        for _ in embed_chunks(model, cells, **options):
            pass
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
    torch.manual_seed(0)
    model = GinVae(cells.layout, Recipe.released("nasbench101")).eval()
    race(
        "embed all NAS-Bench-101 cells",
        {
            "arch2vec_fast": ours(model, cells),
            "lean eager": lean.embedding(model, cells),
            "released": released_way.embedding(released, cells, count=50 if quick else 500),
        },
        unit="cell",
        amount=423_624,
        flops=1.66e6,
    )

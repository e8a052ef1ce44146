# SPDX-License-Identifier: Apache-2.0
"""Embedding of whole spaces."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast.embeddings import embed_chunks
from arch2vec_fast.models import GinVae, Recipe
from bench.contenders import compiled, lean, pyg
from bench.contenders import released as released_way
from bench.harness import Absent, Contender

# Of a cell, without sharing, under the released recipe: 2 N H (F + 7 H) and the head.
_FLOPS = {"nasbench101": 1.66e6, "nasbench201": 1.90e6, "darts": 2.63e6}


def traffic(layout: spaces.CellLayout, dim: int = 16) -> float:
    """Bytes that a cell must move: its code and its embedding."""
    return 8 * layout.words + 4 * dim


def ours(model: GinVae, cells: spaces.CellBatch, **options: Any) -> Contender:
    """What `embed` does."""

    def work() -> float:
        for _ in embed_chunks(model, cells, **options):
            pass
        return len(cells)

    return work


def released_model(cells: spaces.CellBatch, space_name: str = "nasbench101") -> GinVae:
    torch.manual_seed(0)
    return GinVae(cells.layout, Recipe.released(space_name)).eval()


def test_embedding_nasbench101(
    race: Callable[..., dict[str, Any]],
    threads: int,
    quick: bool,
    nasbench101: spaces.CellBatch,
    released: SimpleNamespace,
) -> None:
    """All cells a turn on our side: how much they share depends on how many there are."""
    cells = nasbench101
    few = cells[::20]
    model = released_model(cells)
    in_quick = Absent("nothing is compiled in the quick run")
    race(
        "embed all NAS-Bench-101 cells",
        {
            "arch2vec_fast": ours(model, cells),
            "lean eager": lean.embedding(model, few),
            "compiled": in_quick if quick else compiled.embedding(model, few),
            "PyG": pyg.embedding(model, few),
            "released": released_way.embedding(released, few, count=50 if quick else 500),
        },
        unit="cell",
        amount=423_624,
        goals={"lean eager": 4, "released": 80} if threads == 2 and not quick else {},
        goal_seconds=3.0 if threads == 2 and not quick else None,
        flops=_FLOPS["nasbench101"],
        moved=traffic(cells.layout),
    )


def test_embedding_nasbench101_in_bfloat16(
    race: Callable[..., dict[str, Any]], threads: int, quick: bool, nasbench101: spaces.CellBatch
) -> None:
    cells = nasbench101
    model = released_model(cells)
    race(
        "embed all NAS-Bench-101 cells, bf16",
        {
            "arch2vec_fast": bfloat16(model, cells),
            "fp32": ours(model, cells),
        },
        unit="cell",
        amount=423_624,
        goal_seconds=1.5 if threads == 2 and not quick else None,
        flops=_FLOPS["nasbench101"],
        moved=traffic(cells.layout),
    )


def bfloat16(model: GinVae, cells: spaces.CellBatch) -> Contender | Absent:
    """Ours in bfloat16, or what the processor lacks for it."""
    try:
        next(embed_chunks(model, cells[:1], precision="bf16"))
    except ValueError as error:
        return Absent(str(error).removeprefix("precision: ").partition(";")[0])
    return ours(model, cells, precision="bf16")


@pytest.mark.parametrize("space_name", ["nasbench201", "darts"])
def test_embedding_of_other_spaces(
    race: Callable[..., dict[str, Any]], threads: int, quick: bool, space_name: str
) -> None:
    space = spaces.get(space_name)
    cells = space.enumerate() if space_name == "nasbench201" else space.sample(20_000, seed=0)
    cells = cells[:1000] if quick else cells
    model = released_model(cells, space_name)
    race(
        f"embed {len(cells):,} {space_name} cells",
        {
            "arch2vec_fast": ours(model, cells),
            "lean eager": lean.embedding(model, cells),
            "PyG": pyg.embedding(model, cells),
        },
        unit="cell",
        amount=len(cells),
        flops=_FLOPS[space_name],
        moved=traffic(cells.layout),
    )

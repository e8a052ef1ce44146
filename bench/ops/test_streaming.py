# SPDX-License-Identifier: Apache-2.0
"""A user's own space, generated and embedded a batch at a time; large sizes: end_to_end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arch2vec_fast.embeddings import embed_stream
from bench.end_to_end.streaming import first_cells, large_space, trained_run
from bench.harness import Contender


@pytest.mark.parametrize("count", [100_000, 400_000])
def test_streaming_a_space(
    race: Callable[..., dict[str, Any]], threads: int, quick: bool, tmp_path: Path, count: int
) -> None:
    space = large_space()
    run = trained_run(space, tmp_path / "run")
    cells = count // 100 if quick else count

    def with_engine(engine: str, cells: int) -> Contender:
        def work() -> float:
            return sum(map(len, embed_stream(run, first_cells(space, cells), engine=engine)))

        return work

    race(
        f"generate and embed, the first {count:,} cells of a space of eight nodes",
        {"arch2vec_fast": with_engine("fused", cells), "eager": with_engine("eager", cells // 20)},
        unit="cell",
        amount=count,
        flops=1.90e6,
    )

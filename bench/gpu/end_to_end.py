# SPDX-License-Identifier: Apache-2.0
"""What a user waits for, files and copies included: a pretraining, embeddings, searches.

Rewards of the searches are made up, because the accuracy tables are not at hand on a GPU machine:
a smooth function of the embeddings, whose values have no part in the time.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable, embed, embed_chunks
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.search import search
from bench.gpu.report import Report

_SPACE = spaces.get("nasbench101")
_TIMES = 20  # the whole space, so that a stream outlasts its first copies
_QUERIES = 100
_GOAL_A_CELL = 15e-9  # seconds: 10^9 cells in 15 s


def pretraining(report: Report, folder: Path) -> None:
    """The paper's eight epochs, from nothing to the run's files."""
    pretrain(_SPACE, "released", folder / "warm", epochs=1, limit=500, device="cuda")
    began = time.perf_counter()
    run = pretrain(_SPACE, "released", folder / "run", device="cuda")
    elapsed = time.perf_counter() - began
    report.add("pretraining on NAS-Bench-101, end to end, 8 epochs", elapsed, "s", goal=6)
    assert run.epochs_done == run.recipe.epochs


def embedding(report: Report, run: Run) -> None:
    """From codes in the host's memory to vectors there."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        embed(run, device="cuda")
        seconds.append(time.perf_counter() - began)
    report.add("embedding NAS-Bench-101 into a table", min(seconds), "s", max=max(seconds))
    cells = run.cells
    cells = cells[np.tile(np.arange(len(cells)), _TIMES)]
    began = time.perf_counter()
    done = sum(len(part) for part in embed_chunks(run.model, cells, device="cuda"))
    elapsed = time.perf_counter() - began
    goal = _GOAL_A_CELL * done
    report.add(f"embedding {done:,} cells, streamed", elapsed, "s", goal=goal)


def searching(report: Report, run: Run, recipe: str, device: str) -> None:
    """One arch2vec-BO over all cells: rounds, and what a search does once."""
    table = embed(run, device="cuda")
    benchmark = _benchmark(table)
    began = time.perf_counter()
    search(
        benchmark,
        "arch2vec-bo",
        seeds=[0],
        queries=_QUERIES,
        recipe=recipe,
        embeddings=table,
        device=device,
    )
    elapsed = time.perf_counter() - began
    name = f"arch2vec-BO, {recipe}, {_QUERIES} queries over {len(table):,} cells, on {device}"
    report.add(name, elapsed, "s")


def _benchmark(table: EmbeddingTable) -> TableBenchmark:
    worth = np.tanh(table.vectors[:, 0] - table.vectors.mean())
    reward = 0.5 + 0.4 * worth.astype(np.float64)
    return TableBenchmark(
        name="made-up",
        space=_SPACE,
        cells=table.cells,
        reward="a function of the embedding",
        fidelities=(1,),
        validation=reward[:, None, None],
        test=reward,
    )


def run(report: Report) -> None:
    """All rows; without the pretraining's run there are no others."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        report.attempt("pretraining, end to end", partial(pretraining, report, Path(folder)))
        trained = Run.load(Path(folder) / "run")
        report.attempt("embedding, end to end", partial(embedding, report, trained))
        for recipe in ("paper", "best"):
            for device in ("cuda", "cpu"):
                row = f"arch2vec-BO, {recipe}, on {device}"
                report.attempt(row, partial(searching, report, trained, recipe, device))

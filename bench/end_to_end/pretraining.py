# SPDX-License-Identifier: Apache-2.0
"""Pretraining on the whole of NAS-Bench-101 from nothing to a finished run, as `pretrain` does it:
enumeration, training, validation after each epoch, checkpoints, prior.

    python -m bench.end_to_end.pretraining --recipes best released --threads 2 --out FILE
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from arch2vec_fast.pretrain import pretrain
from bench.environment import describe


def measure(recipe: str, threads: int, device: str) -> dict[str, Any]:
    """One run: its seconds, the cells a second over all of it, and how well it reconstructs."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = pretrain("nasbench101", recipe, Path(folder) / "run", device=device)
        seconds = time.perf_counter() - began
        validation = next(m["validation"] for m in reversed(run.metrics) if m["event"] == "epoch")
    cells = len(run.train_cells) * run.recipe.epochs
    return {
        "work": f"pretraining on NAS-Bench-101, {recipe}, {run.recipe.epochs} epochs",
        "threads": threads,
        "device": device,
        "seconds": round(seconds, 2),
        "cells_per_second": round(cells / seconds, 1),
        "exact": validation["exact"],
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["best", "released"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    facts = {"name": "pretraining", **describe()}
    rows = []
    for recipe in arguments.recipes:
        rows.append(measure(recipe, arguments.threads, arguments.device))
        print(rows[-1], flush=True)
    arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

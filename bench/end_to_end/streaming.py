# SPDX-License-Identifier: Apache-2.0
"""Embedding of a space that exceeds memory: its cells are generated, embedded and dropped.

    python -m bench.end_to_end.streaming --cells 1e5 1e6 1e7 --threads 2 --out FILE

The space is a user's own, of eight nodes and more than 10^9 cells; each size runs in a process of
its own, so that its peak memory is its own. 1e8 takes about a hundred times as long as 1e6: half an
hour to an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arch2vec_fast.embeddings import embed_stream
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.spaces import CellBatch, CellSpace
from bench.environment import describe

_BATCH = 1 << 18  # cells that are held at a time


def large_space() -> CellSpace:
    """Up to eight nodes, six inner operations, any edges: the labelled cells are 10^14."""
    inner = ("conv1x1", "conv3x3", "conv5x5", "separable", "pool", "skip")
    return CellSpace(8, ("input", *inner, "output"), name="streamed")


def trained_run(space: CellSpace, folder: Path) -> Run:
    """A run of the released recipe on a few cells: how good its weights are costs no time."""
    cells = space.sample(512, seed=0)
    return pretrain(space, "released", folder, epochs=1, cells=cells)


def first_cells(space: CellSpace, count: int) -> Iterator[CellBatch]:
    """The first `count` cells of the space's stream, a batch at a time."""
    left = count
    for batch in space.stream(min(_BATCH, count)):
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return


def measure(count: int, threads: int) -> dict[str, Any]:
    """Embed `count` cells: cells a second, generating them apart, and the peak of memory."""
    torch.set_num_threads(threads)
    space = large_space()
    began = time.perf_counter()
    generated = sum(map(len, first_cells(space, count)))
    generation = time.perf_counter() - began
    done, total = 0, np.zeros(1)
    with tempfile.TemporaryDirectory() as folder:
        run = trained_run(space, Path(folder) / "run")
        began = time.perf_counter()
        for table in embed_stream(run, first_cells(space, count)):
            done += len(table)
            total = total + table.vectors.sum(0, dtype=np.float64)
        seconds = time.perf_counter() - began
    assert done == generated == count, "the space has fewer cells"
    return {
        "work": f"stream {count:,} cells of {space.layout.num_nodes} nodes",
        "threads": threads,
        "cells": count,
        "seconds": round(seconds, 2),
        "of_which_generation": round(generation, 2),
        "cells_per_second": round(count / seconds),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "finite": bool(np.isfinite(total).all()),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", default=["1e5", "1e6", "1e7"], help="how many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="result file")
    parser.add_argument("--one", action="store_true", help="in this process, print JSON")
    arguments = parser.parse_args()
    counts = [int(float(word)) for word in arguments.cells]
    if arguments.one:
        print(json.dumps([measure(count, arguments.threads) for count in counts]))
        return
    facts, rows = {"name": "streaming", **describe()}, []
    for count in counts:
        command = [sys.executable, "-m", "bench.end_to_end.streaming", "--one", "--cells"]
        command += [str(count), "--threads", str(arguments.threads)]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows += json.loads(result.stdout.splitlines()[-1])
        print(rows[-1], flush=True)
        if arguments.out is not None:  # after each size: the last may take an hour
            arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

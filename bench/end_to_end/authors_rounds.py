# SPDX-License-Identifier: Apache-2.0
"""One Bayesian-optimisation run over all of NAS-Bench-101: the authors' program against ours.

    python -m bench.end_to_end.authors_rounds --reference CLONE --embeddings FILE --best FILE \\
        --out FILE

The authors' run takes minutes to an hour, so it is extrapolated from measured rounds: their program
is started with 20, 200 and 400 random cells as its first queries and goes on for a few rounds from
each; the cost of a round is interpolated between those sizes and summed over the rounds of a whole
run. Loading is not counted on either side. Ours is run whole: recipe `released`, the same search in
the same embeddings, and `best` in its own (`--best`: 128 principal components of the hidden
read-out of the simplified cells).

The reward is the test accuracy, the only one at hand for all cells; costs do not depend on it.
`--threads` are ours. The authors' program gets `--authors-threads`, by default the one on which it
is fastest: its windows of 200 candidates are too small to share.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast import benchmarks
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import search
from arch2vec_fast.search.runner import align
from bench.contenders import authors
from bench.environment import describe
from bench.harness import set_threads

with contextlib.suppress(ImportError):
    import threadpoolctl  # noqa: F401  (NumPy's threads are set through it)

_FIRST, _BATCH = 16, 5  # queries before the first model and in a round, theirs and ours


def authors_rounds(
    program: authors.Program, table: EmbeddingTable, reward: NDArray[np.float64], size: int
) -> Callable[[int], list[float]]:
    """A function of k: seconds of the first k rounds of their program after `size` queries."""

    def run(rounds: int) -> list[float]:
        clock = _Clock(rounds)
        values = torch.from_numpy(reward).float()
        features = torch.from_numpy(np.ascontiguousarray(table.vectors))
        names = program.names
        kept = dict(names)
        names["load_arch2vec"] = lambda path: (features, values, values, torch.ones(len(values)))
        names["get_init_samples"] = clock.starts(names["get_init_samples"])
        names["propose_location"] = clock.ends(names["propose_location"])
        line = f"--dim {table.vectors.shape[1]} --init_size {size} --topk {_BATCH} --seed 1"
        try:
            with tempfile.TemporaryDirectory() as scratch:
                program.run(line, Path(scratch))
        except _EnoughError:
            return clock.seconds
        finally:
            names.update(kept)
        raise RuntimeError("the authors' program ended before its rounds were done")

    return run


class _EnoughError(Exception):
    """Ends the authors' program."""


class _Clock:
    """Times from the return of one watched function to that of the next."""

    def __init__(self, rounds: int) -> None:
        self.seconds: list[float] = []
        self._rounds, self._last = rounds, 0.0

    def starts(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            result = function(*arguments)
            self._last = time.perf_counter()
            return result

        return watched

    def ends(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            result = function(*arguments)
            now = time.perf_counter()
            self.seconds.append(now - self._last)
            self._last = now
            if len(self.seconds) == self._rounds:
                raise _EnoughError
            return result

        return watched


def extrapolated(sizes: list[int], rounds: list[float], queries: int) -> float:
    """Seconds of a run of `queries`: cost of a round at `sizes` points, linear between them.

    >>> extrapolated([16, 116], [1.0, 2.0], 36)  # four rounds, at 16, 21, 26 and 31 points
    4.3
    """
    points = np.arange(_FIRST, queries, _BATCH)
    return round(float(np.interp(points, sizes, rounds).sum()), 6)


def their_row(
    given: argparse.Namespace, table: EmbeddingTable, benchmark: TableBenchmark
) -> dict[str, Any]:
    """Rounds as measured, and the whole run by their medians and their extremes."""
    reward = benchmark.mean_validation
    measured = []
    set_threads(given.authors_threads)
    with authors.at_hand(given.reference):
        program = authors.Program(given.reference, "search_methods/dngo.py")
        for size in given.sizes:
            seconds = authors_rounds(program, table, reward, size)(given.rounds)
            measured.append(seconds)
            print(size, [round(value, 2) for value in seconds], flush=True)
    totals = {
        name: extrapolated(given.sizes, [float(pick(part)) for part in measured], given.queries)
        for name, pick in (("median", np.median), ("least", min), ("most", max))
    }
    return {
        "work": f"authors' Bayesian optimisation, {given.queries} queries",
        "how": "measured rounds, extrapolated",
        "program": program.digest,
        "threads": given.authors_threads,
        "rounds": {
            str(size): [round(value, 3) for value in part]
            for size, part in zip(given.sizes, measured)
        },
        "seconds": {name: round(value, 1) for name, value in totals.items()},
    }


def our_row(
    given: argparse.Namespace, recipe: str, file: Path, benchmark: TableBenchmark
) -> dict[str, Any]:
    """Whole runs, seeds 0, 1, ..."""
    set_threads(given.threads)
    table = align(EmbeddingTable.load(file), benchmark)
    seconds = []
    for seed in range(given.repeats):
        began = time.perf_counter()
        search(
            benchmark,
            "arch2vec-bo",
            seeds=[seed],
            queries=given.queries,
            recipe=recipe,
            embeddings=table,
        )
        seconds.append(time.perf_counter() - began)
        print(recipe, round(seconds[-1], 2), flush=True)
    return {
        "work": f"arch2vec-bo, {recipe}, {given.queries} queries",
        "how": "whole runs",
        "threads": given.threads,
        "runs": [round(value, 3) for value in seconds],
        "seconds": {
            "median": round(float(np.median(seconds)), 2),
            "least": round(min(seconds), 2),
            "most": round(max(seconds), 2),
        },
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="of recipe released")
    parser.add_argument("--best", type=Path, help="of recipe best, hidden read-out")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200, 400])
    parser.add_argument("--rounds", type=int, default=5, help="at each size")
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--authors-threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    run = describe()
    benchmark = benchmarks.get("nasbench101")
    benchmark = replace(benchmark, times=np.ones((len(benchmark.cells), 1)))
    table = align(EmbeddingTable.load(given.embeddings), benchmark)
    rows = [their_row(given, table, benchmark)]
    ours = [("released", given.embeddings), ("best", given.best)]
    rows += [our_row(given, recipe, file, benchmark) for recipe, file in ours if file is not None]
    theirs = rows[0]["seconds"]
    for row in rows[1:]:
        row["times_faster"] = {
            "median": round(theirs["median"] / row["seconds"]["median"], 1),
            "least": round(theirs["least"] / row["seconds"]["most"], 1),
            "most": round(theirs["most"] / row["seconds"]["least"], 1),
        }
        print(row["work"], row["times_faster"])
    document = {"name": "one run of Bayesian optimisation", "cells": len(benchmark.cells)}
    document |= {"queries": given.queries, "rows": rows, "run": run}
    given.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

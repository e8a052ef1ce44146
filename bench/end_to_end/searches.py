# SPDX-License-Identifier: Apache-2.0
"""Whole studies: many seeds of a method on a benchmark, as `search` runs them, and what they find.

    python -m bench.end_to_end.searches --embeddings nb201.safetensors --out FILE
    python -m bench.end_to_end.searches --embeddings nb101.safetensors --benchmark nasbench101 \\
        --methods arch2vec-bo --seeds 1 --queries 400 --out FILE

Tables come from $ARCH2VEC_DATA. A file that exists gets the rows added.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arch2vec_fast import benchmarks
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import search
from arch2vec_fast.search.trace import Trace
from bench.environment import describe


def measure(
    benchmark: str,
    method: str,
    recipe: str,
    embeddings: EmbeddingTable,
    at: tuple[int, ...] = (),
    **options: Any,
) -> dict[str, Any]:
    """One study: its seconds, and what was found by its end and after `at` queries."""
    table = benchmarks.get(benchmark)
    began = time.perf_counter()
    trace = search(table, method, recipe=recipe, embeddings=embeddings, **options)
    seconds = time.perf_counter() - began
    last = [rows.stop - 1 for _, rows in trace.searches()]
    return {
        "work": f"{method}, {recipe}, on {benchmark}",
        "reward": table.reward,
        "seeds": len(last),
        "queries": round(float((trace["query"][last] + 1).mean()), 1),
        "budget": trace.metadata["budget"],
        "embeddings": trace.metadata["embeddings"],
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 2),
        "ceiling": table.ceiling._asdict(),
        **_found(trace),
        "after": {str(queries): _found(trace, queries) for queries in at},
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _found(trace: Trace, queries: int | None = None) -> dict[str, dict[str, float]]:
    """Of all searches, after so many queries: what their picks are worth, mean and deviation."""
    spans = [
        slice(rows.start, rows.stop if queries is None else min(rows.stop, rows.start + queries))
        for _, rows in trace.searches()
    ]
    last = [rows.stop - 1 for rows in spans]
    found = {name: trace[name][last] for name in ("incumbent", "incumbent_test", "regret")}
    found["best_test_seen"] = np.array([np.nanmax(trace["test"][rows]) for rows in spans])
    return {name: _spread(values) for name, values in found.items()}


def _spread(values: np.ndarray[Any, Any]) -> dict[str, float]:
    return {"mean": round(float(values.mean()), 6), "std": round(float(values.std()), 6)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--benchmark", default="nasbench201-cifar10")
    parser.add_argument("--methods", nargs="+", default=["arch2vec-bo", "arch2vec-rl"])
    parser.add_argument("--recipes", nargs="+", default=["best", "released"])
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--at", type=int, nargs="*", default=[], help="also after so many queries")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seconds = given.seconds
    if seconds is None and given.queries is None:
        seconds = 12_000.0
    document: dict[str, Any] = {"name": "searches", **describe(), "rows": []}
    if given.out.exists():
        document["rows"] = json.loads(given.out.read_text())["rows"]
    for method in given.methods:
        for recipe in given.recipes:
            row = measure(
                given.benchmark,
                method,
                recipe,
                EmbeddingTable.load(given.embeddings),
                tuple(given.at),
                seeds=range(given.first_seed, given.first_seed + given.seeds),
                seconds=seconds,
                queries=given.queries,
                progress=True,
            )
            print(row, flush=True)
            document["rows"].append(row)
            given.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

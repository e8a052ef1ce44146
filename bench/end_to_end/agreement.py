# SPDX-License-Identifier: Apache-2.0
"""Recipe `released` against the authors' own search programs: same table, embeddings and seeds.

    python -m bench.end_to_end.agreement --reference CLONE --embeddings nb201.safetensors \\
        --methods arch2vec-rl arch2vec-bo --seeds 10 --seconds 12000 --out FILE
    python -m bench.end_to_end.agreement --reference CLONE --embeddings nb101.safetensors \\
        --benchmark nasbench101-30k --seconds 1e6 --out FILE

For each seed: on how many leading queries both ask for the same cells, and what they find. Over
seeds: what they find and how far apart, with standard errors, and the mean regret curves over time.
Tables come from --data, default $ARCH2VEC_DATA.

The authors' programs take minutes a seed, so their queries are appended to FILE's neighbour
`.jsonl` as each seed ends, and seeds that stand there are not run again: without --reference those
alone are compared. A row of FILE is replaced when its study is compared again.

Cells of one embedding are at one distance from everything: which of them a search takes is an
accident of sorting, and from there on two searches go apart. `by_seed` has the distance between the
embeddings where the searches part; `--untied` moves every embedding a little, the same for both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast import benchmarks
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import Trace, search
from arch2vec_fast.search.runner import align
from bench.contenders import authors
from bench.environment import describe

_TIMES = 40  # at which the regret curves are compared
_UNTIED = 1e-3  # how far `--untied` moves embeddings, in their standard deviations


class Study(NamedTuple):
    """What both sides are given."""

    method: str
    benchmark: TableBenchmark
    embeddings: EmbeddingTable
    seeds: range
    seconds: float

    @property
    def key(self) -> dict[str, Any]:
        """What a kept search of the authors' program must have been given."""
        vectors = hashlib.sha256(self.embeddings.vectors.tobytes()).hexdigest()[:16]
        return {
            "method": self.method,
            "benchmark": self.benchmark.name,
            "seconds": self.seconds,
            "embeddings": vectors,
        }


# -- both sides ----------------------------------------------------------------------------


def authors_queries(study: Study, kept: Path, reference: Path | None) -> dict[int, list[int]]:
    """Rows that the authors' program asks for, by seed: those of the file `kept`, and new ones."""
    key = study.key
    lines = kept.read_text().splitlines() if kept.exists() else []
    searches = [line for line in map(json.loads, lines) if key.items() <= line.items()]
    known: dict[int, list[int]] = {line["seed"]: line["rows"] for line in searches}
    if reference is None:
        return {seed: known[seed] for seed in study.seeds if seed in known}
    missing = [seed for seed in study.seeds if seed not in known]
    with tempfile.TemporaryDirectory() as scratch, authors.at_hand(reference):
        authors.write_table(study.embeddings, study.benchmark, Path(scratch))
        digest = authors.search_digest(reference, study.method, study.benchmark)
        for seed in missing:
            began = time.process_time()
            known[seed] = authors.search(
                reference,
                study.method,
                study.benchmark,
                Path(scratch),
                dim=study.embeddings.vectors.shape[1],
                seed=seed,
                seconds=study.seconds,
            )
            taken = round(time.process_time() - began, 1)
            line = {**key, "seed": seed, "program": digest, "cpu_seconds": taken}
            with kept.open("a") as file:
                file.write(json.dumps({**line, "rows": known[seed]}) + "\n")
            print(f"{study.method} on {study.benchmark.name}, seed {seed}: {taken} s", flush=True)
    return {seed: known[seed] for seed in study.seeds}


def our_queries(study: Study, seeds: list[int]) -> tuple[Trace, dict[int, list[int]]]:
    """Rows that recipe `released` asks for, by seed."""
    trace = search(
        study.benchmark,
        study.method,
        seeds=seeds,
        seconds=study.seconds,
        recipe="released",
        embeddings=study.embeddings,
        progress=True,
    )
    return trace, {seed: trace["row"][rows].tolist() for seed, rows in trace.searches()}


# -- comparison ----------------------------------------------------------------------------


def leading(first: list[int], second: list[int]) -> int:
    """How many queries at the start are the same."""
    differ = (i for i, (a, b) in enumerate(zip(first, second)) if a != b)
    return next(differ, min(len(first), len(second)))


def parting(
    vectors: NDArray[np.float32], first: list[int], second: list[int], at: int
) -> float | None:
    """Distance between the embeddings asked for at query `at`; None where one search has ended."""
    if at >= min(len(first), len(second)):
        return None
    return float(np.linalg.norm(vectors[first[at]] - vectors[second[at]]))


def untied(table: EmbeddingTable) -> EmbeddingTable:
    """Embeddings no two of which are equal, each a thousandth of their spread from its place."""
    noise = np.random.default_rng(0).standard_normal(table.vectors.shape, np.float32)
    moved = table.vectors + np.float32(_UNTIED) * table.vectors.std() * noise
    metadata = {**table.metadata, "untied": f"{_UNTIED:g}"}
    return EmbeddingTable(vectors=moved, cells=table.cells, metadata=metadata)


class Curve:
    """The incumbents of one search: best validation accuracy so far, the first wins ties."""

    def __init__(self, benchmark: TableBenchmark, rows: list[int]) -> None:
        validation, seconds = benchmark.query(np.array(rows), np.zeros(len(rows), np.int64))
        best = [int(validation[: i + 1].argmax()) for i in range(len(rows))]
        self.elapsed = np.cumsum(seconds)
        self.validation = validation[best]
        self.test = benchmark.test_accuracy[np.array(rows)[best]]

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Validation and test accuracy [2, T] of the incumbent when `times` [T] have passed."""
        place = np.searchsorted(self.elapsed, times, side="right") - 1
        return np.stack((self.validation[place], self.test[place]))


def moments(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean over seeds, its standard deviation over seeds and the standard error of the mean."""
    deviation = values.std(ddof=1)
    error = deviation / np.sqrt(len(values))
    return {"mean": _short(values.mean()), "std": _short(deviation), "se": _short(error)}


def compare(
    study: Study, theirs: dict[int, list[int]], ours: dict[int, list[int]]
) -> dict[str, Any]:
    """The row of one study; the module says what it holds."""
    seeds = sorted(theirs)
    curves = {
        side: [Curve(study.benchmark, rows[seed]) for seed in seeds]
        for side, rows in (("authors", theirs), ("ours", ours))
    }
    same = [leading(theirs[seed], ours[seed]) for seed in seeds]
    gaps = [
        parting(study.embeddings.vectors, theirs[seed], ours[seed], at)
        for seed, at in zip(seeds, same, strict=True)
    ]
    identical = [theirs[seed] == ours[seed] for seed in seeds]
    final = {
        name: {
            side: np.array([getattr(curve, name)[-1] for curve in found])
            for side, found in curves.items()
        }
        for name in ("validation", "test")
    }
    return {
        "same_leading_queries": {
            "least": min(same),
            "median": float(np.median(same)),
            "most": max(same),
        },
        "identical_searches": sum(identical),
        "parted_by_equal_embeddings": sum(gap == 0 for gap in gaps),
        "final": {
            name: {
                **{side: moments(values) for side, values in both.items()},
                "difference": moments(both["ours"] - both["authors"]),
            }
            for name, both in final.items()
        },
        "regret_over_time": regret_curves(study, curves),
        "by_seed": {
            "seed": seeds,
            "same_leading_queries": same,
            "distance_where_parted": gaps,
            **{
                side: {
                    "queries": [len(rows[seed]) for seed in seeds],
                    "distinct_cells": [len({*rows[seed]}) for seed in seeds],
                    **{name: [_short(x) for x in both[side]] for name, both in final.items()},
                }
                for side, rows in (("authors", theirs), ("ours", ours))
            },
        },
    }


def regret_curves(study: Study, curves: dict[str, list[Curve]]) -> dict[str, Any]:
    """Mean regret of the incumbents at fixed times, and the largest difference in its errors.

    se: of the difference of two independent means; paired_se: of the mean of the differences seed
    by seed, which is smaller because the two sides begin alike.
    """
    times = np.linspace(0, study.seconds, _TIMES + 1)[1:]
    begun = max(curve.elapsed[0] for found in curves.values() for curve in found)
    times = times[times >= begun]
    best = study.benchmark.ceiling
    result: dict[str, Any] = {"times": np.round(times, 1).tolist()}
    for place, (name, top) in enumerate((("validation", best.validation), ("test", best.test))):
        regret = {
            side: top - np.array([curve.at(times)[place] for curve in found])  # [S, T]
            for side, found in curves.items()
        }
        count = len(regret["ours"])
        difference = regret["ours"] - regret["authors"]
        variance = sum(values.var(0, ddof=1) for values in regret.values())
        result[name] = {
            **{side: [_short(mean) for mean in values.mean(0)] for side, values in regret.items()},
            "largest_in_se": _largest(difference, np.sqrt(variance / count), times),
            "largest_in_paired_se": _largest(
                difference, difference.std(0, ddof=1) / np.sqrt(count), times
            ),
        }
    return result


def _largest(
    difference: NDArray[np.float64], error: NDArray[np.float64], times: NDArray[np.float64]
) -> dict[str, float]:
    mean = difference.mean(0)
    # No error means that all seeds differ alike: not at all, or infinitely many errors.
    ratio = np.divide(np.abs(mean), error, out=np.where(mean == 0, 0, np.inf), where=error > 0)
    at = int(ratio.argmax())
    return {
        "ratio": round(float(ratio[at]), 3),
        "seconds": round(float(times[at]), 1),
        "difference": _short(mean[at]),
        "share_of_times_within_2": round(float((ratio <= 2).mean()), 3),
    }


def _short(value: float) -> float:
    return round(float(value), 6)


# -- command line --------------------------------------------------------------------------


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="clone of MSU-MLSys-Lab/arch2vec")
    parser.add_argument("--data", type=Path, help="folder of tables, default $ARCH2VEC_DATA")
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--benchmark", default="nasbench201-cifar10")
    parser.add_argument("--methods", nargs="+", default=["arch2vec-rl", "arch2vec-bo"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=12_000.0, help="budget of a search")
    parser.add_argument("--untied", action="store_true", help="no two embeddings equal")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = benchmarks.get(given.benchmark, data=given.data)
    vectors = align(EmbeddingTable.load(given.embeddings), table)
    if given.untied:
        vectors = untied(vectors)
    document: dict[str, Any] = {"name": "agreement of searches", "rows": []}
    if given.out.exists():
        document = json.loads(given.out.read_text())
    for method in given.methods:
        study = Study(method, table, vectors, range(given.seeds), given.seconds)
        row = _measure(study, given.out.with_suffix(".jsonl"), given.reference, given.threads)
        others = [kept for kept in document["rows"] if kept["work"] != row["work"]]
        document["rows"] = [*others, row]
        given.out.write_text(_rendered(document))
        print({key: row[key] for key in ("work", "same_leading_queries", "final")}, flush=True)


def _measure(study: Study, kept: Path, reference: Path | None, threads: int) -> dict[str, Any]:
    theirs = authors_queries(study, kept, reference)
    if len(theirs) < 2:
        raise SystemExit(f"{kept}: holds {len(theirs)} seeds of {study.method}; pass --reference")
    trace, ours = our_queries(study, sorted(theirs))
    ties = ", no two embeddings equal" if "untied" in study.embeddings.metadata else ""
    return {
        "work": f"{study.method}, released, on {study.benchmark.name}{ties}",
        "reward": study.benchmark.reward,
        "budget": trace.metadata["budget"],
        "embeddings": trace.metadata["embeddings"],
        "seeds": len(theirs),
        "threads": threads,
        **compare(study, theirs, ours),
        "run": describe(),
    }


def _rendered(document: dict[str, Any]) -> str:
    """JSON with one line a list of numbers."""
    text = json.dumps(document, indent=1) + "\n"
    return re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Table 4 where a surrogate answers: the same searches, many seeds, in minutes.

The NAS-Bench-301 surrogate predicts what a query of Table 4 would train for hours, so searches can
be repeated a hundred times and compared. Predictions are no measurements: a row says how well a
method finds what the surrogate holds good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arch2vec_fast.analysis.search_style import title
from arch2vec_fast.analysis.statistics import Estimate, estimate
from arch2vec_fast.benchmarks import Benchmark
from arch2vec_fast.benchmarks.nasbench301 import (
    FILE,
    Nasbench301Surrogate,
    pool,
    surrogate_benchmark,
)
from arch2vec_fast.darts import published
from arch2vec_fast.darts.table4 import picks
from arch2vec_fast.search import methods
from arch2vec_fast.search.protocol import Encoder, Job, run_job
from arch2vec_fast.search.trace import Trace
from arch2vec_fast.spaces.darts import CIFAR10, Darts, network_cost
from arch2vec_fast.spaces.darts_genotype import genotypes_to_edges

__all__ = ["METHODS", "POOL_SIZE", "find_surrogate", "published_rows", "rows", "run_studies"]

METHODS = ("random", "evolution", "bananas", "arch2vec-rl", "arch2vec-bo")
POOL_SIZE = 50_000
"""Cells that a study chooses from: a Gaussian process scores all of them in every round."""
_NAME = "darts-nb301"


def find_surrogate(data: str | Path | None = None) -> Nasbench301Surrogate:
    """The surrogate of the folder `data`, default `$ARCH2VEC_DATA`.

    Raises FileNotFoundError where it is not at hand; the message says how to get it.
    """
    from arch2vec_fast import benchmarks

    place = benchmarks.find(_NAME, data=data)
    if place is None:
        raise FileNotFoundError(
            f"data: no surrogate found; let ARCH2VEC_DATA or --data name a folder with {FILE}, "
            "which `arch2vec-fast import nasbench301 FILE` makes"
        )
    return Nasbench301Surrogate.load(place.path)


def run_studies(
    surrogate: Nasbench301Surrogate,
    out: Path,
    encoder: Encoder,
    *,
    chosen: Sequence[str] = METHODS,
    recipe: str = "best",
    queries: int = 100,
    seeds: int = 100,
    pool_size: int = POOL_SIZE,
    progress: bool = False,
    on_start: Callable[[Job, Benchmark], None] = lambda job, benchmark: None,
) -> Iterator[Trace]:
    """The trace of each method, in `out`/darts-nb301/METHOD-RECIPE; finished ones are read back.

    Raises ValueError for unknown methods, before anything is searched.
    """
    for name in chosen:
        methods.get(name)
    benchmark = surrogate_benchmark(surrogate, pool(pool_size))
    for name in dict.fromkeys(chosen):
        job = Job(benchmark=_NAME, method=name, recipe=recipe, queries=queries)
        on_start(job, benchmark)
        yield run_job(job, benchmark, out, encoder, seeds=range(seeds), progress=progress)


def rows(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """A row a trace: means and deviations over seeds, errors and regrets in [0, 1].

    Keys: method, title, seeds, queries, error (predicted, of the pick), regret, parameters and
    mult_adds (of the pick's CIFAR-10 network).
    """
    found = []
    for trace in traces:
        cells = picks(trace)
        last = np.array([part.stop - 1 for _, part in trace.searches()])
        cost = Darts().cost(cells, CIFAR10)
        found.append(
            {
                "method": trace.method,
                "title": title(trace.method),
                "recipe": trace.recipe,
                "seeds": len(last),
                "queries": len(trace) / len(last),
                "pool": trace.metadata["pool"],
                "error": _spread(1 - trace["incumbent"][last]),
                "regret": _spread(trace["regret"][last]),
                "parameters": _spread(cost.parameters),
                "mult_adds": _spread(cost.mult_adds),
            }
        )
    return found


def published_rows(surrogate: Nasbench301Surrogate) -> list[dict[str, Any]]:
    """What the surrogate predicts of the published cells; keys: genotype, error, parameters,
    mult_adds."""
    named = {name: published.genotype(name) for name in published.genotypes()}
    cells = list(named.values())
    predicted = surrogate.predict(
        genotypes_to_edges(cells), genotypes_to_edges(cells, reduce=True)
    ).validation
    cost = network_cost(cells, CIFAR10)
    return [
        {
            "genotype": name,
            "error": float(1 - accuracy),
            "parameters": int(parameters),
            "mult_adds": int(mult_adds),
        }
        for name, accuracy, parameters, mult_adds in zip(
            named, predicted, cost.parameters, cost.mult_adds, strict=True
        )
    ]


def _spread(values: np.ndarray[Any, np.dtype[Any]]) -> dict[str, float | None]:
    found: Estimate = estimate(values.astype(np.float64))
    return {"mean": found.mean, "std": None if np.isnan(found.std) else found.std}

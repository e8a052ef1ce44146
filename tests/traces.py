# SPDX-License-Identifier: Apache-2.0
"""Small traces written by hand: what each search was told, query by query."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.search.trace import Trace, complete

SPACE = spaces.get("nasbench201")
CELLS = SPACE.enumerate()[:6]
VALIDATION = np.array([0.10, 0.50, 0.70, 0.60, 0.80, 0.75])
TEST = np.array([0.20, 0.55, 0.72, 0.90, 0.85, 0.70])
SECONDS = np.array([10.0, 20.0, 30.0, 10.0, 40.0, 10.0])


def bench(name: str = "hand", *, timed: bool = True) -> TableBenchmark:
    """Six cells; the best reward is row 4 (test .85), the best test accuracy row 3 (.90)."""
    return TableBenchmark(
        name=name,
        space=SPACE,
        cells=CELLS,
        reward="validation accuracy by hand",
        fidelities=(12,),
        validation=VALIDATION[:, None, None],
        test=TEST,
        times=SECONDS[:, None] if timed else None,
    )


def trace(
    queried: Mapping[int, Sequence[int]],
    *,
    method: str = "random",
    recipe: str = "paper",
    name: str = "hand",
    timed: bool = True,
    **facts: Any,
) -> Trace:
    """The trace of searches that queried these rows; `facts` replace metadata."""
    benchmark = bench(name, timed=timed)
    rows = np.array([row for asked in queried.values() for row in asked], np.int64)
    seeds = np.array([seed for seed, asked in queried.items() for _ in asked], np.int64)
    count = np.array([n for asked in queried.values() for n in range(len(asked))], np.int64)
    answers = benchmark.query(rows, seeds)
    fidelity = np.full(len(rows), 12)
    columns = complete(benchmark, seeds, count, rows, fidelity, answers.seconds, answers.validation)
    metadata = {
        "space": SPACE.name,
        "reward": benchmark.reward,
        "noise": "mean",
        "pool": len(CELLS),
        "ceiling": benchmark.ceiling._asdict(),
        "budget": {"seconds": None, "queries": 4},
        "recipe_fields": {"name": recipe},
        "version": "0",
    }
    return Trace(
        method=method,
        recipe=recipe,
        benchmark=name,
        columns=columns,
        cells=CELLS.codes[columns["row"]],
        metadata=metadata | facts,
    )

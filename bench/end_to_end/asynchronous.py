# SPDX-License-Identifier: Apache-2.0
"""What workers gain when a search proposes while others train, and what it costs in regret.

    python -m bench.end_to_end.asynchronous --latent FILE --hidden FILE --out FILE

Searches of the NAS-Bench-301 surrogate under a simulated clock, whose unit is the mean time of a
training: W workers, each training taking what the surrogate predicts for its cell. In rounds,
workers wait for the slowest of a round; at once, a free worker gets the next proposal. The
embeddings are those that `table4 --surrogate` leaves in its folder `encoder`. Nothing here is
timed: the numbers are the same on every machine.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.benchmarks.base import Answer, Answers
from arch2vec_fast.benchmarks.nasbench301 import surrogate_benchmark
from arch2vec_fast.darts.surrogate_table import find_surrogate
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import SearchRecipe, search
from arch2vec_fast.search.protocol import readout_for
from bench.environment import describe

STUDIES = (
    ("random", "best"),
    ("evolution", "best"),
    ("bananas", "best"),
    ("arch2vec-bo", "best"),
    ("arch2vec-bo", "paper"),
    ("arch2vec-rl", "best"),
    ("arch2vec-rl", "paper"),
)


class Simulated:
    """A benchmark whose queries take time on W workers, in rounds (`Prefetching`)."""

    def __init__(self, benchmark: TableBenchmark, workers: int) -> None:
        assert benchmark.times is not None
        self._benchmark, self._workers = benchmark, workers
        self._durations = benchmark.times[:, -1] / benchmark.times[:, -1].mean()
        self.clock = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._benchmark, name)

    def query(
        self, rows: NDArray[np.int64], seeds: NDArray[np.int64], fidelity: int | None = None
    ) -> Answers:
        """Answers of the benchmark; `prefetch` has spent the time."""
        return self._benchmark.query(rows, seeds, fidelity)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """One round: each worker takes the next cell when it is free, all wait for the last."""
        free = [self.clock] * self._workers
        for row in rows.tolist():
            heapq.heapreplace(free, free[0] + self._durations[row])
        self.clock = max(free)


class SimulatedAtOnce(Simulated):
    """The same with W queries out (`Streaming`)."""

    @property
    def at_once(self) -> int:
        """W."""
        return self._workers

    def stream(self, rows: Iterable[int]) -> Iterator[Answer]:
        """Answers in the order in which they end."""
        asked, running = iter(rows), list[tuple[float, int]]()
        while True:
            while len(running) < self._workers and (row := next(asked, -1)) >= 0:
                heapq.heappush(running, (self.clock + self._durations[row], row))
            if not running:
                return
            self.clock, row = heapq.heappop(running)
            validation = self.query(np.array([row]), np.zeros(1, np.int64)).validation
            yield Answer(row, float(validation[0]), math.nan)


def measure(
    kind: type[Simulated],
    study: tuple[str, str],
    benchmark: TableBenchmark,
    table: EmbeddingTable | None,
    given: argparse.Namespace,
) -> dict[str, Any]:
    """Clock and regret of seeds 0, 1, ...: mean and standard error."""
    clocks, regrets = [], []
    for seed in range(given.seeds):
        simulated = kind(benchmark, given.workers)
        trace = search(
            simulated,
            study[0],
            seeds=[seed],
            queries=given.queries,
            recipe=SearchRecipe.get(study[1], "darts"),
            embeddings=table,
        )
        clocks.append(simulated.clock)
        regrets.append(trace["regret"][-1])
    return {
        name: {
            "mean": round(float(np.mean(values)), digits),
            "standard_error": round(float(np.std(values, ddof=1)) / len(values) ** 0.5, digits),
        }
        for name, values, digits in (("clock", clocks, 2), ("regret", regrets, 6))
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latent", type=Path, required=True)
    parser.add_argument("--hidden", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    tables = {name: EmbeddingTable.load(getattr(given, name)) for name in ("latent", "hidden")}
    benchmark = surrogate_benchmark(find_surrogate(), tables["latent"].cells)
    rows = []
    for method, name in STUDIES:
        table = None
        if method.startswith("arch2vec"):
            table = tables[readout_for(method, SearchRecipe.get(name, "darts"))]
        row: dict[str, Any] = {"method": method, "recipe": name}
        for label, kind in (("rounds", Simulated), ("at_once", SimulatedAtOnce)):
            row[label] = measure(kind, (method, name), benchmark, table, given)
        rows.append(row)
        print(row, flush=True)
    facts = {key: getattr(given, key) for key in ("workers", "queries", "seeds")} | describe()
    given.out.write_text(
        json.dumps({"name": "asynchronous", **facts, "rows": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Traces of searches, sorted into studies: all seeds of one method on one benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.analysis.statistics import Band, mean_steps, step_grid
from arch2vec_fast.benchmarks.base import Ceiling
from arch2vec_fast.search.finalists import finalists
from arch2vec_fast.search.trace import Trace

__all__ = ["Study", "load_studies", "studies", "trace_files"]

Vector = NDArray[np.float64]

_SPACE_CELLS = {"nasbench101": 423_624, "nasbench201": 15_625}


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """S searches of one method with one recipe on one benchmark, differing in their seeds.

    Attributes:
        trace: all their queries.
        ceiling: what no search of the benchmark can exceed.
    """

    trace: Trace
    ceiling: Ceiling

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return self.trace.benchmark

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.trace.method

    @property
    def recipe(self) -> str:
        """Name of the recipe."""
        return self.trace.recipe

    @property
    def embeddings(self) -> str | None:
        """Recipe of the pretraining that it searched in; None if in none, or in another's file."""
        source = self.metadata.get("embeddings") or {}
        return source.get("recipe")

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of the trace: reward in words, noise, budget, embeddings, version, commit."""
        return self.trace.metadata

    @property
    def reward(self) -> str:
        """What a query returned, in words."""
        return str(self.metadata["reward"])

    @cached_property
    def label(self) -> str:
        """What sets its numbers apart from others', short: "12-epoch reward" or "30,001 cells"."""
        pool = self.metadata.get("pool")
        if self.benchmark == "darts-nb301":
            return f"surrogate, {pool:,} cells"
        if self.sees_test:
            return "test accuracy as reward"
        whole = _SPACE_CELLS.get(str(self.metadata.get("space")), 0)
        if isinstance(pool, int) and pool < whole:
            return f"{pool:,} cells"
        return f"{self.trace['fidelity'].max()}-epoch reward"

    @cached_property
    def sees_test(self) -> bool:
        """Whether the reward is the test accuracy itself, for want of a validation accuracy."""
        return bool(np.array_equal(self.trace["validation"], self.trace["test"]))

    @property
    def noise(self) -> str:
        """How the reward treats repeated runs of a cell: "mean", "run", or "unknown"."""
        return str(self.metadata.get("noise") or "unknown")

    @cached_property
    def has_times(self) -> bool:
        """Whether queries have known costs in seconds."""
        return bool(np.isfinite(self.trace["elapsed"]).all())

    @cached_property
    def searches(self) -> tuple[slice, ...]:
        """Rows of each search in the trace, by seed."""
        return tuple(rows for _, rows in self.trace.searches())

    @cached_property
    def seeds(self) -> NDArray[np.int64]:
        """Seeds of the searches, ascending, [S]."""
        return self.trace.seeds

    def final(self, column: str) -> Vector:
        """The last value of a column in each search, [S]."""
        last = np.array([rows.stop - 1 for rows in self.searches])
        values: Vector = self.trace[column][last].astype(np.float64)
        return values

    @cached_property
    def queries(self) -> NDArray[np.int64]:
        """Number of queries of each search, [S]."""
        return np.array([rows.stop - rows.start for rows in self.searches])

    @cached_property
    def distinct(self) -> NDArray[np.int64]:
        """Number of different cells queried by each search, [S]."""
        return np.array([len(np.unique(self.trace["row"][rows])) for rows in self.searches])

    @cached_property
    def best_test_seen(self) -> Vector:
        """Largest test accuracy among a search's queries, [S]: an oracle's choice, no search's."""
        return np.array([self.trace["test"][rows].max() for rows in self.searches])

    @cached_property
    def best_of_finalists(self) -> Vector:
        """Largest test accuracy among a search's finalists, [S]: what training them in full finds.

        Chosen by test accuracy, so a little better than it will be on data nobody has seen.
        """
        test = self.trace["test"]
        return np.array([test[places].max() for places in finalists(self.trace)])

    @cached_property
    def favourite(self) -> tuple[NDArray[np.int64], int, int]:
        """The cell that most searches end with: its code [W], a position in the trace where it
        became the incumbent, and by how many searches it is picked; of equals the best reward."""
        picks = [self._pick(rows) for rows in self.searches]
        rows = self.trace["row"][picks]
        counts = {int(row): int((rows == row).sum()) for row in rows}
        rank = [(counts[int(r)], float(self.trace["incumbent"][p])) for r, p in zip(rows, picks)]
        best = max(range(len(picks)), key=lambda search: rank[search])
        position = picks[best]
        return self.trace.cells[position], position, counts[int(rows[best])]

    def _pick(self, rows: slice) -> int:
        """Where in the trace the final incumbent of a search was queried."""
        part = slice(rows.start, rows.stop)
        fidelity, reward = self.trace["fidelity"][part], self.trace["validation"][part]
        longest = fidelity == fidelity.max()
        return int(rows.start + np.argmax(np.where(longest, reward, -np.inf)))

    def regrets(self, measure: str) -> Vector:
        """Regret after each query, [n]; measure "test", or "validation" of the incumbent."""
        test = measure == "test"
        best = self.ceiling.test if test else self.ceiling.validation
        values: Vector = best - self.trace["incumbent_test" if test else "incumbent"]
        return values

    def curve(self, measure: str, axis: str) -> Band:
        """Mean regret over seeds against "time" in seconds or "queries" (1 is the first)."""
        values = self.regrets(measure)
        positions = self.trace["elapsed"] if axis == "time" else self.trace["query"] + 1.0
        xs = [positions[rows] for rows in self.searches]
        return mean_steps(xs, [values[rows] for rows in self.searches], step_grid(xs))


def trace_files(paths: Iterable[Path]) -> list[Path]:
    """Trace files among `paths`: files as they are, folders with all Parquet files below them.

    Of a study that was interrupted the finished groups of seeds count.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = sorted(path.rglob("*.parquet"))
            whole = {file.parent for file in below if file.name == "trace.parquet"}
            below = [f for f in below if f.parent not in whole or not f.name.startswith("part-")]
            if not below:
                raise FileNotFoundError(
                    f"{path}: holds no traces (*.parquet) and is no run of pretrain; "
                    "give what `search` wrote"
                )
            found |= dict.fromkeys(below)
        elif path.is_file():
            found[path] = None
        else:
            raise FileNotFoundError(f"{path}: no such file or folder; give what `search` wrote")
    return list(found)


def load_studies(paths: Iterable[Path]) -> list[Study]:
    """Studies in the trace files among `paths` (`trace_files`), as `studies` sorts them."""
    files = trace_files(paths)
    return studies([Trace.load(path) for path in files], names=[str(path) for path in files])


def studies(traces: Sequence[Trace], names: Sequence[str] | None = None) -> list[Study]:
    """Traces grouped by benchmark, method and recipe, in the order they first appear.

    names: what to call each trace in errors. Raises ValueError where a trace is empty, a seed
    comes twice, traces of one benchmark have different rewards: those must not share a plot, or
    those of one method and recipe differ in budget, embeddings or fields of the recipe: those must
    not share a mean.
    """
    names = names or [f"trace {number}" for number in range(len(traces))]
    groups: dict[tuple[str, str, str], list[Trace]] = {}
    first: dict[str, tuple[str, Trace]] = {}
    for name, trace in zip(names, traces, strict=True):
        if not len(trace):
            raise ValueError(f"{name}: holds no seeds; let the search make at least one query")
        other, reference = first.setdefault(trace.benchmark, (name, trace))
        for fact in ("reward", "noise", "ceiling"):
            if trace.metadata.get(fact) != reference.metadata.get(fact):
                raise ValueError(
                    f"{name}: {fact} is {trace.metadata.get(fact)!r}, but "
                    f"{reference.metadata.get(fact)!r} in {other}; "
                    "compare searches of one reward"
                )
        group = groups.setdefault((trace.benchmark, trace.method, trace.recipe), [])
        for fact in ("budget", "embeddings", "recipe_fields"):
            if group and trace.metadata.get(fact) != group[0].metadata.get(fact):
                raise ValueError(
                    f"{name}: {trace.method} ({trace.recipe}) has other {fact} here than in other "
                    "files; report them apart, or give the recipe another name"
                )
        group.append(trace)
    return [_study(key, group) for key, group in groups.items()]


def _study(key: tuple[str, str, str], group: Sequence[Trace]) -> Study:
    try:
        trace = Trace.concat(group)
    except ValueError as error:
        raise ValueError(f"{' / '.join(key)}: {error}") from None
    return Study(trace=trace, ceiling=_ceiling(trace))


def _ceiling(trace: Trace) -> Ceiling:
    try:
        known = trace.metadata["ceiling"].items()
        return Ceiling(**{name: math.nan if value is None else value for name, value in known})
    except (AttributeError, KeyError, TypeError):
        raise ValueError(
            f"{trace.benchmark}: the trace of {trace.method} has no ceiling; search again"
        ) from None

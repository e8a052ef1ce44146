# SPDX-License-Identifier: Apache-2.0
"""What a search may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from arch2vec_fast.benchmarks.base import Benchmark

__all__ = ["Budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a search ends: at the first limit it reaches.

    seconds: a query begun before is finished and counted, so `elapsed` of the last may exceed it,
    as in the released code. queries: their number.
    """

    seconds: float | None = None
    queries: int | None = None

    @property
    def most_seconds(self) -> float:
        """Infinite where none are given."""
        return math.inf if self.seconds is None else self.seconds

    @property
    def most_queries(self) -> float:
        """Infinite where none are given."""
        return math.inf if self.queries is None else self.queries

    def check(self, benchmark: Benchmark) -> None:
        """ValueError where the benchmark cannot be searched under this budget."""
        if self.seconds is None and self.queries is None:
            raise ValueError(
                "budget: none given; give seconds (--budget-seconds) or queries (--queries)"
            )
        if self.queries is not None and self.queries < 1:
            raise ValueError(f"queries: {self.queries} is below one query; give 1 or more")
        if self.seconds is None:
            return
        if not self.seconds > 0 or math.isinf(self.seconds):
            raise ValueError(f"seconds: {self.seconds} is no budget; give a positive number")
        if not benchmark.has_times:
            raise ValueError(
                f"seconds: {benchmark.name} knows no times; give a number of queries instead"
            )
        rows = np.arange(len(benchmark.cells))
        answers = benchmark.query(rows, np.zeros_like(rows), benchmark.fidelities[0])
        if self.seconds < (cheapest := float(answers.seconds.min())):
            raise ValueError(
                f"seconds: {self.seconds:g} is below one query of {benchmark.name}, "
                f"{cheapest:.0f} s at least"
            )

# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: what a cell scores and what asking costs."""

from arch2vec_fast.benchmarks._registry import find, get, names
from arch2vec_fast.benchmarks.base import Answers, Benchmark, Ceiling, TableBenchmark
from arch2vec_fast.benchmarks.store import read_table, write_table

__all__ = [
    "Answers",
    "Benchmark",
    "Ceiling",
    "TableBenchmark",
    "find",
    "get",
    "names",
    "read_table",
    "write_table",
]

# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: what a cell scores and what asking costs."""

from arch2vec_fast.benchmarks.base import Answers, Benchmark, Ceiling, TableBenchmark

__all__ = ["Answers", "Benchmark", "Ceiling", "TableBenchmark"]

# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: what a cell scores and what asking costs."""

from arch2vec_fast.benchmarks._registry import find, get, names
from arch2vec_fast.benchmarks.analog import import_analog
from arch2vec_fast.benchmarks.base import Answers, Benchmark, Ceiling, TableBenchmark
from arch2vec_fast.benchmarks.import_nasbench101 import import_nasbench101
from arch2vec_fast.benchmarks.import_nasbench201 import import_nasbench201
from arch2vec_fast.benchmarks.import_nasbench301 import import_nasbench301
from arch2vec_fast.benchmarks.store import read_table, write_table

__all__ = [
    "Answers",
    "Benchmark",
    "Ceiling",
    "TableBenchmark",
    "find",
    "get",
    "import_analog",
    "import_nasbench101",
    "import_nasbench201",
    "import_nasbench301",
    "names",
    "read_table",
    "write_table",
]

# SPDX-License-Identifier: Apache-2.0
"""Paired measurement: contenders take turns in one process, ratios are formed turn by turn.

A slow moment of the machine then hits all contenders of a turn alike, and the spread of the ratio
says how far a single number can be trusted.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

OURS = "arch2vec_fast"

Contender = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Absent:
    """A contender that cannot run here. The row and the table name the reason."""

    reason: str


class Turns:
    """Contenders, each a callable that does a fixed amount of work and returns its units.

    Every call of the object is one turn: all contenders once. The first turn warms up and does not
    count.
    """

    def __init__(self, contenders: Mapping[str, Contender]) -> None:
        if OURS not in contenders:
            raise ValueError(f"contenders: none is called {OURS!r}")
        self._contenders = contenders
        self._seconds: dict[str, list[float]] = {name: [] for name in contenders}

    def __call__(self) -> None:
        for name, work in self._contenders.items():
            _finish()
            began = time.perf_counter()
            units = work()
            _finish()
            self._seconds[name].append((time.perf_counter() - began) / units)

    def summary(self) -> dict[str, dict[str, Any]]:
        """For each contender: seconds a unit, and how many times faster ours is, turn by turn."""
        measured = {name: values[1:] for name, values in self._seconds.items()}
        ours = measured[OURS]
        return {
            name: {
                "seconds_per_unit": spread(values),
                "ours_times_faster": spread([b / a for a, b in zip(ours, values, strict=True)]),
            }
            for name, values in measured.items()
        }


def spread(values: list[float]) -> dict[str, float]:
    """Median and range of repeated measurements."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "repeats": len(values),
    }


def set_threads(count: int) -> None:
    """The same number of threads for every library that has a pool of its own."""
    torch.set_num_threads(count)
    if "threadpoolctl" in sys.modules:  # scikit-learn's and NumPy's
        sys.modules["threadpoolctl"].threadpool_limits(count)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(count)


def _finish() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()

# SPDX-License-Identifier: Apache-2.0
"""Paired measurement: contenders take turns in one process, ratios are formed turn by turn.

A slow moment of the machine then hits all contenders of a turn alike, and the spread of the ratio
says how far a single number can be trusted.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.environment import describe

RESULTS = Path(__file__).resolve().parent / "results"


def paired(
    contenders: Mapping[str, Callable[[], float]], *, baseline: str, repeats: int = 5
) -> dict[str, Any]:
    """Time contenders in turns.

    Each callable does a fixed amount of work and returns how many units it did; a first, unrecorded
    turn warms up. Returns for each: units per second (median, min, max over turns) and the ratio of
    its rate to the baseline's, formed within each turn (median, min, max).
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, work in contenders.items():
            began = time.perf_counter()
            units = work()
            if turn:
                rates[name].append(units / (time.perf_counter() - began))
    ratios = {
        name: [mine / base for mine, base in zip(values, rates[baseline], strict=True)]
        for name, values in rates.items()
    }
    return {
        name: {"per_second": _spread(rates[name]), f"times_{baseline}": _spread(ratios[name])}
        for name in contenders
    }


def write(path: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write one result file: what, where, when and the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, **describe(), "rows": rows}, indent=2) + "\n")


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "repeats": len(values),
    }

# SPDX-License-Identifier: Apache-2.0
"""What the machine can do at all, measured in the same run as the rows that are held against it.

Products of 1,024 x 1,024 float32 matrices (the vendor's library, hot caches) and a copy
of arrays far larger than the caches for memory, reads and writes counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from bench.harness import set_threads

_MATRIX = 1024
_STREAM_FLOATS = 1 << 25  # 128 MiB an array


def measure(threads: int, device: str = "cpu", repeats: int = 7) -> dict[str, Any]:
    """Best rates seen: {"gflops": ..., "gbytes_per_second": ...} for this number of threads."""
    set_threads(threads)
    a = torch.randn(_MATRIX, _MATRIX, device=device)
    product = torch.empty_like(a)
    source = torch.ones(_STREAM_FLOATS, device=device)
    target = torch.zeros_like(source)
    flops = 2 * _MATRIX**3
    return {
        "gflops": flops / _best(lambda: torch.mm(a, a, out=product), repeats) / 1e9,
        "gbytes_per_second": 8
        * _STREAM_FLOATS
        / _best(lambda: target.copy_(source), repeats)
        / 1e9,
    }


def share(
    limits: dict[str, Any], seconds: float, flops: float | None, moved: float | None
) -> dict[str, Any] | None:
    """How near a kernel stands to the roof above it: `seconds`, `flops`, bytes `moved` a unit."""
    times = {
        "compute": (flops or 0) / (limits["gflops"] * 1e9),
        "memory": (moved or 0) / (limits["gbytes_per_second"] * 1e9),
    }
    bound = max(times, key=lambda name: times[name])
    return {"bound": bound, "share": times[bound] / seconds} if times[bound] else None


def _best(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        _synchronize()
        began = time.perf_counter()
        work()
        _synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()

# SPDX-License-Identifier: Apache-2.0
"""How a GPU benchmark measures and reports.

A benchmark is a module of this folder with `def run(report: Report) -> None`. It calls

    report.race("nearest of 423,624, 16 queries", {OURS: ours, "torch": theirs}, goal=30e-6)
    report.add("grid barrier, 132 blocks", 1.1, "us")

`race` lets the contenders take turns on one GPU and times each between CUDA events; a contender
that fails becomes an error in its row, and None says that it is not installed. Rows are written as
they come, so that a crash costs only what follows.

    python -m bench.gpu.report bench.gpu.torch_rates rows.jsonl
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

OURS = "arch2vec_fast"

# Does one unit of work, asynchronously, on the current stream.
Work = Callable[[], object]

_TURNS = 7
_TURN_SECONDS = 0.02


class Report:
    """Rows of one benchmark, appended to a file as JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, value: float, unit: str, **more: Any) -> None:
        """A number that needs no contender; `more` is kept with it (min, max, goal, note, ...)."""
        self._write({"name": name, "value": value, "unit": unit, **more})

    def fail(self, name: str, error: BaseException) -> None:
        """A measurement that did not succeed."""
        traceback.print_exception(error)
        self._write({"name": name, "error": _line(error)})

    def attempt(self, name: str, rows: Callable[[], object]) -> None:
        """Calls what makes some rows; its failure is a row, and the others go on."""
        try:
            rows()
        except Exception as error:
            self.fail(name, error)

    def race(
        self,
        name: str,
        contenders: Mapping[str, Work | None],
        *,
        goal: float | None = None,
        flops: float | None = None,
        moved: float | None = None,
        note: str | None = None,
    ) -> dict[str, float]:
        """Time of one unit of work of each contender, in turns; returns the medians in seconds.

        goal: seconds that ours should take. flops, moved: arithmetic and bytes of one unit, for the
        rates. None for a contender says that it is not installed.
        """
        timers: dict[str, _Timer] = {}
        failed: dict[str, str] = {}
        for label, work in contenders.items():
            if work is None:
                failed[label] = "absent"
                continue
            try:
                timers[label] = _Timer(work)
            except Exception as error:
                torch.cuda.synchronize()  # raises again if the device is lost
                failed[label] = _line(error)
        for _ in range(_TURNS):
            for label, timer in list(timers.items()):
                try:
                    timer.turn()
                except Exception as error:
                    torch.cuda.synchronize()
                    failed[label] = _line(error)
                    del timers[label]
        medians = {label: statistics.median(timer.seconds) for label, timer in timers.items()}
        rows: dict[str, dict[str, Any]] = {label: {"error": text} for label, text in failed.items()}
        for label, timer in timers.items():
            seconds = medians[label]
            rows[label] = {
                "seconds": seconds,
                "min": min(timer.seconds),
                "max": max(timer.seconds),
                "host_seconds": statistics.median(timer.host_seconds),
            }
            if OURS in timers and label != OURS:
                rows[label]["ours_times_faster"] = seconds / medians[OURS]
            if flops is not None:
                rows[label]["tflops"] = flops / seconds * 1e-12
            if moved is not None:
                rows[label]["gigabytes_per_second"] = moved / seconds * 1e-9
        row: dict[str, Any] = {"name": name, "contenders": rows}
        row |= {} if goal is None else {"goal_seconds": goal}
        row |= {} if note is None else {"note": note}
        self._write(row)
        return medians

    def _write(self, row: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(render(row), flush=True)


def _line(error: BaseException) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


class _Timer:
    """Calls a piece of work often enough for the clock; the first calls warm up."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.seconds: list[float] = []
        self.host_seconds: list[float] = []
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        once, _ = self._measure(1)
        self._calls = max(1, min(1000, round(_TURN_SECONDS / max(once, 1e-6))))

    def turn(self) -> None:
        seconds, host = self._measure(self._calls)
        self.seconds.append(seconds)
        self.host_seconds.append(host)

    def _measure(self, calls: int) -> tuple[float, float]:
        """Seconds a call on the device, and to enqueue it."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        began = time.perf_counter()
        begin.record()
        for _ in range(calls):
            self._work()
        end.record()
        host = time.perf_counter() - began
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / calls, host / calls


def graphed(work: Work, *, steps: int = 1) -> Work:
    """The work, `steps` times, captured into a CUDA graph: without the host's part."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(steps):
            work()
    return graph.replay


def render(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    if "error" in row:
        return f"{row['name']}: {row['error']}"
    if "contenders" not in row:
        return f"{row['name']}: {row['value']:.4g} {row['unit']}"
    parts = []
    for label, entry in row["contenders"].items():
        if "error" in entry:
            parts.append(f"{label} {entry['error']}")
            continue
        text = f"{label} {human(entry['seconds'])}"
        if "ours_times_faster" in entry:
            text += f" (ours {entry['ours_times_faster']:.1f}x)"
        parts.append(text)
    goal = f" [goal {human(row['goal_seconds'])}]" if "goal_seconds" in row else ""
    return f"{row['name']}{goal}: {', '.join(parts)}"


def human(seconds: float) -> str:
    """Seconds with a fitting unit."""
    for scale, unit in ((1e-6, "us"), (1e-3, "ms")):
        if seconds < 1000 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def main() -> int:
    """Runs one module's benchmark; its failure is a row too."""
    module, path = sys.argv[1], Path(sys.argv[2])
    report = Report(path)
    try:
        importlib.import_module(module).run(report)
    except Exception as error:
        report.fail(module, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

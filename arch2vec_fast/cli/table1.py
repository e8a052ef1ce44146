# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast table1`: run what is missing, print the table beside the paper's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, percent, write_document


def table1_command(
    out: Path,
    *,
    spaces: list[str],
    methods: list[str],
    seeds: int,
    samples: int,
    device: str,
    as_json: bool,
) -> None:
    """Run the jobs with an estimate of the time left; a Ctrl-C loses nothing."""
    from arch2vec_fast.cli.commands import check_writable
    from arch2vec_fast.pretrain import Interrupted
    from arch2vec_fast.pretrain.loop import check_device
    from arch2vec_fast.pretrain.table1 import Job, finished, jobs, run_jobs, summary

    table = jobs(spaces, methods, seeds)
    check_device(device)
    check_writable(out)
    notes = people(stderr=True)
    missing = [job for job in table if finished(job, out) is None]
    notes.print(
        f"{len(table)} runs, {len(table) - len(missing)} finished before; the rest takes about "
        f"{_duration(sum(job.estimate for job in missing))} on one CPU core"
    )
    clock = _Clock(sum(job.cells_to_see for job in missing))

    def announce(job: Job) -> None:
        notes.print(f"{job.name}: {clock.left()}")
        clock.begin(job.cells_to_see)

    results = []
    try:
        for job, result in run_jobs(
            table, out, samples=samples, device=device, progress=True, on_start=announce
        ):
            clock.end()
            results.append((job, result))
    except Interrupted:
        notes.print("\nStopped; everything is saved. The same command goes on.")
        raise typer.Exit(130) from None
    rows = summary(results)
    if as_json:
        write_document({"out": str(out), "samples": samples, "rows": rows})
        return
    console = people()
    console.print(_render(rows))
    console.print(f"results: {escape(str(out))}/*.json", soft_wrap=True)


class _Clock:
    """Time left, by the cells per second of the runs of this call."""

    def __init__(self, cells: int) -> None:
        self._left, self._done, self._seconds = cells, 0, 0.0
        self._current: tuple[int, float] | None = None

    def begin(self, cells: int) -> None:
        self._current = (cells, time.monotonic())

    def end(self) -> None:
        if self._current is not None:
            cells, began = self._current
            self._left -= cells
            self._done += cells
            self._seconds += time.monotonic() - began
            self._current = None

    def left(self) -> str:
        if not self._done:
            return "first run"
        return f"about {_duration(self._left * self._seconds / self._done)} left"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


_HEADERS = {
    "released_accuracy": "accuracy",
    "released_validity": "valid",
    "released_uniqueness": "unique",
    "exact": "exact cells",
    "strict_validity": "strict valid",
    "strict_uniqueness": "strict unique",
    "legal_uniqueness": "legal unique",
    "uniform_uniqueness": "uniform",
}


def _render(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title="Table 1 (%): reconstruction, validity and uniqueness",
        title_justify="left",
        caption="paper: accuracy / validity / uniqueness as published (Yan et al., NeurIPS 2020). "
        "accuracy, valid, unique: the released code's measures; the rest: strict ones.",
        caption_justify="left",
    )
    for header in ("space", "method", "paper"):
        table.add_column(header)
    for header in _HEADERS.values():
        table.add_column(header, justify="right")
    space = None
    for row in rows:
        if space not in (None, row["space"]):
            table.add_section()
        space = row["space"]
        paper = row["paper"]
        published = "-" if paper is None else " / ".join(percent(share) for share in paper)
        table.add_row(space, row["method"], published, *(_spread(row[name]) for name in _HEADERS))
    return table


def _spread(value: dict[str, float | None]) -> str:
    text = percent(value["mean"])
    return text if value["std"] is None else f"{text} ± {percent(value['std'])}"

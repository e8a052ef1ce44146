# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast table1`: run what is missing, print the table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, percent, titled_table, write_document


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
    from arch2vec_fast._checks import check_device
    from arch2vec_fast.cli.commands import check_writable
    from arch2vec_fast.pretrain import Interrupted
    from arch2vec_fast.pretrain.table1 import Job, finished, jobs, run_jobs, summary

    table = jobs(spaces, methods, seeds)
    check_device(device)
    check_writable(out, folder=True)
    notes = people(stderr=True)
    missing = [job for job in table if finished(job, out, samples) is None]
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
    for space in dict.fromkeys(row["space"] for row in rows):
        console.print(_render(space, [row for row in rows if row["space"] == space]))
    console.print(_LEGEND)
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
    "released_validity": "valid",
    "released_uniqueness": "unique",
    "exact": "exact",
    "strict_validity": "valid*",
    "strict_uniqueness": "unique*",
    "legal_uniqueness": "legal",
}
_LEGEND = (
    "[dim]accuracy (operations / edges), valid, unique: as the released code measures them\n"
    "exact: whole held-out cells; *: strict rule; legal: uniqueness of legal decoding\n"
    "paper: as published (Yan et al., NeurIPS 2020), where a second source confirms it[/]"
)


def _render(space: str, rows: list[dict[str, Any]]) -> Table:
    uniform = percent(rows[0]["uniform_uniqueness"]["mean"])
    table = titled_table(f"[bold]{space}[/] (%); {uniform} of uniform draws are distinct")
    table.add_column("method", no_wrap=True)
    for header in ("accuracy", *_HEADERS.values()):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        accuracy = " / ".join(
            _spread(row[name]) for name in ("released_ops_accuracy", "released_edge_accuracy")
        )
        table.add_row(row["method"], accuracy, *(_spread(row[key]) for key in _HEADERS))
        if row["paper"] is not None:
            table.add_row("  paper", *map(percent, row["paper"]), style="dim")
    return table


def _spread(value: dict[str, float | None]) -> str:
    if value["std"] is None:
        return percent(value["mean"])
    return f"{percent(value['mean'], 1)}±{percent(value['std'], 1)}"

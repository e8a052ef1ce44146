# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast table2` and `table3`: search what is missing, then tables and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer
from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, titled_table, write_document

if TYPE_CHECKING:
    from arch2vec_fast.analysis.studies import Study
    from arch2vec_fast.benchmarks import Benchmark
    from arch2vec_fast.search.protocol import Job


def table2_command(
    out: Path,
    *,
    benchmark: str | None,
    methods: list[str] | None,
    recipes: list[str] | None,
    encoder: Path | None,
    seeds: int,
    noise: str,
    data: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """NAS-Bench-101 under the paper's numbers of queries."""
    from arch2vec_fast.search.protocol import find_nasbench101, table2_jobs

    jobs = table2_jobs(benchmark or find_nasbench101(data), methods, recipes)
    found = _run(jobs, out, encoder, seeds, noise, data, device)
    _finish(found, out, "table2", data, as_json)


def table3_command(
    out: Path,
    *,
    methods: list[str] | None,
    recipes: list[str] | None,
    encoder: Path | None,
    seeds: int,
    noise: str,
    data: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """NAS-Bench-201 on the data sets that are at hand."""
    from arch2vec_fast import benchmarks
    from arch2vec_fast.search.protocol import DATA_SETS, table3_jobs

    there = [name for name in DATA_SETS if benchmarks.find(name, data=data) is not None]
    if not there:
        benchmarks.get(DATA_SETS[0], data=data)  # raises, and says how to get the table
    absent = [name for name in DATA_SETS if name not in there]
    jobs = table3_jobs(there, methods, recipes)
    found = _run(jobs, out, encoder, seeds, noise, data, device, absent)
    _finish(found, out, "table3", data, as_json)


def _run(
    jobs: list[Job],
    out: Path,
    encoder_run: Path | None,
    seeds: int,
    noise: str,
    data: Path | None,
    device: str,
    absent: Sequence[str] = (),
) -> list[Study]:
    """The studies of `jobs`; a Ctrl-C loses nothing. absent: benchmarks without a table."""
    from arch2vec_fast._checks import check_device
    from arch2vec_fast.analysis.studies import studies
    from arch2vec_fast.cli.commands import check_writable
    from arch2vec_fast.pretrain import Interrupted, Run
    from arch2vec_fast.search.protocol import run_jobs, table_encoders

    if seeds < 1:
        raise ValueError(f"seeds: {seeds} is below 1")
    choice: Literal["mean", "run"] = "run" if noise == "run" else "mean"
    if noise != choice:
        raise ValueError(f"noise: {noise!r} is neither 'mean' nor 'run'")
    check_device(device)
    check_writable(out, folder=True)
    if encoder_run is not None:
        Run.load(encoder_run)
    notes = people(stderr=True)
    for name in absent:
        notes.print(f"{name}: no table, left out")
    finished = sum((out / job.name / "trace.parquet").is_file() for job in jobs)
    notes.print(
        f"{len(jobs)} studies of {seeds} searches, {finished} finished before. The rest takes "
        "minutes to hours, most of it in methods that fit a model; Ctrl-C loses nothing"
    )

    def announce(job: Job, benchmark: Benchmark) -> None:
        notes.print(f"{job.name}: reward {escape(benchmark.reward)}", soft_wrap=True)

    def skipped(job: Job, reason: str) -> None:
        notes.print(f"{job.name}: skipped, {reason}", soft_wrap=True)

    encoders = table_encoders(out / "encoder", run=encoder_run, device=device, progress=True)
    try:
        traces = list(
            run_jobs(
                jobs,
                out,
                encoders,
                seeds=seeds,
                noise=choice,
                data=data,
                progress=True,
                on_start=announce,
                on_skip=skipped,
            )
        )
    except (Interrupted, KeyboardInterrupt):
        notes.print("\nStopped; finished seeds are kept. The same command goes on.")
        raise typer.Exit(130) from None
    return studies(traces)


def _finish(found: list[Study], out: Path, name: str, data: Path | None, as_json: bool) -> None:
    from arch2vec_fast.analysis.published import published_curves
    from arch2vec_fast.analysis.search_tables import quoted, quoted_for, table3
    from arch2vec_fast.cli.search_report import comparison_tables, plain, write_comparison

    if not found:
        raise ValueError("methods: none of them can run here; choose others")
    files = write_comparison(found, out / f"{name}.html", out / name, data)
    if as_json:
        write_document({**files, "studies": [plain(study) for study in found]})
        return
    console = people()
    for rendered in comparison_tables(found):
        console.print(rendered)
    groups: dict[str, list[Study]] = {}
    for study in found:
        groups.setdefault(study.benchmark, []).append(study)
    if len(groups) > 1:
        console.print(_rich_table3(*table3(groups)))
    for group in groups.values():
        if rows := quoted(group, quoted_for(group, published_curves(data))):
            console.print(_rich_quoted(rows))
    for kind, path in files.items():
        console.print(f"{kind}: {escape(path)}", soft_wrap=True)


def _rich_table3(header: list[str], rows: list[list[str]]) -> Table:
    """Table 3 for a terminal: what it was measured with stands in its title."""
    at = header.index("measured with")
    labels = ", ".join(dict.fromkeys(row[at] for row in rows if row[at]))
    table = titled_table(f"[bold]Table 3[/] (%, mean ± std over seeds as in the paper); {labels}")
    for number, name in enumerate([*header[:at], *header[at + 1 :]]):
        table.add_column(name, justify="right" if number > 1 else "left", overflow="fold")
    for row in rows:
        table.add_row(*row[:at], *row[at + 1 :])
    return table


def _rich_quoted(rows: list[list[str]]) -> Table:
    """What others published, for a terminal."""
    from arch2vec_fast.analysis.search_tables import QUOTED, QUOTED_CAPTION

    table = titled_table(f"[bold]Published[/] (%). {QUOTED_CAPTION}")
    for number, name in enumerate(QUOTED):
        table.add_column(name, justify="right" if number > 1 else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table

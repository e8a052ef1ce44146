# SPDX-License-Identifier: Apache-2.0
"""What `arch2vec-fast predictive` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, titled_table, write_document


def predictive(
    benchmark: Annotated[
        str, typer.Argument(metavar="BENCHMARK", help="A name that `benchmarks` lists.")
    ],
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Directories made by pretrain, on its space."),
    ],
    labels: Annotated[
        str, typer.Option(help="Cells of known accuracy; several numbers: 78,156,469.")
    ] = "250",
    seeds: Annotated[int, typer.Option(help="Draws of those cells, from seeds 0, 1, ...")] = 10,
    targets: Annotated[
        str, typer.Option(help="What is fitted: rank, clip, standard or none.")
    ] = "rank",
    above: Annotated[
        float | None,
        typer.Option(
            help="Take r and the error of cells above this accuracy.",
            show_default="0.8 on NAS-Bench-101, else 0",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of tables.", show_default="$ARCH2VEC_DATA")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
) -> None:
    """Predict test accuracies from embeddings, and from what needs no pretraining.

    Kendall's tau, Pearson's r and the error of a Gaussian process fitted to a few
    cells, as in section 4.1 of the paper; beside them the same encoder untrained,
    operation counts, one-hot cells and a graph kernel. Of several runs of one
    recipe each draw takes the next.

    Examples:

    arch2vec-fast predictive nasbench201-cifar10 runs/nb201

    arch2vec-fast predictive nasbench101-30k runs/best runs/released --targets standard
    """
    from arch2vec_fast import benchmarks
    from arch2vec_fast.analysis.predictive import study
    from arch2vec_fast.pretrain import Run

    counts = _counts(labels)
    if seeds < 1:
        raise ValueError(f"seeds: {seeds} is below 1")
    opened = [Run.load(path) for path in runs]
    table = benchmarks.get(benchmark, data=data)
    notes = people(stderr=True)
    rows = []
    for row in study(
        table, opened, labels=counts, seeds=range(seeds), targets=targets, least=above
    ):
        if row["labels"] == counts[0]:
            notes.print(f"{row['title']} ...")
        rows.append(row)
    if json:
        facts = {"benchmark": table.name, "cells": len(table.cells), "targets": targets}
        write_document({**facts, "runs": [str(path) for path in runs], "rows": rows})
        return
    console = people()
    for count in counts:
        title = (
            f"[bold]{escape(table.name)}[/]: test accuracy predicted from {count} cells, "
            f"{seeds} draws, mean ± standard error"
        )
        console.print(_table(title, [row for row in rows if row["labels"] == count]))
    console.print(
        "[dim]tau: Kendall's, all other cells; r, RMSE (% points): those above the least "
        "accuracy; over untrained: paired difference of tau[/]"
    )


def _counts(labels: str) -> list[int]:
    try:
        return [int(part) for part in labels.split(",")]
    except ValueError:
        raise ValueError(f"labels: {labels!r} is no list of numbers; e.g. 78,156,469") from None


def _table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    table = titled_table(title)
    table.add_column("predicted from", no_wrap=True)
    for header in ("tau", "r", "RMSE", "over untrained"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        cells = (spread(row["kendall"]), spread(row["pearson"]), spread(row["rmse"], 100, 2))
        table.add_row(row["title"], *cells, spread(row["over_untrained"], sign="+"))
    return table


def spread(
    value: dict[str, float | None] | None, scale: float = 1, digits: int = 3, sign: str = ""
) -> str:
    """Mean with its standard error; nothing for nothing."""
    if value is None or value["mean"] is None:
        return "" if value is None else "-"
    text = f"{scale * value['mean']:{sign}.{digits}f}"
    if value["standard_error"] is None:
        return text
    return f"{text} ± {scale * value['standard_error']:.{digits}f}"

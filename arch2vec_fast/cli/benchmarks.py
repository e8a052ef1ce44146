# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast benchmarks` and `arch2vec-fast import`: what tables there are, and making them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, percent, write_document

import_app = typer.Typer(
    name="import",
    help="Turn official benchmark files into tables that load in milliseconds.",
    no_args_is_help=True,
)

_Out = Annotated[
    Path,
    typer.Option(help="Existing folder of tables.", envvar="ARCH2VEC_DATA", show_envvar=True),
]
_Partial = Annotated[bool, typer.Option("--partial", help="Accept a file that lacks cells.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def benchmarks_command(data: Path | None, *, as_json: bool) -> None:
    """List all benchmarks; those at hand with their sizes and ceilings."""
    from arch2vec_fast import benchmarks

    rows = [_describe(name, data) for name in benchmarks.names()]
    if as_json:
        write_document({"benchmarks": rows})
        return
    console = people()
    console.print(_table(rows))
    console.print(
        "[dim]ceiling: the best reward, the test accuracy of the cell that has it (what a perfect "
        "search returns), the best test accuracy; %[/]"
    )
    for row in rows:
        console.print(f"{row['name']}: {escape(row['found'] or row['missing'])}", soft_wrap=True)


def _describe(name: str, data: Path | None) -> dict[str, Any]:
    """What is known of one benchmark; `missing` says how to get one that is not at hand."""
    from arch2vec_fast import benchmarks
    from arch2vec_fast.benchmarks import nasbench301

    place = benchmarks.find(name, data=data)
    if place is not None and place.kind == "surrogate":  # asking it of all its cells takes a while
        return {
            "name": name,
            "found": str(place.path),
            "cells": nasbench301.POOL_SIZE,
            "space": "darts",
            "reward": nasbench301.REWARD,
            "fidelities": [nasbench301.EPOCHS],
            "mean_seconds": None,
            "ceiling": None,
        }
    try:
        bench = benchmarks.get(name, data=data)
    except (FileNotFoundError, ValueError) as error:
        return {"name": name, "found": None, "missing": str(error).removeprefix(f"{name}: ")}
    seconds = None if bench.times is None else float(bench.times[:, -1].mean())
    return {
        "name": name,
        "found": None if place is None else str(place.path),
        "cells": len(bench),
        "space": bench.space.name,
        "reward": bench.reward,
        "fidelities": list(bench.fidelities),
        "mean_seconds": seconds,
        "ceiling": bench.ceiling._asdict(),
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table()
    for header in ("benchmark", "cells", "a query returns", "seconds", "ceiling"):
        table.add_column(header, justify="right" if header in ("cells", "seconds") else "left")
    for row in rows:
        if row["found"] is None:
            table.add_row(row["name"], "", "[dim]not found, see below[/]", "", "")
            continue
        seconds, ceiling = row["mean_seconds"], row["ceiling"]
        table.add_row(
            row["name"],
            f"{row['cells']:,}",
            row["reward"],
            "unknown" if seconds is None else f"{seconds:,.0f}",
            "" if ceiling is None else " ".join(percent(value) for value in ceiling.values()),
        )
    return table


def _report(paths: Sequence[Path], *, names: Sequence[str] = (), as_json: bool) -> None:
    """Say what was written, and what it holds; `names` of benchmarks: those of the files."""
    rows = [_describe(name, paths[0].parent) for name in names or [path.stem for path in paths]]
    if as_json:
        write_document({"written": [str(path) for path in paths], "benchmarks": rows})
        return
    people().print(_table(rows))
    for path in paths:
        people().print(f"wrote {escape(str(path))}", soft_wrap=True)


@import_app.command("nasbench101")
def _nasbench101(
    file: Annotated[Path, typer.Argument(help="nasbench_only108.tfrecord or nasbench_full.")],
    out: _Out,
    partial: _Partial = False,
    json: _Json = False,
) -> None:
    """NAS-Bench-101 from its TFRecord file, without TensorFlow; a few minutes.

    Example: arch2vec-fast import nasbench101 nasbench_only108.tfrecord --out tables
    """
    from arch2vec_fast.benchmarks import import_nasbench101

    _report([import_nasbench101(file, out, partial=partial, progress=True)], as_json=json)


@import_app.command("nasbench201")
def _nasbench201(
    file: Annotated[Path, typer.Argument(help="The .pth or .pickle.pbz2 file, or the folder.")],
    out: _Out,
    partial: _Partial = False,
    json: _Json = False,
) -> None:
    """NAS-Bench-201 from its official files or NATS-Bench's; nothing in them is executed.

    Examples:

    arch2vec-fast import nasbench201 NAS-Bench-201-v1_1-096897.pth --out tables

    arch2vec-fast import nasbench201 NATS-tss-v1_0-3ffb9-simple --out tables
    """
    from arch2vec_fast.benchmarks import import_nasbench201

    _report(import_nasbench201(file, out, partial=partial, progress=True), as_json=json)


@import_app.command("nasbench301")
def _nasbench301(
    file: Annotated[
        Path,
        typer.Argument(help="nb301/new_model.onnx of slds-lmu/yahpo_data, commit 3a646b8."),
    ],
    out: _Out,
    json: _Json = False,
) -> None:
    """The surrogate of NAS-Bench-301 from YAHPO Gym's ONNX file, without ONNX; nothing is executed.

    Example: arch2vec-fast import nasbench301 new_model.onnx --out tables
    """
    from arch2vec_fast.benchmarks import import_nasbench301

    _report([import_nasbench301(file, out)], names=["darts-nb301"], as_json=json)


@import_app.command("analog")
def _analog(
    out: _Out,
    file: Annotated[
        Path | None, typer.Option(help="A data.anb.", show_default="of the installed package")
    ] = None,
    json: _Json = False,
) -> None:
    """The table of the demo, from the package analog-nasbench.

    Example: arch2vec-fast import analog --out tables
    """
    from arch2vec_fast.benchmarks import import_analog

    _report([import_analog(out, file=file)], as_json=json)

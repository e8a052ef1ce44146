# SPDX-License-Identifier: Apache-2.0
"""What `report` does with the traces of searches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, percent, titled_table, write_document

if TYPE_CHECKING:
    from arch2vec_fast.analysis.studies import Study


def compare_command(paths: list[Path], out: Path, *, csv: Path | None, as_json: bool) -> None:
    """Write the page, and the numbers behind it if asked; print the table."""
    from arch2vec_fast.analysis.studies import load_studies

    found = load_studies(paths)
    files = write_comparison(found, out, csv)
    if as_json:
        rows = [plain(study) for study in found]
        write_document({**files, "studies": rows})
        return
    console = people()
    for table in comparison_tables(found):
        console.print(table)
    for name, path in files.items():
        console.print(f"{name}: {escape(path)}", soft_wrap=True)


def write_comparison(
    found: list[Study], out: Path, csv: Path | None, data: Path | None = None
) -> dict[str, str]:
    """Write the report and, into the folder `csv`, its numbers; what was written where.

    data: the folder of published curves, by default that of `ARCH2VEC_DATA`.
    """
    from arch2vec_fast.analysis.published import published_curves
    from arch2vec_fast.analysis.search_report import write_search_report
    from arch2vec_fast.cli.commands import check_writable

    check_writable(out)
    files = {"report": str(out)}
    if csv is not None:
        check_writable(csv / "summary.csv")
        files["csv"] = str(csv)
    write_search_report(found, out, csv=csv, curves=published_curves(data))
    return files


def plain(study: Study) -> dict[str, Any]:
    """`summary` with its estimates as dictionaries; None for what is not known."""
    from arch2vec_fast.analysis.search_tables import summary
    from arch2vec_fast.analysis.statistics import Estimate

    facts = summary(study)
    for name, value in facts.items():
        if isinstance(value, Estimate):
            numbers = value._asdict()
            facts[name] = {key: None if math.isnan(x) else x for key, x in numbers.items()}
    return facts


def comparison_tables(found: list[Study]) -> list[Table]:
    """A table for each benchmark: what each method picked, beside the ceiling of the reward."""
    from arch2vec_fast.analysis.search_tables import recipe_of

    tables = []
    for name in dict.fromkeys(study.benchmark for study in found):
        group = [study for study in found if study.benchmark == name]
        rows = [plain(study) for study in group]
        table = titled_table(f"[bold]{name}[/] (%, ± standard error): {escape(group[0].reward)}")
        table.add_column("method", no_wrap=True)
        table.add_column("recipe")
        for header in ("seeds", "queries", "reward", "test", "regret", "of 5", "best seen*"):
            table.add_column(header, justify="right", no_wrap=True)
        for row in sorted(rows, key=lambda row: float(row["regret"]["mean"] or 0)):
            numbers = (f"{row['seeds']}", f"{row['queries']:.0f}")
            names = ("validation", "test", "regret", "best_of_finalists", "best_test_seen")
            table.add_row(row["method"], recipe_of(row), *numbers, *(_near(row[n]) for n in names))
        ceiling = group[0].ceiling
        shares = (ceiling.validation, ceiling.test_of_pick, ceiling.test - ceiling.test_of_pick)
        limits = (*map(percent, shares), "", percent(ceiling.test))
        table.add_row("perfect search", "", "", "", *limits, style="dim")
        table.caption = (
            "of 5: best test accuracy of five finalists, the best rewards; "
            "* of all queried cells, an oracle's choice and no result of a search"
        )
        table.caption_justify = "left"
        tables.append(table)
    return tables


def _near(value: dict[str, Any]) -> str:
    error = "" if value["error"] is None else f" ± {percent(value['error'])}"
    return percent(value["mean"]) + error

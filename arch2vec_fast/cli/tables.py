# SPDX-License-Identifier: Apache-2.0
"""The tables that `evaluate` and `demo` print."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from arch2vec_fast.cli.console import percent

_COLUMNS = ("valid", "unique", "unique_ceiling", "novel")


def evaluation_tables(result: dict[str, Any]) -> list[Table | str]:
    """Reconstruction and sampling, in per cent, and what the columns mean."""
    return [
        _reconstruction(result),
        _sampling(result),
        "[dim]unique: isomorphism classes / valid cells; ceiling: of as many uniform draws; "
        "novel: not trained on[/]",
    ]


def _reconstruction(result: dict[str, Any]) -> Table:
    counts = result["counts"]
    table = Table(
        title=f"{result['space']}, recipe {result['recipe']}: reconstruction of "
        f"{counts['validation_cells']:,} held-out cells (%)",
        title_justify="left",
    )
    headers = ("model", "exact cells", "exact, legal", "operations", "edges")
    for header in (*headers, "released: operations", "released: edges"):
        table.add_column(header, justify="left" if header == "model" else "right")
    rows = [("trained", result["reconstruction"])]
    if "untrained" in result:
        rows.append(("untrained", result["untrained"]["reconstruction"]))
    for name, part in rows:
        strict, released = part["strict"], part["released"]
        shares = (
            strict["exact"],
            strict["exact_legal"],
            strict["node_accuracy"],
            strict["edge_accuracy"],
            released["ops_accuracy"],
            released["edge_accuracy"],
        )
        table.add_row(name, *map(percent, shares))
    return table


def _sampling(result: dict[str, Any]) -> Table:
    table = Table(
        title=f"{result['counts']['samples']:,} samples from the {result['prior']} prior (%)",
        title_justify="left",
    )
    for header in ("decoding", "rule"):
        table.add_column(header)
    for header in ("valid", "unique", "ceiling", "novel"):
        table.add_column(header, justify="right")
    for label, source in (("", result), ("untrained ", result.get("untrained", {}))):
        for decoding in ("raw", "legal"):
            for rule, part in source.get(decoding, {}).items():
                if decoding == "legal" and rule == "released":
                    continue  # legal cells pass both rules; one row is enough
                shares = (percent(part[name]) for name in _COLUMNS)
                table.add_row(label + decoding, rule, *shares)
    uniform = result["uniform"]
    table.add_row(
        "uniform draws", "", "100.00", percent(uniform["unique"]), "", percent(uniform["novel"])
    )
    return table

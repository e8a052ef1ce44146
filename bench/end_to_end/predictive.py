# SPDX-License-Identifier: Apache-2.0
"""How well accuracies are predicted from embeddings and baselines: `analysis.predictive`, kept.

    python -m bench.end_to_end.predictive --runs RUNS --benchmark nasbench201-cifar10 \\
        --labels 78 156 469 --out FILE
    python -m bench.end_to_end.predictive --runs RUNS --benchmark nasbench101-30k \\
        --labels 250 --targets standard --out FILE
    python -m bench.end_to_end.predictive --out FILE --into docs/results.md

Tables come from $ARCH2VEC_DATA. Rows of a file are replaced when measured again. The last form
measures nothing: it writes two Markdown tables between the markers of a document.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from arch2vec_fast import benchmarks
from arch2vec_fast.analysis.predictive import study
from arch2vec_fast.cli.predictive import spread
from arch2vec_fast.pretrain import Run
from bench.environment import describe
from bench.table import insert

_KEY = ("benchmark", "targets", "title", "labels")


class Column(NamedTuple):
    """A column of a Markdown table: which rows it shows, and what of them."""

    header: str
    benchmark: str
    targets: str
    labels: int
    measure: str

    def text(self, rows: dict[tuple[Any, ...], dict[str, Any]], title: str) -> str:
        """The cell of the features called `title`; empty where nobody measured it."""
        row = rows.get((self.benchmark, self.targets, title, self.labels))
        if row is None:
            return ""
        signed = {"sign": "+"} if self.measure == "over_untrained" else {}
        percent = {"scale": 100, "digits": 2} if self.measure == "rmse" else {}
        return spread(row[self.measure], **signed, **percent)  # type: ignore[arg-type]


def _tau(data_set: str, labels: int) -> Column:
    title = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16-120": "ImageNet16-120"}
    header = f"{title[data_set]}, {labels}"
    return Column(header, f"nasbench201-{data_set}", "rank", labels, "kendall")


_GAIN = ("nasbench201-cifar10", "rank", 469, "over_untrained")
_TABLES = (
    (
        *(_tau("cifar10", labels) for labels in (78, 156, 469)),
        Column("over untrained", *_GAIN),
        _tau("cifar100", 469),
        _tau("imagenet16-120", 469),
    ),
    (
        *(
            Column(f"{header}, {targets}", "nasbench101-30k", targets, 250, measure)
            for targets in ("rank", "standard")
            for header, measure in (("tau", "kendall"), ("r", "pearson"), ("RMSE", "rmse"))
        ),
        Column("over untrained, rank", "nasbench101-30k", "rank", 250, "over_untrained"),
    ),
)


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """Two tables, NAS-Bench-201 and NAS-Bench-101, a line for each kind of features."""
    rows = {tuple(row[name] for name in _KEY): row for row in found}
    titles = dict.fromkeys(row["title"] for row in found)
    parts = []
    for columns in _TABLES:
        lines = [
            "| predicted from | " + " | ".join(column.header for column in columns) + " |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for title in titles:
            cells = [column.text(rows, title) for column in columns]
            if any(cells):
                lines.append(f"| {title} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one benchmark and transform."""
    table = benchmarks.get(given.benchmark)
    facts = {"benchmark": table.name, "targets": given.targets, "cells": len(table.cells)}
    run = describe()
    rows = []
    runs = [Run.load(path) for path in given.runs]
    draws = range(given.draws)
    for row in study(table, runs, labels=given.labels, seeds=draws, targets=given.targets):
        del row["by_seed"]
        encoders = sum(other.recipe.name == row["recipe"] for other in runs)
        rows.append({**facts, **row, "encoders": encoders, "run": run})
        print(row["title"], row["labels"], row["kendall"], flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", help="directories of pretrain")
    parser.add_argument("--benchmark", default="nasbench201-cifar10")
    parser.add_argument("--labels", type=int, nargs="+", default=[250])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--targets", default="rank")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--into", type=Path, help="write the tables into this document")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    kept = json.loads(given.out.read_text())["rows"] if given.out.exists() else []
    if given.runs:
        rows = measure(given)
        measured = {tuple(row[name] for name in _KEY) for row in rows}
        rows = [row for row in kept if tuple(row[n] for n in _KEY) not in measured] + rows
        kept = rows
        document = {"name": "predictive", "rows": rows}
        given.out.write_text(json.dumps(document, indent=1) + "\n")
    if given.into:
        text = insert(given.into.read_text(), given.out.as_posix(), markdown(kept))
        given.into.write_text(text)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast demo`: NAS-Bench-201 from nothing to reports and searches, step by step."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from arch2vec_fast.cli.console import people, write_document

_SPACE, _RECIPE = "nasbench201", "best"
_STEPS = 6
_RUN_FILES = {"config.json", "metrics.jsonl", "checkpoint.pt", "prior.safetensors"}


def demo_command(out: Path, *, quick: bool, as_json: bool) -> None:
    """Enumerate, pretrain, embed, evaluate, report, search."""
    from arch2vec_fast import spaces
    from arch2vec_fast._files import write_json
    from arch2vec_fast.analysis.report import write_report
    from arch2vec_fast.cli.commands import check_writable, epochs, summarise
    from arch2vec_fast.cli.demo_search import open_benchmark, search_and_report
    from arch2vec_fast.cli.tables import evaluation_tables
    from arch2vec_fast.embeddings import embed
    from arch2vec_fast.pretrain import Interrupted, pretrain
    from arch2vec_fast.pretrain.metrics import evaluate

    check_writable(out, folder=True)
    console = people(stderr=as_json)
    began = time.monotonic()
    folder = _fresh(out / "run")

    with _step(console, 1, "Enumerate NAS-Bench-201"):
        space = spaces.get(_SPACE)
        cells = space.enumerate()
        console.print(
            f"  {len(cells):,} cells, {space.layout.num_bits} bits each. The first one:\n"
            f"  {escape(space.describe(cells[0]))}",
            soft_wrap=True,
        )
    with _step(console, 2, f"Pretrain on the cells alone, recipe {_RECIPE}"):
        given = 1 if quick else None
        try:
            run = pretrain(space, _RECIPE, folder, epochs=given, progress=True)
        except Interrupted:
            console.print("  Stopped. Run the demo again to start over.")
            raise typer.Exit(130) from None
        summary = summarise(run, time.monotonic() - began)
        console.print(
            f"  {epochs(summary['epochs'])}, loss {summary['loss']:.4f}, "
            f"{summary['parameters']:,} parameters"
        )
    with _step(console, 3, "Embed every cell"):
        table = embed(run, progress=True)
        table.save(out / "embeddings.safetensors")
        console.print(f"  {len(table):,} cells x {table.vectors.shape[1]} numbers")
    with _step(console, 4, "Measure (Table 1 of the paper)"):
        result = evaluate(run, samples=1_000 if quick else 10_000, progress=True)
        write_json(out / "evaluation.json", result)
        for rendered in evaluation_tables(result):
            console.print(rendered)
    with _step(console, 5, "Draw the report"):
        report = write_report(run, out / "report.html", evaluation=result)
        console.print(f"  {report.stat().st_size / 1e6:.1f} MB, opens without a network")
    with _step(console, 6, "Search the embedding: random, REINFORCE, Bayesian optimisation"):
        benchmark = open_benchmark(console)
        searched = {}
        if benchmark is not None:
            searched = search_and_report(run, benchmark, out, console, quick=quick)
    seconds = time.monotonic() - began
    pages = [str(report), *([searched["search_report"]] if searched else [])]
    console.print(
        f"\n[bold]Done in {seconds:.0f} s.[/] Open [bold]{escape(' and '.join(pages))}[/] "
        "in a browser.",
        soft_wrap=True,
    )
    if as_json:
        files = {"run": folder, "embeddings": out / "embeddings.safetensors", "report": report}
        document: dict[str, Any] = {name: str(path) for name, path in files.items()}
        document |= {"seconds": round(seconds, 1), "evaluation": result, "search": searched}
        write_document(document)


def _fresh(folder: Path) -> Path:
    """Remove the run of an earlier demo; whatever else lies at its place is refused."""
    if folder.exists():
        if not _is_demo_run(folder):
            raise ValueError(
                f"out: {folder} is not the run of an earlier demo, or holds other files too; "
                "move it away, or choose another --out"
            )
        shutil.rmtree(folder)
    return folder


def _is_demo_run(folder: Path) -> bool:
    """Whether a demo makes exactly this again, so that nothing of the user's can be lost."""
    from arch2vec_fast._files import remove_leftovers
    from arch2vec_fast.models import Recipe
    from arch2vec_fast.pretrain import Run

    try:
        run = Run.load(folder)
    except (OSError, ValueError):
        return False
    recipe = Recipe.get(_RECIPE, _SPACE)
    recipes = (recipe, replace(recipe, epochs=1))
    if run.space.name != _SPACE or run.seed != 0 or run.recipe not in recipes:
        return False
    remove_leftovers(folder)
    return {path.name for path in folder.iterdir()} <= _RUN_FILES


@contextmanager
def _step(console: Console, number: int, title: str) -> Iterator[None]:
    console.print(f"\n[bold cyan]{number}/{_STEPS}[/] [bold]{title}[/]")
    began = time.monotonic()
    yield
    console.print(f"  [dim]{time.monotonic() - began:.1f} s[/]")

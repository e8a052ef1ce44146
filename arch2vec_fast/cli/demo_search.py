# SPDX-License-Identifier: Apache-2.0
"""The end of the demo: search the embedding of NAS-Bench-201, and show the cells found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from arch2vec_fast.cli.console import percent

if TYPE_CHECKING:
    from arch2vec_fast.analysis.studies import Study
    from arch2vec_fast.benchmarks import TableBenchmark
    from arch2vec_fast.pretrain import Run

_BENCHMARK = "nasbench201-demo"
_METHODS = ("random", "arch2vec-rl", "arch2vec-bo")


def open_benchmark(console: Console) -> TableBenchmark | None:
    """The demo's table of accuracies; None, and one line, where its package is not installed."""
    from arch2vec_fast import benchmarks

    try:
        return benchmarks.get(_BENCHMARK)
    except (ImportError, OSError, ValueError) as error:
        console.print(f"  Left out, {escape(str(error))}", soft_wrap=True)
        return None


def search_and_report(
    run: Run, benchmark: TableBenchmark, out: Path, console: Console, *, quick: bool
) -> dict[str, Any]:
    """Search from some seeds by each method, write search.html, print the cells found."""
    from arch2vec_fast.analysis.search_report import write_search_report
    from arch2vec_fast.analysis.search_style import title
    from arch2vec_fast.analysis.studies import studies
    from arch2vec_fast.cli.search_report import comparison_tables, plain
    from arch2vec_fast.search import SearchRecipe, methods, search
    from arch2vec_fast.search.protocol import embed_pool, readout_for

    seeds, queries = (2, 30) if quick else (10, 100)
    console.print(
        f"  Reward: {escape(benchmark.reward)}. This table holds nothing but test accuracies, so\n"
        "  searches see what they are judged by, and no times, so they count queries, "
        f"{queries} each.\n  A demonstration, no benchmark result.",
        soft_wrap=True,
    )
    recipe = SearchRecipe.get("best", benchmark.space.name)
    folder = out / "searches"
    folder.mkdir(parents=True, exist_ok=True)
    traces = []
    for name in _METHODS:
        table = None
        if methods.get(name).needs_embeddings:
            table = embed_pool(run, benchmark, readout_for(name, recipe))
        trace = search(
            benchmark,
            name,
            seeds=range(seeds),
            queries=queries,
            recipe=recipe,
            embeddings=table,
            progress=True,
        )
        trace.save(folder / f"{name}.parquet")
        traces.append(trace)
    found = studies(traces)
    for rendered in comparison_tables(found):
        console.print(rendered)
    for study in found:
        console.print(f"  {title(study.method)}: {_found(study, benchmark)}", soft_wrap=True)
    report = write_search_report(found, out / "search.html")
    return {"search_report": str(report), "studies": [plain(study) for study in found]}


def _found(study: Study, benchmark: TableBenchmark) -> str:
    """The cell most searches of a study picked, in words."""
    _, position, count = study.favourite
    row = int(study.trace["row"][position])
    cell = benchmark.space.describe(benchmark.cells[row])
    accuracy = percent(float(study.trace["test"][position]))
    return f"{escape(cell)}, {accuracy} %, found by {count} of {len(study.seeds)} searches"

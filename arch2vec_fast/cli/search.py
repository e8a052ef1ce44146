# SPDX-License-Identifier: Apache-2.0
"""What `search` and `methods` do."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, percent, write_document

if TYPE_CHECKING:
    from arch2vec_fast.benchmarks import Benchmark
    from arch2vec_fast.darts.trained import Workers
    from arch2vec_fast.embeddings import EmbeddingTable
    from arch2vec_fast.search import Trace


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """How `search darts` answers a query."""

    images: str
    recipe: str
    instead: dict[str, int | None]
    """Values of the recipe's fields other than its own."""
    speed: str
    store: Path
    workers: int
    ray_address: str | None
    replay: Path | None
    """Directory of a search whose completions are replayed, serially."""
    surrogate: bool


def search_command(
    benchmark_name: str,
    method: str,
    *,
    embeddings_file: Path | None,
    seeds: range,
    budget_seconds: float | None,
    queries: int | None,
    recipe: str,
    num_initial: int | None,
    noise: str,
    data: Path | None,
    out: Path | None,
    trainings: Trainings,
    device: str,
    as_json: bool,
) -> None:
    """Search, then say what was found beside what could be found."""
    from arch2vec_fast import benchmarks
    from arch2vec_fast.cli.commands import check_writable
    from arch2vec_fast.darts.trained import TrainedBenchmark, TrainingError
    from arch2vec_fast.embeddings import EmbeddingTable
    from arch2vec_fast.search import SearchRecipe, finalists, methods, read_completions, search

    methods.get(method)
    own_device = device_here(device, trainings.ray_address)
    completions = None
    if trainings.replay is not None:
        completions = read_completions(trainings.replay)
        trainings = replace(trainings, workers=1, ray_address=None)
    embeddings = None if embeddings_file is None else EmbeddingTable.load(embeddings_file)
    benchmark: Benchmark
    if benchmark_name == "darts" and not trainings.surrogate:
        benchmark = _trained(trainings, embeddings, device)
    else:
        name = "darts-nb301" if benchmark_name == "darts" else benchmark_name
        benchmark = benchmarks.get(name, data=data, noise=noise)
    chosen = SearchRecipe.get(recipe, benchmark.space.name)
    if num_initial is not None:
        chosen = replace(chosen, name=f"{recipe}-{num_initial}", num_initial=num_initial)
    out = out or Path("searches") / benchmark.name / f"{method}-{chosen.name}"
    check_writable(out, folder=True)
    began = time.monotonic()
    try:
        trace = search(
            benchmark,
            method,
            seeds=seeds,
            seconds=budget_seconds,
            queries=queries,
            recipe=chosen,
            embeddings=embeddings,
            device=own_device,
            out=out,
            completions=completions,
            progress=True,
        )
    except KeyboardInterrupt:
        kept = f"finished seeds are kept in {escape(str(out))}"
        if isinstance(benchmark, TrainedBenchmark):
            kept = f"finished trainings are kept in {escape(str(trainings.store))}"
        people(stderr=True).print(
            f"\nStopped; {kept}. Go on with the same command.", soft_wrap=True
        )
        raise typer.Exit(130) from None
    except TrainingError as error:
        raise ValueError(str(error)) from None
    last = np.array([rows.stop - 1 for _, rows in trace.searches()])
    best = finalists(trace, space=benchmark.space)
    document = {
        "benchmark": benchmark.name,
        "reward": benchmark.reward,
        "method": method,
        "recipe": trace.recipe,
        "seeds": len(last),
        "queries": float((trace["query"][last] + 1).mean()),
        "validation": _spread(trace["incumbent"][last]),
        "test": _spread(trace["incumbent_test"][last]),
        "regret": _spread(trace["regret"][last]),
        "best_of_finalists": _spread(
            np.array([np.fmax.reduce(trace["test"][five]) for five in best])
        ),
        "ceiling": {name: _known(value) for name, value in benchmark.ceiling._asdict().items()},
        "seconds": round(time.monotonic() - began, 3),
        "trace": str(out / "trace.parquet"),
        "finalists": [
            {"seed": int(trace["seed"][five[0]]), "rows": trace["row"][five].tolist()}
            for five in best
        ],
    }
    if as_json:
        write_document(document)
        return
    _print(document)
    if len(best) == 1:
        _print_finalists(trace, benchmark, best[0])


def _spread(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float | None]:
    """Mean, standard deviation over seeds and standard error of the mean."""
    deviation = _known(values.std(ddof=1)) if len(values) > 1 else None
    error = None if deviation is None else deviation / len(values) ** 0.5
    return {"mean": _known(values.mean()), "std": deviation, "standard_error": error}


def _known(value: float) -> float | None:
    """A number, or None for what nobody knows: JSON has no NaN."""
    return None if np.isnan(value) else float(value)


def _trained(trainings: Trainings, embeddings: EmbeddingTable | None, device: str) -> Benchmark:
    """The DARTS space with real training; the pool is that of the embeddings, if there are any."""
    from arch2vec_fast.benchmarks.nasbench301 import pool
    from arch2vec_fast.cli.darts import choose_recipe, read_images
    from arch2vec_fast.darts.train import Speed
    from arch2vec_fast.darts.trained import TrainedBenchmark

    return TrainedBenchmark(
        pool() if embeddings is None else embeddings.cells,
        read_images(trainings.images),
        choose_recipe(trainings.recipe, **trainings.instead),
        speed=Speed.parse(trainings.speed),
        store=trainings.store,
        device=device,
        workers=workers_of(trainings.workers, trainings.ray_address, device),
    )


def workers_of(count: int, ray_address: str | None, device: str) -> Workers | None:
    """Trainings through Ray; None where one at a time, in this process, is asked for."""
    from arch2vec_fast.darts.ray_workers import ray_workers

    if count == 1 and ray_address is None:
        return None
    return ray_workers(count, address=ray_address, device=device)


def device_here(device: str, ray_address: str | None) -> str:
    """Where this process computes what it does itself: on `device`, or on the cpu where a cluster
    trains on its GPUs and this machine has none that serves. ValueError for no such device."""
    from arch2vec_fast._checks import check_device

    try:
        check_device(device)
    except ValueError as error:
        if ray_address is None or device != "cuda":
            raise
        people(stderr=True).print(
            f"trainings on the GPUs of {escape(ray_address)}, everything else on the cpu "
            f"({escape(str(error))})",
            soft_wrap=True,
        )
        return "cpu"
    return device


def _print(document: dict[str, Any]) -> None:
    from arch2vec_fast.search.finalists import FINALISTS

    console = people()
    table = Table(
        title=f"{document['method']} ({document['recipe']}) on {document['benchmark']}, "
        f"{document['seeds']} seeds, {document['queries']:.1f} queries a seed (%)",
        title_justify="left",
    )
    for header in ("", "mean", "std over seeds", "standard error", "ceiling"):
        table.add_column(header, justify="right" if header else "left")
    ceiling = document["ceiling"]
    limits = {
        "validation": ("validation", ceiling["validation"]),
        "test": ("test of the pick", ceiling["test_of_pick"]),
        "regret": ("regret", None),
        "best_of_finalists": (f"best test of {FINALISTS} finalists", ceiling["test"]),
    }
    for name, (title, limit) in limits.items():
        table.add_row(title, *map(percent, (*document[name].values(), limit)))
    console.print(table)
    console.print(
        f"[dim]reward: {escape(document['reward'])}; ceiling of test: the cell with the best "
        f"reward; best test accuracy of the pool {percent(ceiling['test'])}[/]"
    )
    console.print(
        f"trace: {escape(document['trace'])}, {document['seconds']:.1f} s", soft_wrap=True
    )


def _print_finalists(
    trace: Trace, benchmark: Benchmark, places: np.ndarray[Any, np.dtype[np.int64]]
) -> None:
    """The best cells of a single search, to be trained again in full."""
    console = people()
    table = Table(box=None, title="finalists (%)", title_justify="left")
    for header in ("row", "reward", "test", "cell"):
        table.add_column(header, justify="left" if header == "cell" else "right", overflow="fold")
    for place in places:
        row = int(trace["row"][place])
        reward, test = (_known(trace[name][place]) for name in ("validation", "test"))
        cell = benchmark.space.describe(benchmark.cells[[row]])
        table.add_row(str(row), percent(reward), percent(test), escape(cell))
    console.print(table)


def methods_command(*, as_json: bool) -> None:
    """List the methods."""
    from arch2vec_fast.search import METHODS

    if as_json:
        write_document(
            {
                name: {
                    "title": method.title,
                    "summary": method.summary,
                    "needs_embeddings": method.needs_embeddings,
                    "needs_fidelities": method.needs_fidelities,
                    "asynchronous": method.asynchronous,
                }
                for name, method in METHODS.items()
            }
        )
        return
    table = Table(box=None)
    for header in ("method", "needs", "workers", "what it does"):
        table.add_column(header)
    for name, method in METHODS.items():
        needs = "embeddings" if method.needs_embeddings else ""
        needs = "fidelities" if method.needs_fidelities else needs
        workers = "never wait" if method.asynchronous else "wait for a round"
        table.add_row(name, needs, workers, escape(f"{method.title}: {method.summary}"))
    people().print(table)

# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast table4` and `transfer`: search and train what is missing, then the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, titled_table, write_document

if TYPE_CHECKING:
    from arch2vec_fast.darts.images import ImageSet
    from arch2vec_fast.darts.recipes import TrainRecipe
    from arch2vec_fast.darts.source import ImageSource
    from arch2vec_fast.darts.table4 import Row, Scale
    from arch2vec_fast.search.protocol import Encoder

# For a laptop; the paper makes 100 queries of 50 epochs.
_TRAINED_QUERIES, _SMALL_EPOCHS = 24, 3
_STUDY_QUERIES = 100


@dataclass(frozen=True, kw_only=True)
class Where:
    """What both kinds of Table 4 are told: directory, rows, encoder."""

    out: Path
    methods: list[str] | None
    recipe: str
    queries: int | None
    encoder: Path | None
    samples: int
    pool: int | None
    device: str
    as_json: bool

    def check(self) -> None:
        """What can be wrong is said before anything is written."""
        from arch2vec_fast._checks import check_device
        from arch2vec_fast.cli.commands import check_writable
        from arch2vec_fast.pretrain import Run
        from arch2vec_fast.search.recipes import SearchRecipe

        check_device(self.device)
        SearchRecipe.get(self.recipe)
        for name in ("samples", "pool", "queries"):
            if (value := getattr(self, name)) is not None and value < 2:
                raise ValueError(f"{name}: {value} is below 2")
        if self.encoder is not None:
            Run.load(self.encoder)
        check_writable(self.out, folder=True)

    def make_encoder(self) -> Encoder:
        """Pretrains and embeds in the directory, when a method first asks."""
        from arch2vec_fast.search.protocol import Encoder

        return Encoder(
            folder=self.out / "encoder",
            run=self.encoder,
            limit=self.samples,
            device=self.device,
            progress=True,
        )


@dataclass(frozen=True, kw_only=True)
class Training:
    """How Table 4 trains."""

    images: str
    recipe: str
    epochs: int | None
    final: str
    final_seeds: int
    seed: int
    speed: str
    store: Path | None
    workers: int
    ray_address: str | None


def table4_command(where: Where, training: Training) -> None:
    """Table 4 with real training."""
    from arch2vec_fast.cli.darts import read_images
    from arch2vec_fast.cli.search import device_here, workers_of
    from arch2vec_fast.darts.table4 import METHODS, Table4, check_methods
    from arch2vec_fast.darts.train import Speed
    from arch2vec_fast.darts.trained import TrainingError
    from arch2vec_fast.pretrain import Interrupted

    chosen = check_methods(where.methods or list(METHODS))
    scale = _scale(where, training)
    speed = Speed.parse(training.speed)
    device = where.device
    where = replace(where, device=device_here(device, training.ray_address))
    where.check()
    images = read_images(training.images)
    workers = workers_of(training.workers, training.ray_address, device)
    notes = people(stderr=True)
    table = Table4(
        images,
        scale,
        where.out,
        encoder=where.make_encoder(),
        store=training.store,
        workers=workers,
        device=where.device,
        speed=speed,
        progress=True,
        on_start=lambda what: notes.print(what),
    )
    done = sum(table.finished(method) is not None for method in chosen)
    notes.print(f"{len(chosen)} rows, {done} finished before; Ctrl-C loses nothing")
    try:
        rows = list(table.rows(chosen))
    except TrainingError as error:
        raise ValueError(str(error)) from None
    except (Interrupted, KeyboardInterrupt):
        notes.print("\nStopped; everything finished is kept. The same command goes on.")
        raise typer.Exit(130) from None
    if where.as_json:
        write_document({"out": str(where.out), "quoted": _quoted_documents(), "rows": rows})
        return
    _print_table4(rows, images, scale, where.out)


def _scale(where: Where, training: Training) -> Scale:
    from arch2vec_fast.cli.darts import choose_recipe
    from arch2vec_fast.darts.gradient_search import GradientSearchRecipe
    from arch2vec_fast.darts.table4 import Scale

    small = training.recipe == "small"
    epochs = _SMALL_EPOCHS if small and training.epochs is None else training.epochs
    return Scale(
        training=choose_recipe(training.recipe, epochs=epochs),
        final=choose_recipe(training.final),
        gradient=GradientSearchRecipe.small() if small else GradientSearchRecipe(),
        queries=_TRAINED_QUERIES if where.queries is None else where.queries,
        final_seeds=training.final_seeds,
        pool=where.samples if where.pool is None else where.pool,
        search_recipe=where.recipe,
        seed=training.seed,
    )


def surrogate_command(where: Where, *, seeds: int, data: Path | None) -> None:
    """Table 4 where the NAS-Bench-301 surrogate answers, and the report with its curves."""
    from arch2vec_fast.analysis.studies import studies
    from arch2vec_fast.cli.search_report import write_comparison
    from arch2vec_fast.darts import surrogate_table as study
    from arch2vec_fast.pretrain import Interrupted
    from arch2vec_fast.search import methods

    chosen = list(where.methods or study.METHODS)
    for name in chosen:
        methods.get(name)
    if seeds < 1:
        raise ValueError(f"seeds: {seeds} is below 1")
    surrogate = study.find_surrogate(data)
    where.check()
    notes = people(stderr=True)
    try:
        traces = list(
            study.run_studies(
                surrogate,
                where.out / "searches",
                where.make_encoder(),
                chosen=chosen,
                recipe=where.recipe,
                queries=_STUDY_QUERIES if where.queries is None else where.queries,
                seeds=seeds,
                pool_size=study.POOL_SIZE if where.pool is None else where.pool,
                progress=True,
                on_start=lambda job, benchmark: notes.print(job.name),
            )
        )
    except (Interrupted, KeyboardInterrupt):
        notes.print("\nStopped; finished seeds are kept. The same command goes on.")
        raise typer.Exit(130) from None
    rows, cells = study.rows(traces), study.published_rows(surrogate)
    files = write_comparison(studies(traces), where.out / "table4.html", where.out / "table4")
    if where.as_json:
        document = {**files, "rows": rows, "published_cells": cells, "quoted": _quoted_documents()}
        write_document(document)
        return
    _print_surrogate(rows, cells)
    for kind, path in files.items():
        people().print(f"{kind}: {escape(path)}", soft_wrap=True)


def transfer_command(
    genotypes: list[str] | None,
    *,
    out: Path,
    data: str | None,
    recipe: str,
    epochs: int | None,
    seeds: int,
    workers: int | None,
    device: str,
    speed: str,
    as_json: bool,
) -> None:
    """Sizes and quoted errors of cells on ImageNet; with `data`, their training."""
    from arch2vec_fast._checks import check_device
    from arch2vec_fast.cli.commands import check_writable
    from arch2vec_fast.cli.darts import choose_recipe, open_images
    from arch2vec_fast.darts.train import Speed
    from arch2vec_fast.darts.transfer import sizes, train_rows

    cells, how = _named(genotypes), Speed.parse(speed)
    if seeds < 1:
        raise ValueError(f"seeds: {seeds} is below 1")
    chosen = choose_recipe(recipe, epochs=epochs)
    check_device(device)
    if data is None:
        rows, what = sizes(cells), None
    else:
        images = open_images(data, workers)
        chosen.check_images(images.name, images.image_size)
        check_writable(out, folder=True)
        what = _what(images, chosen)
        notes = people(stderr=True)
        try:
            rows = list(
                train_rows(
                    cells,
                    images,
                    chosen,
                    out,
                    seeds=seeds,
                    device=device,
                    speed=how,
                    progress=True,
                    on_start=lambda name, seed: notes.print(f"{escape(name)}, seed {seed}"),
                )
            )
        except KeyboardInterrupt:
            notes.print("\nStopped; finished epochs are kept. The same command goes on.")
            raise typer.Exit(130) from None
    if as_json:
        write_document({"trained_with": what, "rows": rows})
        return
    _print_transfer(rows, what)


def _named(texts: Sequence[str] | None) -> dict[str, Any]:
    """Genotypes by a name that serves as a folder: their own, or cell-1, cell-2, ..."""
    from arch2vec_fast.cli.darts import read_genotype
    from arch2vec_fast.darts import published

    named = {}
    for number, text in enumerate(texts or reversed(published.genotypes()), 1):
        name = text if text in published.genotypes() else f"cell-{number}"
        named[name] = read_genotype(text)
    return named


def _what(images: ImageSource, recipe: TrainRecipe) -> str:
    """What was trained on and how, in words."""
    return (
        f"{images!r}, recipe {recipe.name}: {recipe.epochs} epochs, {recipe.channels} channels, "
        f"{recipe.layers} cells"
    )


# -- tables ------------------------------------------------------------------------------------


def _quoted_documents() -> list[dict[str, Any]]:
    from arch2vec_fast.darts.published import CIFAR10_RESULTS

    return [asdict(result) for result in CIFAR10_RESULTS]


def _print_table4(rows: Sequence[Row], images: ImageSet, scale: Scale, out: Path) -> None:
    table = _empty_table("Table 4", "test error (%)")
    _add_quoted(table)
    for row in rows:
        final, search = row["final"], row["search"]
        how = f"{search['queries']} queries, " if "queries" in search else "supernet, "
        table.add_row(
            row["title"],
            _error(final["error"], final["std"]),
            _millions(row["parameters"], 2),
            _millions(row["mult_adds"]),
            f"run here: {how}best validation {100 * search['validation']:.2f} %",
        )
    console = people()
    console.print(table)
    training, supernet = scale.training, scale.gradient
    same = images.name == "cifar10" and scale.final.name == "cifar10"
    console.print(
        "[dim]quoted: CIFAR-10, 600 epochs"
        + ("" if same else "; not to be compared with what was run here, which is smaller")
        + f"\nrun here: {escape(_what(images, scale.final))}; mean ± std of {scale.final_seeds} "
        f"trainings\na query: recipe {training.name}, {training.epochs} epochs; "
        f"{scale.pool:,} cells to choose from; search recipe {scale.search_recipe}\n"
        f"supernet: {supernet.epochs} epochs, {supernet.channels} channels, {supernet.layers} "
        "cells\nparameters, mult-adds: of the CIFAR-10 network, 36 channels, 20 cells[/]",
        soft_wrap=True,
    )
    console.print(f"results: {escape(str(out))}/*.json", soft_wrap=True)


def _print_surrogate(rows: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]]) -> None:
    table = _empty_table("Table 4", "test error (%)")
    _add_quoted(table)
    console = people()
    console.print(table)
    first = rows[0]
    what = (
        f"{first['seeds']} searches of {first['queries']:.0f} queries, recipe {first['recipe']}, "
        f"{first['pool']:,} cells"
    )
    table = _empty_table(f"On the NAS-Bench-301 surrogate[/]: {what}[bold]", "predicted error (%)")
    table.columns[-1].header = "regret (%)"
    for row in sorted(rows, key=lambda row: float(row["error"]["mean"])):
        table.add_row(
            row["title"],
            _error(row["error"]["mean"], row["error"]["std"]),
            _millions(row["parameters"]["mean"], 2),
            _millions(row["mult_adds"]["mean"]),
            _error(row["regret"]["mean"], row["regret"]["std"]),
        )
    for cell in cells:
        table.add_row(
            f"published cell {cell['genotype']}",
            _error(cell["error"], None),
            _millions(cell["parameters"], 2),
            _millions(cell["mult_adds"]),
            "predicted, not searched here",
            style="dim",
        )
    console.print(table)
    console.print(
        "[dim]mean ± std over seeds; regret: against the best cell of the pool. A surrogate "
        "predicts validation accuracies after 98 epochs: its errors are not to be compared with "
        "the quoted ones, which were trained[/]",
        soft_wrap=True,
    )


def _empty_table(title: str, error: str) -> Table:
    table = titled_table(f"[bold]{title}[/]")
    table.add_column("method", no_wrap=True)
    for header in (error, "parameters (M)", "mult-adds (M)"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("from", overflow="fold")
    return table


def _add_quoted(table: Table) -> None:
    from arch2vec_fast.darts.published import CIFAR10_RESULTS

    for result in CIFAR10_RESULTS:
        table.add_row(
            result.method,
            _error(result.error, result.std),
            _millions(result.parameters, 1),
            _millions(result.mult_adds),
            f"quoted, {result.source}",
            style="dim",
        )


def _print_transfer(rows: Sequence[dict[str, Any]], what: str | None) -> None:
    table = titled_table("[bold]Transfer to ImageNet[/] (test error, %)")
    table.add_column("cell", no_wrap=True)
    for header in ("top-1", "top-5", "parameters (M)", "mult-adds (M)"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("from", overflow="fold")
    for row in rows:
        if quoted := row["quoted"]:
            table.add_row(
                f"{quoted['method']}",
                _error(quoted["error"], None, 1),
                "-" if quoted["top5"] is None else _error(quoted["top5"], None, 1),
                _millions(quoted["parameters"], 1),
                _millions(quoted["mult_adds"]),
                f"quoted, {quoted['source']}",
                style="dim",
            )
        trained = row["trained"]
        table.add_row(
            row["name"],
            "-" if trained is None else _error(trained["error"], trained["std"]),
            "-" if trained is None else _error(trained["top5"], None),
            _millions(row["parameters"], 3),
            _millions(row["mult_adds"], 1),
            "computed" if trained is None else f"run here, {_seeds(len(trained['errors']))}",
        )
    console = people()
    console.print(table)
    console.print(
        "[dim]parameters and multiply-adds: of the mobile network, 48 channels, 14 cells, 224x224. "
        + ("Nothing was trained here; --data imagenet:PATH trains" if what is None else "")
        + (f"Trained on {escape(what)}" if what is not None else "")
        + "[/]",
        soft_wrap=True,
    )


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def _error(error: float, std: float | None, digits: int = 2) -> str:
    """Per cent."""
    text = f"{100 * error:.{digits}f}"
    return text if std is None else f"{text} ± {100 * std:.{digits}f}"


def _millions(count: float | None, digits: int = 0) -> str:
    return "-" if count is None else f"{count / 1e6:.{digits}f}"

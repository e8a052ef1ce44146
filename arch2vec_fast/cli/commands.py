# SPDX-License-Identifier: Apache-2.0
"""What `pretrain`, `embed`, `evaluate`, `report` and `doctor` do."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from arch2vec_fast.cli.console import people, percent, write_document

if TYPE_CHECKING:
    from arch2vec_fast.pretrain import Run
    from arch2vec_fast.spaces import CellBatch, CellSpace


def pretrain_command(
    space_name: str,
    recipe_name: str,
    out: Path,
    *,
    overrides: dict[str, Any],
    seed: int,
    device: str,
    engine: str,
    resume: bool,
    cells_file: Path | None,
    limit: int | None,
    with_embeddings: bool,
    as_json: bool,
) -> None:
    """Train, then say where the run lies and how well it reconstructs; embed its cells if asked."""
    from arch2vec_fast import spaces
    from arch2vec_fast._files import read_cells
    from arch2vec_fast._processes import joined, launched
    from arch2vec_fast.embeddings import embed
    from arch2vec_fast.models import Recipe
    from arch2vec_fast.pretrain import Interrupted, pretrain

    space = spaces.get(space_name)
    recipe = Recipe.get(recipe_name, space.name)
    if cells_file is not None and limit is not None:
        raise ValueError("limit: samples from the space, so it cannot go with --cells; drop one")
    if with_embeddings and launched() > 1:
        raise ValueError("embed: runs in one process here; run `embed` under torchrun afterwards")
    check_writable(out, folder=True)
    cells = None if cells_file is None else read_cells(cells_file, space)
    began = time.monotonic()
    try:
        with joined(device) as processes:
            run = pretrain(
                space,
                recipe,
                out,
                **overrides,
                seed=seed,
                device=device,
                engine=engine,
                cells=cells,
                limit=limit,
                resume=resume,
                progress=True,
            )
    except Interrupted:
        if not processes.first:
            raise typer.Exit(130) from None
        people(stderr=True).print(
            f"\nStopped; everything is saved in {escape(str(out))}. "
            "Go on with the same command and --resume.",
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    if not processes.first:
        return
    summary = summarise(run, time.monotonic() - began)
    if with_embeddings:
        began, file = time.monotonic(), out / "embeddings.safetensors"
        embed(run, device=device, progress=True).save(file)
        seconds = round(time.monotonic() - began, 2)
        summary["embeddings"] = {"file": str(file), "seconds": seconds}
    if as_json:
        write_document(summary)
        return
    _print_summary(summary)


def summarise(run: Run, seconds: float) -> dict[str, Any]:
    """What a finished run has to say for itself."""
    epochs = [line for line in run.metrics if line.get("event") == "epoch"]
    last = epochs[-1] if epochs else {}
    return {
        "run": str(run.path),
        "space": run.space.name,
        "recipe": run.recipe.name,
        "seed": run.seed,
        "engine": run.engine,
        "epochs": run.recipe.epochs,
        "batch_size": run.recipe.batch_size,
        "train_cells": len(run.train_cells),
        "validation_cells": len(run.validation_cells),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "loss": last.get("loss"),
        "validation": last.get("validation", {}),
        "seconds": round(seconds, 2),
        "commit": run.config.get("commit"),
    }


def epochs(count: int) -> str:
    """'1 epoch', '2 epochs'."""
    return f"{count} epoch{'s' if count != 1 else ''}"


def _print_summary(summary: dict[str, Any]) -> None:
    console = people()
    run = escape(summary["run"])
    console.print(
        f"[bold]{summary['space']}[/], recipe [bold]{summary['recipe']}[/]: "
        f"{epochs(summary['epochs'])} on {summary['train_cells']:,} cells "
        f"in {summary['seconds']:.1f} s ({summary['engine']} engine)"
    )
    validation = summary["validation"]
    if validation:
        console.print(
            f"held-out cells: {percent(validation['exact'])} % reconstructed exactly "
            f"({percent(validation['node_accuracy'])} % of operations, "
            f"{percent(validation['edge_accuracy'])} % of edges)"
        )
    embedded = summary.get("embeddings")
    if embedded:
        file = escape(embedded["file"])
        console.print(f"embedded in {embedded['seconds']:.1f} s: {file}", soft_wrap=True)
    console.print(f"next: arch2vec-fast evaluate {run}", soft_wrap=True)
    if not embedded:
        console.print(f"      arch2vec-fast embed {run}", soft_wrap=True)


def embed_command(
    run_path: Path,
    out: Path | None,
    *,
    cells_file: Path | None,
    whole_space: bool,
    readout: str,
    pca: int | None,
    simplify: bool,
    engine: str,
    precision: str,
    chunk: int | None,
    shard: int | None,
    export: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Embed and write: one file, or a folder of them; `export` adds the released format beside."""
    from arch2vec_fast._files import read_cells
    from arch2vec_fast._processes import joined, launched
    from arch2vec_fast.embeddings import embed
    from arch2vec_fast.pretrain import Run
    from arch2vec_fast.pretrain.run import check_cells
    from arch2vec_fast.sharded import SHARD_CELLS, embed_shards

    if shard is None and launched() > 1:
        shard = SHARD_CELLS
    out = out or run_path / ("embeddings" if shard else "embeddings.safetensors")
    released = _released_path(out, export, shard)
    if cells_file is not None and whole_space:
        raise ValueError("space: cannot go with --cells; drop one")
    how: dict[str, Any] = {"engine": engine, "precision": precision, "chunk_size": chunk}
    what: dict[str, Any] = {"readout": readout, "components": pca, "simplify": simplify}
    if shard is not None and list(what.values()) != ["latent", None, False]:
        raise ValueError("shard: files hold latent read-outs; drop --readout, --pca and --simplify")
    with joined(device) as processes:
        run = Run.load(run_path)
        if processes.first:
            warn_unfinished(run)
        check_writable(out, folder=shard is not None)
        how |= {"device": device, "progress": True}
        cells = None
        if cells_file is not None:
            cells = read_cells(cells_file, run.space)
            check_cells(cells, run.space)
        began = time.monotonic()
        if shard is not None:
            source = _whole(run.space, shard) if whole_space else cells
            count = len(embed_shards(run, out, source, shard_cells=shard, **how))
            dimensions = run.recipe.latent_dim
            if not processes.first:
                return
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            table = embed(run, run.space.enumerate() if whole_space else cells, **what, **how)
            table.save(out)
            count, dimensions = table.vectors.shape
    seconds = time.monotonic() - began
    written = [str(out)]
    if released is not None:
        table.export_released(released, released_columns(table.cells, run.space))
        written.append(str(released))
    _print_embedded(run, (count, dimensions), written, seconds, as_json)


def _whole(space: CellSpace, shard: int) -> Iterable[CellBatch]:
    """All cells of a space in batches."""
    from arch2vec_fast.spaces.darts import Darts

    return space.batches(shard) if isinstance(space, Darts) else space.stream(shard)


def _released_path(out: Path, export: str | None, shard: int | None) -> Path | None:
    """Where the released format goes, if it is asked for."""
    if export is None:
        return None
    if export != "released":
        raise ValueError(f"export: unknown format {export!r}; the one there is is 'released'")
    if shard is not None:
        raise ValueError("export: the released format is one file, not a folder; drop --shard")
    released = out.with_suffix(".pt")
    if released == out:
        raise ValueError(f"out: {out} is where the released format goes; choose another suffix")
    return released


def _print_embedded(
    run: Run, shape: tuple[int, int], written: list[str], seconds: float, as_json: bool
) -> None:
    cells, dimensions = shape
    document = {
        "run": str(run.path),
        "space": run.space.name,
        "recipe": run.recipe.name,
        "cells": cells,
        "dimensions": dimensions,
        "files": written,
        "seconds": round(seconds, 3),
        "cells_per_second": round(cells / max(seconds, 1e-9), 1),
    }
    if as_json:
        write_document(document)
        return
    people().print(
        f"{cells:,} cells x {document['dimensions']} numbers in {seconds:.2f} s: "
        + escape(", ".join(written)),
        soft_wrap=True,
    )


def released_columns(cells: CellBatch, space: CellSpace) -> dict[str, Any]:
    """What the released file holds beside the vectors and needs no accuracies: DARTS genotypes."""
    if space.name != "darts":
        return {}
    from arch2vec_fast.spaces.darts import cell_to_genotype

    pairs = ([*cell_to_genotype(cells[index]).normal] for index in range(len(cells)))
    return {"genotype": [[(str(source), op) for op, source in pair] for pair in pairs]}


def evaluate_command(
    run_path: Path,
    *,
    samples: int,
    seed: int,
    prior: str | None,
    control: bool,
    as_json: bool,
) -> None:
    """Measure, keep evaluation.json in the run directory, print."""
    from arch2vec_fast._files import write_json
    from arch2vec_fast.cli.tables import evaluation_tables
    from arch2vec_fast.pretrain import Run
    from arch2vec_fast.pretrain.metrics import evaluate

    run = Run.load(run_path)
    warn_unfinished(run)
    result = evaluate(
        run, samples=samples, seed=seed, prior=prior, untrained=control, progress=True
    )
    write_json(run_path / "evaluation.json", result)
    if as_json:
        write_document(result)
        return
    console = people()
    for table in evaluation_tables(result):
        console.print(table)
    console.print(f"written: {escape(str(run_path / 'evaluation.json'))}", soft_wrap=True)


def report_command(
    paths: list[Path],
    out: Path | None,
    *,
    csv: Path | None,
    samples: int,
    projection: str,
    seed: int,
    as_json: bool,
) -> None:
    """Write the HTML report of a run, or of the traces of searches."""
    from arch2vec_fast.analysis.report import write_report
    from arch2vec_fast.cli.search_report import compare_command
    from arch2vec_fast.pretrain import Run
    from arch2vec_fast.pretrain.run import is_run

    runs = [path for path in paths if is_run(path)]
    if not runs:
        compare_command(paths, out or Path("report.html"), csv=csv, as_json=as_json)
        return
    if len(paths) > 1:
        raise ValueError(f"paths: {runs[0]} is a run of pretrain; give it alone, or traces only")
    if csv is not None:
        raise ValueError(f"csv: {runs[0]} is a run of pretrain; --csv is for traces of search")
    out = out or runs[0] / "report.html"
    run = Run.load(runs[0])
    warn_unfinished(run)
    check_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_report(run, out, samples=samples, projection=projection, seed=seed, progress=True)
    if as_json:
        write_document({"run": str(runs[0]), "report": str(out), "bytes": out.stat().st_size})
        return
    people().print(f"report: {escape(str(out))}", soft_wrap=True)


def doctor_command(*, as_json: bool) -> None:
    """Print what is installed and built."""
    from arch2vec_fast.cli.doctor import diagnose, render

    facts = diagnose()
    if as_json:
        write_document(facts)
        return
    people().print(render(facts))


def warn_unfinished(run: Run) -> None:
    """Say on standard error that a run has epochs to go; its numbers are of the model as it is."""
    _ = run.model  # a damaged checkpoint is an error, and says so first
    done, planned = run.epochs_done, run.recipe.epochs
    if done < planned:
        people(stderr=True).print(
            f"note: {escape(str(run.path))} is at epoch {done} of {planned}; "
            "pretrain --resume finishes it",
            soft_wrap=True,
        )


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Fail before hours of work rather than after: `path` can be written, a file or a folder."""
    import tempfile

    if path.is_dir() and not folder:
        raise IsADirectoryError(f"out: {path} is a directory; name a file")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"out: {path} is neither a file nor a directory; choose another path")
    parent = path if folder else path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise NotADirectoryError(f"out: {parent} is a file, not a directory; choose another path")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OSError(
            f"out: {parent} takes no files ({error.strerror}); choose another directory"
        ) from None

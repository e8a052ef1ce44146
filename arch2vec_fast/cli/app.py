# SPDX-License-Identifier: Apache-2.0
"""The commands and their options; what they do lies in the modules beside this one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from arch2vec_fast.cli.benchmarks import import_app
from arch2vec_fast.cli.darts import darts_app
from arch2vec_fast.cli.darts_commands import SpeedWords, table4, transfer
from arch2vec_fast.cli.predictive import predictive

app = typer.Typer(
    name="arch2vec-fast",
    help="Embeddings of neural-network cells, learnt without accuracies.",
    epilog="First time here? Try: arch2vec-fast demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(darts_app)
app.add_typer(import_app)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A directory made by pretrain.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Samples = Annotated[int, typer.Option(help="Latents to draw from the prior.")]


@app.callback()
def _root(context: typer.Context) -> None:
    """Pretrain on a cell space, embed its cells, and measure how good the embedding is."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ
    if several and context.invoked_subcommand not in ("pretrain", "embed"):
        raise ValueError(
            f"torchrun: {context.invoked_subcommand} runs in one process; only pretrain and embed "
            "take several, call it without torchrun"
        )


@app.command()
def pretrain(
    space: Annotated[
        str, typer.Argument(metavar="SPACE", help="nasbench101, nasbench201 or darts.")
    ],
    recipe: Annotated[
        str, typer.Option(help="best, released, paper, gae, vgae or without-kl.")
    ] = "best",
    out: Annotated[
        Path | None, typer.Option(help="Run directory.", show_default="runs/SPACE-RECIPE-SEED")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, batches, noise, samples.")] = 0,
    device: Device = "cpu",
    engine: Annotated[
        str, typer.Option(help="'fused' kernels, 'eager' plain PyTorch, or 'auto' by recipe.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    cells: Annotated[
        Path | None, typer.Option(help="Train on the cells of this .npz or .json file.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Train on this many sampled cells, not the whole space.")
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="Then embed these cells, as the command `embed` does.")
    ] = False,
    json: Json = False,
) -> None:
    """Train an autoencoder on a cell space and leave a run directory.

    Ctrl-C saves. The same command with --resume goes on where it stopped, to
    the same result bit for bit, after a kill too.

    Examples:

    arch2vec-fast pretrain nasbench201

    arch2vec-fast pretrain nasbench201 --recipe released --epochs 5 --out run

    arch2vec-fast pretrain darts --embed --out runs/darts

    torchrun --nproc-per-node 2 -m arch2vec_fast.cli pretrain darts --device cuda
    """
    from arch2vec_fast.cli.commands import pretrain_command

    pretrain_command(
        space,
        recipe,
        out or Path("runs") / f"{space}-{recipe}-{seed}",
        overrides={"epochs": epochs, "batch_size": batch_size, "learning_rate": lr},
        seed=seed,
        device=device,
        engine=engine,
        resume=resume,
        cells_file=cells,
        limit=limit,
        with_embeddings=embed,
        as_json=json,
    )


@app.command()
def embed(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="RUN/embeddings.safetensors")
    ] = None,
    cells: Annotated[
        Path | None, typer.Option(help="Embed the cells of this .npz or .json file.")
    ] = None,
    space: Annotated[
        bool, typer.Option("--space", help="Embed the whole space, not just the run's cells.")
    ] = False,
    readout: Annotated[
        str, typer.Option(help="'latent' as in the paper, or 'hidden' states of all layers.")
    ] = "latent",
    pca: Annotated[
        int | None, typer.Option(help="Keep this many principal components of the vectors.")
    ] = None,
    simplify: Annotated[
        bool, typer.Option("--simplify", help="Encode the smallest equal cell of each.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="'fused' kernels, or 'eager' plain PyTorch for comparison.")
    ] = "fused",
    precision: Annotated[
        str, typer.Option(help="Of the fused products: fp32, tf32 (CUDA) or bf16.")
    ] = "fp32",
    chunk: Annotated[
        int | None, typer.Option(help="Cells in one pass.", show_default="by engine")
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(help="Write a folder, this many cells a file.", show_default="by torchrun"),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(help="'released': also write the released code's dict-of-dicts .pt file."),
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Embed cells with a trained run: one vector a cell, as safetensors.

    Examples:

    arch2vec-fast embed runs/nasbench201-best-0

    arch2vec-fast embed run --cells mine.json --out mine.safetensors

    torchrun --nproc-per-node 2 -m arch2vec_fast.cli embed run --space --device cuda

    arch2vec-fast embed run --space --readout hidden --pca 128 --simplify
    """
    from arch2vec_fast.cli.commands import embed_command

    embed_command(
        run,
        out,
        cells_file=cells,
        whole_space=space,
        readout=readout,
        pca=pca,
        simplify=simplify,
        engine=engine,
        precision=precision,
        chunk=chunk,
        shard=shard,
        export=export,
        device=device,
        as_json=json,
    )


@app.command()
def evaluate(
    run: RunPath,
    samples: Samples = 10_000,
    seed: Annotated[int, typer.Option(help="Of the draws from the prior.")] = 0,
    prior: Annotated[
        str | None,
        typer.Option(
            help="standard, per-node, gaussian or posterior.", show_default="the recipe's"
        ),
    ] = None,
    control: Annotated[bool, typer.Option(help="Also measure the untrained model.")] = True,
    json: Json = False,
) -> None:
    """Measure reconstruction, validity and uniqueness of a run (Table 1).

    Prints the released code's numbers and strict ones, raw and legal decoding,
    the uniform ceiling and the untrained control; writes RUN/evaluation.json.

    Examples:

    arch2vec-fast evaluate runs/nasbench201-best-0

    arch2vec-fast evaluate run --samples 1000 --seed 7 --json
    """
    from arch2vec_fast.cli.commands import evaluate_command

    evaluate_command(run, samples=samples, seed=seed, prior=prior, control=control, as_json=json)


_INSTEAD = typer.Option(help="darts: instead of the training's own.")


@app.command()
def search(
    benchmark: Annotated[
        str,
        typer.Argument(
            metavar="BENCHMARK",
            help="A name that `benchmarks` lists; or darts, where a query trains a network.",
        ),
    ],
    method: Annotated[str, typer.Option(help="A name that `methods` lists.")] = "arch2vec-bo",
    embeddings: Annotated[
        Path | None, typer.Option(help="File of `embed`; arch2vec methods search in it.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Searches, from seeds first, first + 1, ...")] = 10,
    first_seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
    budget_seconds: Annotated[
        float | None, typer.Option(help="Training time a search may spend.")
    ] = None,
    queries: Annotated[int | None, typer.Option(help="Cells a search may query.")] = None,
    recipe: Annotated[str, typer.Option(help="best, released or paper.")] = "best",
    num_initial: Annotated[
        int | None, typer.Option(help="Random queries before the first model; not the recipe's 16.")
    ] = None,
    noise: Annotated[
        str, typer.Option(help="A query returns the 'mean' of runs, or one 'run' drawn by seed.")
    ] = "mean",
    data: Annotated[
        Path | None, typer.Option(help="Folder of tables.", show_default="$ARCH2VEC_DATA")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory.", show_default="searches/BENCHMARK/METHOD-RECIPE"),
    ] = None,
    images: Annotated[
        str, typer.Option(help="darts: what to train on, as `darts train --data` but in memory.")
    ] = "digits",
    training: Annotated[str, typer.Option(help="darts: small or query.")] = "small",
    epochs: Annotated[int | None, _INSTEAD] = None,
    batch_size: Annotated[int | None, _INSTEAD] = None,
    channels: Annotated[int | None, _INSTEAD] = None,
    layers: Annotated[int | None, _INSTEAD] = None,
    speed: SpeedWords = "",
    store: Annotated[
        Path, typer.Option(help="darts: SQLite file of finished queries, shared by all methods.")
    ] = Path("queries.sqlite"),
    workers: Annotated[
        int, typer.Option(help="darts: trainings at once, through Ray if more than one.")
    ] = 1,
    ray_address: Annotated[
        str | None, typer.Option(help="darts: a running Ray cluster.", show_default="none")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="darts: propose again, serially, what the search in this directory proposed with "
            "several workers; an error where it differs.",
            show_default="none",
        ),
    ] = None,
    surrogate: Annotated[
        bool, typer.Option("--surrogate", help="darts: ask the NAS-Bench-301 surrogate instead.")
    ] = False,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Search a benchmark from many seeds; leave a trace of every query.

    An interrupted search goes on with the same command, and one that began with
    several workers with any number. Traces are Parquet, one row a query; `report`
    draws them.

    Examples:

    arch2vec-fast search nasbench201-cifar10 --method evolution --seeds 500 --budget-seconds 12000

    arch2vec-fast search nasbench201-cifar10 --embeddings embeddings.safetensors --queries 100

    arch2vec-fast search darts --images digits --method random --seeds 1 --queries 12

    arch2vec-fast search darts --images digits --method random --seeds 1 --queries 12 --workers 2
    --out pair

    arch2vec-fast search darts --images digits --method random --seeds 1 --queries 12 --replay pair
    --out again
    """
    from arch2vec_fast.cli.search import Trainings, search_command

    search_command(
        benchmark,
        method,
        embeddings_file=embeddings,
        seeds=range(first_seed, first_seed + seeds),
        budget_seconds=budget_seconds,
        queries=queries,
        recipe=recipe,
        num_initial=num_initial,
        noise=noise,
        data=data,
        out=out,
        trainings=Trainings(
            images=images,
            recipe=training,
            instead={
                "epochs": epochs,
                "batch_size": batch_size,
                "channels": channels,
                "layers": layers,
            },
            speed=speed,
            store=store,
            workers=workers,
            ray_address=ray_address,
            replay=replay,
            surrogate=surrogate,
        ),
        device=device,
        as_json=json,
    )


@app.command()
def methods(json: Json = False) -> None:
    """List the methods of `search`.

    Example: arch2vec-fast methods
    """
    from arch2vec_fast.cli.search import methods_command

    methods_command(as_json=json)


@app.command()
def spaces(
    name: Annotated[
        str | None, typer.Argument(metavar="[SPACE]", help="Describe one space.")
    ] = None,
    json: Json = False,
) -> None:
    """List the cell spaces, or describe one.

    Examples:

    arch2vec-fast spaces

    arch2vec-fast spaces nasbench101 --json
    """
    from arch2vec_fast.cli.spaces import spaces_command

    spaces_command(name, as_json=json)


@app.command()
def benchmarks(
    data: Annotated[
        Path | None, typer.Option(help="Folder of tables.", show_default="$ARCH2VEC_DATA")
    ] = None,
    json: Json = False,
) -> None:
    """List the benchmarks: what a query returns and costs, the ceiling, where the table is.

    Example: arch2vec-fast benchmarks
    """
    from arch2vec_fast.cli.benchmarks import benchmarks_command

    benchmarks_command(data, as_json=json)


@app.command()
def doctor(json: Json = False) -> None:
    """Show versions, what is built, instruction sets and devices.

    Example: arch2vec-fast doctor --json
    """
    from arch2vec_fast.cli.commands import doctor_command

    doctor_command(as_json=json)


@app.command()
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN | TRACES...",
            help="A directory made by pretrain; or files or folders of search.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write.", show_default="RUN/report.html or report.html"),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Of traces: a folder for the numbers, as CSV.")
    ] = None,
    samples: Samples = 10_000,
    projection: Annotated[str, typer.Option(help="Of a run's map: pca or tsne.")] = "pca",
    seed: Annotated[int, typer.Option(help="Of samples and choices of a run's cells.")] = 0,
    json: Json = False,
) -> None:
    """Write a self-contained HTML report of a run, or of searches compared.

    Of traces of any number of methods and benchmarks: regret against time and
    queries with confidence bands, its distribution, Tables 2 and 3, cells found.

    Examples:

    arch2vec-fast report runs/nasbench201-best-0 --out report.html

    arch2vec-fast report searches/nasbench201-cifar10 --out searches.html --csv numbers
    """
    from arch2vec_fast.cli.commands import report_command

    report_command(
        paths,
        out,
        csv=csv,
        samples=samples,
        projection=projection,
        seed=seed,
        as_json=json,
    )


@app.command()
def table1(
    out: Annotated[Path, typer.Option(help="Directory of runs and results.")],
    spaces: Annotated[str, typer.Option(help="Comma-separated.")] = "nasbench101,nasbench201,darts",
    methods: Annotated[
        str, typer.Option(help="Comma-separated recipes.")
    ] = "gae,vgae,without-kl,released,best",
    seeds: Annotated[int, typer.Option(help="Runs of each pair, seeds 0, 1, ...")] = 1,
    samples: Samples = 10_000,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Reproduce Table 1 of the paper: hours on a CPU, resumable.

    Each space, method and seed is pretrained, evaluated and kept as one JSON
    file, which a second call finds and skips. Printed beside what the paper reports
    for arch2vec on NAS-Bench-201.

    Examples:

    arch2vec-fast table1 --out table1

    arch2vec-fast table1 --out table1 --spaces nasbench201 --seeds 3
    """
    from arch2vec_fast.cli.table1 import table1_command

    table1_command(
        out,
        spaces=spaces.split(","),
        methods=methods.split(","),
        seeds=seeds,
        samples=samples,
        device=device,
        as_json=json,
    )


Methods = Annotated[
    str | None, typer.Option(help="Comma-separated.", show_default="all of `methods`")
]
Recipes = Annotated[
    str | None, typer.Option(help="Comma-separated.", show_default="released,paper,best")
]
EncoderRun = Annotated[
    Path | None,
    typer.Option(help="A run of pretrain to embed with.", show_default="made for each recipe"),
]
Seeds = Annotated[int, typer.Option(help="Searches of each method, seeds 0, 1, ...")]
Noise = Annotated[
    str, typer.Option(help="A query returns the 'mean' of runs, or one 'run' drawn by seed.")
]
Data = Annotated[Path | None, typer.Option(help="Folder of tables.", show_default="$ARCH2VEC_DATA")]


@app.command()
def table2(
    out: Annotated[Path, typer.Option(help="Directory of traces and results.")],
    benchmark: Annotated[
        str | None, typer.Option(help="A table of NAS-Bench-101.", show_default="what is found")
    ] = None,
    methods: Methods = None,
    recipes: Recipes = None,
    encoder: EncoderRun = None,
    seeds: Seeds = 500,
    noise: Noise = "mean",
    data: Data = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Reproduce Table 2 of the paper, NAS-Bench-101: days on a CPU, resumable.

    1,000 queries for discrete methods, 400 for learnt representations, on the
    table that is found: imported, else 30,001 cells. Leaves traces, a report
    and CSV.

    Examples:

    arch2vec-fast table2 --out table2

    arch2vec-fast table2 --out table2 --seeds 20 --methods random,arch2vec-bo --recipes best
    """
    from arch2vec_fast.cli.search_tables import table2_command

    table2_command(
        out,
        benchmark=benchmark,
        methods=methods.split(",") if methods else None,
        recipes=recipes.split(",") if recipes else None,
        encoder=encoder,
        seeds=seeds,
        noise=noise,
        data=data,
        device=device,
        as_json=json,
    )


@app.command()
def table3(
    out: Annotated[Path, typer.Option(help="Directory of traces and results.")],
    methods: Methods = None,
    recipes: Recipes = None,
    encoder: EncoderRun = None,
    seeds: Seeds = 500,
    noise: Noise = "mean",
    data: Data = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Reproduce Table 3 of the paper, NAS-Bench-201: days on a CPU, resumable.

    12,000 seconds on CIFAR-10, then as many queries on CIFAR-100 and
    ImageNet16-120. Leaves traces, a report and CSV.

    Examples:

    arch2vec-fast table3 --out table3

    arch2vec-fast table3 --out table3 --seeds 20 --recipes best --encoder runs/nasbench201-best-0
    """
    from arch2vec_fast.cli.search_tables import table3_command

    table3_command(
        out,
        methods=methods.split(",") if methods else None,
        recipes=recipes.split(",") if recipes else None,
        encoder=encoder,
        seeds=seeds,
        noise=noise,
        data=data,
        device=device,
        as_json=json,
    )


app.command()(predictive)
app.command()(table4)
app.command()(transfer)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory to write.")] = Path("demo-out"),
    quick: Annotated[
        bool, typer.Option("--quick", help="One epoch and 1,000 samples, for a smoke test.")
    ] = False,
    json: Json = False,
) -> None:
    """NAS-Bench-201 from nothing to embeddings, their quality, a report and searches.

    Takes about a minute on two free CPU cores, up to three on slow ones. The
    searches need the package analog-nasbench, a table of accuracies.

    Example: arch2vec-fast demo
    """
    from arch2vec_fast.cli.demo import demo_command

    demo_command(out, quick=quick, as_json=json)

# SPDX-License-Identifier: Apache-2.0
"""Options of `table4` and `transfer`; what they do is in `darts_tables`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
SpeedWords = Annotated[
    str,
    typer.Option(
        help="Of DARTS trainings: bf16, compile, channels_last or contiguous, joined by commas.",
        show_default="none",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]


def table4(
    out: Annotated[Path, typer.Option(help="Directory of searches, trainings and results.")],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: random, darts-1, darts-2, bananas, arch2vec-rl, arch2vec-bo; "
            "with --surrogate those of `methods`.",
            show_default="all; with --surrogate the searches that need no gradient",
        ),
    ] = None,
    images: Annotated[
        str, typer.Option(help="What to train on; see `darts train --data`.")
    ] = "digits",
    training: Annotated[str, typer.Option(help="Recipe of a query: small or query.")] = "small",
    epochs: Annotated[
        int | None,
        typer.Option(help="Of a query.", show_default="3 for small, otherwise the recipe's"),
    ] = None,
    final: Annotated[str, typer.Option(help="Recipe of the winners: small or cifar10.")] = "small",
    final_seeds: Annotated[int, typer.Option(help="Trainings of each winner.")] = 3,
    queries: Annotated[
        int | None,
        typer.Option(help="Of a search.", show_default="24; 100 with --surrogate"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="Of the searches: best, released or paper.")] = "best",
    seed: Annotated[int, typer.Option(help="Of the searches and of their trainings.")] = 0,
    encoder: Annotated[
        Path | None,
        typer.Option(help="A run of pretrain to embed with.", show_default="made in --out"),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Cells below 600 M multiply-adds to pretrain on.")
    ] = 600_000,
    pool: Annotated[
        int | None,
        typer.Option(
            help="Of them, the cells that searches choose from.",
            show_default="all; 50,000 with --surrogate",
        ),
    ] = None,
    speed: SpeedWords = "",
    store: Annotated[
        Path | None,
        typer.Option(help="SQLite file of queries.", show_default="OUT/queries.sqlite"),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Trainings at once, through Ray if more than one.")
    ] = 1,
    ray_address: Annotated[
        str | None, typer.Option(help="A running Ray cluster.", show_default="none")
    ] = None,
    surrogate: Annotated[
        bool,
        typer.Option("--surrogate", help="Ask the NAS-Bench-301 surrogate, from many seeds."),
    ] = False,
    seeds: Annotated[int, typer.Option(help="Searches of a method, with --surrogate.")] = 100,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the surrogate.", show_default="$ARCH2VEC_DATA"),
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Reproduce Table 4 of the paper, the DARTS space: from sampling to test errors, resumable.

    Samples cells, pretrains, embeds, searches with real training, trains each
    winner to the end. The defaults are small, for a laptop; what was run stands
    beside every number, and published numbers are quoted.

    Examples:

    arch2vec-fast table4 --out table4

    arch2vec-fast table4 --out paper --images cifar10:data --training query --final cifar10
    --queries 100 --workers 4 --device cuda

    arch2vec-fast table4 --out table4 --surrogate
    """
    from arch2vec_fast.cli.darts_tables import (
        Training,
        Where,
        surrogate_command,
        table4_command,
    )

    where = Where(
        out=out,
        methods=methods.split(",") if methods else None,
        recipe=recipe,
        queries=queries,
        encoder=encoder,
        samples=samples,
        pool=pool,
        device=device,
        as_json=json,
    )
    if surrogate:
        surrogate_command(where, seeds=seeds, data=data)
        return
    table4_command(
        where,
        Training(
            images=images,
            recipe=training,
            epochs=epochs,
            final=final,
            final_seeds=final_seeds,
            seed=seed,
            speed=speed,
            store=store,
            workers=workers,
            ray_address=ray_address,
        ),
    )


def transfer(
    genotypes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GENOTYPE]...",
            help="As `darts train` takes them.",
            show_default="DARTS BANANAS arch2vec_rl arch2vec_bo",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of trainings.")] = Path("transfer"),
    data: Annotated[
        str | None,
        typer.Option(help="imagenet:PATH, or others; see `darts train`.", show_default="none"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="imagenet; or small, to try out.")] = "imagenet",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each, from seeds 0, 1, ...")] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that decode imagenet:PATH.", show_default="one a core, 16 at most"
        ),
    ] = None,
    device: Device = "cpu",
    speed: SpeedWords = "",
    json: Json = False,
) -> None:
    """The ImageNet transfer of the paper: exact sizes of cells, quoted errors, and trainings.

    Without --data nothing is trained. Interrupted trainings go on with the same
    command.

    Examples:

    arch2vec-fast transfer

    arch2vec-fast transfer arch2vec_bo --data imagenet:data/imagenet --device cuda
    --speed bf16
    """
    from arch2vec_fast.cli.darts_tables import transfer_command

    transfer_command(
        genotypes,
        out=out,
        data=data,
        recipe=recipe,
        epochs=epochs,
        seeds=seeds,
        workers=workers,
        device=device,
        speed=speed,
        as_json=json,
    )

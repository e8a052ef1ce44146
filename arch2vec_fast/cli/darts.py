# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast darts ...`: drawing, counting and training the networks of genotypes."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from arch2vec_fast.cli.console import people, percent, write_document
from arch2vec_fast.cli.darts_commands import SpeedWords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arch2vec_fast.darts.images import ImageSet
    from arch2vec_fast.darts.recipes import TrainRecipe
    from arch2vec_fast.darts.source import ImageSource
    from arch2vec_fast.spaces.darts import Genotype

darts_app = typer.Typer(
    name="darts",
    help="Networks of DARTS genotypes: their size, their drawing, their training.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

GenotypeText = Annotated[
    str,
    typer.Argument(
        metavar="GENOTYPE",
        help="arch2vec_bo, arch2vec_rl, BANANAS, DARTS, or the text Genotype(normal=[...], ...) "
        "that DARTS prints, or eight INPUT:OPERATION joined by |.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def read_genotype(text: str) -> Genotype:
    """A genotype by name or in one of its two spellings; text is parsed, never evaluated."""
    from arch2vec_fast.darts import published
    from arch2vec_fast.spaces.darts import Genotype

    if text in published.genotypes():
        return published.genotype(text)
    if "(" in text:
        return Genotype.parse(text)
    if ":" in text:
        return Genotype.from_items(text)
    raise ValueError(
        f"genotype: {text!r:.60} is none; give {', '.join(published.genotypes())}, "
        "Genotype(normal=[...]) or 0:sep_conv_3x3|1:skip_connect|..."
    )


def read_images(text: str) -> ImageSet:
    """The image set in memory that NAME or NAME:PATH means."""
    from arch2vec_fast.darts.images import load_images

    name, _, path = text.partition(":")
    return load_images(name, path or None)


def choose_recipe(name: str, **instead: float | None) -> TrainRecipe:
    """The preset `name` with other values of the fields that are not None."""
    from arch2vec_fast.darts.recipes import TrainRecipe

    given = {field: value for field, value in instead.items() if value is not None}
    return replace(TrainRecipe.get(name), **given)  # type: ignore[arg-type]


def open_images(text: str, workers: int | None) -> ImageSource:
    """What to train on: an image set, or the folders of imagenet:PATH."""
    name, _, path = text.partition(":")
    if name != "imagenet":
        if workers is not None:
            raise ValueError(f"workers: {name} is held in memory; they decode imagenet:PATH alone")
        return read_images(text)
    from arch2vec_fast.darts.image_folders import open_folders

    if not path:
        raise ValueError("data: imagenet is read from files; say where they are, imagenet:PATH")
    return open_folders(path, workers=workers)


@darts_app.command()
def show(
    genotype: GenotypeText,
    svg: Annotated[Path | None, typer.Option(help="Also draw the cells into this file.")] = None,
    json: Json = False,
) -> None:
    """Parameters and multiply-adds of a genotype's networks, and a drawing of its cells.

    Example: arch2vec-fast darts show arch2vec_bo --svg cell.svg
    """
    from arch2vec_fast.spaces.darts import CIFAR10, IMAGENET, network_cost

    parsed = read_genotype(genotype)
    document: dict[str, Any] = {"genotype": str(parsed)}
    for name, config in (("cifar10", CIFAR10), ("imagenet", IMAGENET)):
        cost = network_cost(parsed, config)
        document[name] = {
            "channels": config.channels,
            "layers": config.layers,
            "parameters": int(cost.parameters[0]),
            "mult_adds": int(cost.mult_adds[0]),
        }
    if svg is not None:
        _draw(parsed, svg)
        document["svg"] = str(svg)
    if json:
        write_document(document)
        return
    console = people()
    console.print(escape(document["genotype"]), soft_wrap=True)
    for name in ("cifar10", "imagenet"):
        size = document[name]
        console.print(
            f"{name}: {size['channels']} channels, {size['layers']} cells: "
            f"{size['parameters']:,} parameters, {size['mult_adds'] / 1e6:,.1f} M multiply-adds"
        )
    if svg is not None:
        console.print(f"drawn: {escape(str(svg))}", soft_wrap=True)


def _draw(genotype: Genotype, path: Path) -> None:
    """The normal cell, or normal and reduction cell side by side, as one SVG file."""
    from arch2vec_fast import spaces
    from arch2vec_fast._files import atomic_file
    from arch2vec_fast.analysis.draw import draw_cell, side_by_side
    from arch2vec_fast.cli.commands import check_writable
    from arch2vec_fast.spaces.darts import Genotype, genotype_to_cell

    check_writable(path)
    space = spaces.get("darts")
    parts = [("normal cell", genotype.normal)]
    if genotype.reduce != genotype.normal:
        parts.append(("reduction cell", genotype.reduce))
    drawings = [
        draw_cell(genotype_to_cell(Genotype(normal=edges)), space, label=label)
        for label, edges in parts
    ]
    with atomic_file(path) as file:
        file.write(side_by_side(drawings).encode())


@darts_app.command()
def train(
    genotype: GenotypeText,
    data: Annotated[
        str,
        typer.Option(
            help="digits, fashion-mnist:PATH, cifar10:PATH, folder:PATH, or imagenet:PATH."
        ),
    ] = "digits",
    recipe: Annotated[str, typer.Option(help="small, query, cifar10 or imagenet.")] = "small",
    out: Annotated[
        Path | None, typer.Option(help="Directory.", show_default="trainings/GENOTYPE-RECIPE-SEED")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    channels: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    layers: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    validation_fraction: Annotated[
        float | None,
        typer.Option(help="Of the training images, held out and looked at after every epoch."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that decode imagenet:PATH; change no bit.",
            show_default="one a core, 16 at most",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order, crops, drop path.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    speed: SpeedWords = "",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Scalars for TensorBoard in OUT.")
    ] = False,
    json: Json = False,
) -> None:
    """Train the network of a genotype; the same command goes on with an interrupted training.

    The test images are seen once, after the last epoch; of imagenet:PATH they are those of
    PATH/val.

    Examples:

    arch2vec-fast darts train arch2vec_bo --data digits

    arch2vec-fast darts train DARTS --data cifar10:data/cifar-10-batches-py --recipe cifar10

    arch2vec-fast darts train arch2vec_bo --data imagenet:data/imagenet --recipe imagenet
    --device cuda --speed bf16,compile --validation-fraction 0.02
    """
    from arch2vec_fast.cli.commands import check_writable
    from arch2vec_fast.darts.train import Speed
    from arch2vec_fast.darts.train import train as run

    parsed, how = read_genotype(genotype), Speed.parse(speed)
    chosen = choose_recipe(
        recipe,
        epochs=epochs,
        batch_size=batch_size,
        channels=channels,
        layers=layers,
        learning_rate=lr,
        validation_fraction=validation_fraction,
    )
    images = open_images(data, workers)
    out = out or Path("trainings") / f"{_short_name(genotype)}-{recipe}-{seed}"
    check_writable(out, folder=True)
    try:
        with _scalars(out, tensorboard) as on_epoch:
            result = run(
                parsed,
                images,
                chosen,
                out=out,
                seed=seed,
                device=device,
                speed=how,
                progress=True,
                on_epoch=on_epoch,
            )
    except KeyboardInterrupt:
        raise _stopped(out) from None
    document = {"out": str(out), "images": images.name, "recipe": recipe, **asdict(result)}
    if json:
        write_document(
            {**document, "reward": None if result.reward != result.reward else result.reward}
        )
        return
    reward = None if result.reward != result.reward else result.reward
    people().print(
        f"test {percent(result.test)} %, top-5 {percent(result.test_top5)} %, validation "
        f"{percent(reward)} % (mean of the last {chosen.mean_of_last}), "
        f"{result.seconds:.0f} s: {escape(str(out))}",
        soft_wrap=True,
    )


@darts_app.command()
def gradient(
    data: Annotated[
        str, typer.Option(help="Images, as of `darts train` but for imagenet:PATH.")
    ] = "digits",
    order: Annotated[int, typer.Option(help="1, or 2 with the virtual step.")] = 2,
    preset: Annotated[str, typer.Option(help="small, or darts as published.")] = "small",
    out: Annotated[
        Path | None, typer.Option(help="Directory.", show_default="trainings/gradient-ORDER-SEED")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order, crops.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    json: Json = False,
) -> None:
    """Search by gradient descent as DARTS does; the same command goes on where it stopped.

    Example: arch2vec-fast darts gradient --data digits --order 1
    """
    from arch2vec_fast.cli.commands import check_writable
    from arch2vec_fast.darts.gradient_search import GradientSearchRecipe, search_by_gradient

    if preset not in ("small", "darts"):
        raise ValueError(f"preset: {preset!r} is neither small nor darts")
    small = preset == "small"
    recipe = GradientSearchRecipe.small(order) if small else GradientSearchRecipe(order=order)
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    out = out or Path("trainings") / f"gradient-{order}-{seed}"
    check_writable(out, folder=True)
    images = read_images(data)
    try:
        result = search_by_gradient(
            images, recipe, out=out, seed=seed, device=device, progress=True
        )
    except KeyboardInterrupt:
        raise _stopped(out) from None
    document = {
        "out": str(out),
        "genotype": str(result.genotype),
        "validation": result.validation,
        "seconds": result.seconds,
    }
    if json:
        write_document(document)
        return
    people().print(escape(str(result.genotype)), soft_wrap=True)
    people().print(
        f"supernet {percent(result.validation[-1])} % on held-out images, "
        f"{result.seconds:.0f} s: {escape(str(out))}",
        soft_wrap=True,
    )


def _short_name(genotype: str) -> str:
    """For a directory: the name of a published genotype, or a digest."""
    from arch2vec_fast.darts import published

    if genotype in published.genotypes():
        return genotype
    return hashlib.sha256(str(read_genotype(genotype)).encode()).hexdigest()[:8]


def _stopped(out: Path) -> typer.Exit:
    """Says how an interrupted command goes on."""
    people(stderr=True).print(
        f"\nStopped; finished epochs are kept in {escape(str(out))}. Go on with the same command.",
        soft_wrap=True,
    )
    return typer.Exit(130)


@contextmanager
def _scalars(out: Path, wanted: bool) -> Iterator[Callable[[int, dict[str, float]], None] | None]:
    """Writes each epoch's numbers where TensorBoard finds them."""
    if not wanted:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError("tensorboard: not installed; pip install tensorboard") from None
    with ExitStack() as stack:
        writers: list[SummaryWriter] = []

        def write(epoch: int, line: dict[str, float]) -> None:
            if not writers:  # before the first epoch OUT holds no training, and must be empty
                writer = SummaryWriter(str(out / "tensorboard"), purge_step=epoch)
                writers.append(stack.enter_context(writer))
            for name, value in line.items():
                writers[0].add_scalar(name, value, epoch)
            writers[0].flush()

        yield write

# SPDX-License-Identifier: Apache-2.0
"""Training one network: a directory that can be killed at any moment and resumed to the same end.

    images = load_images("fashion-mnist", "fashion_mnist.npz")
    result = train(genotype, images, TrainRecipe.small(), out="runs/bo")

config.json        genotype, recipe, images, seed, how it is computed
metrics.jsonl      one line an epoch; then one with the test accuracy, which is measured once
checkpoint.pt      model, optimiser, epochs done
weights.pt         the trained model, with the keys of the released code's file
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast._checks import check_device, check_seed
from arch2vec_fast._files import write_torch
from arch2vec_fast._progress import Progress
from arch2vec_fast.darts.augment import augment, jitter, normalize
from arch2vec_fast.darts.folder import TrainingFolder, describe_images, epoch_seed
from arch2vec_fast.darts.image_folders import dead_workers_named
from arch2vec_fast.darts.network import Network, draw_paths
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.source import ImageSource, Pixels
from arch2vec_fast.spaces.darts import Genotype

__all__ = ["Speed", "TrainResult", "evaluate", "train"]

_EVALUATION_BATCH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How the same training is computed; none of it changes what is learnt but for rounding.

    channels_last: memory format of images and weights; None: on CUDA, and on the CPU for networks
    whose channels are multiples of eight (1.6x there; with fewer, torch 2.13's depthwise kernels
    write outside their buffers). bf16: autocast of the products, on CUDA and on CPUs that have it.
    compile: `torch.compile` of the network.

    >>> Speed.parse("bf16,compile")
    Speed(channels_last=None, bf16=True, compile=True)
    """

    channels_last: bool | None = None
    bf16: bool = False
    compile: bool = False

    @classmethod
    def parse(cls, text: str) -> Speed:
        """From words joined by commas: bf16, compile, channels_last or contiguous."""
        words: dict[str, dict[str, bool]] = {
            "bf16": {"bf16": True},
            "compile": {"compile": True},
            "channels_last": {"channels_last": True},
            "contiguous": {"channels_last": False},
        }
        given: dict[str, bool] = {}
        for word in filter(None, text.split(",")):
            if word not in words:
                raise ValueError(f"speed: {word!r} is none of {', '.join(words)}")
            if given.keys() & words[word]:
                raise ValueError(f"speed: {text!r} says the same or its opposite twice; drop one")
            given |= words[word]
        return cls(**given)

    @property
    def words(self) -> list[str]:
        """What is other than by default, as `parse` takes it."""
        formats = {None: [], True: ["channels_last"], False: ["contiguous"]}
        chosen = [name for name in ("bf16", "compile") if getattr(self, name)]
        return chosen + formats[self.channels_last]

    def resolve(self, device: torch.device, channels: int) -> Speed:
        """With every choice made."""
        if self.channels_last is not None:
            return self
        return replace(self, channels_last=device.type == "cuda" or channels % 8 == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training came to; accuracies in [0, 1].

    validation: after each epoch, empty without held-out images. reward: mean of the last
    `recipe.mean_of_last` of them, what a search is told; NaN without. test, test_top5: of the
    model after the last epoch, measured once. seconds: of all epochs. computed_on: device, threads,
    version of torch and `Speed` of the last of them; these change the rounding.
    """

    validation: list[float]
    reward: float
    test: float
    test_top5: float
    seconds: float
    computed_on: str = ""


def train(
    genotype: Genotype,
    images: ImageSource,
    recipe: TrainRecipe,
    *,
    out: str | Path,
    seed: int = 0,
    device: str | torch.device = "cpu",
    speed: Speed | None = None,
    progress: bool = False,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainResult:
    """Train the network of `genotype`, or go on with a training that `out` holds.

    images: an `ImageSet` in memory, or `ImageFolders` that are decoded as they are needed. Every
    random number follows from (seed, epoch), an image's place in the epoch and among the images,
    whatever the number of decoding processes, so a training that was killed and resumed ends with
    the same bits as one that was not, on the same device with as many threads. No step waits
    for the device: loss and accuracy are summed there and read once an epoch. on_epoch: called with
    the epoch and its numbers, e.g. for TensorBoard.

    Raises ValueError or OSError, one line: `out` holds another training, too few images, images of
    a size that the network does not take. FloatingPointError if the loss is no number. What fails
    before the first epoch is kept leaves nothing in `out`.
    """
    check_seed(seed)
    device = check_device(device)
    recipe.check_images(images.name, images.image_size)
    chosen = (speed or Speed()).resolve(device, recipe.channels)
    trainer = _Trainer(genotype, images, recipe, seed, device, chosen)
    folder = TrainingFolder(Path(out), _describe(genotype, images, recipe, seed, trainer.speed))
    size = len(trainer.train_part[1])
    total = recipe.epochs * size
    label = f"training on {images.name}"
    with (
        folder.undone_if_empty(),
        dead_workers_named(),
        Progress(label, "images", total, enabled=progress) as bar,
    ):
        folder.restore(trainer.load)

        def report(seen: int) -> None:
            bar.update(trainer.epoch * size + seen, loss=trainer.loss)

        report(0)
        while trainer.epoch < recipe.epochs:
            line = trainer.run_epoch(report)
            folder.keep(trainer.state(), line)
            if on_epoch is not None:
                on_epoch(trainer.epoch - 1, line)
            report(0)
        return _finish(folder, trainer, images)


class _Trainer:
    """The state of a training and one epoch of it."""

    def __init__(
        self,
        genotype: Genotype,
        images: ImageSource,
        recipe: TrainRecipe,
        seed: int,
        device: torch.device,
        speed: Speed,
    ) -> None:
        self.recipe, self.seed, self.device, self.speed = recipe, seed, device, speed
        held_out = int(len(images.train_labels) * recipe.validation_fraction)
        split = len(images.train_labels) - held_out
        if split < 2 or (recipe.validation_fraction and not held_out):
            raise ValueError(
                f"data: {len(images.train_labels)} training images are too few for "
                f"validation_fraction {recipe.validation_fraction}"
            )
        self.train_part, self.held_out = (
            (images.pixels("train", rows, device), images.train_labels[rows].to(device))
            for rows in (slice(split), slice(split, None))
        )
        self.mean, self.std = (
            torch.tensor(values, device=device) for values in (images.mean, images.std)
        )
        torch.manual_seed(seed)
        network = Network(
            genotype, recipe.network(images.classes), auxiliary=recipe.auxiliary_weight > 0
        )
        memory_format = torch.channels_last if speed.channels_last else torch.contiguous_format
        self.network = network.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        if speed.compile:
            torch.compiler.reset()  # what was compiled for other networks counts against a limit
        self.forward = torch.compile(self.network) if speed.compile else self.network
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self.epoch = 0
        self.loss = float("nan")
        self.seconds = 0.0

    def state(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.seconds = int(state["epoch"]), float(state["seconds"])

    def run_epoch(self, report: Callable[[int], None]) -> dict[str, float]:
        """One pass over the training images, then the held-out ones; the epoch's numbers.

        report: called with the number of images done so far.
        """
        began = time.monotonic()
        rate = self.recipe.learning_rate_at(self.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed = epoch_seed(self.seed, self.epoch)
        generator = torch.Generator(self.device).manual_seed(seed)
        host_draws = np.random.default_rng(seed)  # those of the device would be waited for
        self.network.train()
        pixels, labels = self.train_part
        order = torch.randperm(len(labels), generator=generator, device=self.device)
        # Batch norm of one image is no statistic.
        parts = [rows for rows in order.split(self.recipe.batch_size) if len(rows) > 1]
        totals = torch.zeros(3, device=self.device)
        seen = 0
        for rows, batch in zip(parts, pixels.batches(parts, (self.seed, self.epoch))):
            totals += self._step(batch, labels[rows], generator, host_draws)
            seen += len(rows)
            report(seen)
        loss, hits, hits5 = (totals / seen).tolist()
        self._check_loss(loss)
        self.loss = loss
        line = {"loss": loss, "train": hits, "train_top5": hits5, "learning_rate": rate}
        if len(self.held_out[1]):
            validation, _ = self.score(*self.held_out)
            line["validation"] = validation
        self.epoch += 1
        self.seconds += time.monotonic() - began
        return line

    def _step(
        self,
        batch: Tensor,
        target: Tensor,
        generator: torch.Generator,
        host_draws: np.random.Generator,
    ) -> Tensor:
        """One update; summed loss, hits and top-5 hits of its images."""
        recipe = self.recipe
        batch = augment(batch, generator, padding=recipe.padding, flip=recipe.flip)
        if recipe.changes_colours:
            batch = jitter(
                batch,
                generator,
                brightness=recipe.brightness,
                contrast=recipe.contrast,
                saturation=recipe.saturation,
                hue=recipe.hue,
                order=host_draws.permutation(4).tolist(),
            )
        paths = draw_paths(self.network, len(target), recipe.drop_path_at(self.epoch), generator)
        with self._autocast():
            pixels = self._pixels(batch, recipe.cutout, generator)
            logits, auxiliary = self.forward(pixels, paths)
            loss = F.cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
            total = loss
            if auxiliary is not None:
                total = loss + recipe.auxiliary_weight * F.cross_entropy(
                    auxiliary, target, label_smoothing=recipe.label_smoothing
                )
        if self.device.type == "cpu":  # where looking is free and max pooling of NaN crashes torch
            self._check_loss(total.item())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.grad_clip, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            return torch.cat(((loss * len(target))[None], _hits(logits, target).sum(1)))

    def _check_loss(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"loss: {loss} in epoch {self.epoch}; lower recipe.learning_rate "
                f"({self.recipe.learning_rate:g})"
            )

    @torch.no_grad()
    def score(self, pixels: Pixels, labels: Tensor) -> tuple[float, float]:
        """Top-1 and top-5 accuracy in [0, 1]."""
        self.network.eval()
        totals = torch.zeros(3, device=self.device)
        parts = _in_order(labels)
        for rows, batch in zip(parts, pixels.batches(parts)):
            with self._autocast():
                logits = self.forward(self._pixels(batch, 0, None)).main
            broken = ~logits.isfinite().all(1, keepdim=True).T
            totals += torch.cat((_hits(logits, labels[rows]), broken)).sum(1)
        top1, top5, broken_share = (totals / len(labels)).tolist()
        if broken_share:  # the last step of an epoch has no loss after it
            self._check_loss(float("nan"))
        return top1, top5

    def _pixels(self, batch: Tensor, cutout: int, generator: torch.Generator | None) -> Tensor:
        pixels = normalize(batch, self.mean, self.std, cutout=cutout, generator=generator)
        if self.speed.channels_last:
            return pixels.contiguous(memory_format=torch.channels_last)
        return pixels.contiguous()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.speed.bf16)


def evaluate(
    network: Network, images: ImageSource, *, device: str | torch.device = "cpu"
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of a trained network on the test images."""
    device = check_device(device)
    mean, std = (torch.tensor(values, device=device) for values in (images.mean, images.std))
    network = network.to(device).eval()
    totals = torch.zeros(2, device=device)
    labels = images.test_labels.to(device)
    parts = _in_order(labels)
    with torch.no_grad():
        for rows, batch in zip(parts, images.pixels("test", slice(None), device).batches(parts)):
            totals += _hits(network(normalize(batch, mean, std)).main, labels[rows]).sum(1)
    top1, top5 = (totals / len(labels)).tolist()
    return top1, top5


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Float [2, B]: is the label the first, and among the first five (or all there are)?"""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack((best[:, 0], best.any(1))).float()


def _in_order(labels: Tensor) -> Sequence[Tensor]:
    """Rows of batches that go over all images once."""
    rows = torch.arange(len(labels), device=labels.device)
    parts: Sequence[Tensor] = rows.split(_EVALUATION_BATCH)
    return parts


def _describe(
    genotype: Genotype, images: ImageSource, recipe: TrainRecipe, seed: int, speed: Speed
) -> dict[str, Any]:
    normal, reduce = genotype.to_items()
    return {
        "format": 1,
        "genotype": {"normal": normal, "reduce": reduce},
        "images": describe_images(images),
        "recipe": recipe.to_dict(),
        "seed": seed,
        "speed": asdict(speed),
    }


def _finish(folder: TrainingFolder, trainer: _Trainer, images: ImageSource) -> TrainResult:
    """Weights, the one look at the test images, and the result."""
    if not (folder.path / "weights.pt").exists():
        write_torch(folder.path / "weights.pt", trainer.network.state_dict())
    if not folder.lines("test"):
        device = trainer.device
        test, top5 = trainer.score(
            images.pixels("test", slice(None), device), images.test_labels.to(device)
        )
        folder.add("test", {"test": test, "test_top5": top5})
    seen = folder.lines("test")[0]
    validation = [line["validation"] for line in folder.lines("epoch") if "validation" in line]
    last = validation[-trainer.recipe.mean_of_last :]
    return TrainResult(
        validation=validation,
        reward=float(np.mean(last)) if last else float("nan"),
        test=seen["test"],
        test_top5=seen["test_top5"],
        seconds=trainer.seconds,
        computed_on=_computed_on(trainer.device, trainer.speed),
    )


def _computed_on(device: torch.device, speed: Speed) -> str:
    """Device, threads, version of torch and `speed`, in words."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        where = f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"
    return ", ".join((where, f"torch {torch.__version__}", *speed.words))

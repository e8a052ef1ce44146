# SPDX-License-Identifier: Apache-2.0
"""DARTS: architecture search by gradient descent, the baseline of the paper's Table 4.

The training images are split in halves. Each step first moves the architecture parameters alpha
down the validation loss, then the weights w down the training loss. In second order the
architecture sees the weights after one virtual step, w' = w - xi grad_w L_train(w, alpha),

    grad_a L_val(w', alpha) - xi (grad_a L_train(w+, alpha) - grad_a L_train(w-, alpha)) / 2 eps,

with w+- = w +- eps grad_w' L_val(w', alpha) and eps = 0.01 / |grad_w' L_val|; in first order xi is
0. At the end the parameters are discretised.

Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, algorithm 1, equations
7 and 8; settings of its released code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from arch2vec_fast._checks import check_device, check_seed
from arch2vec_fast._progress import Progress
from arch2vec_fast.darts.augment import augment, normalize
from arch2vec_fast.darts.folder import TrainingFolder, describe_images, epoch_seed
from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.supernet import NUM_EDGES, Supernet, discretize
from arch2vec_fast.spaces.darts import DartsNetwork, Genotype
from arch2vec_fast.spaces.darts_genotype import OPERATIONS

__all__ = ["GradientSearchRecipe", "SearchResult", "search_by_gradient"]

_PERTURBATION = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientSearchRecipe:
    """Settings of a search; defaults are those of DARTS on CIFAR-10.

    order: 1 or 2. channels, layers: of the supernet. learning_rate falls to `min_learning_rate`
    as half a cosine. arch_*: of Adam on the architecture parameters, betas (0.5, 0.999).
    padding, flip: of the images; see `TrainRecipe`.
    """

    order: int = 2
    channels: int = 16
    layers: int = 8
    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 0.025
    min_learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    grad_clip: float = 5.0
    arch_learning_rate: float = 3e-4
    arch_weight_decay: float = 1e-3
    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order: {self.order} is neither 1 nor 2")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is below 1")
        for name in ("learning_rate", "arch_learning_rate", "grad_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")
        self.network(classes=2)

    @classmethod
    def small(cls, order: int = 2) -> GradientSearchRecipe:
        """For small images and for trying out: 4 channels, 3 layers, higher rates, 10 epochs."""
        return cls(
            order=order,
            channels=4,
            layers=3,
            epochs=10,
            learning_rate=0.1,
            arch_learning_rate=3e-3,
            padding=2,
            flip=False,
        )

    def network(self, classes: int) -> DartsNetwork:
        """The supernet's size for `classes` classes."""
        return DartsNetwork(
            channels=self.channels, layers=self.layers, classes=classes, stem="cifar"
        )

    def learning_rate_at(self, epoch: int) -> float:
        """Of the weights in epoch 0, 1, ..."""
        share = (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.min_learning_rate + (self.learning_rate - self.min_learning_rate) * share


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a gradient search found.

    arch_params: [2, 14, 8], see `Supernet`. validation: accuracy of the supernet on the second half
    after each epoch, in [0, 1]. seconds: of all epochs.
    """

    genotype: Genotype
    arch_params: Tensor
    validation: list[float]
    seconds: float


def search_by_gradient(
    images: ImageSet,
    recipe: GradientSearchRecipe | None = None,
    *,
    out: str | Path,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
    on_epoch: Callable[[int, dict[str, Any]], None] | None = None,
) -> SearchResult:
    """Search a cell for `images`, or go on with a search that `out` holds.

    Killed and resumed, it ends with the same bits, as `train` does. A second-order step costs about
    five passes of the supernet forward and back, a first-order step two. on_epoch: called with the
    epoch and its numbers, the genotype so far among them.

    Raises ValueError or OSError, one line; FloatingPointError if the loss, an architecture
    parameter or an output is no number: that epoch is not kept.
    """
    check_seed(seed)
    recipe = recipe or GradientSearchRecipe()
    state = _Search(images, recipe, seed, check_device(device))
    config = {
        "format": 1,
        "images": describe_images(images),
        "recipe": asdict(recipe),
        "seed": seed,
    }
    folder = TrainingFolder(Path(out), config)
    label = f"searching on {images.name}"
    with (
        folder.undone_if_empty(),
        Progress(label, "epochs", recipe.epochs, enabled=progress) as bar,
    ):
        folder.restore(state.load)
        bar.update(state.epoch)
        while state.epoch < recipe.epochs:
            line = state.run_epoch()
            folder.keep(state.state(), line)
            if on_epoch is not None:
                on_epoch(state.epoch - 1, line)
            bar.update(state.epoch, loss=line["loss"])
    return SearchResult(
        genotype=discretize(state.arch_params),
        arch_params=state.arch_params.detach().cpu(),
        validation=[line["validation"] for line in folder.lines("epoch")],
        seconds=state.seconds,
    )


class _Search:
    """Supernet, architecture parameters, both optimisers; one epoch of alternating steps."""

    def __init__(
        self, images: ImageSet, recipe: GradientSearchRecipe, seed: int, device: torch.device
    ) -> None:
        half = len(images.train_labels) // 2
        if half < 2:
            raise ValueError(f"data: {len(images.train_labels)} training images are too few")
        self.recipe, self.seed, self.device = recipe, seed, device
        pixels, labels = images.train_images.to(device), images.train_labels.to(device)
        self.train_part = pixels[:half], labels[:half]
        self.validation_part = pixels[half : 2 * half], labels[half : 2 * half]
        self.mean, self.std = (
            torch.tensor(values, device=device) for values in (images.mean, images.std)
        )
        torch.manual_seed(seed)
        self.supernet = Supernet(recipe.network(images.classes)).to(device)
        start = 1e-3 * torch.randn(2, NUM_EDGES, len(OPERATIONS))
        self.arch_params = start.to(device).requires_grad_()
        self.optimizer = torch.optim.SGD(
            self.supernet.parameters(),
            recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self.arch_optimizer = torch.optim.Adam(
            [self.arch_params],
            recipe.arch_learning_rate,
            betas=(0.5, 0.999),
            weight_decay=recipe.arch_weight_decay,
        )
        self.epoch, self.seconds = 0, 0.0

    def state(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {
            "model": self.supernet.state_dict(),
            "arch_params": self.arch_params.detach(),
            "optimizer": self.optimizer.state_dict(),
            "arch_optimizer": self.arch_optimizer.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.supernet.load_state_dict(state["model"])
        with torch.no_grad():
            self.arch_params.copy_(state["arch_params"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.arch_optimizer.load_state_dict(state["arch_optimizer"])
        self.epoch, self.seconds = int(state["epoch"]), float(state["seconds"])

    def run_epoch(self) -> dict[str, Any]:
        """One pass over both halves; the epoch's numbers."""
        began = time.monotonic()
        rate = self.recipe.learning_rate_at(self.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator(self.device).manual_seed(epoch_seed(self.seed, self.epoch))
        orders = [
            torch.randperm(len(part[1]), generator=generator, device=self.device).split(
                self.recipe.batch_size
            )
            for part in (self.train_part, self.validation_part)
        ]
        self.supernet.train()
        total, seen = torch.zeros((), device=self.device), 0
        for train_rows, validation_rows in zip(*orders):
            if len(train_rows) < 2:  # batch norm of one image is no statistic
                continue
            train = self._batch(self.train_part, train_rows, generator)
            validation = self._batch(self.validation_part, validation_rows, generator)
            self._move_architecture(train, validation, rate)
            total += len(train_rows) * self._move_weights(train)
            seen += len(train_rows)
        self._check("loss", loss := float(total) / seen)
        self._check("architecture parameters", float(self.arch_params.detach().sum()))
        accuracy = self._accuracy()
        self.epoch += 1
        self.seconds += time.monotonic() - began
        return {
            "loss": loss,
            "validation": accuracy,
            "learning_rate": rate,
            "genotype": str(discretize(self.arch_params)),
        }

    def _check(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{what}: {value} in epoch {self.epoch}; lower learning_rate "
                f"({self.recipe.learning_rate:g}) or arch_learning_rate "
                f"({self.recipe.arch_learning_rate:g})"
            )

    def _batch(
        self, part: tuple[Tensor, Tensor], rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        pixels = augment(
            part[0][rows], generator, padding=self.recipe.padding, flip=self.recipe.flip
        )
        return normalize(pixels, self.mean, self.std).contiguous(), part[1][rows]

    def _loss(
        self, batch: tuple[Tensor, Tensor], weights: dict[str, Tensor] | None = None
    ) -> Tensor:
        images, labels = batch
        arguments = (images, self.arch_params)
        if weights is None:
            logits = self.supernet(*arguments)
        else:
            logits = functional_call(self.supernet, weights, arguments)
        loss = F.cross_entropy(logits, labels)
        if self.device.type == "cpu":  # where looking is free and max pooling of NaN crashes torch
            self._check("loss", loss.item())
        return loss

    def _move_weights(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """One step of SGD on the training loss, which is returned."""
        loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=list(self.supernet.parameters()))
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        return loss.detach()

    def _move_architecture(
        self, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], rate: float
    ) -> None:
        """One step of Adam on the validation loss."""
        if self.recipe.order == 1:
            (gradient,) = torch.autograd.grad(self._loss(validation), self.arch_params)
        else:
            gradient = self._second_order(train, validation, rate)
        self.arch_params.grad = gradient
        self.arch_optimizer.step()

    def _second_order(
        self, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], rate: float
    ) -> Tensor:
        """The gradient of the module's docstring."""
        names = [name for name, _ in self.supernet.named_parameters()]
        weights = list(self.supernet.parameters())
        with torch.no_grad():
            ahead = [
                weight - rate * step for weight, step in zip(weights, self._step(train, weights))
            ]
        moved = {name: weight.requires_grad_() for name, weight in zip(names, ahead)}
        loss = self._loss(validation, moved)
        direct, *along = torch.autograd.grad(loss, [self.arch_params, *moved.values()])
        norm = torch.stack([part.square().sum() for part in along]).sum().sqrt()
        epsilon = _PERTURBATION / norm
        sides = []
        for sign in (1, -1):
            shifted = {
                name: weight.detach() + sign * epsilon * part
                for name, weight, part in zip(names, weights, along)
            }
            sides.append(torch.autograd.grad(self._loss(train, shifted), self.arch_params)[0])
        return direct - rate * (sides[0] - sides[1]) / (2 * epsilon)

    @torch.enable_grad()
    def _step(self, train: tuple[Tensor, Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        """What SGD would subtract from the weights, but for the rate: momentum and decay too."""
        gradients = torch.autograd.grad(self._loss(train), weights)
        steps = []
        for weight, gradient in zip(weights, gradients):
            step = gradient + self.recipe.weight_decay * weight.detach()
            buffer = self.optimizer.state[weight].get("momentum_buffer")
            steps.append(step if buffer is None else step + self.recipe.momentum * buffer)
        return steps

    @torch.no_grad()
    def _accuracy(self) -> float:
        """Of the supernet on the second half."""
        self.supernet.eval()
        hits = torch.zeros((), device=self.device)
        pixels, labels = self.validation_part
        for images, of in zip(pixels.split(512), labels.split(512)):
            logits = self.supernet(normalize(images, self.mean, self.std), self.arch_params)
            hits += (logits.argmax(1) == of).sum() + 0 * logits.sum()  # NaN stays
        self._check("accuracy", accuracy := float(hits) / len(labels))
        return accuracy

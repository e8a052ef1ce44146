# SPDX-License-Identifier: Apache-2.0
"""How a network is trained: every setting as a named field, the published ones as presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from arch2vec_fast.spaces.darts import DartsNetwork

__all__ = ["TrainRecipe"]

# Fields that came later. Where all of them are zero they are left out of `to_dict`, so directories
# and stores from before stay those of the same training.
_COLOURS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """All settings of a training that are not the images. Defaults are those of the final
    CIFAR-10 training of DARTS and arch2vec.

    Network
        channels, layers, stem: see `spaces.darts.DartsNetwork`.
        auxiliary_weight: of the auxiliary head's loss; 0 leaves the head out.
        drop_path: probability in the last epoch; it grows linearly from 0.
    Optimisation
        epochs, batch_size, learning_rate, momentum, weight_decay, grad_clip: SGD.
        schedule: `cosine` to 0, or `exponential`, times `decay` an epoch.
        label_smoothing: of the training loss.
    Images
        padding: pixels of zeros around an image before a random crop of its size; 0: no crop.
        flip: mirror half of the images.
        brightness, contrast, saturation, hue: how far colours are changed at random, see
            `augment.jitter`; 0: not.
        cutout: side of the square that is blanked; 0: none.
        Images in files are cropped at random and scaled as well, see `image_folders`.
    Validation
        validation_fraction: of the training images, the last in order, held out; 0: none.
        mean_of_last: validation accuracies, from the end, whose mean is the result.
    """

    name: str
    channels: int = 36
    layers: int = 20
    stem: Literal["cifar", "imagenet"] = "cifar"
    auxiliary_weight: float = 0.4
    drop_path: float = 0.2
    epochs: int = 600
    batch_size: int = 96
    learning_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    grad_clip: float = 5.0
    schedule: Literal["cosine", "exponential"] = "cosine"
    decay: float = 0.97
    label_smoothing: float = 0.0
    padding: int = 4
    flip: bool = True
    cutout: int = 16
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    validation_fraction: float = 0.0
    mean_of_last: int = 5

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            choices = get_args(hint)
            if choices and getattr(self, name) not in choices:
                raise ValueError(
                    f"recipe.{name}: unknown value {getattr(self, name)!r}; "
                    f"choose one of {', '.join(map(repr, choices))}"
                )
        for name, least in (("epochs", 1), ("mean_of_last", 1), ("batch_size", 2)):
            if getattr(self, name) < least:  # batch norm of one image is no statistic
                raise ValueError(f"recipe.{name}: {getattr(self, name)} is below {least}")
        for name in (
            "auxiliary_weight",
            "weight_decay",
            "padding",
            "cutout",
            "momentum",
            *_COLOURS,
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"recipe.{name}: {getattr(self, name)} is negative")
        if self.hue > 0.5:
            raise ValueError(f"recipe.hue: {self.hue} is above 0.5, half of the colour circle")
        for name in ("learning_rate", "grad_clip", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"recipe.{name}: {getattr(self, name)} is not positive")
        for name in ("drop_path", "label_smoothing", "validation_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"recipe.{name}: {getattr(self, name)} is outside [0, 1)")
        self.network(classes=2)  # channels and layers

    def network(self, classes: int) -> DartsNetwork:
        """The network's size for `classes` classes."""
        return DartsNetwork(
            channels=self.channels, layers=self.layers, classes=classes, stem=self.stem
        )

    def learning_rate_at(self, epoch: int) -> float:
        """Of epoch 0, 1, ...; constant within one."""
        if self.schedule == "exponential":
            return self.learning_rate * self.decay**epoch
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def drop_path_at(self, epoch: int) -> float:
        """Of epoch 0, 1, ...: `drop_path` times the share of epochs that are over."""
        return self.drop_path * epoch / self.epochs

    @property
    def changes_colours(self) -> bool:
        """Whether `augment.jitter` has anything to do."""
        return any(getattr(self, name) for name in _COLOURS)

    def check_images(self, name: str, size: tuple[int, int]) -> None:
        """ValueError where the network does not fit images of height and width `size`.

        Said before hours of work, and before anything is written.
        """
        height, width = size
        side = 32 if self.stem == "cifar" else 224
        if self.auxiliary_weight > 0 and size != (side, side):
            raise ValueError(
                f"recipe: {self.name} has an auxiliary head for images of {side}x{side}, {name} "
                f"has {height}x{width}; choose small, or other images"
            )
        if self.stem == "imagenet" and (height % 32 or width % 32):
            raise ValueError(
                f"recipe: {self.name} halves images five times, {name} has {height}x{width}; "
                "choose small, or images with sides that are multiples of 32"
            )

    # -- presets ---------------------------------------------------------------------------

    @classmethod
    def cifar10(cls) -> TrainRecipe:
        """The final training of DARTS and arch2vec on CIFAR-10: 600 epochs, all images."""
        return cls(name="cifar10")

    @classmethod
    def query(cls) -> TrainRecipe:
        """One query of the released arch2vec search: 50 epochs, a tenth held out."""
        return replace(cls.cifar10(), name="query", epochs=50, validation_fraction=0.1)

    @classmethod
    def imagenet(cls) -> TrainRecipe:
        """The ImageNet transfer: 250 epochs, mobile setting; no auxiliary head, as released."""
        return cls(
            name="imagenet",
            channels=48,
            layers=14,
            stem="imagenet",
            auxiliary_weight=0.0,
            drop_path=0.0,
            epochs=250,
            batch_size=128,
            learning_rate=0.1,
            weight_decay=3e-5,
            schedule="exponential",
            label_smoothing=0.1,
            padding=0,
            cutout=0,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.2,
        )

    @classmethod
    def small(cls) -> TrainRecipe:
        """Minutes on two CPU cores: 8 channels, 5 layers; for small images and for trying out."""
        return cls(
            name="small",
            channels=8,
            layers=5,
            auxiliary_weight=0.0,
            drop_path=0.0,
            epochs=8,
            batch_size=64,
            learning_rate=0.1,
            padding=2,
            flip=False,
            cutout=0,
            validation_fraction=0.1,
            mean_of_last=1,
        )

    @classmethod
    def get(cls, name: str) -> TrainRecipe:
        """The preset called `name`.

        >>> TrainRecipe.get("query").epochs
        50
        """
        if name not in cls.names():
            raise ValueError(f"recipe: no preset {name!r}; choose one of {', '.join(cls.names())}")
        preset: TrainRecipe = getattr(cls, name)()
        return preset

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names that `get` takes."""
        return ("query", "cifar10", "imagenet", "small")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; without those of the colours where none is changed."""
        values = asdict(self)
        if not self.changes_colours:
            for name in _COLOURS:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainRecipe:
        """Inverse of `to_dict`; unknown or missing fields are an error, never a default."""
        known = {field.name for field in fields(cls)}
        if known.intersection(_COLOURS).isdisjoint(values):
            known.difference_update(_COLOURS)
        if odd := sorted(known.symmetric_difference(values)):
            raise ValueError(f"recipe: unknown or missing fields {', '.join(odd)}")
        return cls(**values)

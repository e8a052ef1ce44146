# SPDX-License-Identifier: Apache-2.0
"""What a training asks of its images: one small seam, whether memory holds them or not.

Labels and the order of an epoch belong to the trainer; only pixels come through `Pixels`, a batch
at a time. `images.ImageSet` gathers them on the device, `image_folders.ImageFolders` decodes files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["HeldPixels", "ImageSource", "Part", "Pixels"]

Part = Literal["train", "test"]


class Pixels(Protocol):
    """The images of one part of a data set."""

    def batches(
        self, orders: Sequence[Tensor], draw: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """uint8 [B, 3, H, W] on the training's device for each rows, int64 [B], of `orders`.

        draw: (seed, epoch), from which crops follow that are a part of decoding; None: as images
        are validated and tested. The same arguments give the same bits.
        """
        ...


class ImageSource(Protocol):
    """A data set; its fields are those of `images.ImageSet`."""

    @property
    def name(self) -> str: ...
    @property
    def train_labels(self) -> Tensor: ...
    @property
    def test_labels(self) -> Tensor: ...
    @property
    def classes(self) -> int: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def sha256(self) -> str:
        """Of the contents, as far as they are known without decoding them."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what `pixels` gives."""
        ...

    def pixels(self, part: Part, rows: slice, device: torch.device) -> Pixels:
        """The images `rows` of a part, for a training on `device`."""
        ...


class HeldPixels:
    """`Pixels` of images that the device holds: uint8 [n, 3, H, W]."""

    def __init__(self, images: Tensor) -> None:
        self._images = images

    def batches(
        self, orders: Sequence[Tensor], draw: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """See `Pixels`; nothing is drawn here."""
        for rows in orders:
            yield self._images[rows]

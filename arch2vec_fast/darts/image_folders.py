# SPDX-License-Identifier: Apache-2.0
"""ImageNet and other folders that no memory holds: files are listed once and decoded as needed.

    images = open_folders("imagenet")     # imagenet/train/CLASS/*.JPEG, imagenet/val/CLASS/*.JPEG
    train(genotype, images, TrainRecipe.imagenet(), out="runs/imagenet", device="cuda")

Worker processes of torch's DataLoader decode, crop and scale with Pillow; mirror, colours and
normalisation are steps of the whole batch on the device (`darts.augment`). A crop and its scaling
are one `resize(box=...)`, of a JPEG that was decoded at an eighth, a quarter or half of its size
where the crop is so large that no pixel of the result misses anything (`draft`).

The random crop of an image follows from (seed, epoch, place of the image in the list) and nothing
else: the number of workers changes no bit.

Source: crops and sizes of torchvision's RandomResizedCrop, Resize and CenterCrop, which the
released `darts/cnn/train_imagenet.py` calls with their defaults.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from arch2vec_fast._machine import usable_cores
from arch2vec_fast.darts.source import Part

__all__ = [
    "FileNames",
    "ImageFolders",
    "centre_box",
    "dead_workers_named",
    "open_folders",
    "random_box",
]

_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_HINT = "give the folder of train/CLASS/*.JPEG and val/CLASS/*.JPEG"
_MOST_WORKERS = 16
# Shares of the image's area and width / height of a random crop.
_SCALES, _RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


class FileNames:
    """Many file names in two arrays.

    A million Python strings take 100 MB, which every forked worker would come to copy, because
    reading an object writes its reference count; the pages of an array stay shared.
    """

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        first, last = self._ends[index], self._ends[index + 1]
        return os.fsdecode(self._bytes[first:last].tobytes())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFolders:
    """Images that are read while a network is trained; made by `open_folders`.

    class_names: sorted; a label is a place among them. train_files, test_files: paths below `root`,
    the training ones in a fixed shuffled order, so that the last part of them, which a recipe holds
    out, has images of all classes. test: what the folder calls val. mean, std: ImageNet's, as every
    published ImageNet number has them. workers: processes that decode; 0: the training's own.
    sha256: the first half of the digest of the names and sizes of all files.
    """

    root: Path
    size: int
    workers: int
    class_names: tuple[str, ...]
    train_files: FileNames
    train_labels: Tensor
    test_files: FileNames
    test_labels: Tensor
    sha256: str
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.root.resolve().name

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Of the crops."""
        return self.size, self.size

    def pixels(self, part: Part, rows: slice, device: torch.device) -> _DecodedPixels:
        """See `ImageSource`."""
        files = self.train_files if part == "train" else self.test_files
        return _DecodedPixels(self, files, rows.indices(len(files))[0], device)

    def __repr__(self) -> str:
        return (
            f"ImageFolders({self.name}: {len(self.train_files):,} + {len(self.test_files):,} "
            f"images, {self.classes} classes, crops of {self.size}x{self.size})"
        )


def open_folders(path: str | Path, *, size: int = 224, workers: int | None = None) -> ImageFolders:
    """The images path/train/CLASS/* and path/val/CLASS/*; labels number the sorted class folders.

    size: side of the square that a network sees. workers: processes that decode, None: one a core,
    16 at most. No image is opened here; one that cannot be decoded is a ValueError, which names it,
    when its turn comes. Needs Pillow.

    Raises ValueError or OSError, one line: no such folder, no class folders, a class without
    training images, a class of val that train lacks.
    """
    root = Path(path)
    _pillow()
    if size < 1:
        raise ValueError(f"size: {size} is below 1")
    if workers is None:
        workers = min(_MOST_WORKERS, usable_cores())
    if workers < 0:
        raise ValueError(f"workers: {workers} is negative; 0 decodes in the training's process")
    for folder in (root, root / "train", root / "val"):
        if not folder.is_dir():
            raise FileNotFoundError(f"data: {folder} is no folder; {_HINT}")
    names = _class_names(root / "train")
    if odd := sorted(set(_class_names(root / "val")) - set(names)):
        raise ValueError(f"data: {root / 'val' / odd[0]} is a class that {root / 'train'} lacks")
    digest = hashlib.sha256()
    if len(names) < 2:
        raise ValueError(f"data: {root / 'train'} has one class; there is nothing to tell")
    train, test = (_list_files(root, part, names, digest.update) for part in ("train", "val"))
    counts = np.bincount(train[1], minlength=len(names))
    if not counts.all():
        empty = root / "train" / names[int(counts.argmin())]
        raise ValueError(f"data: {empty} holds no images ({', '.join(_ENDINGS)})")
    if not test[0]:
        raise ValueError(f"data: {root / 'val'} holds no images; {_HINT}")
    shuffled = np.random.default_rng(0).permutation(len(train[0]))
    return ImageFolders(
        root=root,
        size=size,
        workers=workers,
        class_names=tuple(names),
        train_files=FileNames([train[0][place] for place in shuffled]),
        train_labels=torch.from_numpy(train[1][shuffled]),
        test_files=FileNames(test[0]),
        test_labels=torch.from_numpy(test[1]),
        sha256=digest.hexdigest()[:32],
    )


def _class_names(folder: Path) -> list[str]:
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise ValueError(
            f"data: {folder} has no class folders; move its images into one folder a class"
        )
    return names


def _list_files(
    root: Path, part: str, names: list[str], note: Callable[[bytes], None]
) -> tuple[list[str], NDArray[np.int64]]:
    """Paths below `root` in order of class and file name, and labels.

    note: hears of each path and its file's size.
    """
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        if not (root / part / name).is_dir():
            continue
        found = sorted(
            (f"{part}/{name}/{entry.name}", entry.stat().st_size)
            for entry in os.scandir(root / part / name)
            if entry.name.lower().endswith(_ENDINGS)
        )
        note(b"".join(b"%s %d\0" % (os.fsencode(file), size) for file, size in found))
        files += [file for file, _ in found]
        labels += [label] * len(found)
    return files, np.array(labels, np.int64)


class _DecodedPixels:
    """`Pixels` of the files from `first` on."""

    def __init__(
        self, images: ImageFolders, files: FileNames, first: int, device: torch.device
    ) -> None:
        self._images, self._files, self._first, self._device = images, files, first, device

    def batches(
        self, orders: Sequence[Tensor], draw: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """See `Pixels`."""
        cuda = self._device.type == "cuda"
        loader: DataLoader[Tensor | str] = DataLoader(
            _Decoder(self._images.root, self._files, self._images.size, draw),
            batch_sampler=[(rows + self._first).tolist() for rows in orders],
            num_workers=self._images.workers,
            collate_fn=_collate,
            pin_memory=cuda,
            generator=torch.Generator(),  # else it would draw from the one of the whole process
        )
        with dead_workers_named():
            for batch in loader:
                if isinstance(batch, str):
                    raise ValueError(batch)
                yield batch.to(self._device, non_blocking=cuda).permute(0, 3, 1, 2)


@contextmanager
def dead_workers_named() -> Iterator[None]:
    """A decoding process that was killed becomes an OSError of one line.

    DataLoader tells of it by a signal, so its RuntimeError may come up anywhere in a training.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OSError(
            f"data: a process that decodes images was killed ({error}); if memory is short, use "
            "fewer workers; the same training goes on from its last epoch"
        ) from None


class _Decoder(Dataset[Tensor | str]):
    """Image `index` as uint8 [size, size, 3], or what is wrong with its file."""

    def __init__(
        self, root: Path, files: FileNames, size: int, draw: tuple[int, int] | None
    ) -> None:
        self._root, self._files, self._size, self._draw = root, files, size, draw

    def __getitem__(self, index: int) -> Tensor | str:
        path = self._root / self._files[index]
        if self._draw is None:
            return _decode(path, self._size, lambda wide, high: centre_box(wide, high, self._size))
        seed, epoch = self._draw
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, index)))
        return _decode(path, self._size, lambda wide, high: random_box(wide, high, rng))


def _collate(items: list[Tensor | str]) -> Tensor | str:
    """A batch, or the first error: an exception that leaves a worker becomes a page of text."""
    for item in items:
        if isinstance(item, str):
            return item
    batch: Tensor = default_collate(items)
    return batch


def _decode(path: Path, size: int, choose: Callable[[int, int], Box]) -> Tensor | str:
    """The part of an image that `choose(width, height)` says, scaled to `size`, as bytes RGB."""
    image_module = _pillow()
    try:
        with image_module.open(path) as image:
            width, height = image.size
            box = choose(width, height)
            across, down = box[2] - box[0], box[3] - box[1]
            # Of a JPEG alone: the smallest decoding in which the box has `size` pixels or more.
            wanted = (math.ceil(width * size / across), math.ceil(height * size / down))
            if (drafted := image.draft(None, wanted)) is not None:
                share = drafted[1][2] / width  # 1, 1/2, 1/4 or 1/8; image.size is rounded up
                box = (box[0] * share, box[1] * share, box[2] * share, box[3] * share)
            colours = image if image.mode == "RGB" else image.convert("RGB")
            scaled = colours.resize((size, size), image_module.Resampling.BILINEAR, box=box)
            return torch.from_numpy(np.array(scaled))
    except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
        return f"data: {path} cannot be decoded ({error}); replace it, or take it out"


def random_box(width: int, height: int, rng: np.random.Generator) -> Box:
    """A crop of 8 to 100 % of the area, uniform, and of 3:4 to 4:3, uniform in its logarithm.

    Ten tries to find one inside the image, then the largest in the middle of it.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*_SCALES)
        ratio = math.exp(rng.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left = int(rng.integers(width - across + 1))
            top = int(rng.integers(height - down + 1))
            return left, top, left + across, top + down
    across = min(width, max(1, round(height * _RATIOS[1])))
    down = min(height, max(1, round(width / _RATIOS[0])))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def centre_box(width: int, height: int, size: int) -> Box:
    """The middle `size` x `size` of the image scaled to a shorter side of 8/7 `size` (256 of 224),
    in pixels of the image as it is.

    >>> centre_box(512, 512, 224)
    (32.0, 32.0, 480.0, 480.0)
    """
    shorter = round(size * 8 / 7)
    scaled = (shorter, int(shorter * height / width))
    if height < width:
        scaled = (int(shorter * width / height), shorter)
    left, top = (round((side - size) / 2) for side in scaled)
    across, down = width / scaled[0], height / scaled[1]
    return left * across, top * down, (left + size) * across, (top + size) * down


def _pillow() -> Any:
    """Its module `Image`."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("data: image folders need Pillow; install arch2vec-fast[darts]") from None
    return Image

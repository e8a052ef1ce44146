# SPDX-License-Identifier: Apache-2.0
"""Images to train networks on: small sets in memory, loaded from the files people have.

| name | from | images |
|---|---|---|
| digits | scikit-learn, nothing to download | 1,797 of 8x8, doubled to 16x16, 10 classes |
| fashion-mnist | the folder of official .gz files, or an .npz of x_train, ... | 32x32 (padded) |
| cifar10 | the folder `cifar-10-batches-py` of the official python version | 60,000 of 32x32 |
| folder | train/CLASS/*.png and test/CLASS/*.png, all of one size | any |

Pixels stay uint8 and channels are three (grey ones repeated), so that one training step serves all.
ImageNet, which no memory holds, is `darts.image_folders`.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast._pickles import read_pickled_arrays
from arch2vec_fast.darts.source import HeldPixels, Part

__all__ = ["ImageSet", "image_sets", "load_images"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """Images and labels of one data set.

    train_images, test_images: uint8 [n, 3, H, W]. train_labels, test_labels: int64 [n].
    mean, std: of each channel over the training images, in units of [0, 1]. sha256: the first half
    of the digest of all pixels and labels.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for part in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(np.ascontiguousarray(part.cpu().numpy()).data.cast("B"))
        object.__setattr__(self, "sha256", digest.hexdigest()[:32])

    @property
    def image_size(self) -> tuple[int, int]:
        """H and W."""
        height, width = self.train_images.shape[2:]
        return height, width

    def pixels(self, part: Part, rows: slice, device: torch.device) -> HeldPixels:
        """See `ImageSource`."""
        images = self.train_images if part == "train" else self.test_images
        return HeldPixels(images[rows].to(device))

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_size))
        return (
            f"ImageSet({self.name}: {len(self.train_labels):,} + {len(self.test_labels):,} images "
            f"of {size}, {self.classes} classes)"
        )


def image_sets() -> tuple[str, ...]:
    """Names that `load_images` takes."""
    return tuple(_LOADERS)


def load_images(name: str, path: str | Path | None = None) -> ImageSet:
    """The data set called `name` from the files at `path`.

    Raises ValueError or OSError, one line, for an unknown name and for files that are missing,
    truncated or of another kind.

    >>> load_images("digits")
    ImageSet(digits: 1,437 + 360 images of 16x16, 10 classes)
    """
    if name == "imagenet":
        raise ValueError(
            "data: imagenet is not held in memory; `darts train` reads its files as it goes, but "
            f"here choose one of {', '.join(_LOADERS)}"
        )
    if name not in _LOADERS:
        raise ValueError(
            f"data: unknown image set {name!r}; choose one of {', '.join(_LOADERS)}, or imagenet "
            "for `darts train` and `transfer`"
        )
    if name == "digits":
        return _load_digits(Path())
    if path is None:
        raise ValueError(f"data: {name} is read from files; say where they are, {name}:PATH")
    if not Path(path).exists():
        raise FileNotFoundError(f"data: {path} does not exist; {_HINTS[name]}")
    return _LOADERS[name](Path(path))


def _image_set(
    name: str,
    train: tuple[NDArray[np.uint8], NDArray[np.integer]],
    test: tuple[NDArray[np.uint8], NDArray[np.integer]],
    *,
    shuffle: bool = False,
) -> ImageSet:
    """From images [n, H, W] or [n, H, W, 3] and labels.

    shuffle: put the training images into a fixed order of chance. Recipes hold out the last ones:
    where files are sorted, by class or by how they were picked, those are of few classes.
    """
    for pixels, of in (train, test):
        _check_part(name, pixels, of)
    size, other = (pixels.shape[1:3] for pixels, _ in (train, test))
    if size != other:
        raise ValueError(
            f"data: {name} has training images of {size[0]}x{size[1]} but test images of "
            f"{other[0]}x{other[1]}; resize them all"
        )
    if shuffle:
        order = np.random.default_rng(0).permutation(len(train[1]))
        train = train[0][order], train[1][order]
    if len(np.unique(train[1])) < 2:
        raise ValueError(f"data: {name} has training images of one class; there is nothing to tell")
    images = [_to_channels(part[0]) for part in (train, test)]
    labels = [torch.from_numpy(np.ascontiguousarray(part[1], np.int64)) for part in (train, test)]
    # Sums of bytes are exact in float64; a float copy of all images would be four times as large.
    flat = images[0].transpose(0, 1).flatten(1)
    counts = torch.stack([torch.bincount(channel.int(), minlength=256) for channel in flat])
    levels = torch.arange(256, dtype=torch.float64) / 255
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = share @ levels
    std = (share @ levels.square() - mean.square()).clamp(min=1e-8).sqrt()
    return ImageSet(
        name=name,
        train_images=images[0],
        train_labels=labels[0],
        test_images=images[1],
        test_labels=labels[1],
        classes=int(torch.cat(labels).max()) + 1,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
    )


def _check_part(name: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
    """ValueError where a network could not be trained on these, or not on what they mean."""
    if images.ndim != 3 and (images.ndim != 4 or images.shape[3] != 3):
        raise ValueError(
            f"data: {name} has images of shape {images.shape}; give [n, H, W] or [n, H, W, 3]"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"data: {name} has labels of shape {labels.shape} and type {labels.dtype}; "
            "give one whole number an image"
        )
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"data: {name} has {len(images)} images but {len(labels)} labels")
    if labels.min() < 0:
        raise ValueError(f"data: {name} has a label of {labels.min()}; number classes from 0")
    height, width = images.shape[1:3]
    if height % 4 or width % 4:
        raise ValueError(
            f"data: {name} has images of {height}x{width}, which networks cannot halve twice; "
            "pad or resize them to multiples of 4"
        )


def _to_channels(images: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    if pixels.dim() == 3:
        return pixels[:, None].expand(-1, 3, -1, -1).contiguous()
    return pixels.permute(0, 3, 1, 2).contiguous()


def _load_digits(path: Path) -> ImageSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(
            "data: digits needs scikit-learn; install arch2vec-fast[darts], or use other images"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = images.repeat(2, axis=1).repeat(2, axis=2)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    return _image_set("digits", (images[train], labels[train]), (images[test], labels[test]))


_FASHION_FILES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}


def _load_fashion_mnist(path: Path) -> ImageSet:
    if path.is_dir():
        arrays = {name: _read_idx(path / file) for name, file in _FASHION_FILES.items()}
    else:
        arrays = _read_npz(path)
    padding = ((0, 0), (2, 2), (2, 2))
    for part in ("train", "test"):
        if arrays[f"x_{part}"].shape[1:] != (28, 28):
            raise ValueError(f"data: the images of {path} are not 28x28; save [n, 28, 28]")
    parts = [
        (np.pad(arrays[f"x_{part}"], padding), arrays[f"y_{part}"]) for part in ("train", "test")
    ]
    return _image_set("fashion-mnist", parts[0], parts[1], shuffle=True)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """One file of the MNIST family: magic number, sizes, bytes."""
    if not path.is_file():
        raise FileNotFoundError(f"data: {path} does not exist; {_HINTS['fashion-mnist']}")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"data: {path} is no whole .gz file ({error})") from None
    dims = content[3] if content[:3] == b"\0\0\x08" and len(content) > 4 else 0
    start = 4 + 4 * dims
    shape = (
        struct.unpack(f">{dims}I", content[4:start]) if dims and len(content) >= start else (-1,)
    )
    if len(content) - start != math.prod(shape):
        raise ValueError(f"data: {path} is not an IDX file of bytes, or is truncated")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_npz(path: Path) -> dict[str, NDArray[np.uint8]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _FASHION_FILES if name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy, by where the file is cut
        raise ValueError(f"data: {path} is no whole .npz file ({error})") from None
    if missing := set(_FASHION_FILES) - set(arrays):
        raise ValueError(f"data: {path} lacks the arrays {', '.join(sorted(missing))}")
    if any(arrays[f"x_{part}"].dtype != np.uint8 for part in ("train", "test")):
        raise ValueError(f"data: the images of {path} are not bytes; save them as uint8 [n, H, W]")
    return arrays


def _load_cifar10(path: Path) -> ImageSet:
    folder = path / "cifar-10-batches-py" if (path / "cifar-10-batches-py").is_dir() else path
    parts = [
        [_read_cifar(folder / name) for name in names]
        for names in ([f"data_batch_{index}" for index in range(1, 6)], ["test_batch"])
    ]
    train, test = (
        (np.concatenate([pixels for pixels, _ in part]), np.concatenate([of for _, of in part]))
        for part in parts
    )
    return _image_set("cifar10", train, test)


def _read_cifar(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if not path.is_file():
        raise FileNotFoundError(f"data: {path} does not exist; {_HINTS['cifar10']}")
    content = read_pickled_arrays(path)
    pixels, labels = (
        (content.get(b"data"), content.get(b"labels"))
        if isinstance(content, dict)
        else (None, None)
    )
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (3072,)
        or not isinstance(labels, list)
    ):
        raise ValueError(f"data: {path} is not a batch of CIFAR-10's python version")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, np.array(labels, np.int64)


def _load_folder(path: Path) -> ImageSet:
    names = sorted(folder.name for folder in (path / "train").glob("*") if folder.is_dir())
    if not names:
        raise ValueError(f"data: {path} has no train/CLASS folders; {_HINTS['folder']}")
    known = {folder.name for folder in (path / "test").glob("*") if folder.is_dir()}
    if odd := sorted(known - set(names)):
        raise ValueError(f"data: {path / 'test' / odd[0]} is a class that {path / 'train'} lacks")
    train, test = (_read_tree(path / part, names) for part in ("train", "test"))
    return _image_set(path.name, train, test, shuffle=True)


def _read_tree(path: Path, names: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images below path/CLASS, in order of class and file name."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImportError("data: image folders need Pillow; install arch2vec-fast[darts]") from None
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        for file in sorted((path / name).iterdir()) if (path / name).is_dir() else ():
            if file.name.startswith("."):  # what file managers leave
                continue
            try:
                with Image.open(file) as image:
                    images.append(np.asarray(image.convert("RGB")))
            except (UnidentifiedImageError, OSError) as error:
                raise ValueError(
                    f"data: {file} is no image ({error}); replace it, or take it out"
                ) from None
            labels.append(label)
            if images[-1].shape != images[0].shape:
                raise ValueError(
                    f"data: {file} is of another size than the images before it; resize them all"
                )
    if not images:
        raise ValueError(f"data: {path} holds no images; {_HINTS['folder']}")
    return np.stack(images), np.array(labels, np.int64)


_LOADERS: dict[str, Callable[[Path], ImageSet]] = {
    "digits": _load_digits,
    "fashion-mnist": _load_fashion_mnist,
    "cifar10": _load_cifar10,
    "folder": _load_folder,
}
_HINTS = {
    "fashion-mnist": "give the folder of train-images-idx3-ubyte.gz and its three companions",
    "cifar10": "give the folder cifar-10-batches-py of the unpacked python version",
    "folder": "give a folder with train/CLASS/*.png and test/CLASS/*.png",
}

# SPDX-License-Identifier: Apache-2.0
"""Training from folders of files: what is read, that no bit depends on how, and what is refused."""

import math
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from arch2vec_fast.darts.image_folders import (
    FileNames,
    ImageFolders,
    centre_box,
    open_folders,
    random_box,
)
from arch2vec_fast.darts.images import load_images
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.train import evaluate, train
from arch2vec_fast.spaces.darts import Genotype

image_module = pytest.importorskip("PIL.Image")
# Python from 3.12 on warns of what DataLoader has always done.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

CPU = torch.device("cpu")
SIZE = 16
GENOTYPE = Genotype.from_items(
    "0:sep_conv_3x3|1:skip_connect|0:max_pool_3x3|1:skip_connect"
    "|2:skip_connect|0:avg_pool_3x3|3:none|1:skip_connect"
)
TINY = replace(
    TrainRecipe.small(), channels=4, layers=3, epochs=2, batch_size=8, padding=0, flip=True,
    validation_fraction=0.25, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2,
)  # fmt: skip


def write_images(root: Path, train: int = 12, val: int = 5) -> Path:
    """Classes red, green and blue of JPEG and PNG files in various sizes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for channel, name in enumerate(("red", "green", "blue")):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                height, width = rng.integers(20, 60, 2)
                pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
                pixels[..., channel] += 130
                ending = ("JPEG", "png", "JPG")[index % 3]
                image_module.fromarray(pixels).save(root / part / name / f"{index:03}.{ending}")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "colours")


@pytest.fixture
def folders(root: Path) -> ImageFolders:
    return open_folders(root, size=SIZE, workers=0)


def pixels(
    images: ImageFolders, *orders: list[int], draw: tuple[int, int] | None = None, first: int = 0
) -> list[torch.Tensor]:
    part = images.pixels("train", slice(first, None), CPU)
    return list(part.batches([torch.tensor(rows) for rows in orders], draw))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "weights.pt", weights_only=True)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_classes_and_files_as_torchvision_sorts_them(root: Path, folders: ImageFolders) -> None:
    assert folders.class_names == ("blue", "green", "red")
    assert folders.test_labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert [folders.test_files[index] for index in range(3)] == [
        "val/blue/000.JPEG", "val/blue/001.png", "val/blue/002.JPG",
    ]  # fmt: skip
    names = [folders.train_files[index] for index in range(36)]
    assert sorted(names) == sorted(f"{path.relative_to(root)}" for path in root.glob("train/*/*"))
    for name, label in zip(names, folders.train_labels.tolist()):
        assert Path(name).parent.name == folders.class_names[label]
    assert set(folders.train_labels[-18:].tolist()) == {0, 1, 2}  # what a half held out sees
    assert repr(folders) == "ImageFolders(colours: 36 + 15 images, 3 classes, crops of 16x16)"
    again = open_folders(root, size=SIZE, workers=0)
    assert [again.train_files[index] for index in range(36)] == names


def test_other_files_are_other_images(tmp_path: Path) -> None:
    root = write_images(tmp_path / "colours", train=3, val=2)
    seen = [open_folders(root).sha256 for _ in range(2)]
    image = root / "val" / "red" / "000.JPEG"
    image.write_bytes(image.read_bytes() + b"0")
    seen.append(open_folders(root).sha256)
    image.rename(image.with_name("0.JPEG"))
    seen.append(open_folders(root).sha256)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_file_names_are_kept_whole() -> None:
    names = ["a", "träin/ü 1.png", "", "x" * 300]
    kept = pickle.loads(pickle.dumps(FileNames(names)))
    assert [kept[index] for index in range(len(kept))] == names


def test_an_image_is_its_own_whoever_decodes_it(root: Path) -> None:
    orders = [0, 5, 2, 30], [7, 35, 1], [11]
    expected = pixels(open_folders(root, size=SIZE, workers=0), *orders, draw=(3, 1))
    for workers in (1, 2):
        found = pixels(open_folders(root, size=SIZE, workers=workers), *orders, draw=(3, 1))
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_crop_follows_from_seed_epoch_and_image(folders: ImageFolders) -> None:
    (batch,) = pixels(folders, [4, 9, 20], draw=(3, 1))
    assert batch.shape == (3, 3, SIZE, SIZE)
    assert batch.dtype == torch.uint8
    (other,) = pixels(folders, [20, 4], draw=(3, 1))
    assert torch.equal(other, batch[[2, 0]])
    (shifted,) = pixels(folders, [10], draw=(3, 1), first=10)  # image 20 of all
    assert torch.equal(shifted[0], batch[2])
    for draw in ((3, 2), (4, 1), None):
        (other,) = pixels(folders, [4, 9, 20], draw=draw)
        assert not torch.equal(other, batch)
    state = torch.get_rng_state()
    pixels(folders, [0], draw=(0, 0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (64, 400), (3000, 10), (1, 1)])
def test_random_crops_keep_to_scale_and_ratio(width: int, height: int) -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(width, height, rng) for _ in range(1000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    across, down = right - left, bottom - top
    assert (across >= 1).all()
    assert (down >= 1).all()
    if (width, height) != (500, 375):
        return
    share, ratio = across * down / (width * height), np.log(across / down)
    assert 0.078 < share.min() < 0.1
    assert 0.9 < share.max() <= 1
    # Sides are rounded to pixels.
    assert np.abs(ratio).max() < math.log(4 / 3) + 0.02
    assert np.ptp(ratio) > 1.9 * math.log(4 / 3)
    # Uniform but that the largest often do not fit: every quarter of the range is common.
    assert (np.histogram(share, bins=4, range=(0.08, 1))[0] > 50).all()
    centre = np.abs((left + right) / 2 - width / 2)[share < 0.2]
    assert centre.max() > 0.3 * width  # anywhere, not in the middle


def test_what_fits_no_crop_is_cut_in_the_middle() -> None:
    rng = np.random.default_rng(0)
    assert random_box(3000, 10, rng) == (1493, 0, 1506, 10)
    assert random_box(10, 3000, rng) == (0, 1493, 10, 1506)


@pytest.mark.parametrize(("width", "height"), [(61, 40), (37, 83), (50, 50), (11, 9)])
def test_validation_is_resize_then_centre_crop(width: int, height: int, tmp_path: Path) -> None:
    """Against Pillow in the two steps of torchvision: Resize(18), CenterCrop(16)."""
    write_images(tmp_path, train=1, val=1)
    image = image_module.fromarray(
        np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )
    image.save(tmp_path / "val" / "blue" / "000.png")
    (tmp_path / "val" / "blue" / "000.JPEG").unlink()
    shorter = 18
    sides = (shorter, int(shorter * height / width))
    if height < width:
        sides = (int(shorter * width / height), shorter)
    left, top = (round((side - SIZE) / 2) for side in sides)
    expected = image.resize(sides, image_module.Resampling.BILINEAR)
    expected = expected.crop((left, top, left + SIZE, top + SIZE))
    images = open_folders(tmp_path, size=SIZE, workers=0)
    (batch,) = images.pixels("test", slice(None), CPU).batches([torch.tensor([0])])
    difference = batch[0].permute(1, 2, 0).int() - torch.from_numpy(np.array(expected)).int()
    assert difference.abs().max() <= 1
    assert centre_box(width, height, SIZE)[2] <= width


@pytest.mark.parametrize("side", [35, 129, 400])
def test_a_jpeg_decoded_small_shows_the_same(side: int, tmp_path: Path) -> None:
    """A smooth picture through `draft` against the whole of it; sizes that no 8 divides."""
    write_images(tmp_path, train=1, val=1)
    rows, columns = np.mgrid[:side, : 2 * side] / side
    smooth = np.stack((rows, columns / 2, 1 - rows), 2) * 255
    image = image_module.fromarray(smooth.astype(np.uint8))
    image.save(tmp_path / "val" / "blue" / "000.JPEG", quality=95)
    images = open_folders(tmp_path, size=SIZE, workers=0)
    (batch,) = images.pixels("test", slice(None), CPU).batches([torch.tensor([0])])
    box = centre_box(2 * side, side, SIZE)
    expected = np.array(image.resize((SIZE, SIZE), image_module.Resampling.BILINEAR, box=box))
    difference = batch[0].permute(1, 2, 0).int() - torch.from_numpy(expected).int()
    assert difference.abs().max() <= 6  # half a pixel of shift would be 8 at the smallest side


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "LA"])
def test_every_kind_of_image_becomes_rgb(mode: str, tmp_path: Path) -> None:
    write_images(tmp_path, train=1, val=1)
    ending = "JPEG" if mode == "CMYK" else "png"
    path = tmp_path / "val" / "blue" / f"0.{ending}"
    image_module.new("RGB", (40, 30), (102, 102, 102)).convert(mode).save(path)
    images = open_folders(tmp_path, size=SIZE, workers=0)
    (batch,) = images.pixels("test", slice(None), CPU).batches([torch.tensor([0])])
    assert (batch.int() - 102).abs().max() <= 2


def test_settings_from_before_colours_are_the_same_settings() -> None:
    for name, changes in (("small", False), ("imagenet", True)):
        recipe = TrainRecipe.get(name)
        values = recipe.to_dict()
        assert ("hue" in values) == changes
        assert TrainRecipe.from_dict(values) == recipe
    with pytest.raises(ValueError, match="unknown or missing fields hue"):
        TrainRecipe.from_dict({key: value for key, value in values.items() if key != "hue"})
    with pytest.raises(ValueError, match=r"recipe\.hue: 0\.6 is above 0\.5"):
        replace(recipe, hue=0.6)


def test_learns_from_files(folders: ImageFolders, tmp_path: Path) -> None:
    recipe = replace(
        TINY, epochs=5, flip=False, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0
    )
    result = train(GENOTYPE, folders, recipe, out=tmp_path)
    assert result.test > 0.8  # a third by chance
    from arch2vec_fast.darts import Network

    network = Network(GENOTYPE, recipe.network(classes=3))
    network.load_state_dict(weights(tmp_path))
    assert evaluate(network, folders) == pytest.approx((result.test, 1.0))


def test_interrupted_is_uninterrupted_with_other_workers(root: Path, tmp_path: Path) -> None:
    whole = train(
        GENOTYPE, open_folders(root, size=SIZE, workers=0), TINY, out=tmp_path / "whole", seed=5
    )

    def stop(epoch: int, line: dict[str, float]) -> None:
        raise KeyboardInterrupt

    images = open_folders(root, size=SIZE, workers=2)
    with pytest.raises(KeyboardInterrupt):
        train(GENOTYPE, images, TINY, out=tmp_path / "cut", seed=5, on_epoch=stop)
    resumed = train(GENOTYPE, images, TINY, out=tmp_path / "cut", seed=5)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert replace(resumed, seconds=0.0) == replace(whole, seconds=0.0)


def test_the_val_folder_is_opened_once(
    folders: ImageFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arch2vec_fast.darts import image_folders

    opened = []
    decode = image_folders._decode

    def spy(path, *rest):
        opened.append(path)
        return decode(path, *rest)

    monkeypatch.setattr(image_folders, "_decode", spy)
    first = train(GENOTYPE, folders, TINY, out=tmp_path)
    again = train(GENOTYPE, folders, TINY, out=tmp_path)
    assert again == first
    parts = [path.relative_to(folders.root).parts[0] for path in opened]
    # Two epochs over all training images, held-out ones included, and the test at the end.
    assert parts == ["train"] * 72 + ["val"] * 15
    assert len(set(opened[72:])) == 15


def test_a_broken_image_is_named(root: Path, tmp_path: Path) -> None:
    write_images(tmp_path, train=4, val=1)
    broken = tmp_path / "train" / "green" / "000.JPEG"
    for content in (b"no image", broken.read_bytes()[:300], b""):
        broken.write_bytes(content)
        for workers in (0, 2):
            images = open_folders(tmp_path, size=SIZE, workers=workers)
            with pytest.raises(ValueError, match=r"green/000\.JPEG cannot be decoded") as raised:
                pixels(images, list(range(6)), list(range(6, 12)), draw=(0, 0))
            assert "\n" not in str(raised.value)
    broken.unlink()  # after it was listed
    with pytest.raises(ValueError, match=r"green/000\.JPEG cannot be decoded"):
        pixels(images, list(range(12)))


def test_a_killed_decoder_is_an_error_not_a_wait(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arch2vec_fast.darts import image_folders

    if torch.multiprocessing.get_start_method() != "fork":
        pytest.skip("processes that are not forked do not see the patch")
    monkeypatch.setattr(image_folders, "_decode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(OSError, match=r"data: a process that decodes images was killed"):
        pixels(open_folders(root, size=SIZE, workers=1), [0, 1])


def test_rejects(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is no folder; give the folder of train"):
        open_folders(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="train is no folder"):
        open_folders(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "1.JPEG").write_bytes(b"")  # as ILSVRC's own archive has them
    with pytest.raises(ValueError, match="train has no class folders; move its images into one"):
        open_folders(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match="val has no class folders; move its images into one"):
        open_folders(tmp_path)
    (tmp_path / "val" / "cat").mkdir()
    with pytest.raises(ValueError, match="train has one class; there is nothing to tell"):
        open_folders(tmp_path)
    (tmp_path / "val" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"val/dog is a class that .*train lacks"):
        open_folders(tmp_path)
    (tmp_path / "train" / "dog").mkdir()
    (tmp_path / "train" / "dog" / "1.jpeg").write_bytes(b"")
    (tmp_path / "train" / "cat" / "notes.txt").write_bytes(b"")
    with pytest.raises(ValueError, match="train/cat holds no images"):
        open_folders(tmp_path)
    (tmp_path / "train" / "cat" / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match="val holds no images"):
        open_folders(tmp_path)
    (tmp_path / "val" / "dog" / "1.jpeg").write_bytes(b"")
    assert open_folders(tmp_path).classes == 2
    with pytest.raises(ValueError, match="workers: -1 is negative"):
        open_folders(tmp_path, workers=-1)
    with pytest.raises(ValueError, match="size: 0 is below 1"):
        open_folders(tmp_path, size=0)
    with pytest.raises(ValueError, match="imagenet is not held in memory; `darts train` reads"):
        load_images("imagenet", tmp_path)

# SPDX-License-Identifier: Apache-2.0
"""Image sets from files as people have them, and from files that are not what they seem."""

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from arch2vec_fast.darts.images import load_images


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def fashion(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "y_train": np.arange(30, dtype=np.uint8) % 10,
        "x_test": rng.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "y_test": np.arange(10, dtype=np.uint8),
    }
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", arrays["x_train"])
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", arrays["y_train"])
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", arrays["x_test"])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", arrays["y_test"])
    return tmp_path, arrays


def test_fashion_mnist_from_both_kinds_of_file(
    fashion: tuple[Path, dict[str, np.ndarray]],
) -> None:
    folder, arrays = fashion
    np.savez(folder / "all.npz", **arrays)
    official, single = (load_images("fashion-mnist", path) for path in (folder, folder / "all.npz"))
    for images in (official, single):
        assert images.train_images.shape == (30, 3, 32, 32)
        # In another order, each with its label: what is held out has images of all kinds.
        pictures = images.train_images[:, 1, 2:-2, 2:-2].flatten(1).numpy()
        same = (pictures[:, None] == arrays["x_train"].reshape(30, -1)).all(2)
        assert (same.sum(0) == 1).all()
        assert (same.sum(1) == 1).all()
        assert same.argmax(1).tolist() != list(range(30))
        np.testing.assert_array_equal(images.train_labels, arrays["y_train"][same.argmax(1)])
        assert not images.test_images[:, :, :2].any()
        np.testing.assert_array_equal(images.test_labels, arrays["y_test"])
        assert images.classes == 10
        padded = np.pad(arrays["x_train"], ((0, 0), (2, 2), (2, 2))) / 255
        np.testing.assert_allclose(images.mean, padded.mean())
        np.testing.assert_allclose(images.std, padded.std())


def cifar_batch(count: int) -> dict[bytes, object]:
    rng = np.random.default_rng(count)
    data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {b"data": data, b"labels": [n % 10 for n in range(count)], b"batch_label": b"x"}


def write_cifar(folder: Path) -> list[dict[bytes, object]]:
    folder.mkdir()
    batches = [cifar_batch(20 + index) for index in range(6)]
    names = [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]
    for name, batch in zip(names, batches):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return batches


def test_cifar10_from_the_official_folder(tmp_path: Path) -> None:
    batches = write_cifar(tmp_path / "cifar-10-batches-py")
    for path in (tmp_path, tmp_path / "cifar-10-batches-py"):
        images = load_images("cifar10", path)
        assert images.train_images.shape == (110, 3, 32, 32)
        np.testing.assert_array_equal(
            images.test_images.reshape(25, 3072).numpy(), batches[5][b"data"]
        )
        assert images.train_labels[20:24].tolist() == [0, 1, 2, 3]


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    write_cifar(tmp_path / "c")

    class Hostile:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "owned"),)

    (tmp_path / "c" / "data_batch_3").write_bytes(pickle.dumps({b"data": Hostile()}))
    with pytest.raises(ValueError, match=r"data_batch_3: not a whole pickle .*mkdir, which is not"):
        load_images("cifar10", tmp_path / "c")
    assert not (tmp_path / "owned").exists()


def test_image_folders(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                image.fromarray(pixels).save(tmp_path / part / label / f"{index}.png")
    images = load_images("folder", tmp_path)
    assert images.train_images.shape == (6, 3, 8, 8)
    assert sorted(images.train_labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert images.train_labels.tolist() != [0, 0, 0, 1, 1, 1]  # the last part has both classes
    assert torch.equal(load_images("folder", tmp_path).train_images, images.train_images)
    assert images.test_labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(images.test_images[3].permute(1, 2, 0), pixels)
    for image_at, label in zip(images.train_images, images.train_labels.tolist()):
        assert any(
            np.array_equal(image.open(file), image_at.permute(1, 2, 0))
            for file in (tmp_path / "train" / ("cat", "dog")[label]).iterdir()
        )
    (tmp_path / "train" / "cat" / ".DS_Store").write_bytes(b"what a file manager leaves")
    assert len(load_images("folder", tmp_path).train_images) == 6
    (tmp_path / "test" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"test/eel is a class that .*train lacks"):
        load_images("folder", tmp_path)
    (tmp_path / "test" / "eel").rmdir()
    image.new("RGB", (9, 8)).save(tmp_path / "train" / "dog" / "x.png")
    with pytest.raises(ValueError, match=r"x\.png is of another size"):
        load_images("folder", tmp_path)
    (tmp_path / "train" / "dog" / "x.png").write_text("no image")
    with pytest.raises(ValueError, match=r"x\.png is no image"):
        load_images("folder", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "does not exist; give the folder of train-images"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is no whole .gz file"),
        (lambda path: path.write_bytes(b""), "is not an IDX file of bytes, or is truncated"),
        (lambda path: path.write_bytes(b"text"), "is no whole .gz file"),
        (lambda path: path.write_bytes(gzip.compress(b"\0\0\x0d\x01")), "is not an IDX file"),
        (
            lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-5])),
            "is not an IDX file of bytes, or is truncated",
        ),
        (lambda path: write_idx(path, np.zeros(7, np.uint8)), "has 10 images but 7 labels"),
    ],
)
def test_damaged_files_are_named(
    damage, message: str, fashion: tuple[Path, dict[str, np.ndarray]]
) -> None:
    folder, _ = fashion
    damage(folder / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises((ValueError, OSError), match=message) as raised:
        load_images("fashion-mnist", folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x_test", np.zeros((10, 20, 20), np.uint8), "are not 28x28"),
        ("x_train", np.zeros((30, 28, 28, 1), np.uint8), "are not 28x28"),
        ("y_train", np.arange(30) % 10 + 0.5, "labels of shape .30,. and type float64"),
        ("y_train", np.eye(30, 10, dtype=np.uint8), r"labels of shape .30, 10. and type uint8"),
        ("y_test", np.full(10, -1), "a label of -1; number classes from 0"),
        ("y_test", np.arange(9), "has 10 images but 9 labels"),
    ],
)
def test_arrays_that_are_not_what_they_should_be(
    name: str,
    array: np.ndarray,
    message: str,
    fashion: tuple[Path, dict[str, np.ndarray]],
) -> None:
    folder, arrays = fashion
    np.savez(folder / "all.npz", **{**arrays, name: array})
    with pytest.raises(ValueError, match=message) as raised:
        load_images("fashion-mnist", folder / "all.npz")
    assert "\n" not in str(raised.value)


def test_folders_of_images_that_do_not_fit(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for part, size in (("train", 8), ("test", 12)):
        (tmp_path / part / "cat").mkdir(parents=True)
        image.new("RGB", (size, size)).save(tmp_path / part / "cat" / "a.png")
    with pytest.raises(ValueError, match="training images of 8x8 but test images of 12x12"):
        load_images("folder", tmp_path)
    for part in ("train", "test"):
        image.new("RGB", (10, 12)).save(tmp_path / part / "cat" / "a.png")
    with pytest.raises(ValueError, match="images of 12x10, which networks cannot halve twice"):
        load_images("folder", tmp_path)


def test_one_class_is_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
        image.new("RGB", (8, 8)).save(tmp_path / part / "cat" / "a.png")
    with pytest.raises(ValueError, match="has training images of one class"):
        load_images("folder", tmp_path)


def test_rejects(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown image set 'mnist'; choose one of digits"):
        load_images("mnist")
    with pytest.raises(ValueError, match="cifar10 is read from files; say where they are"):
        load_images("cifar10")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; give the folder cifar"):
        load_images("cifar10", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no train/CLASS folders"):
        load_images("folder", tmp_path)
    (tmp_path / "torn.npz").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(ValueError, match=r"torn\.npz is no whole \.npz file"):
        load_images("fashion-mnist", tmp_path / "torn.npz")
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz lacks the arrays x_test, y_test, y_train"):
        load_images("fashion-mnist", tmp_path / "other.npz")

# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast darts train`: from folders of images, with TensorBoard, and what it refuses."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from arch2vec_fast.cli import run as run_cli

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

SKIPS = "|".join(["0:skip_connect", "1:skip_connect"] * 4)
SMALL = ("--epochs", "1", "--channels", "4", "--layers", "3", "--json")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 1)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
                path = tmp_path / "images" / part / name / f"{index}.JPEG"
                image.fromarray(pixels).save(path)
    return tmp_path / "images"


def on_folders(root: Path, out: Path) -> tuple[str, ...]:
    return (
        "darts", "train", SKIPS, "--data", f"imagenet:{root}", "--recipe", "imagenet",
        "--workers", "1", "--validation-fraction", "0.25", "--out", str(out), *SMALL,
    )  # fmt: skip


def succeed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    assert run_cli(arguments) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run_cli(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_trains_on_imagenet_folders(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = on_folders(root, tmp_path / "run")
    document = succeed(capsys, *arguments)
    assert document["images"] == "images"
    assert len(document["validation"]) == 1
    assert document["test"] in (0, 0.5, 1)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["images"]["size"] == [224, 224]
    assert config["images"]["train"] == 8
    assert config["recipe"]["hue"] == 0.2
    # Finished: nothing is decoded again, whatever lies there now.
    image = root / "val" / "dog" / "0.JPEG"
    image.write_bytes(bytes(image.stat().st_size))
    assert succeed(capsys, *arguments) == document


def test_tensorboard_scalars_are_those_of_the_epochs(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = (*on_folders(root, tmp_path / "run"), "--tensorboard")
    document = succeed(capsys, *arguments)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    for name in ("loss", "train", "train_top5", "learning_rate", "validation"):
        (scalar,) = events.Scalars(name)
        assert scalar.step == 0
        assert scalar.value == pytest.approx(line[name], rel=1e-6)
    assert document["validation"] == [line["validation"]]
    assert succeed(capsys, *arguments) == document  # finished: nothing to write


def test_tensorboard_goes_on_where_the_training_does(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[object, ...]] = []

    class FakeWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (tmp_path / "run" / "config.json").exists()  # else OUT would not be empty
            calls.append(("open", Path(folder).name, purge_step))

        def __enter__(self) -> "FakeWriter":
            return self

        def __exit__(self, *_: object) -> None:
            calls.append(("close",))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            if name == "loss":
                calls.append((name, step))

        def flush(self) -> None:
            if len(calls) == 3:  # during the second epoch, which is kept by then
                raise KeyboardInterrupt

    fake = SimpleNamespace(SummaryWriter=FakeWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    arguments = (*on_folders(root, tmp_path / "run"), "--tensorboard", "--epochs", "3")
    assert run_cli(arguments) == 130
    assert calls == [("open", "tensorboard", 0), ("loss", 0), ("loss", 1), ("close",)]
    calls[:] = []
    succeed(capsys, *arguments)
    assert calls == [("open", "tensorboard", 2), ("loss", 2), ("close",)]


def test_networks_have_directories_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outs = [
        succeed(capsys, "darts", "train", genotype, *SMALL, "--batch-size", "400")["out"]
        for genotype in (SKIPS, "arch2vec_bo")
    ]
    assert outs[1] == "trainings/arch2vec_bo-small-0"
    assert outs[0] == "trainings/d54ff675-small-0"


def test_an_interrupted_gradient_search_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from arch2vec_fast.darts import gradient_search
    from arch2vec_fast.darts.images import ImageSet
    from toy import toy_images

    def images(name: str, path: str | None) -> ImageSet:
        return toy_images()

    monkeypatch.setattr("arch2vec_fast.darts.images.load_images", images)
    keep = gradient_search.TrainingFolder.keep

    def keep_and_stop(*arguments: object) -> None:
        keep(*arguments)
        raise KeyboardInterrupt

    command = ["darts", "gradient", "--order", "1", "--epochs", "2", "--out", str(tmp_path / "g")]
    monkeypatch.setattr(gradient_search.TrainingFolder, "keep", keep_and_stop)
    assert run_cli(command) == 130
    assert "Stopped; finished epochs are kept in" in capsys.readouterr().err
    monkeypatch.setattr(gradient_search.TrainingFolder, "keep", keep)
    assert len(succeed(capsys, *command, "--json")["validation"]) == 2


def test_rejects(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    train = ("darts", "train", SKIPS, "--out", str(out), "--epochs", "1")
    for data, message in (
        ("imagenet", "data: imagenet is read from files; say where they are, imagenet:PATH"),
        (
            f"imagenet:{tmp_path / 'nowhere'}",
            "nowhere is no folder; give the folder of train/CLASS",
        ),
        (f"imagenet:{root / 'train'}", "train/train is no folder"),
        (f"folder:{root}", "test holds no images"),
    ):
        assert message in failure(capsys, *train, "--data", data)
    assert "workers: digits is held in memory" in failure(capsys, *train, "--workers", "2")
    assert "workers: -1 is negative" in failure(
        capsys, *train, "--data", f"imagenet:{root}", "--workers", "-1"
    )
    gradient = ("darts", "gradient", "--data", f"imagenet:{root}", "--out", str(out))
    assert "data: imagenet is not held in memory" in failure(capsys, *gradient)
    search = ("search", "darts", "--images", f"imagenet:{root}", "--store", str(tmp_path / "s"))
    assert "data: imagenet is not held in memory" in failure(capsys, *search)
    assert not out.exists()
    (root / "train" / "cat" / "1.JPEG").write_bytes(b"no image")
    assert "train/cat/1.JPEG cannot be decoded" in failure(
        capsys, *train, "--data", f"imagenet:{root}", "--workers", "1", "--validation-fraction", "0"
    )

# SPDX-License-Identifier: Apache-2.0
"""`table4` and `transfer`: quoted rows are marked, second calls train nothing, errors are short."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast.benchmarks.nasbench301 import Predictions
from arch2vec_fast.cli import darts as darts_cli
from arch2vec_fast.cli import run as run_cli
from arch2vec_fast.darts import surrogate_table, table4
from arch2vec_fast.darts.gradient_search import GradientSearchRecipe
from arch2vec_fast.darts.recipes import TrainRecipe
from toy import toy_images

TINY = replace(TrainRecipe.small(), channels=2, layers=3, epochs=1, batch_size=100)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`small` is tiny, and all images are stripes."""
    gradient = replace(GradientSearchRecipe.small(), channels=2, epochs=1, batch_size=50)
    monkeypatch.setattr(TrainRecipe, "small", classmethod(lambda cls: TINY))
    monkeypatch.setattr(GradientSearchRecipe, "small", classmethod(lambda cls: gradient))
    monkeypatch.setattr(darts_cli, "read_images", lambda text: toy_images())


class FakeSurrogate:
    """Predicts from the operations of the normal cell."""

    def predict(
        self, normal: np.ndarray, reduce: np.ndarray | None = None, *, epochs: int = 98
    ) -> Predictions:
        worth = 0.9 + 0.01 * ((normal[..., 1] == 4) | (normal[..., 1] == 5)).sum(1)
        return Predictions(worth.astype(np.float32), np.full(len(normal), 100.0, np.float32))


def refuse(*arguments: object, **options: object) -> None:
    raise AssertionError("trained again")


@pytest.mark.usefixtures("tiny")
def test_table4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t"
    arguments = ["table4", "--out", str(out), "--methods", "random,arch2vec-bo"]
    arguments += ["--queries", "2", "--final-seeds", "1", "--samples", "300", "--pool", "40"]
    assert run_cli([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert "2 rows, 0 finished before" in captured.err
    document = json.loads(captured.out)
    assert [row["method"] for row in document["rows"]] == ["random", "arch2vec-bo"]
    assert {row["settings"]["images"]["name"] for row in document["rows"]} == {"stripes"}
    assert document["quoted"][-1]["error"] == 0.0248
    assert (out / "encoder" / "darts-hidden.safetensors").is_file()

    for name in ("train_job", "search_by_gradient", "run_job", "TrainedBenchmark"):
        monkeypatch.setattr(table4, name, refuse)
    assert run_cli(arguments) == 0
    captured = capsys.readouterr()
    assert "2 rows, 2 finished before" in captured.err
    assert "quoted, Liu et al. 2019, table 1" in captured.out
    assert "3.29 ± 0.15" in captured.out
    assert captured.out.count("run here: 2 queries") == 2
    assert "ImageSet(stripes" in captured.out
    assert "not to be compared" in captured.out


def test_table4_on_the_surrogate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("plotly")
    monkeypatch.setattr(surrogate_table, "find_surrogate", lambda data: FakeSurrogate())
    out = tmp_path / "t"
    arguments = ["table4", "--out", str(out), "--surrogate", "--samples", "300", "--pool", "200"]
    arguments += ["--queries", "24", "--seeds", "3", "--methods", "random,arch2vec-rl,bananas"]
    assert run_cli([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert Path(document["report"]).is_file()
    assert (Path(document["csv"]) / "curves.csv").is_file()
    for row in document["rows"]:
        assert (row["seeds"], row["queries"], row["pool"]) == (3, 24, 200)
        assert 0.02 <= row["error"]["mean"] <= 0.1
        assert row["regret"]["mean"] >= 0
    names = [cell["genotype"] for cell in document["published_cells"]]
    assert names == ["arch2vec_bo", "arch2vec_rl", "BANANAS", "DARTS"]
    assert run_cli(arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 searches of 24 queries, recipe best, 200 cells" in printed
    assert "predicted, not searched here" in printed


@pytest.mark.usefixtures("tiny")
def test_transfer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["transfer"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("quoted,") == 3
    assert printed.count("computed") == 4  # BANANAS too, of which nothing is quoted
    assert "532.7" in printed  # arch2vec-RL, exactly
    assert "Nothing was trained here" in printed
    cell = "0:sep_conv_3x3|1:none|0:none|1:none|0:none|1:none|0:none|1:none"
    arguments = ["transfer", cell, "arch2vec_rl", "--data", "stripes", "--recipe", "small"]
    arguments += ["--out", str(tmp_path / "t"), "--epochs", "2"]
    assert run_cli([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["rows"]] == ["cell-1", "arch2vec_rl"]
    assert document["rows"][0]["quoted"] is None
    assert "2 epochs" in document["trained_with"]
    assert run_cli(arguments) == 0
    assert "run here, 1 seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table4", "--out", "t", "--methods", "enas"), "methods: no row 'enas'"),
        (("table4", "--out", "t", "--training", "cifar10"), "recipe: cifar10 holds out no images"),
        (("table4", "--out", "t", "--final", "long"), "recipe: no preset 'long'"),
        (("table4", "--out", "t", "--images", "cifar10:absent"), "absent does not exist"),
        (("table4", "--out", "t", "--final", "cifar10"), "auxiliary head for images of 32x32"),
        (("table4", "--out", "t", "--queries", "0"), "queries: 0 is below 1"),
        (("table4", "--out", "t", "--samples", "1"), "samples: 1 is below 2"),
        (("table4", "--out", "t", "--recipe", "mine"), "no preset 'mine'"),
        (("table4", "--out", "t", "--encoder", "absent"), "absent is not a run directory"),
        (("table4", "--out", "t", "--surrogate", "--methods", "enas"), "no method 'enas'"),
        (("table4", "--out", "t", "--surrogate", "--seeds", "0"), "seeds: 0 is below 1"),
        (("table4", "--out", "t", "--surrogate", "--data", "absent"), "data: no surrogate found"),
        (("darts", "train", "DARTS", "--recipe", "cifar10"), "auxiliary head for images of 32x32"),
        (("darts", "train", "DARTS", "--recipe", "imagenet"), "digits has 16x16; choose small"),
        (("darts", "train", "DARTS", "--data", "cifar"), "folder, or imagenet for `darts train`"),
        (("table4", "--out", "t", "--speed", "fp8"), "speed: 'fp8' is none of bf16, compile"),
        (("darts", "train", "DARTS", "--speed", "fp8"), "speed: 'fp8' is none of bf16, compile"),
        (("transfer", "--speed", "fp8"), "speed: 'fp8' is none of bf16, compile"),
        (("search", "darts", "--speed", "bf16,bf16"), "says the same or its opposite twice"),
        (("search", "darts", "--training", "query"), "auxiliary head for images of 32x32"),
        (("transfer", "--data", "digits"), "digits has 16x16; choose small"),
        (("transfer", "nasnet"), "genotype: 'nasnet' is none"),
        (("transfer", "--seeds", "0"), "seeds: 0 is below 1"),
        (("transfer", "--data", "folder:absent", "--out", "t"), "absent does not exist"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())

# SPDX-License-Identifier: Apache-2.0
"""`predictive`, on a made-up benchmark."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arch2vec_fast import benchmarks
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.cli import run as run_cli
from toy import toy_benchmark

pytest.importorskip("scipy")


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = toy_benchmark()

    def get(name: str, **_: Any) -> TableBenchmark:
        return replace(toy, name=name)

    monkeypatch.setattr(benchmarks, "get", get)


def test_table_and_document(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predictive", "toy", str(finished_run), "--labels", "15,30", "--seeds", "2"]
    assert run_cli([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["benchmark"] == "toy"
    assert {row["labels"] for row in document["rows"]} == {15, 30}
    assert run_cli(arguments) == 0
    printed = capsys.readouterr().out
    assert "predicted from 15 cells, 2 draws" in printed
    for title in ("operation counts", "latent, released, untrained", "hidden + WL, released"):
        assert printed.count(title) >= 2, title


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--labels", "many"), "labels: 'many' is no list of numbers"),
        (("--labels", "1"), "labels: 1 is outside"),
        (("--seeds", "0"), "seeds: 0 is below 1"),
        (("--targets", "log"), "unknown transform 'log'"),
        (("--above", "0.99"), "least: too few cells"),
    ],
)
def test_bad_input_is_one_line(
    extra: tuple[str, ...],
    message: str,
    finished_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli(["predictive", "toy", str(finished_run), *extra]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_run_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["predictive", "toy", "absent"]) == 2
    assert "absent is not a run directory" in capsys.readouterr().err

# SPDX-License-Identifier: Apache-2.0
"""`report` on traces: what it writes and what it refuses."""

import json
from pathlib import Path

import pytest

from arch2vec_fast.cli import run as run_cli
from traces import trace


@pytest.fixture
def searches(tmp_path: Path) -> Path:
    folder = tmp_path / "searches"
    folder.mkdir()
    trace({0: [1, 2, 4], 1: [0, 5]}).save(folder / "random.parquet")
    trace({0: [4], 1: [3]}, method="evolution").save(folder / "evolution.parquet")
    return folder


def test_report_of_searches(
    searches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("plotly")
    out, numbers = tmp_path / "page.html", tmp_path / "numbers"
    arguments = ["report", str(searches), "--out", str(out), "--csv", str(numbers)]
    assert run_cli([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [study["method"] for study in document["studies"]] == ["evolution", "random"]
    assert document["studies"][1]["test"]["mean"] == pytest.approx(0.775)
    assert out.stat().st_size > 1_000_000  # plotly is in it
    assert (numbers / "curves.csv").is_file()
    assert run_cli(arguments) == 0
    assert "perfect search" in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_refuses_what_is_no_trace(
    searches: Path,
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("no trace")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "notes.txt" in refused(capsys, "report", str(text))
    assert "holds no traces" in refused(capsys, "report", str(empty))
    assert "no such file" in refused(capsys, "report", str(searches / "absent.parquet"))
    run, folder = str(finished_run), str(searches)
    assert "give it alone" in refused(capsys, "report", run, folder)
    assert "--csv is for traces" in refused(capsys, "report", run, "--csv", "numbers")
    trace({0: [1]}, method="evolution", noise="run").save(searches / "odd.parquet")
    assert "compare searches of one reward" in refused(capsys, "report", folder)
    assert not (tmp_path / "report.html").exists()

# SPDX-License-Identifier: Apache-2.0
"""Commands do what they say, and --json prints one document and nothing else."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast.cli import run as run_cli
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.pretrain import Run


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    code = run_cli([*arguments, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def text(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run_cli(arguments) == 0
    return capsys.readouterr().out


def test_help_answers_without_torch() -> None:
    script = (
        "import sys; from arch2vec_fast.cli import run; code = run(['pretrain', '--help']); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Examples" in done.stdout
    assert "--recipe" in done.stdout


def test_no_command_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    run_cli([])
    captured = capsys.readouterr()
    assert "pretrain" in captured.out + captured.err


def test_module_runs_as_a_script() -> None:
    command = [sys.executable, "-m", "arch2vec_fast.cli", "spaces", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [row["name"] for row in json.loads(done.stdout)["spaces"]] == list(spaces.names())


def test_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    rows = document(capsys, "spaces")["spaces"]
    assert {row["name"]: row["num_cells"] for row in rows}["nasbench101"] == 423_624
    one = document(capsys, "spaces", "darts")
    assert (one["bits"], one["words"], len(one["op_names"])) == (99, 2, 11)
    assert "none" in text(capsys, "spaces", "nasbench201")
    assert "423,624 cells" in text(capsys, "spaces")
    assert "3,019,898,880 genotypes" in text(capsys, "spaces")
    assert one["num_genotypes"] == 3_019_898_880


def test_pretrain_writes_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "run"
    options = ("--epochs", "1", "--limit", "300", "--batch-size", "50", "--lr", "0.002")
    made = document(capsys, "pretrain", "nasbench201", *options, "--out", str(out), "--seed", "5")
    assert made["run"] == str(out)
    assert (made["epochs"], made["batch_size"], made["seed"]) == (1, 50, 5)
    assert made["train_cells"] + made["validation_cells"] == 300
    assert json.loads((out / "config.json").read_text())["recipe"]["learning_rate"] == 0.002
    resumed = document(
        capsys, "pretrain", "nasbench201", *options, "--out", str(out), "--seed", "5", "--resume"
    )
    assert resumed["loss"] == made["loss"]


def test_pretrain_on_a_file_of_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = tmp_path / "mine.json"
    spaces.get("nasbench201").sample(120, seed=0).save_json(cells)
    arguments = ("pretrain", "nasbench201", "--cells", str(cells), "--epochs", "1")
    output = text(capsys, *arguments, "--out", str(tmp_path / "run"))
    assert "1 epoch on" in output
    assert "arch2vec-fast evaluate" in output


def test_pretrain_that_embeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ("--limit", "300", "--epochs", "0", "--embed", "--out", str(run))
    made = document(capsys, "pretrain", "darts", *options)
    table = EmbeddingTable.load(made["embeddings"]["file"])
    assert table.cells == Run.load(run).cells
    assert str(run / "embeddings.safetensors") in text(
        capsys, "pretrain", "darts", *options, "--resume"
    )


def test_pretrain_and_embed_on_the_released_darts_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells, run, space = tmp_path / "darts.json", tmp_path / "run", spaces.get("darts")
    space.save_json(space.sample(40, seed=0, distinct=True), cells)
    options = ("--cells", str(cells))
    document(capsys, "pretrain", "darts", *options, "--epochs", "0", "--out", str(run))
    assert document(capsys, "embed", str(run), *options)["cells"] == 40


def test_embed(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(capsys, "embed", str(finished_run), "--out", str(tmp_path / "e.safetensors"))
    assert (made["cells"], made["dimensions"]) == (600, 16)
    assert len(EmbeddingTable.load(tmp_path / "e.safetensors")) == 600
    whole = document(
        capsys, "embed", str(finished_run), "--space", "--chunk", "4000", "--export", "released",
        "--out", str(tmp_path / "all.safetensors"),
    )  # fmt: skip
    assert whole["cells"] == 15_625
    released = torch.load(tmp_path / "all.pt", weights_only=True)
    assert set(released[0]) == {"feature"}
    assert len(released) == 15_625


def test_embed_for_search(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.safetensors"
    made = document(
        capsys, "embed", str(finished_run), "--readout", "hidden", "--pca", "7", "--simplify",
        "--out", str(out),
    )  # fmt: skip
    assert (made["cells"], made["dimensions"]) == (600, 7)
    metadata = EmbeddingTable.load(out).metadata
    kept = {name: metadata[name] for name in ("states", "components", "simplified")}
    assert kept == {"states": "hidden", "components": "7", "simplified": "yes"}


def test_embed_makes_the_folder_it_writes_to(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder" / "e.safetensors"
    document(capsys, "embed", str(finished_run), "--out", str(out))
    assert len(EmbeddingTable.load(out)) == 600


def test_embed_given_cells(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.json"
    cells = spaces.get("nasbench201").sample(7, seed=0)
    cells.save_json(file)
    out = tmp_path / "e.safetensors"
    text(capsys, "embed", str(finished_run), "--cells", str(file), "--out", str(out))
    assert EmbeddingTable.load(out).cells == cells


def test_evaluate(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = document(capsys, "evaluate", str(finished_run), "--samples", "200", "--no-control")
    assert result["recipe"] == "released"
    assert result["prior"] == "per-node"
    assert json.loads((finished_run / "evaluation.json").read_text()) == result
    output = text(capsys, "evaluate", str(finished_run), "--samples", "200")
    for word in ("untrained", "strict", "legal", "uniform", "exact"):
        assert word in output


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(document(capsys, "doctor"), dict)
    assert "torch" in text(capsys, "doctor")


def test_report(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    out = tmp_path / "report.html"
    made = document(capsys, "report", str(finished_run), "--out", str(out), "--samples", "100")
    assert made["bytes"] == out.stat().st_size


@pytest.mark.slow
def test_demo_in_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    made = document(capsys, "demo", "--quick", "--out", str(tmp_path))
    assert Path(made["report"]).is_file()
    assert made["evaluation"]["legal"]["strict"]["valid"] == 1
    assert len(EmbeddingTable.load(made["embeddings"])) == 15_625

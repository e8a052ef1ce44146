# SPDX-License-Identifier: Apache-2.0
"""Bad input: one line on standard error, exit code 2, nothing half written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast.cli import run as run_cli
from arch2vec_fast.cli.demo import _is_demo_run
from arch2vec_fast.pretrain import pretrain
from arch2vec_fast.spaces import CellBatch


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    code = run_cli(arguments)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert captured.err.startswith("arch2vec-fast: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pretrain", "nasbench102"), "unknown space 'nasbench102'; choose one of nasbench101"),
        (("pretrain", "nasbench201", "--recipe", "bset"), "no preset 'bset'; choose one of"),
        (("pretrain", "nasbench201", "--device", "gpu"), "device: "),
        (("pretrain", "nasbench201", "--device", "cuda:99"), "device: "),
        (("pretrain", "nasbench201", "--batch-size", "0"), "batch_size: 0 is below 1"),
        (("pretrain", "nasbench201", "--epochs", "-1"), "epochs"),
        (("pretrain", "nasbench201", "--lr", "nan"), "learning_rate"),
        (("pretrain", "nasbench201", "--limit", "1"), "limit: 1"),
        (("pretrain", "nasbench201", "--epochs", "many"), "'--epochs'"),
        (("pretrain", "nasbench201", "--cells", "absent.json"), "absent.json"),
        (("pretrain",), "SPACE"),
        (("unknown",), "unknown"),
        (("spaces", "nasbench9"), "unknown space 'nasbench9'"),
        (("embed", "no-such-run"), "no-such-run is not a run directory"),
        (("evaluate", "no-such-run"), "no-such-run is not a run directory"),
        (("report", "no-such-run"), "no-such-run: no such file or folder"),
        (("table1", "--out", "t", "--methods", "gan"), "unknown method 'gan'"),
        (("table1", "--out", "t", "--spaces", "nb101"), "unknown space 'nb101'"),
        (("table1", "--out", "t", "--seeds", "0"), "seeds: 0"),
    ],
)
def test_one_line(
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in failure(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_directory(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    below = str(file / "run")
    assert "is a file" in failure(capsys, "pretrain", "nasbench201", "--out", below)
    assert "is a file" in failure(capsys, "embed", str(finished_run), "--out", below)
    assert "is a file" in failure(capsys, "demo", "--out", below)


def test_occupied_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("")
    message = failure(capsys, "pretrain", "nasbench201", "--out", str(tmp_path))
    assert "is not an empty directory" in message


def test_finished_run_is_not_overwritten(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failure(capsys, "pretrain", "nasbench201", "--out", str(finished_run))
    assert "resume" in message


def test_resume_with_other_settings(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(
        capsys, "pretrain", "nasbench201", "--out", str(finished_run), "--resume", "--seed", "9"
    )
    assert "another" in message
    assert "seed" in message


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))


def test_truncated_checkpoint(copied_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copied_run / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:5_000])
    for command in ("embed", "evaluate"):
        message = failure(capsys, command, str(copied_run))
        assert "checkpoint.pt: not a whole file" in message
        assert "take another copy" in message
        assert len(message) < 300
    assert not (copied_run / "embeddings.safetensors").exists()


def test_foreign_checkpoint(copied_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copied_run / "checkpoint.pt"
    torch.save({"model_state": {"weight": torch.zeros(3)}}, file)
    assert "another space or recipe" in failure(capsys, "embed", str(copied_run))
    file.write_text("not a checkpoint")
    assert "checkpoint.pt" in failure(capsys, "embed", str(copied_run))


def test_checkpoint_with_code_is_refused(
    copied_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("true",)

    torch.save({"model_state": Payload()}, copied_run / "checkpoint.pt")
    assert "checkpoint.pt" in failure(capsys, "embed", str(copied_run))


def test_truncated_config(copied_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied_run / "config.json").write_text('{"format": 1, "spa')
    assert "config.json: not a JSON file" in failure(capsys, "evaluate", str(copied_run))


def test_cells_of_another_space(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.json"
    spaces.get("nasbench101").sample(3, seed=0).save_json(file)
    assert "cells.json" in failure(capsys, "embed", str(finished_run), "--cells", str(file))


def test_cells_outside_the_space(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, space = tmp_path / "cells.json", spaces.get("nasbench201")
    adjacency, node_ops = space.sample(2, seed=0).to_dense()
    adjacency[1, 0, 7] = 1  # no edge of the fixed graph
    CellBatch.from_dense(adjacency, node_ops, space.layout).save_json(file)
    for command in (("embed", str(finished_run)), ("pretrain", "nasbench201", "--out", "run")):
        message = failure(capsys, *command, "--cells", str(file))
        assert "cells: cell 1 of 2 is not of nasbench201: the edges" in message


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("/dev/full", "out: /dev/full is neither a file nor a directory"),
        ("/proc/x/y", "out: /proc takes no files"),
        ("{folder}", "out: {folder} is a directory; name a file"),
    ],
)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux")
@pytest.mark.parametrize("command", ["embed", "report"])
def test_outputs_that_cannot_be_written(
    command: str,
    out: str,
    message: str,
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, message = (text.replace("{folder}", str(tmp_path)) for text in (out, message))
    assert message in failure(capsys, command, str(finished_run), "--out", out)
    assert not list(tmp_path.iterdir())


def test_options_that_exclude_each_other(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.json"
    spaces.get("nasbench201").sample(3, seed=0).save_json(file)
    run, cells = str(finished_run), str(file)
    assert "drop one" in failure(capsys, "embed", run, "--cells", cells, "--space")
    arguments = ("pretrain", "nasbench201", "--cells", cells, "--limit", "9", "--out", run + "2")
    assert "drop one" in failure(capsys, *arguments)
    assert "export" in failure(capsys, "embed", run, "--export", "csv")
    assert "chunk_size: 0" in failure(capsys, "embed", run, "--chunk", "0")
    assert "projection" in failure(capsys, "report", run, "--projection", "umap")


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCH2VEC_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown space"):
        run_cli(["spaces", "nasbench9"])


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or sys.platform == "win32", reason="POSIX")
def test_interrupt_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "arch2vec_fast.cli", "pretrain", "nasbench201"]
    command += ["--recipe", "released", "--epochs", "50", "--limit", "2000", "--out", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = out / "metrics.jsonl"
    for _ in range(1_000):
        if metrics.exists() and metrics.stat().st_size:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert output == ""
    assert "--resume" in errors
    assert (out / "checkpoint.pt").exists()


def test_export_that_would_overwrite_the_table(
    copied_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.pt"
    message = failure(capsys, "embed", str(copied_run), "--export", "released", "--out", str(out))
    assert "out:" in message
    assert "choose another suffix" in message
    assert not out.exists()


def test_unfinished_run_is_announced(copied_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copied_run / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    torch.save({**state, "epoch": 0}, file)
    assert run_cli(["embed", str(copied_run)]) == 0
    assert "is at epoch 0 of 1; pretrain --resume finishes it" in capsys.readouterr().err


def test_demo_deletes_nothing_but_its_own_run(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with any config.json, another run, and even the demo's run with a file beside it."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"mine": 1}')
    (run / "precious.txt").write_text("")
    assert "is not the run of an earlier demo" in failure(capsys, "demo", "--out", str(tmp_path))
    assert {path.name for path in run.iterdir()} == {"config.json", "precious.txt"}
    shutil.rmtree(run)
    shutil.copytree(finished_run, run)
    before = sorted(run.iterdir())
    assert "is not the run of an earlier demo" in failure(capsys, "demo", "--out", str(tmp_path))
    assert sorted(run.iterdir()) == before
    shutil.rmtree(run)
    pretrain("nasbench201", "best", run, epochs=0)
    config = json.loads((run / "config.json").read_text())
    config["recipe"]["epochs"] = 1
    (run / "config.json").write_text(json.dumps(config))
    assert _is_demo_run(run)
    (run / "precious.txt").write_text("")
    assert not _is_demo_run(run)

# SPDX-License-Identifier: Apache-2.0
"""The commands `benchmarks` and `import`, end to end on small official files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from arch2vec_fast import benchmarks, spaces
from arch2vec_fast.benchmarks.nasbench301 import CONSTANTS
from arch2vec_fast.cli import run
from official_files import (
    Training,
    nasbench101_file,
    nasbench201_object,
    nasbench201_record,
    onnx_file,
)
from surrogate_weights import surrogate_weights


def test_without_tables_the_way_to_get_them_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["benchmarks", "--data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for name in benchmarks.names():
        assert name in text
    assert "arch2vec-fast import nasbench101 FILE --out FOLDER" in text


@pytest.mark.data
def test_benchmarks_at_hand_are_listed(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmarks", "--data", str(data_dir), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["benchmarks"]}
    assert list(rows) == list(benchmarks.names())
    row = rows["nasbench201-cifar10"]
    assert row["cells"] == 15_625
    assert row["mean_seconds"] == pytest.approx(112.84, abs=0.01)
    assert row["ceiling"]["test"] == pytest.approx(0.943733, abs=1e-6)
    assert row["found"] == str(data_dir / "nasbench201.npz")
    assert run(["benchmarks", "--data", str(data_dir)]) == 0
    assert "94.37" in capsys.readouterr().out


def test_nasbench101_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = spaces.get("nasbench101").enumerate("official")
    rng = np.random.default_rng(0)
    made = [Training(cells[i % 3], 108, 1000.0, *rng.random(2)) for i in range(9)]
    file = tmp_path / "nasbench_only108.tfrecord"
    file.write_bytes(nasbench101_file(made))
    arguments = ["import", "nasbench101", str(file), "--out", str(tmp_path)]
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert "lack runs" in error
    assert error.count("\n") == 1
    assert run([*arguments, "--partial", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == [str(tmp_path / "nasbench101.safetensors")]
    assert document["benchmarks"][0]["cells"] == 3


def test_nasbench201_is_imported_where_the_variable_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = spaces.get("nasbench201")
    archs = space.to_string(space.enumerate()[:2])  # type: ignore[attr-defined]
    records = {number: nasbench201_record(arch, number) for number, arch in enumerate(archs)}
    file = tmp_path / "NAS-Bench-201.pth"
    torch.save(nasbench201_object(records, archs, ("less", "full")), file)
    monkeypatch.setenv("ARCH2VEC_DATA", str(tmp_path))
    assert run(["import", "nasbench201", str(file), "--partial"]) == 0
    assert "nasbench201-imagenet16-120" in capsys.readouterr().out
    assert len(benchmarks.get("nasbench201-cifar100")) == 2


def test_nasbench301_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmarks", "--data", str(tmp_path)]) == 0
    command = "nb301_yahpo_surrogate.npz (made by: arch2vec-fast import nasbench301 FILE"
    assert command in capsys.readouterr().out
    file = tmp_path / "new_model.onnx"
    file.write_bytes(onnx_file(surrogate_weights(), CONSTANTS))
    assert run(["import", "nasbench301", str(file), "--out", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == [str(tmp_path / "nb301_yahpo_surrogate.npz")]
    assert document["benchmarks"][0]["name"] == "darts-nb301"
    assert document["benchmarks"][0]["found"] == document["written"][0]


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"not a record file")
    out = ["--out", str(tmp_path)]
    for arguments in (
        ["nasbench101", str(file), *out],
        ["nasbench201", str(file), *out],
        ["nasbench101", str(tmp_path / "absent"), *out],
        ["nasbench201", str(file), "--out", str(tmp_path / "absent")],
        ["analog", *out, "--file", str(file)],
        ["nasbench301", str(file), *out],
        ["nasbench301", str(tmp_path / "absent"), *out],
        ["nasbench102", str(file), *out],
    ):
        assert run(["import", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]

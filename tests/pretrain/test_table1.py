# SPDX-License-Identifier: Apache-2.0
"""Table 1: which runs there are, that finished ones are kept, and what a row says."""

import json
from pathlib import Path
from typing import Any

import pytest

from arch2vec_fast.cli import run as run_cli
from arch2vec_fast.pretrain import Run, pretrain, table1
from arch2vec_fast.pretrain.table1 import Job, finished, jobs, run_jobs, summary


def result(space: str, exact: float, unique: float | None = 0.5) -> dict[str, Any]:
    quality = {"valid": 0.25, "unique": unique}
    return {
        "space": space,
        "reconstruction": {
            "released": {"ops_accuracy": 0.9, "edge_accuracy": 0.8},
            "strict": {"exact": exact},
        },
        "raw": {"released": quality, "strict": quality},
        "legal": {"strict": quality},
        "uniform": {"unique": 0.739},
    }


def test_every_pair_and_seed_once_quick_ones_first() -> None:
    table = jobs(table1.SPACES, table1.METHODS, 2)
    assert len(table) == len(set(table)) == 3 * 5 * 2
    assert [job.estimate for job in table] == sorted(job.estimate for job in table)
    assert table[0].space == "nasbench201"


def test_rows_average_over_seeds_and_skip_what_is_undefined() -> None:
    found = [
        (Job("nasbench201", "released", 0), result("nasbench201", 0.5, None)),
        (Job("nasbench201", "released", 1), result("nasbench201", 0.7, 0.9)),
        (Job("nasbench101", "best", 0), result("nasbench101", 1.0)),
    ]
    first, second = summary(found)
    assert (first["space"], first["method"], first["paper"]) == ("nasbench101", "best", None)
    assert first["exact"] == {"mean": 1.0, "std": None}
    assert second["seeds"] == 2
    assert second["exact"]["mean"] == pytest.approx(0.6)
    assert second["exact"]["std"] == pytest.approx(0.02**0.5)
    assert second["released_uniqueness"] == {"mean": 0.9, "std": None}
    assert second["paper"] == [None, 0.7941, 0.9872]


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Table 1 on 100 cells; returns the directories it trained in."""
    trained: list[Path] = []

    def small(space: Any, recipe: Any, out: Path, **options: Any) -> Run:
        trained.append(out)
        return pretrain(space, recipe, out, limit=100, **options)

    monkeypatch.setattr(table1, "pretrain", small)
    return trained


def test_finished_runs_are_read_not_run(tmp_path: Path, small_runs: list[Path]) -> None:
    table = jobs(["nasbench201"], ["gae", "best"], 1)
    first = list(run_jobs(table, tmp_path, samples=50))
    assert [path.name for path in small_runs] == ["nasbench201-gae-0", "nasbench201-best-0"]
    again = list(run_jobs(table, tmp_path, samples=50))
    assert len(small_runs) == 2
    assert again == first
    (tmp_path / "nasbench201-gae-0.json").unlink()
    third = list(run_jobs(table, tmp_path, samples=50))  # resumes a complete run: evaluates again
    assert third[0][1]["raw"] == first[0][1]["raw"]


def test_foreign_results_are_refused(tmp_path: Path) -> None:
    job = Job("nasbench201", "gae", 0)
    assert finished(job, tmp_path, 50) is None
    own = result("nasbench201", 0.5) | {
        "recipe": "gae",
        "run_seed": 0,
        "seed": 0,
        "prior": "per-node",
        "counts": {"samples": 50, "epochs": 10},
    }
    job.result_path(tmp_path).write_text(json.dumps(own))
    assert finished(job, tmp_path, 50) == own
    for change in ({"space": "darts"}, {"recipe": "vgae"}, {"run_seed": 1}, {"raw": {}}):
        job.result_path(tmp_path).write_text(json.dumps(own | change))
        with pytest.raises(ValueError, match=r"gae-0\.json: not a result of nasbench201-gae-0"):
            finished(job, tmp_path, 50)
    for change in ({"seed": 1}, {"prior": "standard"}, {"counts": {"samples": 50, "epochs": 9}}):
        job.result_path(tmp_path).write_text(json.dumps(own | change))
        assert finished(job, tmp_path, 50) is None


def test_other_samples_are_drawn_anew_from_the_same_run(
    tmp_path: Path, small_runs: list[Path]
) -> None:
    table = jobs(["nasbench201", "nasbench201"], ["released", "released"], 1)
    assert len(table) == 1
    ((_, first),) = run_jobs(table, tmp_path, samples=50)
    ((_, second),) = run_jobs(table, tmp_path, samples=60)
    assert [found["counts"]["samples"] for found in (first, second)] == [50, 60]
    assert second["reconstruction"] == first["reconstruction"]


def test_command_prints_the_table(
    tmp_path: Path, small_runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--out", str(tmp_path), "--spaces", "nasbench201", "--methods", "released"]
    assert run_cli(["table1", *options, "--samples", "50"]) == 0
    captured = capsys.readouterr()
    for published in ("paper", "79.41", "98.72"):
        assert published in captured.out
    assert "1 runs, 0 finished before" in captured.err
    assert run_cli(["table1", *options, "--samples", "50", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["method"] == "released"
    assert len(small_runs) == 1

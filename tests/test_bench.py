# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks make of their measurements; nothing is timed here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import compare, results_file, roofline, table
from bench.contenders.darts_step import Task, our_step, released_step
from bench.gpu import darts_step
from bench.harness import OURS, Turns
from bench.limits import share


def row(name: str, low: float, median: float, high: float) -> dict[str, Any]:
    spread = {"median": median, "min": low, "max": high, "repeats": 5}
    return {
        "id": name,
        "work": name,
        "threads": 1,
        "unit": "cell",
        "amount": 10,
        "contenders": {
            OURS: {"seconds_per_unit": spread, "ours_times_faster": spread},
            "released": {"seconds_per_unit": spread, "ours_times_faster": spread},
        },
        "goals": {"released": 3.5, "absent": 2},
        "goal_seconds": 100.0,
        "limit": {"bound": "memory", "share": 0.5},
    }


def test_turns_form_ratios_within_a_turn_and_drop_the_first() -> None:
    turns = Turns({OURS: lambda: 1.0, "twice": lambda: 2.0})
    for _ in range(4):
        turns()
    summary = turns.summary()
    assert summary[OURS]["ours_times_faster"] == {"median": 1, "min": 1, "max": 1, "repeats": 3}
    with pytest.raises(ValueError, match="none is called"):
        Turns({"other": lambda: 1.0})


def test_share_takes_the_lower_roof() -> None:
    limits = {"gflops": 100.0, "gbytes_per_second": 10.0}
    assert share(limits, 1.0, 50e9, 8e9) == {"bound": "memory", "share": pytest.approx(0.8)}
    assert share(limits, 1.0, 50e9, None) == {"bound": "compute", "share": pytest.approx(0.5)}
    assert share(limits, 1.0, None, None) is None


def test_table_says_which_goals_are_met() -> None:
    text = table.render({"rows": [row("embed", 3.0, 4.0, 5.0)]})
    assert text.splitlines()[-1] == (
        "| embed | 1 | 40 s | released 4.0 (3.0-5.0) | 50 % of memory | "
        "released 3.5x met, 100 s met |"
    )


def test_table_names_who_is_absent_and_why() -> None:
    rival = {**row("embed", 3.0, 4.0, 5.0), "goals": {}, "absent": {"PyG": "not installed"}}
    ours = {**row("bf16", 1, 1, 1), "contenders": {}, "absent": {OURS: "no AVX512-BF16"}}
    lines = table.render({"rows": [rival, ours]}).splitlines()
    assert "| released 4.0 (3.0-5.0), PyG absent: not installed |" in lines[-2]
    assert lines[-1] == "| bf16 | 1 | absent | no AVX512-BF16 |  |  |"
    assert compare.changes({"rows": [ours]}, {"rows": [ours]}) == {}


def test_roofline_takes_rows_that_know_their_arithmetic_and_traffic(tmp_path: Path) -> None:
    known = {**row("embed", 1, 2.0, 3), "device": "cpu", "flops_per_unit": 8, "bytes_per_unit": 4}
    other = {**row("search", 1, 2, 3), "device": "cpu", "flops_per_unit": 8, "bytes_per_unit": None}
    content = {
        "cpu": "x",
        "cores": 2,
        "rows": [known, other],
        "limits": {"cpu, 1 threads": {"gflops": 10.0, "gbytes_per_second": 5.0}},
    }
    assert roofline.points(content) == [("embed", 1, 2.0, 4.0)]
    assert roofline.roofs(content) == {1: (1e10, 5e9)}
    pytest.importorskip("matplotlib")
    roofline.draw(content, tmp_path / "plots" / "roofline.svg")
    drawn = (tmp_path / "plots" / "roofline.svg").read_text()
    assert ">embed<" in drawn
    assert ">search<" not in drawn


def test_compare_calls_changed_what_does_not_overlap() -> None:
    before = {"rows": [row("a", 1.0, 2.0, 3.0), row("b", 1.0, 1.1, 1.2), row("gone", 1, 1, 1)]}
    after = {"rows": [row("a", 2.0, 2.5, 4.0), row("b", 2.0, 2.2, 2.4), row("new", 1, 1, 1)]}
    found = compare.changes(before, after)
    assert found == {"a": (1.25, False), "b": (pytest.approx(2.0), True)}


def test_rows_of_earlier_runs_stay_on_the_same_machine_only(tmp_path: Path) -> None:
    path = tmp_path / "machine" / "suite.json"
    facts = {"cpu": "x", "cores": 2, "commit": "1"}
    results_file.update(path, facts, {}, [row("a", 1, 1, 1), row("b", 1, 1, 1)])
    results_file.update(path, {**facts, "commit": "2"}, {}, [row("b", 2, 2, 2)])
    rows = {entry["id"]: entry["run"]["commit"] for entry in results_file.load(path)["rows"]}
    assert rows == {"a": "1", "b": "2"}
    results_file.update(path, {**facts, "cpu": "y"}, {}, [row("c", 1, 1, 1)])
    assert [entry["id"] for entry in results_file.load(path)["rows"]] == ["c"]
    path.write_text("[]")
    with pytest.raises(ValueError, match="is no result file"):
        results_file.load(path)


@pytest.mark.parametrize(("document", "goals"), [("README.md", True), ("docs/results.md", False)])
def test_documents_show_the_committed_measurements(document: str, goals: bool) -> None:
    root = Path(__file__).resolve().parent.parent
    source = "bench/results/epyc-zen3-2core/suite.json"
    text = (root / document).read_text()
    shown = table.render(results_file.load(root / source), goals=goals)
    assert table.insert(text, source, shown) == text


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^document: lacks the lines"):
        table.insert("nothing", "file", "text")


class Once:
    """A `gpu.report.Report` that runs each contender once and times nothing."""

    def __init__(self) -> None:
        self.losses: dict[str, float] = {}

    def race(self, name: str, contenders: dict[str, Any], **_: object) -> None:
        for label, step in contenders.items():
            if step is not None:
                self.losses[label] = float(step()[0])


def test_ways_of_computing_a_darts_step_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Task(channels=8, layers=3, batch=4, auxiliary=True, drop_path=0.2)
    monkeypatch.setattr(darts_step, "FINAL", tiny)
    monkeypatch.delenv("REFERENCE", raising=False)
    report = Once()
    darts_step.eager(report)  # type: ignore[arg-type]
    assert set(report.losses) == {OURS, "contiguous", "bf16", "bf16, contiguous"}
    for label, loss in report.losses.items():
        assert loss == pytest.approx(report.losses[OURS], rel=0.05 if "bf16" in label else 1e-4)


def test_a_darts_step_learns_and_needs_a_clone_for_its_rival(tmp_path: Path) -> None:
    task = Task(channels=8, layers=3, batch=8)
    step = our_step(task)
    losses = [float(step()[0]) for _ in range(4)]  # type: ignore[index]
    assert losses == sorted(losses, reverse=True)
    with pytest.raises(ValueError, match="is no clone of MSU-MLSys-Lab/arch2vec"):
        released_step(task, tmp_path)

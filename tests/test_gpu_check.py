# SPDX-License-Identifier: Apache-2.0
"""`make gpu-check` where there is no GPU: one thing that fails is recorded and the others go on."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import check, report
from bench.gpu.check import Section

ROWS = """
import sys
from bench.gpu.report import Report
from pathlib import Path
report = Report(Path(sys.argv[1]))
report.attempt("broken", lambda: 1 / 0)
report.attempt("whole", lambda: report.add("whole", 7, "s", goal=6))
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_sections_end_with_what_can_wait() -> None:
    names = list(check.sections())
    assert names[:2] == ["build", "tests"]
    assert names[-1] == "cpu_tests"
    assert {"train_step", "gin_encode", "nearest_latent", "dngo", "darts_step"} <= set(names)


@pytest.mark.parametrize(
    ("section", "status"),
    [
        (Section(limit=60, command=python("print('5 passed in 0.1s')")), "passed"),
        (Section(limit=60, command=python("print('why'); raise SystemExit(3)")), "exit code 3"),
        (Section(limit=1, command=python("import time; time.sleep(60)")), "timed out after 1 s"),
        (Section(limit=60, command=["no-such-program"]), "absent"),
        (Section(limit=60, module="bench.gpu.no_such_module"), "exit code 1"),
    ],
)
def test_a_section_ends_as_it_ends(section: Section, status: str) -> None:
    outcome = check.run_section(section, seconds_left=50)
    assert status in outcome["status"]
    assert ("output" in outcome) == (status != "passed")


def test_what_fails_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections, rows, results of an earlier call; the exit status tells of every failure."""

    def call(commit: str, **commands: list[str]) -> tuple[int, dict[str, Any]]:
        chosen = {name: Section(limit=60, command=code) for name, code in commands.items()}
        monkeypatch.setattr(check, "sections", lambda: chosen)
        monkeypatch.setattr(sys, "argv", ["check"])
        monkeypatch.setenv("GPU_CHECK_OUT", str(tmp_path / "out.json"))
        monkeypatch.setenv("GPU_CHECK_COMMIT", commit)
        code = check.main()
        return code, json.loads((tmp_path / "out.json").read_text())

    code, first = call("one", broken=python("raise SystemExit(1)"), fine=python(""))
    assert code == 1
    assert {n: s["status"] for n, s in first["sections"].items()} == {
        "broken": "failed (exit code 1)",
        "fine": "passed",
    }
    code, second = call("two", broken=python(""))
    assert code == 0
    assert {name: s["commit"] for name, s in second["sections"].items()} == {
        "broken": "two",
        "fine": "one",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_rows_are_kept_and_a_failed_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    run = check._run
    monkeypatch.setattr(check, "_run", lambda c, *rest: run([*python(ROWS), c[-1]], *rest))
    outcome = check.run_section(Section(limit=60, module="instead"), seconds_left=50)
    assert [row["name"] for row in outcome["rows"]] == ["broken", "whole"]
    assert check.failed_rows(outcome) == ["broken"]
    assert list(check.goals({"sections": {"one": outcome}})) == ["  no whole: 7 s of 6 s"]


def test_a_contender_that_fails_leaves_the_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, or in a later turn; one that is not installed is no failure."""
    monkeypatch.setattr(report.torch.cuda, "synchronize", lambda: None)

    class Timer:
        def __init__(self, work: report.Work) -> None:
            self.work, self.seconds, self.host_seconds = work, [], []
            work()

        def turn(self) -> None:
            self.work()
            self.seconds.append(2e-6)
            self.host_seconds.append(1e-6)

    monkeypatch.setattr(report, "_Timer", Timer)
    countdown = iter([None, None])
    rows = tmp_path / "rows"
    report.Report(rows).race(
        "race",
        {
            report.OURS: lambda: None,
            "at once": lambda: 1 / 0,
            "later": lambda: next(countdown),
            "not here": None,
        },
        goal=1e-6,
    )
    outcome = {"rows": [json.loads(rows.read_text())]}
    assert check.failed_rows(outcome) == ["race: at once", "race: later"]
    assert list(check.goals({"sections": {"one": outcome}})) == ["  no race: 2e-06 s of 1e-06 s"]

# SPDX-License-Identifier: Apache-2.0
"""Builds, tests, checks and measures everything that needs a GPU: `make gpu-check`.

    python -m bench.gpu.check                      all sections, under nine minutes on 16 cores
    python -m bench.gpu.check build tests          some of them; their results replace the old ones

Uses the interpreter that runs it, its torch and its tools, and no network. Each section is a
process with a time limit of its own, and all share $GPU_CHECK_SECONDS (525): one that fails or
hangs is recorded as such and the rest goes on. Writes one JSON file, $GPU_CHECK_OUT or
results/<GPU>/gpu-check.json, after every section. This module must not import torch or
arch2vec_fast, which the first section builds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
_SECONDS = 525  # of the whole check; $GPU_CHECK_SECONDS overrides
_LEAST_SECONDS = 5  # with less than this left a section is not started
_TAIL = 4000  # characters of a failed section's output that are kept
_PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
# Another release of torch may warn of what this one does not: no failure here.
_PYTEST += ["--strict-markers", "--import-mode=importlib", "-rfE", "-W", "default"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A command, or a benchmark module that writes rows, and its limit in seconds."""

    limit: int
    command: list[str] = field(default_factory=list)
    module: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def sections() -> dict[str, Section]:
    """All sections in their order; the benchmarks of the kernels are the files of this folder."""
    cores = str(os.cpu_count() or 2)
    parallel = ["-n", str(min(int(cores), 12))] if _has_xdist() else []
    first = {
        "build": Section(
            limit=200,
            command=[sys.executable, "setup.py", "build_ext", "--inplace"],
            environment={"A2V_CUDA": "ON", "CMAKE_BUILD_PARALLEL_LEVEL": cores},
        ),
        "tests": Section(
            limit=150,
            command=[*_PYTEST, "-m", "cuda", *parallel[:1], *(["4"] if parallel else [])],
            environment={"FAIL_WITHOUT_CUDA": "1"},
        ),
        "memcheck": Section(limit=75, command=_sanitizer("memcheck")),
        "racecheck": Section(limit=75, command=_sanitizer("racecheck")),
    }
    # What other machines can tell too, or what rivals take long for, gets the time that is left.
    last = {
        "constants": Section(limit=90, module="bench.gpu.constants"),
        "torch_rates": Section(limit=60, module="bench.gpu.torch_rates"),
        "training": Section(limit=120, module="bench.gpu.training"),
        "darts_step": Section(limit=90, module="bench.gpu.darts_step"),
        "cpu_tests": Section(limit=120, command=[*_PYTEST, "-m", "not cuda", *parallel]),
    }
    own = {"__init__", "check", "report", "sanitized", *last}
    kernels = sorted(path.stem for path in _HERE.glob("*.py") if path.stem not in own)
    return first | {n: Section(limit=90, module=f"bench.gpu.{n}") for n in kernels} | last


def _has_xdist() -> bool:
    return (
        subprocess.run([sys.executable, "-c", "import xdist"], capture_output=True).returncode == 0
    )


def _sanitizer(tool: str) -> list[str]:
    """Small sizes of every kernel under compute-sanitizer; torch's own kernels are not watched."""
    program = shutil.which("compute-sanitizer") or "compute-sanitizer"
    options = ["--tool", tool, "--kernel-name", "kernel_substring=a2v", "--error-exitcode", "9"]
    return [program, *options, sys.executable, "-m", "bench.gpu.sanitized"]


def main() -> int:
    """Command line; returns 1 if a section or a row failed."""
    every = sections()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(every)}")
    chosen = parser.parse_args().sections or list(every)
    if unknown := [name for name in chosen if name not in every]:
        parser.error(f"{', '.join(unknown)}: no such section; choose from {', '.join(every)}")

    gpu = describe_gpu()
    out = _out_file(gpu)
    result = _previous(out)
    result["gpu"], commit = gpu, _commit()
    ends = time.monotonic() + float(os.environ.get("GPU_CHECK_SECONDS", _SECONDS))
    for name in chosen:
        print(f"\n=== {name}", flush=True)
        outcome = run_section(every[name], ends - time.monotonic())
        # Sections are replaced one by one, so each says what it measured.
        result.setdefault("sections", {})[name] = outcome | {"commit": commit}
        _write(out, result)
        print(f"=== {name}: {outcome['status']} in {outcome['seconds']} s", flush=True)
    print_summary(result, chosen)
    print(f"\nwritten: {out}")
    outcomes = [result["sections"][name] for name in chosen]
    return int(any(o["status"] != "passed" or failed_rows(o) for o in outcomes))


def run_section(section: Section, seconds_left: float) -> dict[str, Any]:
    """Runs one section; where it fails, the end of its output is kept in the result."""
    if seconds_left < _LEAST_SECONDS:
        return {"status": "skipped: no time left", "seconds": 0.0}
    section = replace(section, limit=min(section.limit, int(seconds_left)))
    began = time.monotonic()
    outcome: dict[str, Any] = {
        "status": "passed",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory() as folder:
        rows, log = Path(folder) / "rows.jsonl", Path(folder) / "log"
        command = section.command
        if section.module is not None:
            command = [sys.executable, "-m", "bench.gpu.report", section.module, str(rows)]
        outcome["status"] = _run(command, section, log)
        if rows.exists():
            outcome["rows"] = [json.loads(line) for line in rows.read_text().splitlines()]
        text = log.read_text(errors="replace") if log.exists() else ""
        if outcome["status"] != "passed":
            outcome["output"] = text[-_TAIL:]
        if summary := re.findall(r"^.*\b(?:passed|failed|error)\b.* in [0-9.]+s.*$", text, re.M):
            outcome["summary"] = summary[-1]
    outcome["seconds"] = round(time.monotonic() - began, 1)
    return outcome


def _run(command: list[str], section: Section, log: Path) -> str:
    """Starts a command in a process group of its own, so that a limit ends all of it."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "1",
        **section.environment,
    }
    with log.open("w+") as file:
        try:
            process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            file.write(f"{command[0]}: {error.strerror}\n")
            return "absent"
        try:
            code = process.wait(section.limit)
            status = "passed" if code == 0 else f"failed (exit code {code})"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = f"timed out after {section.limit} s"
        file.seek(0)
        sys.stdout.write(_shortened(file.read(), whole=status == "passed"))
    return status


def _shortened(text: str, *, whole: bool) -> str:
    """The end of an output; more of it where something went wrong."""
    limit = 3000 if whole else 2 * _TAIL
    return text if len(text) <= limit else "...\n" + text[-limit:]


def describe_gpu() -> dict[str, str]:
    """Name, driver and compiler, asked of the tools because torch may not be importable yet."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    facts = dict(zip(("name", "driver", "memory"), _output(query).split("\n")[0].split(", ")))
    if version := re.search(r"release ([0-9.]+)", _output(["nvcc", "--version"])):
        facts["nvcc"] = version[1]
    code = "import torch; print(torch.__version__, torch.version.cuda)"
    facts["torch"] = _output([sys.executable, "-c", code]).strip()
    facts["python"] = sys.version.split()[0]
    facts["cores"] = str(os.cpu_count())
    return facts


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _commit() -> str:
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    return os.environ.get("GPU_CHECK_COMMIT") or _output(command).strip() or "unknown"


def _out_file(gpu: Mapping[str, str]) -> Path:
    if value := os.environ.get("GPU_CHECK_OUT"):
        path = Path(value)
        return path / "gpu-check.json" if path.is_dir() or value.endswith("/") else path
    machine = re.sub(r"[^a-z0-9]+", "-", (gpu.get("name") or "no-gpu").lower()).strip("-")
    return _HERE.parent / "results" / machine / "gpu-check.json"


def _previous(out: Path) -> dict[str, Any]:
    try:
        previous: dict[str, Any] = json.loads(out.read_text())
    except (OSError, ValueError):
        return {}
    return previous


def _write(out: Path, result: Mapping[str, Any]) -> None:
    """All of it or nothing: a kill leaves the file before."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    unfinished.replace(out)


def goals(result: Mapping[str, Any]) -> Iterator[str]:
    """One line for each row with a goal: reached or missed, by how much."""
    for section in result["sections"].values():
        for row in section.get("rows", []):
            if "goal_seconds" in row:
                ours = row["contenders"].get("arch2vec_fast", {"error": "not measured"})
                value, goal, unit = ours.get("seconds"), row["goal_seconds"], "s"
            elif "goal" in row:
                value, goal, unit = row["value"], row["goal"], row["unit"]
            else:
                continue
            if value is None:
                yield f"  ?  {row['name']}: {ours['error']}"
                continue
            mark = "ok" if value <= goal else "no"
            yield f"  {mark} {row['name']}: {value:.3g} {unit} of {goal:.3g} {unit}"


def failed_rows(outcome: Mapping[str, Any]) -> list[str]:
    """Rows without a number, and contenders that failed; what is not installed has not."""
    failed = []
    for row in outcome.get("rows", []):
        if "error" in row:
            failed.append(row["name"])
        for label, entry in row.get("contenders", {}).items():
            if entry.get("error", "absent") != "absent":
                failed.append(f"{row['name']}: {label}")
    return failed


def print_summary(result: Mapping[str, Any], chosen: list[str]) -> None:
    """Sections and goals; the end of the output is what a person reads."""
    print("\n=== summary")
    for name in chosen:
        outcome = result["sections"][name]
        failed = failed_rows(outcome)
        extra = outcome.get("summary", "") + (f" failed rows: {failed}" if failed else "")
        print(f"  {name}: {outcome['status']}, {outcome['seconds']} s {extra}")
    lines = list(goals(result))
    if lines:
        print("goals:", *lines, sep="\n")


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Options and fixtures of the benchmarks. How to write one: README.md."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from arch2vec_fast import spaces
from bench import limits, results_file
from bench.contenders.released import released_code
from bench.environment import describe
from bench.harness import OURS, Absent, Contender, Turns, set_threads

_RUN = pytest.StashKey["_Run"]()

# Rows that take long and say little that their neighbours do not: four minutes in all.
_LONG = (
    "test_round_over_nasbench101[threads1-200]",
    "test_round_over_nasbench101[threads2-200]",
    "test_round_over_nasbench101_as_released[threads2-100]",
    "test_posterior_over_nasbench101[threads1-151]",
    "test_many_searches_of_nasbench201[threads1]",
    "test_streaming_a_space[threads1-100000]",
    "test_streaming_a_space[threads1-400000]",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("arch2vec_fast benchmarks")
    group.addoption("--quick", action="store_true", help="small sizes, two repeats, nothing kept")
    group.addoption("--slow", action="store_true", help="also rows that take long")
    group.addoption("--threads", default="1,2", help="numbers of threads, default 1,2")
    group.addoption("--repeats", type=int, default=5, help="turns that count, default 5")
    group.addoption("--reference", type=Path, help="clone of MSU-MLSys-Lab/arch2vec")
    group.addoption("--machine", help="folder below bench/results, default: from the CPU's name")
    group.addoption(
        "--bench-out", type=Path, help="result file, default results/MACHINE/suite.json"
    )
    group.addoption("--device", default="cpu", help="cpu (default) or cuda")


class _Run:
    """What one session of pytest measures and where it goes."""

    def __init__(self, config: pytest.Config) -> None:
        self.quick: bool = config.getoption("--quick")
        self.repeats: int = 2 if self.quick else config.getoption("--repeats")
        self.device: str = config.getoption("--device")
        self.facts = describe()
        self.limits: dict[str, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self.out: Path | None = config.getoption("--bench-out")
        if self.out is None and not self.quick:
            machine = config.getoption("--machine") or results_file.default_machine()
            self.out = results_file.RESULTS / machine / "suite.json"

    def limits_of(self, threads: int) -> dict[str, Any]:
        key = f"{self.device}, {threads} threads"
        if key not in self.limits:
            self.limits[key] = limits.measure(threads, self.device)
        return self.limits[key]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RUN] = _Run(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "threads" in metafunc.fixturenames:
        counts = [int(word) for word in metafunc.config.getoption("--threads").split(",")]
        metafunc.parametrize("threads", counts, ids=lambda count: f"threads{count}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow") or config.getoption("--quick"):
        return
    for item in items:
        if item.name in _LONG:
            item.add_marker(pytest.mark.skip(reason="takes long; --slow runs it"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    run = session.config.stash[_RUN]
    if run.rows and run.out is not None:
        results_file.update(run.out, run.facts, run.limits, run.rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    run = terminalreporter.config.stash[_RUN]
    for row in run.rows:
        if OURS not in row["contenders"]:
            continue
        ours = row["contenders"][OURS]["seconds_per_unit"]["median"]
        others = [
            f"{name} x{values['ours_times_faster']['median']:.2f}"
            for name, values in row["contenders"].items()
            if name != OURS
        ]
        others += [f"{name} absent ({reason})" for name, reason in row["absent"].items()]
        limit = row["limit"]
        shares = f"  {100 * limit['share']:.0f}% of {limit['bound']}" if limit else ""
        terminalreporter.write_line(
            f"{row['work']}, {row['threads']} threads: {ours:.3g} s a {row['unit']}{shares}  "
            + ", ".join(others)
        )
    if run.rows and run.out is not None:
        terminalreporter.write_line(f"written: {run.out}")


@pytest.fixture
def quick(pytestconfig: pytest.Config) -> bool:
    """True in `make bench-quick`: choose sizes that take a second in all."""
    return pytestconfig.stash[_RUN].quick


@pytest.fixture
def device(pytestconfig: pytest.Config) -> str:
    """Where contenders run; skips, by name, where there is no such device."""
    name = pytestconfig.stash[_RUN].device
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return name


@pytest.fixture
def race(
    benchmark: Any, threads: int, request: pytest.FixtureRequest
) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that lets contenders take turns and records one row; see README.md."""
    run = request.config.stash[_RUN]
    before = torch.get_num_threads()
    measured = run.limits_of(threads)

    def start(
        work: str,
        contenders: Mapping[str, Contender | Absent],
        *,
        unit: str,
        amount: float = 1,
        goals: Mapping[str, float] | None = None,
        goal_seconds: float | None = None,
        flops: float | None = None,
        moved: float | None = None,
        repeats: int | None = None,
    ) -> dict[str, Any]:
        present = {n: c for n, c in contenders.items() if not isinstance(c, Absent)}
        absent = {n: c.reason for n, c in contenders.items() if isinstance(c, Absent)}
        summary: dict[str, Any] = {}
        limit = None
        if OURS in present:
            turns = Turns(present)
            set_threads(threads)
            benchmark.pedantic(turns, rounds=repeats or run.repeats, warmup_rounds=1)
            summary = turns.summary()
            seconds = summary[OURS]["seconds_per_unit"]["median"]
            limit = limits.share(measured, seconds, flops, moved)
        row = {
            "id": request.node.nodeid.split("::", 1)[1],
            "work": work,
            "threads": threads,
            "device": run.device,
            "unit": unit,
            "amount": amount,
            "contenders": summary,
            "absent": absent,
            "goals": dict(goals or {}),
            "goal_seconds": goal_seconds,
            "flops_per_unit": flops,
            "bytes_per_unit": moved,
            "limit": limit,
        }
        benchmark.extra_info.update(row)
        run.rows.append(row)
        if not summary:
            pytest.skip(f"{work}: {absent[OURS]}")
        return row

    set_threads(threads)
    yield start
    set_threads(before)


@pytest.fixture(scope="session")
def nasbench101(pytestconfig: pytest.Config) -> spaces.CellBatch:
    """All 423,624 cells; every twentieth in quick mode."""
    cells = spaces.get("nasbench101").enumerate()
    return cells[::20] if pytestconfig.stash[_RUN].quick else cells


@pytest.fixture(scope="session")
def latents(nasbench101: spaces.CellBatch) -> torch.Tensor:
    """Embeddings [Q, 16] of `nasbench101` under an untrained released encoder with seed 0.

    Untrained weights keep what matters to speed: the distribution's shape and the ties between
    cells that the symmetric encoder cannot tell apart.
    """
    from arch2vec_fast.models import Recipe, build_model
    from arch2vec_fast.models.inference import readout_encoder

    torch.manual_seed(0)
    model = build_model(Recipe.released("nasbench101"), nasbench101.layout).eval()
    return readout_encoder(model, nasbench101.layout)(nasbench101.to_torch())


@pytest.fixture(scope="session")
def released(pytestconfig: pytest.Config) -> SimpleNamespace:
    """The authors' own functions where `--reference` names a clone, else their drop-in twins."""
    return released_code(pytestconfig.getoption("--reference"))


@pytest.fixture
def has_package() -> Callable[[str], bool]:
    """Whether an optional package is installed: contenders that need it are left out without it."""
    return lambda name: importlib.util.find_spec(name) is not None

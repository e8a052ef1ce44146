# SPDX-License-Identifier: Apache-2.0
"""`table2`, `table3` and the searches of the demo, on a made-up benchmark."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from arch2vec_fast import benchmarks, spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.cli import demo_search
from arch2vec_fast.cli import run as run_cli
from arch2vec_fast.pretrain import Run
from toy import toy_benchmark


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> TableBenchmark:
    toy = toy_benchmark()
    toy = replace(toy, times=50 * toy.times)

    def get(name: str, **_: Any) -> TableBenchmark:
        return replace(toy, name=name)

    def find(name: str, **_: Any) -> SimpleNamespace | None:
        return None if "imagenet" in name else SimpleNamespace(kind="table")

    monkeypatch.setattr(benchmarks, "get", get)
    monkeypatch.setattr(benchmarks, "find", find)
    return toy


@pytest.mark.usefixtures("toys")
def test_table3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    out = tmp_path / "t"
    arguments = ["table3", "--out", str(out), "--seeds", "3", "--methods", "random,local-search"]
    assert run_cli([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert "nasbench201-imagenet16-120: no table, left out" in captured.err
    document = json.loads(captured.out)
    assert [(s["benchmark"], s["method"]) for s in document["studies"]] == [
        ("nasbench201-cifar10", "random"),
        ("nasbench201-cifar10", "local-search"),
        ("nasbench201-cifar100", "random"),
        ("nasbench201-cifar100", "local-search"),
    ]
    assert Path(document["report"]).is_file()
    assert (Path(document["csv"]) / "final.csv").is_file()
    assert run_cli(arguments) == 0
    captured = capsys.readouterr()
    assert "4 studies of 3 searches, 4 finished before" in captured.err
    assert "Table 3" in captured.out


def test_table2_prints_published_results_as_quoted(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    toys: TableBenchmark,
) -> None:
    pytest.importorskip("plotly")
    space = spaces.get("nasbench101")
    count = 50
    of_space = replace(
        toys,
        space=space,
        cells=space.sample(count, seed=0),
        validation=toys.validation[:count],
        test=toys.test[:count],
        times=toys.times[:count] if toys.times is not None else None,
    )
    monkeypatch.setattr(benchmarks, "get", lambda name, **_: replace(of_space, name=name))
    arguments = ["table2", "--out", str(tmp_path / "t"), "--seeds", "2", "--methods", "random"]
    assert run_cli(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.index("random") < printed.index("Quoted, not run here") < printed.index("NASBOT")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table2", "--out", "t", "--methods", "nao"), "no method 'nao'"),
        (("table2", "--out", "t", "--recipes", "mine"), "no preset 'mine'"),
        (("table3", "--out", "t", "--seeds", "0"), "seeds: 0 is below 1"),
        (("table3", "--out", "t", "--noise", "loud"), "noise: 'loud'"),
        (("table3", "--out", "t", "--encoder", "absent"), "absent is not a run directory"),
    ],
)
@pytest.mark.usefixtures("toys")
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_tables_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("table2", "table3"):
        assert run_cli([command, "--out", "t", "--data", str(tmp_path)]) == 2
        assert "no table found" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_demo_searches(
    toys: TableBenchmark, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("plotly")
    console = Console(width=120)
    bench = replace(toys, name="nasbench201-demo", times=None)
    run = Run.load(finished_run)
    made = demo_search.search_and_report(run, bench, tmp_path, console, quick=True)
    printed = capsys.readouterr().out
    assert "count queries" in printed
    assert printed.count("found by") == 3
    assert [study["method"] for study in made["studies"]] == list(demo_search._METHODS)
    assert (
        '<svg xmlns="http://www.w3.org/2000/svg" class="cell"'
        in Path(made["search_report"]).read_text()
    )
    assert (tmp_path / "searches" / "arch2vec-bo.parquet").is_file()


def test_demo_without_its_table_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError("nasbench201-demo: needs analog-nasbench; pip install it")

    monkeypatch.setattr(benchmarks, "get", absent)
    assert demo_search.open_benchmark(Console(width=120)) is None
    assert capsys.readouterr().out.count("\n") == 1

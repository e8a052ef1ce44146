# SPDX-License-Identifier: Apache-2.0
"""Tables 2 and 3: the paper's budgets, what is run once, resumption, encoders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.search import protocol
from arch2vec_fast.search.protocol import (
    DATA_SETS,
    Encoder,
    find_nasbench101,
    run_jobs,
    table2_jobs,
    table3_jobs,
    table_encoders,
)
from arch2vec_fast.search.recipes import SearchRecipe
from toy import toy_benchmark


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> TableBenchmark:
    """Every benchmark is the toy under another name."""
    toy = toy_benchmark()
    toy = replace(toy, times=100 * toy.times)  # 12,000 seconds are a few queries

    def get(name: str, **_: Any) -> TableBenchmark:
        return replace(toy, name=name, times=toy.times if "cifar100" not in name else None)

    monkeypatch.setattr(protocol.benchmarks, "get", get)
    return toy


def test_budgets_are_the_papers() -> None:
    jobs = table2_jobs("nasbench101", ["random", "arch2vec-rl"], ["best"])
    assert [(job.method, job.recipe, job.queries) for job in jobs] == [
        ("random", "paper", 1_000),
        ("arch2vec-rl", "best", 400),
    ]
    jobs = table3_jobs(DATA_SETS, ["random"])
    assert [(job.benchmark, job.seconds, job.queries, job.like) for job in jobs] == [
        ("nasbench201-cifar10", 12_000, None, None),
        ("nasbench201-cifar100", None, None, "nasbench201-cifar10"),
        ("nasbench201-imagenet16-120", None, None, "nasbench201-cifar10"),
    ]
    (job,) = table3_jobs(["nasbench201-cifar100"], ["random"])
    assert (job.queries, job.like) == (106, None)


def test_recipes_multiply_only_where_they_matter() -> None:
    jobs = table2_jobs("nasbench101", ["evolution", "arch2vec-rl"])
    assert [job.name for job in jobs] == [
        "nasbench101/evolution-paper",
        "nasbench101/arch2vec-rl-released",
        "nasbench101/arch2vec-rl-paper",
        "nasbench101/arch2vec-rl-best",
    ]


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="no method 'nao'"):
        table2_jobs("nasbench101", ["nao"])
    with pytest.raises(ValueError, match="no preset 'mine'"):
        table3_jobs(DATA_SETS, None, ["mine"])


@pytest.mark.usefixtures("toys")
def test_other_data_sets_get_the_queries_of_cifar10(tmp_path: Path) -> None:
    jobs = table3_jobs(DATA_SETS[:2], ["random"])
    started = []
    traces = list(
        run_jobs(
            jobs,
            tmp_path,
            table_encoders(tmp_path / "encoder"),
            seeds=3,
            on_start=lambda job, benchmark: started.append((job.name, benchmark.name)),
        )
    )
    assert [name for _, name in started] == list(DATA_SETS[:2])
    assert traces[0].metadata["budget"] == {"seconds": 12_000, "queries": None}
    queries = len(traces[0]) / 3
    assert len(traces[1]) == 3 * round(queries)
    assert (tmp_path / "nasbench201-cifar100" / "random-paper" / "trace.parquet").is_file()
    assert not (tmp_path / "encoder").exists()
    again = list(run_jobs(jobs, tmp_path, table_encoders(tmp_path / "encoder"), seeds=3))
    for one, other in zip(traces, again):
        np.testing.assert_array_equal(one["row"], other["row"])


def test_an_encoder_is_trained_once(
    toys: TableBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(protocol, "pretrain", lambda *_, **__: calls.append("pretrain"))

    def embed(run: Run, cells: Any, **options: Any) -> EmbeddingTable:
        calls.append(options.get("readout", "latent"))
        return EmbeddingTable(
            vectors=np.zeros((len(cells), 2), np.float32), cells=cells, metadata={}
        )

    monkeypatch.setattr(protocol, "embed", embed)
    for _ in range(2):
        encoder = Encoder(folder=tmp_path / "encoder")
        for readout in ("latent", "hidden"):
            table = encoder.table(toys, readout)  # type: ignore[arg-type]
            assert len(table) == len(toys)
    assert calls == ["pretrain", "latent", "pretrain", "hidden"]


def test_each_recipe_searches_in_what_its_own_pretraining_learnt(
    toys: TableBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "pretrain", lambda space, recipe, *_, **__: recipe)

    def embed(run: str, cells: Any, **_: Any) -> EmbeddingTable:
        vectors = np.zeros((len(cells), 2), np.float32)
        return EmbeddingTable(vectors=vectors, cells=cells, metadata={"recipe": run})

    monkeypatch.setattr(protocol, "embed", embed)
    encoders = table_encoders(tmp_path / "encoder")
    assert set(encoders) == set(SearchRecipe.names())
    tables = {name: encoder.table(toys, "latent") for name, encoder in encoders.items()}  # type: ignore[arg-type]
    made = {name: table.metadata["recipe"] for name, table in tables.items()}
    assert made == {"released": "released", "paper": "released", "best": "best"}


def test_embeddings_of_one_given_run_are_never_taken_for_those_of_another(
    toys: TableBenchmark, tmp_path: Path
) -> None:
    runs = [
        pretrain("nasbench201", "best", tmp_path / f"run{seed}", seed=seed, limit=100, epochs=1)
        for seed in (0, 1)
    ]
    tables = []
    for run in (*runs, runs[0]):
        encoders = table_encoders(tmp_path / "encoder", run=run.path)
        assert len({id(encoder) for encoder in encoders.values()}) == 1
        tables.append(encoders["best"].table(toys, "latent").vectors)  # type: ignore[arg-type]
    assert not np.array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[0], tables[2])


def test_methods_that_cannot_run_are_skipped_and_named(
    toys: TableBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = replace(protocol.methods.METHODS["random"], needs_fidelities=True)
    monkeypatch.setitem(protocol.methods.METHODS, "several", method)
    skipped: list[str] = []
    jobs = table2_jobs("nasbench201-cifar10", ["several"])
    encoders = table_encoders(tmp_path / "encoder")
    traces = run_jobs(
        jobs, tmp_path, encoders, seeds=1, on_skip=lambda job, reason: skipped.append(reason)
    )
    assert list(traces) == []
    assert "several training lengths" in skipped[0]


@pytest.mark.usefixtures("toys")
def test_a_missing_package_skips_its_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise ImportError("bohb: needs optuna")

    monkeypatch.setattr(protocol, "search", absent)
    skipped: list[str] = []
    jobs = table2_jobs("nasbench201-cifar10", ["random", "evolution"])
    encoders = table_encoders(tmp_path / "encoder")
    traces = run_jobs(
        jobs, tmp_path, encoders, seeds=1, on_skip=lambda job, reason: skipped.append(reason)
    )
    assert list(traces) == []
    assert skipped == ["bohb: needs optuna"] * 2


def test_no_table_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nasbench101: no table found"):
        find_nasbench101(tmp_path)


@pytest.mark.data
def test_the_30k_table_is_found(data_dir: Path) -> None:
    assert find_nasbench101(data_dir) == "nasbench101-30k"

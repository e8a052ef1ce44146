# SPDX-License-Identifier: Apache-2.0
"""A search that trains, killed by the system and started anew: it ends as if nothing had been."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arch2vec_fast.cli import run
from arch2vec_fast.darts.store import QueryStore
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search.trace import COLUMNS, Trace
from arch2vec_fast.spaces.darts import Darts

QUERIES, KILLED_AFTER = 12, 6
CLOCK = {"seconds", "elapsed"}
TRAINING = ["--epochs", "1", "--channels", "2", "--layers", "3", "--batch-size", "256"]


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = Darts().sample(40, max_mult_adds=600e6, seed=0)
    vectors = np.random.default_rng(0).normal(size=(len(cells), 4)).astype(np.float32)
    file = tmp_path_factory.mktemp("pool") / "embeddings.safetensors"
    EmbeddingTable(vectors=vectors, cells=cells).save(file)
    return file


def command(embeddings: Path, folder: Path) -> list[str]:
    """Four random cells, then eight that the search chooses by what it was told."""
    where = ["--store", str(folder / "queries.sqlite"), "--out", str(folder / "search")]
    budget = ["--seeds", "1", "--queries", str(QUERIES), "--num-initial", "4"]
    return ["search", "darts", "--embeddings", str(embeddings), *budget, *TRAINING, *where]


def rows(folder: Path, columns: str, state: str = "done") -> list[tuple]:
    """Columns of the store's queries of a state, by cell; none while there is no store."""
    file = folder / "queries.sqlite"
    if not file.exists():
        return []
    query = f"select {columns} from queries where state = ? order by cell"
    try:
        with sqlite3.connect(file, timeout=60) as database:
            return database.execute(query, (state,)).fetchall()
    except sqlite3.OperationalError:  # it is being made
        return []


def start_and_kill(arguments: list[str], folder: Path) -> None:
    """Run the command in a process of its own until it trains after some answers; SIGKILL.

    That it is training stands in the store: what a killed search was doing is known.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "arch2vec_fast.cli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        while len(rows(folder, "cell")) < KILLED_AFTER or not rows(folder, "cell", "running"):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_search_with_real_training_ends_with_the_same_store(
    embeddings: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    assert run(command(embeddings, whole)) == 0
    start_and_kill(command(embeddings, cut), cut)
    finished = rows(cut, "cell, validation, test, seconds, attempts, finished")
    assert KILLED_AFTER <= len(finished) < QUERIES
    assert run(command(embeddings, cut)) == 0

    answers = "cell, genotype, state, validation, test"
    assert rows(cut, answers) == rows(whole, answers)
    assert len(rows(cut, answers)) == QUERIES
    again = rows(cut, "cell, validation, test, seconds, attempts, finished")
    assert set(finished) < set(again)  # none of them was trained again
    traces = [Trace.load(folder / "search" / "trace.parquet") for folder in (whole, cut)]
    for column in sorted({*COLUMNS} - CLOCK):
        np.testing.assert_array_equal(traces[0][column], traces[1][column], err_msg=column)
    assert traces[0].recipe == "best-4"


def test_what_ctrl_c_leaves_is_said(
    embeddings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish = QueryStore.finish

    def finish_and_stop(*arguments: Any, **options: Any) -> None:
        finish(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(QueryStore, "finish", finish_and_stop)
    assert run(command(embeddings, tmp_path)) == 130
    kept = f"Stopped; finished trainings are kept in {tmp_path / 'queries.sqlite'}. Go on with"
    assert kept in capsys.readouterr().err
    assert len(rows(tmp_path, "cell")) == 1


def test_a_store_of_other_trainings_is_refused(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [*command(embeddings, tmp_path), "--queries", "1"]
    assert run(few) == 0
    before = rows(tmp_path, "*")
    for other in (["--epochs", "2"], ["--channels", "4"], ["--layers", "4"]):
        capsys.readouterr()
        assert run([*few, *other]) == 2
        error = capsys.readouterr().err
        assert "queries.sqlite holds trainings of another recipe; use another file" in error
        assert error.count("\n") == 1
    assert rows(tmp_path, "*") == before


def test_two_ray_workers_and_their_order_again_without_ray(
    embeddings: Path, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray")
    two = [*command(embeddings, tmp_path), "--workers", "2", "--queries", "7"]
    try:
        assert run(two) == 0
    finally:
        ray.shutdown()
    before = rows(tmp_path, "*")
    replay = ["--replay", str(tmp_path / "search"), "--out", str(tmp_path / "again")]
    assert run([*two, *replay]) == 0
    assert not ray.is_initialized()
    assert rows(tmp_path, "*") == before
    traces = [Trace.load(tmp_path / name / "trace.parquet") for name in ("search", "again")]
    for column in COLUMNS:
        np.testing.assert_array_equal(traces[0][column], traces[1][column], err_msg=column)
    assert [trace.metadata["workers"] for trace in traces] == [2, 1]

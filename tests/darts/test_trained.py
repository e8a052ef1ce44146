# SPDX-License-Identifier: Apache-2.0
"""Searches that train: every answer is kept, none is paid twice, and a kill changes nothing."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.store import QueryStore
from arch2vec_fast.darts.train import Speed, TrainResult
from arch2vec_fast.darts.trained import (
    Job,
    Outcome,
    TrainedBenchmark,
    TrainingError,
    _settings,
    train_job,
)
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import search
from arch2vec_fast.spaces.darts import Darts, Genotype

CELLS = Darts().sample(60, max_mult_adds=600e6, seed=0)
TINY = replace(TrainRecipe.small(), channels=2, layers=3, epochs=1, batch_size=100)


class FakeWorkers:
    """Scores a cell by its convolutions; can fail or be killed at a given training."""

    at_once = 1

    def __init__(self, *, reverse: bool = False, killed_at: int = -1, failures: int = 0) -> None:
        self.trained: list[str] = []
        self.reverse, self.killed_at, self.failures = reverse, killed_at, failures

    def __call__(
        self, jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome]:
        for job in reversed(list(jobs)) if self.reverse else jobs:
            if len(self.trained) == self.killed_at:
                raise KeyboardInterrupt
            if self.failures:
                self.failures -= 1
                yield job, "RuntimeError: out of memory"
                continue
            self.trained.append(job.cell)
            score = sum("conv" in op for op, _ in job.genotype.normal) / 10
            yield (
                job,
                TrainResult(
                    validation=[score], reward=score, test=score / 2, test_top5=1.0, seconds=7.0
                ),
            )


def bench(images: ImageSet, store: Path, workers: FakeWorkers | None = None) -> TrainedBenchmark:
    return TrainedBenchmark(CELLS, images, TINY, store=store, workers=workers)


def embeddings() -> EmbeddingTable:
    vectors = np.random.default_rng(0).normal(size=(len(CELLS), 4)).astype(np.float32)
    return EmbeddingTable(vectors=vectors, cells=CELLS)


def rows(store: Path) -> list[tuple]:
    with sqlite3.connect(store) as database:
        return database.execute(
            "select cell, genotype, state, validation, test, seconds from queries order by cell"
        ).fetchall()


@pytest.mark.parametrize("killed_at", [3, 17])
def test_a_killed_search_ends_as_if_it_had_not_been(
    killed_at: int, stripes: ImageSet, tmp_path: Path
) -> None:
    options = {"seeds": [3], "queries": 25, "recipe": "paper", "embeddings": embeddings()}
    whole = search(bench(stripes, tmp_path / "whole", FakeWorkers()), "arch2vec-bo", **options)
    killed = FakeWorkers(killed_at=killed_at)
    with pytest.raises(KeyboardInterrupt):
        search(bench(stripes, tmp_path / "cut", killed), "arch2vec-bo", **options)
    again = FakeWorkers()
    resumed = search(bench(stripes, tmp_path / "cut", again), "arch2vec-bo", **options)
    assert not set(killed.trained) & set(again.trained)
    assert len(killed.trained) + len(again.trained) == 25
    np.testing.assert_array_equal(resumed["row"], whole["row"])
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_the_order_in_which_a_round_ends_changes_nothing(
    stripes: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeWorkers, "at_once", 5)
    traces = [
        search(
            bench(stripes, tmp_path / name, FakeWorkers(reverse=reverse)),
            "local-search",
            seeds=[1],
            queries=30,
        )
        for name, reverse in (("forwards", False), ("backwards", True))
    ]
    np.testing.assert_array_equal(traces[0]["row"], traces[1]["row"])
    assert rows(tmp_path / "forwards") == rows(tmp_path / "backwards")


def test_methods_share_answers(stripes: ImageSet, tmp_path: Path) -> None:
    first, second = FakeWorkers(), FakeWorkers()
    trace = search(bench(stripes, tmp_path / "s", first), "random", seeds=[0, 1], queries=30)
    assert len(set(first.trained)) == len(first.trained) < 60  # the two searches overlap
    again = search(bench(stripes, tmp_path / "s", second), "evolution", seeds=[0], queries=40)
    assert not set(first.trained) & set(second.trained)
    for found in (trace, again):
        np.testing.assert_allclose(found["test"], found["validation"] / 2)
        np.testing.assert_array_equal(found["seconds"], 7.0)
        assert np.isnan(found["regret"]).all()


def test_no_more_is_trained_than_the_budget(stripes: ImageSet, tmp_path: Path) -> None:
    workers = FakeWorkers()
    search(bench(stripes, tmp_path / "s", workers), "random", seeds=[0], queries=7)
    assert len(workers.trained) == 7


def test_failures_are_recorded_and_tried_again(stripes: ImageSet, tmp_path: Path) -> None:
    twice = bench(stripes, tmp_path / "twice", FakeWorkers(failures=2))
    answers = twice.query(np.array([4]), np.array([0]))
    assert np.isfinite(answers.validation).all()
    assert rows(tmp_path / "twice")[0][2] == "done"
    always = bench(stripes, tmp_path / "always", FakeWorkers(failures=9))
    with pytest.raises(RuntimeError, match=r"failed 3 times \(RuntimeError: out of memory\)"):
        always.query(np.array([4]), np.array([0]))
    assert rows(tmp_path / "always")[0][2] == "failed"


def test_what_is_under_way_is_finished_before_a_failure_is_told(
    stripes: ImageSet, tmp_path: Path
) -> None:
    class FirstFails(FakeWorkers):
        at_once = 3

        def __call__(self, jobs: Iterable[Job], *how: Any) -> Iterator[Outcome]:
            for job in jobs:
                if job.cell == first:
                    yield job, "RuntimeError: out of memory"
                else:
                    yield from super().__call__([job], *how)

    benchmark = bench(stripes, tmp_path / "s", FirstFails())
    first = benchmark._job(0).cell
    with pytest.raises(TrainingError, match=r"query: training .* failed 3 times"):
        benchmark.prefetch(np.arange(40))
    assert sorted(state for _, _, state, *_ in rows(tmp_path / "s")) == ["done"] * 6 + ["failed"]


def test_isomorphic_cells_are_one_query(stripes: ImageSet, tmp_path: Path) -> None:
    """Two inner nodes that nobody reads may swap their operations."""
    workers = FakeWorkers()
    rest = "|0:skip_connect|1:none|0:skip_connect|1:none"
    twins = Darts().from_genotypes(
        [
            Genotype.from_items("0:sep_conv_3x3|1:none|0:dil_conv_3x3|1:none" + rest),
            Genotype.from_items("0:dil_conv_3x3|1:none|0:sep_conv_3x3|1:none" + rest),
        ]
    )
    benchmark = TrainedBenchmark(twins, stripes, TINY, store=tmp_path / "s", workers=workers)
    answers = benchmark.query(np.array([0, 1]), np.array([0, 0]))
    assert len(workers.trained) == 1
    assert answers.validation[0] == answers.validation[1]


def test_trains_for_real(stripes: ImageSet, tmp_path: Path) -> None:
    benchmark = bench(stripes, tmp_path / "s.sqlite")
    trace = search(benchmark, "random", seeds=[0], queries=2)
    assert (trace["validation"] > 0).all()
    assert (trace["seconds"] > 0).all()
    assert "validation accuracy on stripes after 1 epochs" in trace.metadata["reward"]
    job = benchmark._job(int(trace["row"][0]))
    result = train_job(job, stripes, TINY, 0, "cpu")
    assert isinstance(result, TrainResult)
    assert result.reward == trace["validation"][0]  # the same training, bit for bit


def test_a_diverged_training_is_the_worst_answer(stripes: ImageSet, tmp_path: Path) -> None:
    wild = replace(TINY, learning_rate=1e30)
    benchmark = TrainedBenchmark(CELLS, stripes, wild, store=tmp_path / "s")
    trace = search(benchmark, "random", seeds=[0], queries=2)
    np.testing.assert_array_equal(trace["validation"], 0.0)
    assert np.isnan(trace["test"]).all()
    assert (trace["seconds"] > 0).all()
    with sqlite3.connect(tmp_path / "s") as database:
        kept = database.execute("select state, attempts, error from queries").fetchall()
    assert len(kept) == 2
    for state, attempts, error in kept:  # it would diverge again, so it is not tried again
        assert (state, attempts) == ("diverged", 1)
        assert error.startswith("FloatingPointError: loss: nan in epoch 0; lower")


def test_bf16_is_another_query_and_compilation_is_not(stripes: ImageSet, tmp_path: Path) -> None:
    def ask(store: str, speed: Speed) -> tuple[float, str]:
        benchmark = TrainedBenchmark(CELLS, stripes, TINY, store=tmp_path / store, speed=speed)
        validation = float(benchmark.query(np.array([0]), np.array([0])).validation[0])
        with sqlite3.connect(tmp_path / store) as database:
            return validation, database.execute("select computed_on from queries").fetchone()[0]

    plain = ask("s", Speed(channels_last=False))
    assert plain[1].endswith(", contiguous")
    assert ask("s", Speed(compile=True)) == plain  # from the store
    with pytest.raises(ValueError, match="holds trainings of another bf16; use another file"):
        ask("s", Speed(bf16=True))
    assert ask("t", Speed(bf16=True))[1].endswith(", bf16, contiguous")


def test_mistakes_are_raised_and_lack_of_memory_is_not(
    stripes: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench(stripes, tmp_path / "s")._job(0)

    def ends(error: Exception) -> object:
        def train(*args: object, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr("arch2vec_fast.darts.trained.train", train)
        return train_job(job, stripes, TINY, 0, "cpu")

    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried\nto"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
        OSError("No space left on device"),
    ):
        assert str(ends(error)).startswith(type(error).__name__)
    for mistake in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        TypeError("x"),
        ZeroDivisionError("x"),
        ValueError("out: holds another training"),
    ):
        with pytest.raises(type(mistake)):
            ends(mistake)
    with pytest.raises(ValueError, match="out: holds another training"):
        bench(stripes, tmp_path / "s").query(np.array([0]), np.array([0]))
    assert rows(tmp_path / "s")[0][2] == "failed"  # and nothing is claimed


def test_ray_trains_side_by_side(stripes: ImageSet, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from arch2vec_fast.darts.ray_workers import ray_workers

    try:
        workers = ray_workers(2)
        benchmark = TrainedBenchmark(CELLS, stripes, TINY, store=tmp_path / "s", workers=workers)
        together = benchmark.query(np.arange(3), np.zeros(3, np.int64))
        with pytest.raises(ValueError, match="workers: 3 trainings at once, but the cluster has 2"):
            ray_workers(3)
        with pytest.raises(ValueError, match=r"workers: 99 trainings .* the cluster has \d+ GPUs"):
            ray_workers(99, device="cuda")
    finally:
        ray.shutdown()
    alone = bench(stripes, tmp_path / "t").query(np.arange(3), np.zeros(3, np.int64))
    np.testing.assert_array_equal(together.validation, alone.validation)


def test_stores_of_another_kind_are_refused(stripes: ImageSet, tmp_path: Path) -> None:
    bench(stripes, tmp_path / "s", FakeWorkers()).query(np.array([0]), np.array([0]))
    before = rows(tmp_path / "s")
    with pytest.raises(ValueError, match="holds trainings of another recipe; use another file"):
        TrainedBenchmark(CELLS, stripes, replace(TINY, epochs=2), store=tmp_path / "s")
    other = stripes.train_images.clone()
    other[0, 0, 0, 0] += 1  # as many images of the same size
    with pytest.raises(ValueError, match="holds trainings of another images; use another file"):
        TrainedBenchmark(CELLS, replace(stripes, train_images=other), TINY, store=tmp_path / "s")
    assert rows(tmp_path / "s") == before
    (tmp_path / "text").write_text("not a database, but long enough to be read as one" * 20)
    with pytest.raises(ValueError, match="text is no store of queries"):
        QueryStore(tmp_path / "text", {})
    with sqlite3.connect(tmp_path / "foreign") as database:
        database.execute("create table mine (x)")
    with pytest.raises(ValueError, match="foreign is the database of another program"):
        QueryStore(tmp_path / "foreign", {})
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; make the folder"):
        QueryStore(tmp_path / "nowhere" / "s", {})
    with pytest.raises(ValueError, match="recipe: cifar10 holds out no images"):
        TrainedBenchmark(CELLS, stripes, TrainRecipe.cifar10(), store=tmp_path / "u")
    with pytest.raises(ValueError, match="recipe: query has an auxiliary head for images of 32x32"):
        TrainedBenchmark(CELLS, stripes, TrainRecipe.query(), store=tmp_path / "u")
    assert not (tmp_path / "u").exists()


def test_a_store_does_not_take_on_settings_it_was_not_made_with(tmp_path: Path) -> None:
    QueryStore(tmp_path / "s", {"seed": 0})
    for _ in range(2):  # neither at once nor the next time
        with pytest.raises(ValueError, match="holds trainings of another images"):
            QueryStore(tmp_path / "s", {"seed": 0, "images": "digits"})


def test_only_what_has_not_ended_is_given_back(
    stripes: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[str] = []
    monkeypatch.setattr(QueryStore, "fail", lambda store, cell, error: given_back.append(cell))
    benchmark = bench(stripes, tmp_path / "s", FakeWorkers())
    answers = benchmark.stream(range(4))
    assert [next(answers).row for _ in range(3)] == [0, 1, 2]
    answers.close()
    assert given_back == []
    with pytest.raises(KeyboardInterrupt):
        bench(stripes, tmp_path / "s", FakeWorkers(killed_at=1)).prefetch(np.arange(3, 6))
    assert given_back == [benchmark._job(4).cell]


def test_what_another_process_trains_is_waited_for_last(stripes: ImageSet, tmp_path: Path) -> None:
    benchmark = bench(stripes, tmp_path / "s", workers := FakeWorkers())
    store = QueryStore(tmp_path / "s", _settings(stripes, TINY, 0))
    first = benchmark._job(0)
    with store.claims() as claims:
        claims.take(first.cell, str(first.genotype))
        with sqlite3.connect(tmp_path / "s") as database:
            database.execute(
                "update queries set host = 'elsewhere', heartbeat = '2999-01-01T00:00:00+00:00'"
            )
        answers = benchmark.stream(range(4))
        assert [next(answers).row for _ in range(3)] == [1, 2, 3]
        store.finish(first.cell, validation=0.125, test=0.5, seconds=3.0)
        assert list(answers) == [(0, 0.125, 3.0)]
    assert first.cell not in workers.trained


class SlowWorkers(FakeWorkers):
    """Two at once; they end after a while in which others do something."""

    at_once = 2

    def __init__(self, while_waiting: Callable[[], None]) -> None:
        super().__init__()
        self.while_waiting = while_waiting

    def __call__(
        self, jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome | None]:
        jobs, running = iter(jobs), list[Job]()
        for _ in range(3):
            running += islice(jobs, 2 - len(running))
            self.while_waiting()
            yield None
        yield from super().__call__(running, images, recipe, seed)


def test_an_answer_of_another_process_is_heard_while_trainings_run(
    stripes: ImageSet, tmp_path: Path
) -> None:
    """Of two workers one trains, and what the other is to do depends on another process."""
    store = QueryStore(tmp_path / "s", _settings(stripes, TINY, 0))
    theirs = bench(stripes, tmp_path / "s")._job(0)
    heard: list[int] = []

    def finish() -> None:
        store.finish(theirs.cell, validation=0.125, test=0.5, seconds=3.0)

    def proposals() -> Iterator[int]:
        yield from (0, 1)
        while not heard:
            yield -1
        yield 2

    with store.claims() as claims:
        claims.take(theirs.cell, str(theirs.genotype))
        with sqlite3.connect(tmp_path / "s") as database:
            database.execute(
                "update queries set host = 'elsewhere', heartbeat = '2999-01-01T00:00:00+00:00'"
            )
        workers = SlowWorkers(finish)
        for answer in bench(stripes, tmp_path / "s", workers).stream(proposals()):
            heard.append(answer.row)
    assert heard == [0, 1, 2]

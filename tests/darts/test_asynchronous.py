# SPDX-License-Identifier: Apache-2.0
"""Searches with several trainings out at once: what ends when decides, is kept, and replays."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.train import TrainResult
from arch2vec_fast.darts.trained import Job, Outcome, TrainedBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import Completion, SearchRecipe, Trace, read_completions, search
from arch2vec_fast.search.asynchronous import CompletionLog
from arch2vec_fast.spaces.darts import Darts
from toy import toy_images

CELLS = Darts().sample(200, max_mult_adds=600e6, seed=0)
TINY = replace(TrainRecipe.small(), channels=2, layers=3, epochs=1, batch_size=100)
BEST, PAPER = SearchRecipe.best("darts"), SearchRecipe.paper("darts")
METHODS = {
    "random": ("random", BEST),
    "evolution": ("evolution", BEST),
    "bo": ("bo", BEST),
    "bananas": ("bananas", BEST),
    "arch2vec-bo, gp": ("arch2vec-bo", BEST),
    "arch2vec-bo, dngo": ("arch2vec-bo", PAPER),
    "arch2vec-rl, best": ("arch2vec-rl", BEST),
    "arch2vec-rl, paper": ("arch2vec-rl", PAPER),
}
QUERIES, KILLED_AT = 28, 19
EVERY_METHOD = pytest.mark.parametrize(("method", "recipe"), METHODS.values(), ids=METHODS)
Choice = Callable[[list[Job]], int]


def last(running: list[Job]) -> int:
    return len(running) - 1


class ScriptedWorkers:
    """Ends trainings in a chosen order, without training; can be killed at one of them.

    events: "begin" and "end", as they come.
    """

    def __init__(self, at_once: int = 1, choose: Choice = last, killed_at: int = -1) -> None:
        self.at_once, self.choose, self.killed_at = at_once, choose, killed_at
        self.events: list[str] = []

    def __call__(
        self, jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome]:
        jobs, running = iter(jobs), list[Job]()
        while True:
            for job in islice(jobs, self.at_once - len(running)):
                self.events.append("begin")
                running.append(job)
            if not running:
                return
            if self.events.count("end") == self.killed_at:
                raise KeyboardInterrupt
            job = running.pop(self.choose(running))
            self.events.append("end")
            score = sum(map(ord, str(job.genotype))) % 97 / 97
            yield (
                job,
                TrainResult(
                    validation=[score], reward=score, test=score / 2, test_top5=1.0, seconds=7.0
                ),
            )


class NoWorkers:
    """Nothing is to be trained: the store has all answers."""

    at_once = 1

    def __call__(self, jobs: Iterable[Job], *how: Any) -> Iterator[Outcome]:
        raise AssertionError(f"asked to train {next(iter(jobs)).genotype}")


def run(
    folder: Path,
    workers: ScriptedWorkers | NoWorkers,
    method: str,
    out: str = "out",
    pool: int = len(CELLS),
    **options: Any,
) -> Trace:
    """Queries of seed 1 with the store of a folder."""
    store = folder / "store"
    bench = TrainedBenchmark(CELLS[:pool], toy_images(), TINY, store=store, workers=workers)
    vectors = np.random.default_rng(0).normal(size=(len(CELLS), 4)).astype(np.float32)
    table = EmbeddingTable(vectors=vectors, cells=CELLS)
    options = {"seeds": [1], "queries": QUERIES, "embeddings": table, **options}
    return search(bench, method, out=folder / out, **options)


@EVERY_METHOD
def test_the_recorded_order_replays_without_workers(
    method: str, recipe: SearchRecipe, tmp_path: Path
) -> None:
    trace = run(tmp_path, ScriptedWorkers(4), method, recipe=recipe)
    recorded = read_completions(tmp_path / "out")
    assert [row for row, _ in recorded[1]] == trace["row"].tolist()
    again = run(tmp_path, NoWorkers(), method, "again", recipe=recipe, completions=recorded)
    for column in trace.columns:
        np.testing.assert_array_equal(again[column], trace[column], err_msg=column)
    assert read_completions(tmp_path / "again") == recorded
    assert (trace.metadata["workers"], again.metadata["workers"]) == (4, 1)


@EVERY_METHOD
def test_one_worker_is_lock_step_with_rounds_of_one(
    method: str, recipe: SearchRecipe, tmp_path: Path
) -> None:
    one = run(tmp_path, ScriptedWorkers(), method, recipe=recipe, completions={})
    rounds = replace(recipe, batch_size=1)
    lock_step = run(tmp_path, NoWorkers(), method, "rounds", recipe=rounds)
    assert lock_step.metadata["workers"] is None
    np.testing.assert_array_equal(one["row"], lock_step["row"])


@EVERY_METHOD
@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_search_ends_as_if_it_had_not_been(
    method: str, recipe: SearchRecipe, torn: bool, tmp_path: Path
) -> None:
    """Killed while trainings ran; or, with `torn`, before an answer was recorded."""
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    workers, killed, rest = (
        ScriptedWorkers(3),
        ScriptedWorkers(3, killed_at=KILLED_AT),
        ScriptedWorkers(3),
    )
    whole = run(tmp_path / "whole", workers, method, recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", killed, method, recipe=recipe)
    log = tmp_path / "cut" / "out" / "completions-1.jsonl"
    assert KILLED_AT <= len(log.read_bytes().splitlines()) < QUERIES
    if torn:
        log.write_bytes(log.read_bytes()[:-5])
    resumed = run(tmp_path / "cut", rest, method, recipe=recipe)
    assert rest.events.count("end") == workers.events.count("end") - KILLED_AT
    for column in whole.columns:
        np.testing.assert_array_equal(resumed[column], whole[column], err_msg=column)


@pytest.mark.parametrize("at_once", [1, 6])
@pytest.mark.parametrize("name", ["evolution", "arch2vec-bo, gp", "arch2vec-rl, best"])
def test_a_killed_search_goes_on_with_any_number_of_workers(
    name: str, at_once: int, tmp_path: Path
) -> None:
    method, recipe = METHODS[name]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ScriptedWorkers(3, killed_at=KILLED_AT), method, recipe=recipe)
    kept = read_completions(tmp_path / "out")[1]
    trace = run(tmp_path, ScriptedWorkers(at_once), method, recipe=recipe)
    recorded = read_completions(tmp_path / "out")
    assert recorded[1][: len(kept)] == kept
    again = run(tmp_path, NoWorkers(), method, "again", recipe=recipe, completions=recorded)
    np.testing.assert_array_equal(again["row"], trace["row"])
    assert (len(trace), trace.metadata["workers"]) == (QUERIES, 3)


def test_a_search_in_rounds_stays_in_rounds(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ScriptedWorkers(killed_at=KILLED_AT), "bo")
    with pytest.raises(ValueError, match=r"holds another search .its workers differ"):
        run(tmp_path, ScriptedWorkers(4), "bo")
    assert len(run(tmp_path, ScriptedWorkers(), "bo")) == QUERIES


@EVERY_METHOD
def test_workers_are_kept_busy(method: str, recipe: SearchRecipe, tmp_path: Path) -> None:
    workers = ScriptedWorkers(4)
    trace = run(tmp_path, workers, method, recipe=recipe)
    trained = len(np.unique(trace["row"]))
    more = ["end", "begin"] * (trained - 4)
    assert workers.events == ["begin"] * 4 + more + ["end"] * 4
    asked = [completion.asked for completion in read_completions(tmp_path / "out")[1]]
    if trained == QUERIES:
        assert asked == [min(QUERIES, 4 + number) for number in range(QUERIES)]


@EVERY_METHOD
def test_more_workers_than_a_method_can_ask_for_wait_for_the_first_answer(
    method: str, recipe: SearchRecipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, num_initial=2, population=2)
    workers = ScriptedWorkers(5)
    trace = run(tmp_path, workers, method, recipe=recipe)
    assert len(trace) == QUERIES
    first = 5 if method in ("random", "arch2vec-rl") else 2
    wanted = ["begin"] * first + ["end"] + ["begin"] * (6 - first)
    assert workers.events[: len(wanted)] == wanted


@EVERY_METHOD
def test_a_small_pool_is_exhausted(method: str, recipe: SearchRecipe, tmp_path: Path) -> None:
    trace = run(tmp_path, ScriptedWorkers(4), method, recipe=recipe, pool=20)
    if method == "evolution":  # may ask again
        assert len(trace) == QUERIES
    else:
        unasked = 1 if method == "arch2vec-rl" else 0  # its start
        assert len(trace) == len(np.unique(trace["row"])) == 20 - unasked


@given(orders=st.lists(st.integers(0, 3), min_size=20, max_size=20), at_once=st.integers(2, 4))
@settings(max_examples=10, deadline=None)
def test_any_order_replays(orders: list[int], at_once: int) -> None:
    """Episodes of three actions, so that several are under way and end in any order."""
    recipe = replace(BEST, episode_length=3, policy_hidden=8)
    order = iter(orders)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workers = ScriptedWorkers(at_once, lambda running: next(order) % len(running))
        options = {"recipe": recipe, "queries": 20}
        trace = run(folder, workers, "arch2vec-rl", **options)
        recorded = read_completions(folder / "out")
        again = run(folder, NoWorkers(), "arch2vec-rl", "again", completions=recorded, **options)
        np.testing.assert_array_equal(again["row"], trace["row"])
        assert len(np.unique(trace["row"])) == 20


def test_the_order_decides_what_is_proposed(tmp_path: Path) -> None:
    for name in ("last", "first"):
        (tmp_path / name).mkdir()
    by_last = run(tmp_path / "last", ScriptedWorkers(4), "arch2vec-bo")
    by_first = run(tmp_path / "first", ScriptedWorkers(4, lambda running: 0), "arch2vec-bo")
    initial = BEST.num_initial
    assert {*by_last["row"][: initial - 4]} < {*by_first["row"][:initial]}
    assert {*by_last["row"]} != {*by_first["row"]}


def test_seeds_come_one_after_the_other(tmp_path: Path) -> None:
    both = run(tmp_path, ScriptedWorkers(3), "evolution", seeds=[1, 2], queries=15)
    assert read_completions(tmp_path / "out").keys() == {1, 2}
    alone = run(
        tmp_path,
        NoWorkers(),
        "evolution",
        "alone",
        seeds=[2],
        queries=15,
        completions={2: read_completions(tmp_path / "out")[2]},
    )
    np.testing.assert_array_equal(both["row"][both["seed"] == 2], alone["row"])


def test_answers_that_are_known_come_at_once(tmp_path: Path) -> None:
    run(tmp_path, ScriptedWorkers(4), "random")
    again = run(tmp_path, NoWorkers(), "random", "again", completions={})
    workers = ScriptedWorkers(4)
    more = run(tmp_path, workers, "random", "more", queries=QUERIES + 4)
    assert workers.events == ["begin"] * 4 + ["end"] * 4
    np.testing.assert_array_equal(more["row"][:QUERIES], again["row"])


def test_methods_that_ask_in_rounds_stay_in_rounds(tmp_path: Path) -> None:
    trace = run(tmp_path, ScriptedWorkers(4), "local-search")
    assert trace.metadata["workers"] is None
    assert not list((tmp_path / "out").glob("completions-*"))
    with pytest.raises(ValueError, match="completions: local-search on darts does not depend on"):
        run(tmp_path, ScriptedWorkers(4), "local-search", "other", completions={})
    with pytest.raises(
        ValueError, match=r"holds no completions-SEED\.jsonl; give the directory of"
    ):
        read_completions(tmp_path / "out")


def test_another_search_is_not_replayed(tmp_path: Path) -> None:
    run(tmp_path, ScriptedWorkers(4), "random")
    recorded = read_completions(tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"completions: number 0 is row \d+, which seed 1 does not"
    ):
        run(tmp_path, NoWorkers(), "evolution", "other", completions=recorded)
    impossible = {1: [Completion(recorded[1][0].row, QUERIES + 1)]}
    with pytest.raises(ValueError, match="completions: number 0 is row"):
        run(tmp_path, NoWorkers(), "random", "more", completions=impossible)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "completions-0.jsonl").write_text('{"cell": 3}\n')
    with pytest.raises(ValueError, match=r"completions-0\.jsonl: not the completions of a search"):
        read_completions(tmp_path / "foreign")


def test_a_mistaken_replay_does_not_spoil_its_directory(tmp_path: Path) -> None:
    trace = run(tmp_path, ScriptedWorkers(4), "random")
    right = read_completions(tmp_path / "out")
    wrong = {1: [*right[1][:3], Completion(right[1][3].row, QUERIES + 1)]}
    with pytest.raises(ValueError, match="completions: number 3 is row"):
        run(tmp_path, NoWorkers(), "random", "again", completions=wrong)
    again = run(tmp_path, NoWorkers(), "random", "again", completions=right)
    np.testing.assert_array_equal(again["row"], trace["row"])


def test_records_of_two_searches_are_not_mixed(tmp_path: Path) -> None:
    run(tmp_path, ScriptedWorkers(4), "random")
    recorded = read_completions(tmp_path / "out")[1]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ScriptedWorkers(4, killed_at=3), "random", "part", queries=QUERIES + 8)
    with pytest.raises(ValueError, match="completions: the output directory holds those of"):
        run(
            tmp_path,
            ScriptedWorkers(4),
            "random",
            "part",
            queries=QUERIES + 8,
            completions={1: recorded[::-1]},
        )
    with pytest.raises(ValueError, match=r"completions: none are recorded of seeds \[2\]"):
        run(tmp_path, NoWorkers(), "random", "two", seeds=[1, 2], completions={1: recorded})


def test_one_process_at_a_time_adds_to_a_record(tmp_path: Path) -> None:
    log = CompletionLog(tmp_path / "completions-1.jsonl")
    with log.owned():
        log.append(Completion(3, 4))
        again = CompletionLog(tmp_path / "completions-1.jsonl")
        with (
            pytest.raises(ValueError, match="out: another process runs this search in"),
            again.owned(),
        ):
            pass
        assert again.read() == [Completion(3, 4)]
    with again.owned():
        again.append(Completion(5, 6))
    assert [path.name for path in tmp_path.iterdir()] == ["completions-1.jsonl"]


def test_a_pool_without_a_cell_to_query_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pool: darts has no cell that the search could query"):
        run(tmp_path, ScriptedWorkers(2), "arch2vec-rl", pool=1)


def test_a_completion_is_on_the_disk_before_the_search_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    ask = TrainedBenchmark.stream

    def watched(self: TrainedBenchmark, rows: Iterable[int]) -> Iterator[Any]:
        def pulled() -> Iterator[int]:
            for row in rows:
                seen.append(len(CompletionLog(tmp_path / "out" / "completions-1.jsonl").read()))
                yield row

        return ask(self, pulled())

    monkeypatch.setattr(TrainedBenchmark, "stream", watched)
    run(tmp_path, ScriptedWorkers(2), "random", queries=6)
    assert seen[:6] == [0, 0, 1, 2, 3, 4]

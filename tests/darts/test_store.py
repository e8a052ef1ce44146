# SPDX-License-Identifier: Apache-2.0
"""The store of answers: claims, answers that stay, files of other kinds and of before."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from arch2vec_fast.darts.owner import Owner
from arch2vec_fast.darts.store import QueryStore
from several import ROOT

# Says "ready", waits for a line, asks for eight cells, and says which of them it trained itself.
SEARCHES = """
import sys
from dataclasses import replace
import numpy as np, torch
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.trained import TrainedBenchmark, TrainHere
from arch2vec_fast.spaces.darts import Darts
from toy import toy_images

torch.set_num_threads(1)
trained = []

class Workers(TrainHere):
    def __call__(self, jobs, *rest):
        for job in jobs:
            trained.append(job.cell)
            yield from super().__call__([job], *rest)

bench = TrainedBenchmark(
    Darts().sample(8, seed=0), toy_images(),
    replace(TrainRecipe.small(), channels=2, layers=3, epochs=1, batch_size=100),
    store=sys.argv[1], workers=Workers(),
)
print("ready", flush=True)
sys.stdin.readline()
answers = bench.query(np.arange(8), np.zeros(8, np.int64))
print(*trained)
print(*answers.validation)
"""
CLAIMS = """
import sys, time
from arch2vec_fast.darts.store import QueryStore
with QueryStore(sys.argv[1], {}).claims() as claims:
    print(claims.take("a", "genotype"), flush=True)
    time.sleep(600)
"""


@contextmanager
def process(code: str, store: Path) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    path = f"{ROOT}:{ROOT / 'tests'}"
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(store)], env={"PYTHONPATH": path}, **pipes
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


def line(started: subprocess.Popen[str]) -> list[str]:
    assert started.stdout is not None
    return started.stdout.readline().split()


def set_owner(path: Path, owner: Owner, heartbeat: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(
            "update queries set host = ?, pid = ?, process = ?, heartbeat = ?", (*owner, heartbeat)
        )


def test_two_processes_train_no_cell_twice(tmp_path: Path) -> None:
    store = tmp_path / "s"
    with process(SEARCHES, store) as one, process(SEARCHES, store) as other:
        both = (one, other)
        assert [line(each) for each in both] == [["ready"]] * 2
        for each in both:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        trained = [line(each) for each in both]
        answers = [line(each) for each in both]
    assert all(trained)  # neither waited for the other to do everything
    assert set(Counter(trained[0] + trained[1]).values()) == {1}
    assert answers[0] == answers[1]
    with sqlite3.connect(store) as database:
        rows = database.execute("select state, attempts, computed_on from queries").fetchall()
    assert [row[:2] for row in rows] == [("done", 1)] * 8
    assert rows[0][2].startswith("cpu, 1 thread, torch 2.")


def test_the_claim_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    store = QueryStore(tmp_path / "s", {})
    with process(CLAIMS, store.path) as owner:
        assert line(owner) == ["True"]
        with store.claims() as claims:
            assert not claims.take("a", "genotype")
            owner.kill()
            owner.wait()
            assert claims.take("a", "genotype")
            kept = store.get("a")
            assert kept is not None
            assert (kept.state, kept.attempts) == ("running", 2)


def test_the_claim_of_another_machine_is_free_when_its_heart_stops(tmp_path: Path) -> None:
    store = QueryStore(tmp_path / "s", {})
    far = Owner("elsewhere/00000000", 1, "1")
    assert far.is_alive() is None
    with store.claims() as claims:
        assert claims.take("a", "genotype")
        set_owner(store.path, far, "2999-01-01T00:00:00+00:00")
        assert not claims.take("a", "genotype")
        set_owner(store.path, far, "2020-01-01T00:00:00+00:00")
        assert claims.take("a", "genotype")


def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    me = Owner.here()
    assert me.is_alive()
    assert not me._replace(started="1").is_alive()
    assert not me._replace(pid=2**22 + 1).is_alive()


def test_claims_end_with_their_block(tmp_path: Path) -> None:
    store = QueryStore(tmp_path / "s", {})

    def stop() -> None:
        with store.claims() as claims:
            claims.take("a", "genotype")
            claims.take("b", "genotype")
            store.finish("a", validation=0.5, test=0.25, seconds=1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    kept = [store.get(cell) for cell in "ab"]
    assert [row and row.state for row in kept] == ["done", "failed"]
    assert kept[1] is not None
    assert kept[1].error == "stopped before it ended"


def test_what_another_process_took_over_is_not_failed_by_the_first(tmp_path: Path) -> None:
    store = QueryStore(tmp_path / "s", {})
    with store.claims() as claims:
        claims.take("a", "genotype")
        set_owner(store.path, Owner("elsewhere/00000000", 1, "1"), "2999-01-01T00:00:00+00:00")
        store.fail("a", "late")
    kept = store.get("a")
    assert kept is not None
    assert kept.state == "running"


def test_the_first_answer_stays_whoever_asks_again(tmp_path: Path) -> None:
    store = QueryStore(tmp_path / "s", {"seed": 0})
    with store.claims() as claims:
        assert claims.take("c", "genotype")
        store.finish("c", validation=0.5, test=0.25, seconds=1.0)
        store.finish("c", validation=0.75, test=0.25, seconds=1.0)
        store.diverge("c", "late", 1.0)
        store.fail("c", "late")
        assert not claims.take("c", "genotype")
    kept = QueryStore(tmp_path / "s", {"seed": 0}).get("c")
    assert kept is not None
    assert (kept.state, kept.attempts, kept.validation) == ("done", 1, 0.5)


def test_divergence_is_the_worst_answer(tmp_path: Path) -> None:
    store = QueryStore(tmp_path / "s", {})
    with store.claims() as claims:
        claims.take("c", "genotype")
        store.diverge("c", "FloatingPointError: loss: nan", 3.0)
        assert not claims.take("c", "genotype")
    kept = store.answers()["c"]
    assert kept == ("diverged", 1, 0.0, None, 3.0, "FloatingPointError: loss: nan")


FORMAT_1 = """
create table settings (key text primary key, value text not null);
create table queries (
    cell text primary key, genotype text not null,
    state text not null check (state in ('running', 'done', 'failed')),
    attempts integer not null, validation real, test real, seconds real, error text,
    started text not null, finished text
);
insert into queries values ('a', 'g', 'done', 1, 0.5, 0.25, 9.0, null, '2026', '2026');
insert into queries values ('b', 'g', 'running', 1, null, null, null, null, '2026', null);
pragma application_id = 1630697009;
pragma journal_mode = wal;
"""


def test_a_store_of_format_1_goes_on(tmp_path: Path) -> None:
    images = {"name": "digits", "train": 10}
    old = {"format": 1, "images": images, "seed": 0}
    with sqlite3.connect(tmp_path / "s") as database:
        database.executescript(FORMAT_1)
        database.executemany(
            "insert into settings values (?, ?)",
            [(key, json.dumps(value)) for key, value in old.items()],
        )
    settings = {"images": {**images, "sha256": "1234"}, "seed": 0}
    others = {"images": {"name": "cifar10", "train": 10, "sha256": "5678"}, "seed": 0}
    with pytest.raises(ValueError, match="holds trainings of another images"):
        QueryStore(tmp_path / "s", others)  # and is as it was
    for _ in range(2):
        store = QueryStore(tmp_path / "s", settings)
        assert store.answers()["a"].validation == 0.5
    with store.claims() as claims:
        assert not claims.take("a", "g")
        assert claims.take("b", "g")
    with pytest.raises(ValueError, match="holds trainings of another images"):
        QueryStore(tmp_path / "s", {"images": {**images, "sha256": "5678"}, "seed": 0})


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    QueryStore(tmp_path / "s", {})
    with sqlite3.connect(tmp_path / "s") as database:
        database.execute("pragma user_version = 3")
    with pytest.raises(ValueError, match=r"is of format 3 .* reads 2; install a newer"):
        QueryStore(tmp_path / "s", {})


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s") as database:
        database.execute("pragma journal_mode = wal")
        database.execute("create table mine (x)")
    database.close()
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(ValueError, match="is the database of another program"):
        QueryStore(tmp_path / "s", {})
    assert (tmp_path / "s").read_bytes() == before

# SPDX-License-Identifier: Apache-2.0
"""The store of queries that cost hours: one SQLite file, written before anything acts on an answer.

A query is a network trained in one way: (cell, recipe, images, seed). It is trained once, whoever
asks: searches of all methods and all processes share a store. A process claims a query, then trains
it; others wait for its answer, or take the claim over when its owner is gone. A training that
diverged is an answer. One that failed or was killed is in the store too, and is tried again.

    sqlite3 queries.sqlite "select genotype, state, validation, test, seconds from queries"

The file is in SQLite's WAL mode, which needs a disk of the machine: its processes and containers
share a store. What a process under another host name claimed is free when its last sign of life is
five minutes old.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from arch2vec_fast.darts.owner import Owner

__all__ = ["Claims", "QueryStore", "StoredQuery"]

_SETTINGS_TABLE = "create table settings (key text primary key, value text not null)"
_QUERIES_TABLE = """create table queries (
    cell text primary key,      -- canonical code, hexadecimal
    genotype text not null,
    state text not null check (state in ('running', 'done', 'diverged', 'failed')),
    attempts integer not null,
    validation real,            -- accuracies in [0, 1]
    test real,                  -- null where the training diverged
    seconds real,
    error text,
    computed_on text,           -- device, threads, version of torch
    started text not null,      -- UTC, as all times here
    finished text,
    host text,                  -- of the process that claimed it last
    pid integer,
    process text,               -- when that process began
    heartbeat text              -- its last sign of life
)"""
_FORMAT_1 = "cell, genotype, state, attempts, validation, test, seconds, error, started, finished"
_APPLICATION = 0x61327631  # "a2v1": what `pragma application_id` says of our files
_FORMAT = 2  # of `pragma user_version`, where format 1 has 0
_BEAT_SECONDS, _LOST = 30.0, timedelta(minutes=5)


class StoredQuery(NamedTuple):
    """One row of the store."""

    state: str
    """`running` (or killed while it ran), `done`, `diverged` or `failed`."""
    attempts: int
    validation: float | None
    """0, the worst there is, where the training diverged."""
    test: float | None
    """None where the training diverged: there is no network to test."""
    seconds: float | None
    error: str | None

    @property
    def answered(self) -> bool:
        """Whether this stays as it is, and nobody trains the cell again."""
        return self.state in ("done", "diverged")


class QueryStore:
    """A store for one way of training.

    Args:
        path: the file; made if it is not there. One of format 1 is brought up to date.
        settings: recipe, images and seed as plain values. A store that holds others is refused.

    Raises:
        ValueError: one line; `path` is another kind of file or of other settings.
        OSError: one line; the file cannot be read or written.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"store: {self.path.parent} does not exist; make the folder")
        try:
            self._open(settings)
        except sqlite3.DatabaseError as error:
            raise ValueError(f"store: {self.path} is no store of queries ({error})") from None

    def _open(self, settings: Mapping[str, Any]) -> None:
        """Make the tables, or bring those that are there up to date."""
        with self._connect() as database:
            self._format(database)
            with suppress(sqlite3.OperationalError):  # of a file that somebody else has open
                database.execute("pragma journal_mode = wal")
            database.execute("begin immediate")  # two searches may open a new store at once
            version = self._format(database)
            if version is None:
                database.execute(_SETTINGS_TABLE)
                database.execute(_QUERIES_TABLE)
            elif version < _FORMAT:
                _upgrade(database, settings)
            database.execute(f"pragma application_id = {_APPLICATION}")
            database.execute(f"pragma user_version = {_FORMAT}")
            self._check(database, settings)  # what is refused here is left as it was

    def _format(self, database: sqlite3.Connection) -> int | None:
        """Of an open file, None if it is empty. ValueError for a file that is not to be touched."""
        application, version, tables = (
            database.execute(query).fetchone()[0]
            for query in (
                "pragma application_id",
                "pragma user_version",
                "select count(*) from sqlite_master",
            )
        )
        if not tables:
            return None
        if application != _APPLICATION:
            raise ValueError(f"store: {self.path} is the database of another program")
        if version > _FORMAT:
            raise ValueError(
                f"store: {self.path} is of format {version} and this version reads {_FORMAT}; "
                "install a newer arch2vec-fast"
            )
        return int(version)

    def _check(self, database: sqlite3.Connection, settings: Mapping[str, Any]) -> None:
        wanted = {key: json.dumps(value, sort_keys=True) for key, value in settings.items()}
        kept = dict(database.execute("select key, value from settings"))
        if not kept:
            database.executemany("insert into settings values (?, ?)", wanted.items())
            kept = wanted
        if odd := sorted(key for key in {*kept, *wanted} if kept.get(key) != wanted.get(key)):
            raise ValueError(
                f"store: {self.path} holds trainings of another {', '.join(odd)}; "
                "use another file for this one"
            )

    def get(self, cell: str) -> StoredQuery | None:
        """What is known of a cell; None if it was never asked."""
        with self._connect() as database:
            row = database.execute(
                "select state, attempts, validation, test, seconds, error from queries "
                "where cell = ?",
                (cell,),
            ).fetchone()
        return None if row is None else StoredQuery(*row)

    def answers(self) -> dict[str, StoredQuery]:
        """All answers, by cell, in the order in which they came."""
        with self._connect() as database:
            rows = database.execute(
                "select cell, state, attempts, validation, test, seconds, error from queries "
                "where state in ('done', 'diverged') order by finished, cell"
            ).fetchall()
        return {cell: StoredQuery(*row) for cell, *row in rows}

    @contextmanager
    def claims(self) -> Iterator[Claims]:
        """What claims queries in the block; they are given back at its end, however it ends."""
        claims = Claims(self)
        over = threading.Event()
        beating = threading.Thread(target=claims.beat, args=(over,), daemon=True)
        beating.start()
        try:
            yield claims
        finally:
            over.set()
            beating.join()
            claims.give_back()

    def finish(
        self, cell: str, *, validation: float, test: float, seconds: float, computed_on: str = ""
    ) -> None:
        """Record the answer of a training. Of two answers the first stays."""
        self._answer("done", cell, validation, test, seconds, None, computed_on)

    def diverge(self, cell: str, error: str, seconds: float) -> None:
        """Record that a training diverged, and why: an answer, the worst there is."""
        self._answer("diverged", cell, 0.0, None, seconds, error, None)

    def _answer(self, state: str, cell: str, *values: object) -> None:
        with self._connect() as database:
            database.execute(
                "update queries set state = ?, validation = ?, test = ?, seconds = ?, error = ?, "
                "computed_on = ?, finished = ? "
                "where cell = ? and state not in ('done', 'diverged')",
                (state, *values, _now(), cell),
            )

    def fail(self, cell: str, error: str) -> None:
        """Record that a training of this process failed, and why; anybody may try it again."""
        with self._connect() as database:
            database.execute(
                "update queries set state = 'failed', error = ?, finished = ? where cell = ? "
                "and state = 'running' and host = ? and pid = ? and process = ?",
                (error, _now(), cell, *Owner.here()),
            )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block is in the file when it ends, or none of it."""
        try:
            with (
                closing(sqlite3.connect(self.path, timeout=60)) as database,
                database,
            ):
                yield database
        except sqlite3.OperationalError as error:
            raise OSError(f"store: {self.path} cannot be used ({error})") from None


class Claims:
    """The queries that a block of this process trains; made by `QueryStore.claims`."""

    def __init__(self, store: QueryStore) -> None:
        self._store = store
        self._taken: set[str] = set()

    def take(self, cell: str, genotype: str) -> bool:
        """Claim a query, in one step that no other process comes between.

        False where it is answered, and where another process trains it that runs as far as can be
        seen from here. What this very process claimed before, it may claim again.
        """
        me, now = Owner.here(), _now()
        with self._store._connect() as database:
            database.execute("begin immediate")
            row = database.execute(
                "select state, heartbeat, host, pid, process from queries where cell = ?", (cell,)
            ).fetchone()
            if row is not None and not _is_free(row, me):
                return False
            database.execute(
                "insert into queries (cell, genotype, state, attempts, started, heartbeat, host, "
                "pid, process) values (?, ?, 'running', 1, ?, ?, ?, ?, ?) on conflict (cell) do "
                "update set state = 'running', attempts = attempts + 1, error = null, "
                "finished = null, started = excluded.started, heartbeat = excluded.heartbeat, "
                "host = excluded.host, pid = excluded.pid, process = excluded.process",
                (cell, genotype, now, now, *me),
            )
        self._taken.add(cell)
        return True

    def release(self, cell: str) -> None:
        """It has ended, and the store says how: there is nothing to give back."""
        self._taken.discard(cell)

    def beat(self, over: threading.Event) -> None:
        """Say now and then that this process is alive, until `over`."""
        while not over.wait(_BEAT_SECONDS):
            with suppress(OSError), self._store._connect() as database:  # the next may get through
                database.execute(
                    "update queries set heartbeat = ? where state = 'running' and host = ? "
                    "and pid = ? and process = ?",
                    (_now(), *Owner.here()),
                )

    def give_back(self) -> None:
        """What was claimed and has not ended is free for others."""
        for cell in self._taken:
            self._store.fail(cell, "stopped before it ended")


def _is_free(row: tuple[Any, ...], me: Owner) -> bool:
    """Whether `me` may claim the query of a row: state, heartbeat, owner."""
    state, heartbeat, *owner = row
    if state != "running":
        return bool(state == "failed")
    if heartbeat is None or Owner(*owner) == me:
        return True
    alive = Owner(*owner).is_alive()
    if alive is None:
        return datetime.now(UTC) - datetime.fromisoformat(heartbeat) > _LOST
    return not alive


def _upgrade(database: sqlite3.Connection, settings: Mapping[str, Any]) -> None:
    """From format 1, which had neither claims nor a digest of the images: the images of whoever
    opens the store first are taken to be those it was made with, if all else of them is the same.
    """
    database.execute("alter table queries rename to old")
    database.execute(_QUERIES_TABLE)
    database.execute(f"insert into queries ({_FORMAT_1}) select {_FORMAT_1} from old")
    database.execute("drop table old")
    database.execute("delete from settings where key = 'format'")
    kept = database.execute("select value from settings where key = 'images'").fetchone()
    images = settings.get("images")
    if kept is not None and isinstance(images, dict) and "sha256" in images:
        known = {**json.loads(kept[0]), "sha256": images["sha256"]}
        database.execute(
            "update settings set value = ? where key = 'images'",
            (json.dumps(known, sort_keys=True),),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

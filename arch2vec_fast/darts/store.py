# SPDX-License-Identifier: Apache-2.0
"""The store of queries that cost hours: one SQLite file, written before anything acts on an answer.

A query is a network trained in one way: (cell, recipe, images, seed). It is trained once, whoever
asks: searches of all methods share a store. A training that failed or was killed is in it too, and
is tried again.

    sqlite3 queries.sqlite "select genotype, validation, test, seconds from queries"
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["QueryStore", "StoredQuery"]

_SCHEMA = """
create table if not exists settings (key text primary key, value text not null);
create table if not exists queries (
    cell text primary key,      -- canonical code, hexadecimal
    genotype text not null,
    state text not null check (state in ('running', 'done', 'failed')),
    attempts integer not null,
    validation real,            -- accuracies in [0, 1]
    test real,
    seconds real,
    error text,
    started text not null,      -- UTC
    finished text
);
"""
_APPLICATION = 0x61327631  # "a2v1": what `pragma application_id` says of our files


class StoredQuery(NamedTuple):
    """One row of the store."""

    state: str
    """`running` (or killed while it ran), `done` or `failed`."""
    attempts: int
    validation: float | None
    test: float | None
    seconds: float | None
    error: str | None


class QueryStore:
    """A store for one way of training.

    Args:
        path: the file; made if it is not there.
        settings: recipe, images and seed as plain values. A store that holds others is refused.

    Raises:
        ValueError: one line; `path` is another kind of file or of other settings.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"store: {self.path.parent} does not exist; make the folder")
        try:
            with self._connect() as database:
                database.execute("pragma journal_mode = wal")
                kept = database.execute("pragma application_id").fetchone()[0]
                tables = database.execute("select count(*) from sqlite_master").fetchone()[0]
                if kept != _APPLICATION and tables:
                    raise ValueError(f"store: {self.path} is the database of another program")
                database.execute(f"pragma application_id = {_APPLICATION}")
                database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ValueError(f"store: {self.path} is no store of queries ({error})") from None
        self._check(settings)

    def _check(self, settings: Mapping[str, Any]) -> None:
        wanted = {key: json.dumps(value, sort_keys=True) for key, value in settings.items()}
        with self._connect() as database:
            database.execute("begin immediate")  # two searches may open a new store at once
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

    def begin(self, cell: str, genotype: str) -> None:
        """Record that a training starts; also one that is tried again. An answer stays."""
        with self._connect() as database:
            database.execute(
                "insert into queries (cell, genotype, state, attempts, started) "
                "values (?, ?, 'running', 1, ?) on conflict (cell) do update set "
                "state = 'running', attempts = attempts + 1, error = null, "
                "started = excluded.started where state != 'done'",
                (cell, genotype, _now()),
            )

    def finish(self, cell: str, *, validation: float, test: float, seconds: float) -> None:
        """Record the answer of a training."""
        with self._connect() as database:
            database.execute(
                "update queries set state = 'done', validation = ?, test = ?, seconds = ?, "
                "finished = ? where cell = ?",
                (validation, test, seconds, _now(), cell),
            )

    def fail(self, cell: str, error: str) -> None:
        """Record that a training failed, and why."""
        with self._connect() as database:
            database.execute(
                "update queries set state = 'failed', error = ?, finished = ? where cell = ?",
                (error, _now(), cell),
            )

    def done(self) -> dict[str, StoredQuery]:
        """All answers, by cell, in the order in which they came."""
        with self._connect() as database:
            rows = database.execute(
                "select cell, state, attempts, validation, test, seconds, error from queries "
                "where state = 'done' order by finished, cell"
            ).fetchall()
        return {cell: StoredQuery(*row) for cell, *row in rows}

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block is in the file when it ends, or none of it."""
        with (
            closing(sqlite3.connect(self.path, timeout=60)) as database,
            database,
        ):
            yield database


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

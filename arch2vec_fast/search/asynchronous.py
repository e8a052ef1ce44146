# SPDX-License-Identifier: Apache-2.0
"""One search with several queries out at once, in an order that can be replayed.

In lock-step a search hears of a round when all of it is answered. Where queries are trainings side
by side, workers would then idle until the slowest has ended. Here a worker that becomes free gets
the next proposal, made from the answers that are in.

What is proposed now depends on which trainings end first. So each end is recorded before the
search hears of it: the row, and how many queries had been asked for by then. A search that is given
its record proposes the same cells again, one after the other and without workers, and goes on from
there: that is how a killed one resumes.
"""

from __future__ import annotations

import fcntl
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast._files import append_line, keep_lines, read_lines
from arch2vec_fast.benchmarks.base import Answer, Benchmark, Streaming
from arch2vec_fast.search.base import Searcher, SearchProblem
from arch2vec_fast.search.budget import Budget
from arch2vec_fast.search.trace import complete

__all__ = ["Completion", "CompletionLog", "continued", "read_completions", "run_asynchronously"]

_ALONE = np.ones(1, np.bool_)


class Completion(NamedTuple):
    """The end of one query."""

    row: int
    """Of the pool."""
    asked: int
    """Queries the search had asked for by then."""


class CompletionLog:
    """The record of one search, a file of JSON lines in the order in which queries ended.

    A line is on the disk when `append` returns. One that a kill tore was never acted on, and goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def owned(self) -> Iterator[None]:
        """For as long as a search adds to it. ValueError where that of another process does."""
        lock = self._path.with_suffix(".lock")
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"out: another process runs this search in {self._path.parent}; wait for it, "
                    "or choose another directory"
                ) from None
            try:
                keep_lines(self._path, lambda line: True)
                yield
            finally:
                lock.unlink()

    def read(self) -> list[Completion]:
        """What ended, in order."""
        if not self._path.exists():
            return []
        lines = [line for _, line in read_lines(self._path)]
        if any(line.keys() != {"row", "asked"} for line in lines) or not all(
            type(value) is int for line in lines for value in line.values()
        ):
            raise ValueError(f"{self._path}: not the completions of a search")
        return [Completion(**line) for line in lines]

    def append(self, completion: Completion) -> None:
        """Record one more."""
        append_line(self._path, completion._asdict(), durable=True)


def continued(kept: list[Completion], given: Sequence[Completion]) -> list[Completion]:
    """The longer of two records of one search. ValueError where neither continues the other."""
    both = min(len(kept), len(given))
    if kept[:both] != list(given[:both]):
        raise ValueError(
            "completions: the output directory holds those of another search; choose another"
        )
    return max(kept, list(given), key=len)


def read_completions(folder: str | Path) -> dict[int, list[Completion]]:
    """The completions of each search, by seed, that `search(..., out=folder)` recorded.

    ValueError where there are none: a search in lock-step, or no search at all.
    """
    logs = {
        int(name[1]): path
        for path in Path(folder).glob("completions-*")
        if (name := re.fullmatch(r"completions-(\d+)\.jsonl", path.name))
    }
    if not logs:
        raise ValueError(
            f"completions: {folder} holds no completions-SEED.jsonl; give the directory of a "
            "search with several workers"
        )
    return {seed: CompletionLog(logs[seed]).read() for seed in sorted(logs)}


def run_asynchronously(
    searcher: Searcher,
    problem: SearchProblem,
    budget: Budget,
    *,
    recorded: Sequence[Completion] = (),
    on_record: int = 0,
    record: Callable[[Completion], None] = lambda completion: None,
    on_answer: Callable[[float], None] = lambda share: None,
) -> dict[str, NDArray[Any]]:
    """Query until the one search of `problem` has spent its budget; the columns of its trace.

    recorded: completions to go through first, answered by the benchmark one after the other.
    record: hears of each further completion before the searcher does, and of those of `recorded`
    after the first `on_record` once the search has proposed them. on_answer: hears what share of
    the budget is spent.

    Raises ValueError where `recorded` is not what the search proposes.
    """
    benchmark = problem.benchmark
    flight = _Flight(searcher, budget)
    for number, completion in enumerate(recorded):
        flight.replay(completion, benchmark, problem.seeds)
        if number >= on_record:
            record(completion)
    assert isinstance(benchmark, Streaming)
    for answer in benchmark.stream(flight.rows()):
        record(Completion(answer.row, flight.asked))
        flight.answer(answer)
        on_answer(flight.spent)
    if not flight.answers:
        raise ValueError(f"pool: {benchmark.name} has no cell that the search could query")
    row, validation, seconds = (np.array(values) for values in zip(*flight.answers))
    query = np.arange(len(row))
    seed, fidelity = (
        np.full(len(row), value) for value in (problem.seeds[0], benchmark.fidelities[-1])
    )
    return complete(benchmark, seed, query, row, fidelity, seconds, validation)


class _Flight:
    """A search under way: what it asked for, what of that is out, what it has spent."""

    def __init__(self, searcher: Searcher, budget: Budget) -> None:
        self._searcher, self._budget = searcher, budget
        self._next: deque[int] = deque()  # proposed together, to be asked for one by one
        self._elapsed = 0.0
        self._out: list[int] = []
        self.asked = 0
        self.answers: list[Answer] = []

    @property
    def spent(self) -> float:
        """Share of the budget."""
        return max(
            self._elapsed / self._budget.most_seconds,
            len(self.answers) / self._budget.most_queries,
        )

    def rows(self) -> Iterator[int]:
        """What to query: what is out already, then proposals; -1 if none before an answer."""
        yield from self._out.copy()
        while (row := self._propose()) >= 0 or self._out:
            yield row

    def answer(self, answer: Answer) -> None:
        """A query ended: the searcher hears of it."""
        self._out.remove(answer.row)
        self.answers.append(answer)
        self._elapsed += 0.0 if math.isnan(answer.seconds) else answer.seconds
        self._searcher.tell(np.array([[answer.row]]), np.array([[answer.validation]]))

    def replay(
        self, completion: Completion, benchmark: Benchmark, seeds: NDArray[np.int64]
    ) -> None:
        """Propose and hear what was proposed and heard before."""
        while self.asked < completion.asked and self._propose() >= 0:
            pass
        if self.asked != completion.asked or completion.row not in self._out:
            raise ValueError(
                f"completions: number {len(self.answers)} is row {completion.row}, which seed "
                f"{seeds[0]} does not propose; they are of another search or of other answers. "
                "Answers stay in the store: without the record, the search begins anew from them"
            )
        found = benchmark.query(np.array([completion.row]), seeds)
        self.answer(Answer(completion.row, float(found.validation[0]), float(found.seconds[0])))

    def _propose(self) -> int:
        if self.asked >= self._budget.most_queries or self._elapsed >= self._budget.most_seconds:
            return -1
        if not self._next:
            proposed = self._searcher.ask(_ALONE).rows[0]
            self._next.extend(proposed[proposed >= 0].tolist())
        if not self._next:
            return -1
        self.asked += 1
        self._out.append(self._next.popleft())
        return self._out[-1]

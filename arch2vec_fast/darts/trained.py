# SPDX-License-Identifier: Apache-2.0
"""A benchmark whose answers are trainings: the DARTS search of the paper's section 4.2.

    bench = TrainedBenchmark(cells, images, TrainRecipe.query(), store="queries.sqlite")
    search(bench, "arch2vec-bo", seeds=[0], queries=100, embeddings=table)

Every finished query is in the store before the search hears of it, so a search that was killed and
started anew asks the same questions, finds the answers, and goes on where it stopped.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast.benchmarks.base import Answer, Answers, Ceiling, CellFinder
from arch2vec_fast.darts.folder import describe_images
from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.store import Claims, QueryStore
from arch2vec_fast.darts.train import Speed, TrainResult, train
from arch2vec_fast.spaces import CellBatch
from arch2vec_fast.spaces.darts import Darts, Genotype

__all__ = ["Diverged", "Job", "TrainHere", "TrainedBenchmark", "TrainingError", "Workers"]

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_POLL_SECONDS = 1.0
# What torch says of memory where it raises a plain RuntimeError.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


class TrainingError(RuntimeError):
    """A training that was wanted ended without a result; the message says which, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training to be done."""

    cell: str
    """Canonical code, hexadecimal: the key in the store."""
    genotype: Genotype
    out: Path | None = None
    """Where to keep the training, resumable; None: nowhere, its answer is all that is wanted."""
    seed: int | None = None
    """Instead of the workers' seed."""
    speed: Speed | None = None
    """How it is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverged:
    """A training whose loss became no number. This is an answer: it would end so again."""

    reason: str
    seconds: float


Outcome = tuple[Job, TrainResult | Diverged | str]
"""A job and its result, or the reason for which it failed and may be tried again."""


class Workers(Protocol):
    """Does jobs in any order and yields each as it ends: `TrainHere`, `ray_workers`.

    A job is taken from `jobs` only when it can begin: the next may depend on how others ended. An
    iterator that has none is asked again when a job has ended, for it may have one then. Where
    jobs run elsewhere, None comes in between: nothing has ended for a while, look what others did.
    """

    @property
    def at_once(self) -> int:
        """Jobs under way at a time."""
        ...

    def __call__(
        self, jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome | None]: ...


@dataclass(frozen=True, slots=True)
class TrainHere:
    """One training after the other in this process."""

    device: str | torch.device = "cpu"
    at_once: ClassVar[int] = 1

    def __call__(
        self, jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome]:
        for job in jobs:
            yield job, train_job(job, images, recipe, seed, self.device)


def train_job(
    job: Job,
    images: ImageSet,
    recipe: TrainRecipe,
    seed: int,
    device: str | torch.device,
    *,
    progress: bool = False,
) -> TrainResult | Diverged | str:
    """Train one network.

    What may go well another time, a system error or lack of memory, becomes a reason in one line.
    Mistakes, of the caller or of a program, are raised.
    """
    seed = seed if job.seed is None else job.seed
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="arch2vec-query-") as folder:
        out = Path(folder) / "run" if job.out is None else job.out
        try:
            return train(
                job.genotype,
                images,
                recipe,
                out=out,
                seed=seed,
                device=device,
                speed=job.speed,
                progress=progress,
            )
        except FloatingPointError as error:
            return Diverged(reason=_one_line(error), seconds=time.monotonic() - began)
        except (OSError, MemoryError) as error:
            return _one_line(error)
        except RuntimeError as error:
            if not _may_pass(error):
                raise
            return _one_line(error)


def _may_pass(error: RuntimeError) -> bool:
    """Whether torch ran out of memory, or the GPU failed, rather than the program."""
    kinds = (torch.OutOfMemoryError, torch.AcceleratorError)
    return isinstance(error, kinds) or any(words in str(error) for words in _OUT_OF_MEMORY)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


class TrainedBenchmark:
    """The DARTS space with real training.

    Args:
        cells: the pool to propose from, e.g. the cells of the embeddings. Networks take a cell as
            normal and as reduction cell.
        images, recipe, seed: how a query is trained; the recipe must hold out images.
        store: file of answers; see `QueryStore`.
        workers: what trains; default: one after the other, here, on `device`.
        speed: how trainings are computed.

    The reward is `TrainResult.reward`; 0, the worst there is, of a training that diverged, whose
    test accuracy is unknown. No test accuracy but those of the queried cells is known, and no
    ceiling: all these are NaN.

    Processes may share a store: none trains what another is training. It trains other cells of the
    round meanwhile, then waits. What another has finished is heard of before the next proposal, and
    while trainings run, where a worker is free. Device, number of threads, memory format and
    compilation change the rounding of a training, not what it answers; the store keeps them beside
    each answer. bf16 is a coarser training, and needs a store of its own.
    """

    name = "darts"
    fidelities: tuple[int, ...]
    has_times = False  # known only afterwards; a budget is a number of queries

    def __init__(
        self,
        cells: CellBatch,
        images: ImageSet,
        recipe: TrainRecipe,
        *,
        store: str | Path,
        seed: int = 0,
        device: str | torch.device = "cpu",
        workers: Workers | None = None,
        speed: Speed | None = None,
    ) -> None:
        check_holds_out(recipe)
        recipe.check_images(images.name, images.image_size)
        self.space = Darts()
        self.cells = cells
        self.images, self.recipe, self.seed = images, recipe, seed
        self.fidelities = (recipe.epochs,)
        self.reward = (
            f"validation accuracy on {images.name} after {recipe.epochs} epochs "
            f"(mean of the last {recipe.mean_of_last}), recipe {recipe.name}, "
            f"{recipe.channels} channels, {recipe.layers} cells"
        )
        self.noise = "one training"
        self._store = QueryStore(store, _settings(images, recipe, seed, speed))
        self._workers = workers or TrainHere(device)
        self._speed = speed

    @cached_property
    def _finder(self) -> CellFinder:
        return CellFinder(self.cells)

    @cached_property
    def _keys(self) -> list[str]:
        return [codes.tobytes().hex() for codes in self.cells.canonical().codes]

    @property
    def ceiling(self) -> Ceiling:
        """Unknown."""
        return Ceiling(float("nan"), float("nan"), float("nan"))

    @property
    def test_accuracy(self) -> NDArray[np.float64]:
        """Of the cells that were queried, NaN elsewhere, [Q]."""
        kept = self._store.answers()
        values = (kept[key].test if key in kept else None for key in self._keys)
        return np.array([np.nan if value is None else value for value in values])

    def find(self, cells: CellBatch) -> NDArray[np.int64]:
        """Row of each cell in the pool, -1 where it is not there."""
        return self._finder.find(cells)

    @property
    def at_once(self) -> int:
        """Trainings side by side."""
        return self._workers.at_once

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Train the cells `rows` [n] that the store does not know, with all workers at once."""
        for _ in self.stream(rows.tolist()):
            pass

    def stream(self, rows: Iterable[int]) -> Iterator[Answer]:
        """Train the cells `rows` that the store does not know; yields each answer as it comes.

        As `Streaming.stream` says; cells that other processes train are not counted among those
        under way here. Raises TrainingError, once all that is under way here has ended, where a
        training failed three times; nothing more is begun then.
        """
        with self._store.claims() as claims:
            yield from _Stream(self, claims).answers(iter(rows))

    def query(
        self,
        rows: NDArray[np.int64],
        seeds: NDArray[np.int64],
        fidelity: int | None = None,
    ) -> Answers:
        """Train what the store does not know, and answer from it. Searches of all seeds agree."""
        self.prefetch(rows)
        answers = [self._answer(row)[1:] for row in rows.tolist()]
        validation, seconds = np.array(answers, np.float64).reshape(-1, 2).T
        return Answers(validation, seconds)

    def _answer(self, row: int) -> Answer:
        """What the store holds of a finished query."""
        kept = self._store.get(self._keys[row])
        assert kept is not None
        assert kept.validation is not None
        assert kept.seconds is not None
        return Answer(row, kept.validation, kept.seconds)

    def _is_answered(self, key: str) -> bool:
        kept = self._store.get(key)
        return kept is not None and kept.answered

    def _job(self, row: int) -> Job:
        genotype = self.space.to_genotypes(self.cells[row : row + 1])[0]
        return Job(cell=self._keys[row], genotype=genotype, speed=self._speed)

    def _train(self, queue: deque[Job]) -> Iterator[Outcome | None]:
        """Do the jobs of a queue, which may grow meanwhile, and record how each ended."""
        while queue:
            for ended in self._workers(_Jobs(queue), self.images, self.recipe, self.seed):
                if ended is not None:
                    job, outcome = ended
                    self._record(job.cell, outcome)
                yield ended

    def _record(self, cell: str, outcome: TrainResult | Diverged | str) -> None:
        """How a training ended, into the store."""
        if isinstance(outcome, str):
            self._store.fail(cell, outcome)
        elif isinstance(outcome, Diverged):
            self._store.diverge(cell, outcome.reason, outcome.seconds)
        else:
            self._store.finish(
                cell,
                validation=outcome.reward,
                test=outcome.test,
                seconds=outcome.seconds,
                computed_on=outcome.computed_on,
            )


class _Jobs:
    """The jobs of a queue; where there were none for a while, there may be some again."""

    def __init__(self, queue: deque[Job]) -> None:
        self._queue = queue

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        if not self._queue:
            raise StopIteration
        return self._queue.popleft()


class _Stream:
    """The state of one `TrainedBenchmark.stream`."""

    def __init__(self, benchmark: TrainedBenchmark, claims: Claims) -> None:
        self._bench, self._claims = benchmark, claims
        # Rows that wait for the training of a cell: one that is claimed here, or one that another
        # process has claimed, or that failed and is free.
        self._here: dict[str, list[int]] = {}
        self._open: dict[str, list[int]] = {}
        self._queue: deque[Job] = deque()
        self._failures = Counter[str]()
        self._error: TrainingError | None = None
        self._told = False

    def answers(self, rows: Iterator[int]) -> Iterator[Answer]:
        """See `TrainedBenchmark.stream`."""
        outcomes = self._bench._train(self._queue)
        asking = True  # until `rows` says that it waits for an answer
        while True:
            for answer in self._look_again():
                asking = True
                yield answer
            while asking and self._has_room():
                if (row := next(rows, -1)) < 0:
                    asking = False
                elif self._bench._is_answered(self._bench._keys[row]):
                    yield self._bench._answer(row)
                else:
                    self._begin(row)
            if self._here:
                ended = next(outcomes)
                for row in self._end(*ended) if ended is not None else ():
                    asking = True
                    yield self._bench._answer(row)
            elif self._error is not None:
                raise self._error
            elif self._open:
                self._wait()
            elif not asking:
                return

    def _wait(self) -> None:
        if not self._told:
            _log.warning("query: waits for %d trainings of other processes", len(self._open))
        self._told = True
        time.sleep(_POLL_SECONDS)

    def _has_room(self) -> bool:
        return self._error is None and len(self._here) < self._bench.at_once

    def _look_again(self) -> Iterator[Answer]:
        """Answers of other processes; what they left is begun here."""
        for cell, rows in list(self._open.items()):
            if self._bench._is_answered(cell):
                del self._open[cell]
                yield from map(self._bench._answer, rows)
            elif self._has_room() and self._claim(rows[0]):
                self._here[cell] = self._open.pop(cell)

    def _begin(self, row: int) -> None:
        """Train the cell of a row, or remember that the row waits for it."""
        cell = self._bench._keys[row]
        if (waiting := self._here.get(cell) or self._open.get(cell)) is not None:
            waiting.append(row)
        elif self._claim(row):
            self._here[cell] = [row]
        else:
            self._open[cell] = [row]

    def _claim(self, row: int) -> bool:
        job = self._bench._job(row)
        if claimed := self._claims.take(job.cell, str(job.genotype)):
            self._queue.append(job)
        return claimed

    def _end(self, job: Job, outcome: TrainResult | Diverged | str) -> list[int]:
        """The rows that are answered now that a training ended; none where it failed."""
        rows = self._here.pop(job.cell)
        self._claims.release(job.cell)
        if not isinstance(outcome, str):
            return rows
        self._failures[job.cell] += 1
        if self._failures[job.cell] < _ATTEMPTS:
            self._open[job.cell] = rows
        else:
            self._error = TrainingError(
                f"query: training {job.genotype} failed {_ATTEMPTS} times ({outcome}); "
                "finished queries are kept"
            )
        return []


def check_holds_out(recipe: TrainRecipe) -> None:
    """ValueError for a recipe whose trainings have no reward."""
    if recipe.validation_fraction <= 0:
        raise ValueError(
            f"recipe: {recipe.name} holds out no images, so there is no reward; "
            "choose query or small"
        )


def _settings(
    images: ImageSet, recipe: TrainRecipe, seed: int, speed: Speed | None = None
) -> Mapping[str, Any]:
    """What makes two trainings of a cell the same query."""
    settings = {"images": describe_images(images), "recipe": recipe.to_dict(), "seed": seed}
    return settings | ({"bf16": True} if speed is not None and speed.bf16 else {})

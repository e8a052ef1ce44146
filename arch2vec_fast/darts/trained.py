# SPDX-License-Identifier: Apache-2.0
"""A benchmark whose answers are trainings: the DARTS search of the paper's section 4.2.

    bench = TrainedBenchmark(cells, images, TrainRecipe.query(), store="queries.sqlite")
    search(bench, "arch2vec-bo", seeds=[0], queries=100, embeddings=table)

Every finished query is in the store before the search hears of it, so a search that was killed and
started anew asks the same questions, finds the answers, and goes on where it stopped.
"""

from __future__ import annotations

import tempfile
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
from arch2vec_fast.darts.store import QueryStore
from arch2vec_fast.darts.train import TrainResult, train
from arch2vec_fast.spaces import CellBatch
from arch2vec_fast.spaces.darts import Darts, Genotype

__all__ = ["Job", "TrainHere", "TrainedBenchmark", "TrainingError", "Workers"]

_ATTEMPTS = 3


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


Outcome = tuple[Job, TrainResult | str]
"""A job and its result, or the reason it failed."""


class Workers(Protocol):
    """Does jobs in any order and yields each as it ends: `TrainHere`, `ray_workers`.

    A job is taken from `jobs` only when it can begin: the next may depend on how others ended. An
    iterator that has none is asked again when a job has ended, for it may have one then.
    """

    @property
    def at_once(self) -> int:
        """Jobs under way at a time."""
        ...

    def __call__(
        self, jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome]: ...


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
    job: Job, images: ImageSet, recipe: TrainRecipe, seed: int, device: str | torch.device
) -> TrainResult | str:
    """Train one network; what goes wrong with it becomes the reason, in one line."""
    seed = seed if job.seed is None else job.seed
    with tempfile.TemporaryDirectory(prefix="arch2vec-query-") as folder:
        out = Path(folder) / "run" if job.out is None else job.out
        try:
            return train(job.genotype, images, recipe, out=out, seed=seed, device=device)
        except (ArithmeticError, RuntimeError, OSError) as error:
            return " ".join(f"{type(error).__name__}: {error}".split())


class TrainedBenchmark:
    """The DARTS space with real training.

    Args:
        cells: the pool to propose from, e.g. the cells of the embeddings. Networks take a cell as
            normal and as reduction cell.
        images, recipe, seed: how a query is trained; the recipe must hold out images.
        store: file of answers; see `QueryStore`.
        workers: what trains; default: one after the other, here, on `device`.

    The reward is `TrainResult.reward`. No test accuracy but those of the queried cells is known,
    and no ceiling: both are NaN.
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
    ) -> None:
        check_holds_out(recipe)
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
        self._store = QueryStore(store, _settings(images, recipe, seed))
        self._workers = workers or TrainHere(device)

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
        done = self._store.done()
        values = (done[key].test if key in done else None for key in self._keys)
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

        As `Streaming.stream` says. Raises TrainingError, once all that is under way has ended,
        where a training failed three times; nothing more is taken from `rows` then.
        """
        asked = iter(rows)
        waiting: dict[str, list[int]] = {}  # rows that wait for the training of a cell
        queue: deque[Job] = deque()
        outcomes, attempts = self._train(queue), Counter[str]()
        error: TrainingError | None = None
        while True:
            while error is None and len(waiting) < self.at_once:
                if (row := next(asked, -1)) < 0:
                    break
                if self._is_done(key := self._keys[row]):
                    yield self._answer(row)
                elif key in waiting:
                    waiting[key].append(row)
                else:
                    waiting[key] = [row]
                    queue.append(self._job(row))
            if not waiting:
                break
            job, outcome = next(outcomes)
            attempts[job.cell] += 1
            if isinstance(outcome, str) and attempts[job.cell] < _ATTEMPTS:
                queue.append(job)
                continue
            answered = waiting.pop(job.cell)
            if isinstance(outcome, str):
                error = TrainingError(
                    f"query: training {job.genotype} failed {_ATTEMPTS} times ({outcome}); "
                    "finished queries are kept"
                )
                continue
            for row in answered:
                yield self._answer(row)
        if error is not None:
            raise error

    def _train(self, queue: deque[Job]) -> Iterator[Outcome]:
        """Do the jobs of a queue, which may grow meanwhile, and record how each ended."""

        jobs = _Jobs(queue, self._store)
        while queue:
            for job, outcome in self._workers(jobs, self.images, self.recipe, self.seed):
                if isinstance(outcome, str):
                    self._store.fail(job.cell, outcome)
                else:
                    self._store.finish(
                        job.cell,
                        validation=outcome.reward,
                        test=outcome.test,
                        seconds=outcome.seconds,
                    )
                yield job, outcome

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

    def _is_done(self, key: str) -> bool:
        kept = self._store.get(key)
        return kept is not None and kept.state == "done"

    def _job(self, row: int) -> Job:
        genotype = self.space.to_genotypes(self.cells[row : row + 1])[0]
        return Job(cell=self._keys[row], genotype=genotype)


class _Jobs:
    """The jobs of a queue, which may be empty for a while; each is recorded when it is taken."""

    def __init__(self, queue: deque[Job], store: QueryStore) -> None:
        self._queue, self._store = queue, store

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        if not self._queue:
            raise StopIteration
        job = self._queue.popleft()
        self._store.begin(job.cell, str(job.genotype))
        return job


def check_holds_out(recipe: TrainRecipe) -> None:
    """ValueError for a recipe whose trainings have no reward."""
    if recipe.validation_fraction <= 0:
        raise ValueError(
            f"recipe: {recipe.name} holds out no images, so there is no reward; "
            "choose query or small"
        )


def _settings(images: ImageSet, recipe: TrainRecipe, seed: int) -> Mapping[str, Any]:
    """What makes two trainings of a cell the same query."""
    return {
        "images": describe_images(images),
        "recipe": recipe.to_dict(),
        "seed": seed,
        "format": 1,
    }

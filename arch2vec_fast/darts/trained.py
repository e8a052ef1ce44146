# SPDX-License-Identifier: Apache-2.0
"""A benchmark whose answers are trainings: the DARTS search of the paper's section 4.2.

    bench = TrainedBenchmark(cells, images, TrainRecipe.query(), store="queries.sqlite")
    search(bench, "arch2vec-bo", seeds=[0], queries=100, embeddings=table)

Every finished query is in the store before the search hears of it, so a search that was killed and
started anew asks the same questions, finds the answers, and goes on where it stopped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast.benchmarks.base import Answers, Ceiling, CellFinder
from arch2vec_fast.darts.folder import describe_images
from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.store import QueryStore
from arch2vec_fast.darts.train import TrainResult, train
from arch2vec_fast.spaces import CellBatch
from arch2vec_fast.spaces.darts import Darts, Genotype

__all__ = ["Job", "TrainedBenchmark", "TrainingError", "Workers", "train_here"]

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
Workers = Callable[[Iterable[Job], ImageSet, TrainRecipe, int], Iterator[Outcome]]
"""Does jobs in any order and yields each as it ends: `train_here`, `ray_workers`."""


def train_here(
    jobs: Iterable[Job],
    images: ImageSet,
    recipe: TrainRecipe,
    seed: int,
    *,
    device: str | torch.device = "cpu",
) -> Iterator[Outcome]:
    """One training after the other in this process."""
    for job in jobs:
        yield job, train_job(job, images, recipe, seed, device)


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
        self._workers = workers or _here(device)

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

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Train the cells `rows` [n] that the store does not know, with all workers at once."""
        row_of = {self._keys[row]: row for row in rows.tolist()}
        attempts = 0
        while open_keys := [key for key in row_of if not self._is_done(key)]:
            if attempts == _ATTEMPTS:
                kept = self._store.get(open_keys[0])
                raise TrainingError(
                    f"query: training {self._job(row_of[open_keys[0]]).genotype} failed "
                    f"{attempts} times ({kept.error if kept else ''}); finished queries are kept"
                )
            attempts += 1
            self._train([self._job(row_of[key]) for key in open_keys])

    def _train(self, jobs: list[Job]) -> None:
        """Do the jobs and record how each ended."""
        for job in jobs:
            self._store.begin(job.cell, str(job.genotype))
        for job, outcome in self._workers(jobs, self.images, self.recipe, self.seed):
            if isinstance(outcome, str):
                self._store.fail(job.cell, outcome)
                continue
            self._store.finish(
                job.cell,
                validation=outcome.reward,
                test=outcome.test,
                seconds=outcome.seconds,
            )

    def query(
        self,
        rows: NDArray[np.int64],
        seeds: NDArray[np.int64],
        fidelity: int | None = None,
    ) -> Answers:
        """Train what the store does not know, and answer from it. Searches of all seeds agree."""
        self.prefetch(rows)
        stored = [self._store.get(self._keys[row]) for row in rows.tolist()]
        answers = [(kept.validation, kept.seconds) for kept in stored if kept is not None]
        validation, seconds = np.array(answers, np.float64).reshape(-1, 2).T
        return Answers(validation, seconds)

    def _is_done(self, key: str) -> bool:
        kept = self._store.get(key)
        return kept is not None and kept.state == "done"

    def _job(self, row: int) -> Job:
        genotype = self.space.to_genotypes(self.cells[row : row + 1])[0]
        return Job(cell=self._keys[row], genotype=genotype)


def check_holds_out(recipe: TrainRecipe) -> None:
    """ValueError for a recipe whose trainings have no reward."""
    if recipe.validation_fraction <= 0:
        raise ValueError(
            f"recipe: {recipe.name} holds out no images, so there is no reward; "
            "choose query or small"
        )


def _here(device: str | torch.device) -> Workers:
    def workers(
        jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome]:
        return train_here(jobs, images, recipe, seed, device=device)

    return workers


def _settings(images: ImageSet, recipe: TrainRecipe, seed: int) -> Mapping[str, Any]:
    """What makes two trainings of a cell the same query."""
    return {
        "images": describe_images(images),
        "recipe": recipe.to_dict(),
        "seed": seed,
        "format": 1,
    }

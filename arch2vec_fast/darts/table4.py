# SPDX-License-Identifier: Apache-2.0
"""Table 4 of the paper, method by method: search by training, then train the winner to the end.

A directory holds

encoder/             the pretraining, and the embeddings of the pool
queries.sqlite       every training of a search, shared by the methods
searches/darts/      traces of the searches that ask for cells
gradient/ORDER       searches by gradient descent
final/METHOD/SEED    trainings of the winners
METHOD.json          the row: winner, its trainings, and what both were run with

Everything in it is resumable: a second call trains nothing that is finished.

Source: Yan et al. 2020, section 4.2; settings of the released code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from arch2vec_fast._files import read_json, write_json
from arch2vec_fast.benchmarks.nasbench301 import pool
from arch2vec_fast.darts.folder import describe_images
from arch2vec_fast.darts.gradient_search import GradientSearchRecipe, search_by_gradient
from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.train import Speed, TrainResult
from arch2vec_fast.darts.trained import (
    Diverged,
    TrainedBenchmark,
    TrainingError,
    Workers,
    check_holds_out,
    train_job,
)
from arch2vec_fast.darts.trained import Job as Training
from arch2vec_fast.search.methods import METHODS as SEARCHES
from arch2vec_fast.search.protocol import Encoder, Job, run_job
from arch2vec_fast.search.trace import Trace
from arch2vec_fast.spaces import CellBatch
from arch2vec_fast.spaces.darts import CIFAR10, Darts, Genotype, network_cost

__all__ = ["METHODS", "Row", "Scale", "Table4", "check_methods", "picks"]

METHODS = {
    "random": "Random search",
    "darts-1": "DARTS, first order",
    "darts-2": "DARTS, second order",
    "bananas": "BANANAS-style ensemble",
    "arch2vec-rl": "arch2vec-RL",
    "arch2vec-bo": "arch2vec-BO",
}
_ORDERS = {"darts-1": 1, "darts-2": 2}

Row = dict[str, Any]
"""As plain values: method, title, settings, genotype, search, final, parameters, mult_adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything.

    training: of a query. final: of the winner, `final_seeds` times, from seeds 0, 1, ... gradient:
    of the searches by gradient descent; its order is each method's own. queries: of the others.
    pool: cells they choose from. search_recipe: a preset of `SearchRecipe`. seed: of searches, and
    of the trainings that answer queries.
    """

    training: TrainRecipe
    final: TrainRecipe
    gradient: GradientSearchRecipe
    queries: int = 100
    final_seeds: int = 3
    pool: int = 600_000
    search_recipe: str = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("queries", "final_seeds", "pool"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is below 1")
        check_holds_out(self.training)


Ended = TrainResult | Diverged | str
"""A training's result, or why it has none."""


class _Final(NamedTuple):
    """One training of a winner."""

    method: str
    seed: int
    genotype: Genotype
    out: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Winner:
    """What a search came to: its genotype, and its facts as plain values."""

    genotype: Genotype
    facts: dict[str, Any]


def check_methods(chosen: Sequence[str]) -> list[str]:
    """`chosen`, each once, in the table's order. Raises ValueError for unknown names."""
    for name in chosen:
        if name not in METHODS:
            raise ValueError(f"methods: no row {name!r}; choose from {', '.join(METHODS)}")
    return [name for name in METHODS if name in chosen]


def picks(trace: Trace) -> CellBatch:
    """The cell each search of a trace of DARTS ends with: its largest reward, the first of equals.

    [S], in order of seeds.
    """
    best = [rows.start + int(np.argmax(trace["validation"][rows])) for _, rows in trace.searches()]
    return CellBatch(trace.cells[best], Darts().layout)


class Table4:
    """The table at one scale, in the directory `out`.

    Args:
        images: to train on; training, validation and test images are its own.
        encoder: embeds the pool for the methods that search in embeddings.
        store: file of answers; None: `out`/queries.sqlite.
        workers: what trains queries and winners, several at once; None: one after the other, here.
        device: of the trainings here.
        speed: how trainings are computed, but for searches by gradient descent.
        on_start: hears what begins, in words, before it does.

    Raises ValueError, one line, where a recipe's networks do not fit the images.
    """

    def __init__(
        self,
        images: ImageSet,
        scale: Scale,
        out: str | Path,
        *,
        encoder: Encoder,
        store: str | Path | None = None,
        workers: Workers | None = None,
        device: str | torch.device = "cpu",
        speed: Speed | None = None,
        progress: bool = False,
        on_start: Callable[[str], None] = lambda what: None,
    ) -> None:
        for recipe in (scale.training, scale.final):
            recipe.check_images(images.name, images.image_size)
        self.images, self.scale, self.out = images, scale, Path(out)
        self.encoder, self.workers, self.device = encoder, workers, device
        self.speed, self.progress, self.on_start = speed, progress, on_start
        self.store = self.out / "queries.sqlite" if store is None else Path(store)

    @cached_property
    def benchmark(self) -> TrainedBenchmark:
        """What the searches ask."""
        return TrainedBenchmark(
            pool(self.scale.pool),
            self.images,
            self.scale.training,
            store=self.store,
            seed=self.scale.seed,
            device=self.device,
            workers=self.workers,
            speed=self.speed,
        )

    def finished(self, method: str) -> Row | None:
        """The kept row of a method, if it was made with the same settings."""
        path = self.out / f"{method}.json"
        if not path.exists():
            return None
        row: Any = read_json(path)
        if not isinstance(row, dict) or row.get("method") != method:
            raise ValueError(f"{path}: not a row of {method}; move it away")
        return row if row.get("settings") == self._settings(method) else None

    def rows(self, methods: Sequence[str]) -> Iterator[Row]:
        """The rows of `methods`, in that order; what is missing is searched, then trained.

        Raises TrainingError, one line, where a training fails, after the rows of all methods whose
        trainings did not; what is finished is kept.
        """
        kept = {method: self.finished(method) for method in methods}
        self.out.mkdir(parents=True, exist_ok=True)
        winners = {method: self._winner(method) for method, row in kept.items() if row is None}
        finals = self._train_all({method: found.genotype for method, found in winners.items()})
        failed = None
        for method in methods:
            row = kept[method]
            if row is None:
                try:
                    row = self._row(method, winners[method], _results(finals[method]))
                except TrainingError as error:
                    failed = failed or error
                    continue
                write_json(self.out / f"{method}.json", row)
            yield row
        if failed is not None:
            raise failed

    def _winner(self, method: str) -> _Winner:
        self.on_start(f"{METHODS[method]}: search")
        return self._by_gradient(method) if method in _ORDERS else self._by_queries(method)

    def _by_gradient(self, method: str) -> _Winner:
        found = search_by_gradient(
            self.images,
            self._gradient(method),
            out=self.out / "gradient" / f"{_ORDERS[method]}",
            seed=self.scale.seed,
            device=self.device,
            progress=self.progress,
        )
        facts = {"validation": found.validation[-1], "seconds": found.seconds}
        return _Winner(genotype=found.genotype, facts=facts)

    def _by_queries(self, method: str) -> _Winner:
        scale = self.scale
        job = Job(
            benchmark="darts", method=method, recipe=scale.search_recipe, queries=scale.queries
        )
        searches = self.out / "searches"
        progress = self.progress
        trace = run_job(
            job, self.benchmark, searches, self.encoder, seeds=[scale.seed], progress=progress
        )
        facts = {
            "queries": len(trace),
            "validation": float(trace["validation"].max()),
            "seconds": float(trace["seconds"].sum()),
        }
        return _Winner(genotype=Darts().to_genotypes(picks(trace))[0], facts=facts)

    def _train_all(self, genotypes: dict[str, Genotype]) -> dict[str, dict[_Final, Ended]]:
        """How the final trainings of each method's genotype ended, by seed."""
        finals = [
            _Final(method, seed, genotype, (self.out / "final" / method / str(seed)).resolve())
            for method, genotype in genotypes.items()
            for seed in range(self.scale.final_seeds)
        ]
        ended = dict(self._train(finals))
        return {
            method: {final: ended[final] for final in finals if final.method == method}
            for method in genotypes
        }

    def _train(self, finals: Sequence[_Final]) -> Iterator[tuple[_Final, Ended]]:
        """Result of each, or why it failed: side by side with workers, else one by one here."""
        recipe = self.scale.final
        jobs = {
            Training(
                cell="", genotype=final.genotype, out=final.out, seed=final.seed, speed=self.speed
            ): final
            for final in finals
        }
        if self.workers is None:
            for job, final in jobs.items():
                self.on_start(f"{METHODS[final.method]}: final training, seed {final.seed}")
                yield (
                    final,
                    train_job(job, self.images, recipe, 0, self.device, progress=self.progress),
                )
        elif finals:
            self.on_start(f"{len(finals)} final trainings")
            for ended in filter(None, self.workers(jobs, self.images, recipe, 0)):
                job, outcome = ended
                yield jobs[job], outcome

    def _row(self, method: str, winner: _Winner, finals: Sequence[TrainResult]) -> Row:
        size = network_cost(winner.genotype, CIFAR10)
        trained = network_cost(winner.genotype, self.scale.final.network(self.images.classes))
        errors = [1 - final.test for final in finals]
        return {
            "method": method,
            "title": METHODS[method],
            "settings": self._settings(method),
            "genotype": str(winner.genotype),
            "search": winner.facts,
            "final": {
                "errors": errors,
                "error": float(np.mean(errors)),
                "std": float(np.std(errors, ddof=1)) if len(errors) > 1 else None,
                "seconds": [final.seconds for final in finals],
                "parameters": int(trained.parameters[0]),
            },
            "parameters": int(size.parameters[0]),
            "mult_adds": int(size.mult_adds[0]),
        }

    def _gradient(self, method: str) -> GradientSearchRecipe:
        return replace(self.scale.gradient, order=_ORDERS[method])

    def _settings(self, method: str) -> dict[str, Any]:
        """What a row depends on, as plain values."""
        scale = self.scale
        search: dict[str, Any] = {"seed": scale.seed}
        if method in _ORDERS:
            search["gradient"] = asdict(self._gradient(method))
        else:
            search |= {
                "training": scale.training.to_dict(),
                "queries": scale.queries,
                "pool": scale.pool,
                "recipe": scale.search_recipe,
            }
        if method in SEARCHES and SEARCHES[method].needs_embeddings:
            encoder = self.encoder
            made = {"recipe": encoder.recipe, "cells": encoder.limit, "seed": encoder.seed}
            run = encoder.run
            search["encoder"] = made if run is None else {"run": str(run.resolve())}
        return {
            "format": 1,
            "images": describe_images(self.images),
            "search": search,
            "final": scale.final.to_dict(),
            "final_seeds": scale.final_seeds,
            **({"bf16": True} if self.speed is not None and self.speed.bf16 else {}),
        }


def _results(finals: Mapping[_Final, Ended]) -> list[TrainResult]:
    """Of the final trainings of one method; TrainingError where one has none."""
    results = []
    for final, ended in finals.items():
        if not isinstance(ended, TrainResult):
            reason = ended.reason if isinstance(ended, Diverged) else ended
            raise TrainingError(
                f"final: training {final.method}, seed {final.seed}, failed ({reason}); "
                "finished trainings are kept"
            )
        results.append(ended)
    return results

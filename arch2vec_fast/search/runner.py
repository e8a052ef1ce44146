# SPDX-License-Identifier: Apache-2.0
"""The one search loop: S seeds of any method in lock-step, resumable, one trace.

benchmark = benchmarks.get("nasbench201-cifar10")
trace = search(benchmark, "random", seeds=range(500), seconds=12_000, out="runs/random")
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast._checks import check_device
from arch2vec_fast._files import read_json, write_json
from arch2vec_fast._progress import Progress
from arch2vec_fast.benchmarks.base import Benchmark, Prefetching, Streaming
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import methods
from arch2vec_fast.search.asynchronous import (
    Completion,
    CompletionLog,
    continued,
    run_asynchronously,
)
from arch2vec_fast.search.base import LearnsEmbeddings, Searcher, SearchProblem
from arch2vec_fast.search.budget import Budget
from arch2vec_fast.search.recipes import SearchRecipe
from arch2vec_fast.search.trace import Trace, complete

__all__ = ["align", "search"]

_GROUP = 50
_GROUP_SECONDS = 60.0  # what a kill may cost, once it is known how long a search takes
_GROWTH = 8
_KEPT_EMBEDDINGS = 10  # of searches that learn their own
_CONFIG, _TRACE = "search.json", "trace.parquet"


def search(
    benchmark: Benchmark,
    method: str,
    *,
    seeds: Sequence[int] | range,
    seconds: float | None = None,
    queries: int | None = None,
    recipe: SearchRecipe | str = "best",
    embeddings: EmbeddingTable | None = None,
    device: str | torch.device = "cpu",
    out: str | Path | None = None,
    completions: Mapping[int, Sequence[Completion]] | None = None,
    progress: bool = False,
) -> Trace:
    """Run one method on a benchmark from every seed and return the trace of all queries.

    Args:
        method: a name of `methods.METHODS`.
        seeds: of the searches, distinct, >= 0.
        seconds, queries: the budget of each search; see `Budget`.
        recipe: of the method, a preset's name or a `SearchRecipe`.
        embeddings: vectors of at least the pool's cells, in any order; arch2vec methods need them,
            others do not look at them.
        out: a directory. Groups of up to 50 seeds, of about a minute where a search takes less, are
            written there as they end; the same call goes on where an interrupted one stopped and
            returns what an uninterrupted one would.
        completions: of an earlier search, see below.
        progress: a line on standard error.

    Returns:
        The `Trace`; also at `out`/trace.parquet. Methods that learn embeddings of their own leave
        those of the first ten seeds at `out`/embeddings-SEED.safetensors, an `EmbeddingTable` each:
        figures show one seed or a few, and 500 would take a gigabyte.

    Raises:
        ValueError: one line, for an impossible budget, a method that needs what is not there,
            embeddings of another space, or an `out` that holds another search.

    Deterministic in the arguments: a seed's trace does not depend on the other seeds.

    A benchmark that works on W > 1 queries at once (`Streaming`) is asked by one seed after the
    other, each with W queries out (`search.asynchronous`); the trace is in the order in which they
    ended, which decides what was proposed. `out`/completions-SEED.jsonl records that order. Given
    back as `completions` (`read_completions(out)`), it makes the searches propose the same cells
    again, one query after the other; ValueError where they do not. An interrupted search goes on
    with any W: what has ended stays as recorded, and W decides what is proposed from there on. One
    that began in rounds (W = 1) stays in rounds, and is refused with W > 1. Methods that are not
    `Method.asynchronous` ask in rounds as ever, and workers wait for the last of a round.
    """
    chosen = SearchRecipe.get(recipe, benchmark.space.name) if isinstance(recipe, str) else recipe
    budget = Budget(seconds=seconds, queries=queries)
    budget.check(benchmark)
    numbers = _check_seeds(seeds)
    methods.check(method, benchmark, embeddings)
    device = check_device(device)
    vectors = None
    if embeddings is not None and methods.get(method).needs_embeddings:
        vectors = align(embeddings, benchmark)
    began_with = None if out is None else _workers_at_first(Path(out))
    at_once = _at_once(benchmark, method, completions, began_with)
    if completions and (lacking := sorted(set(numbers.tolist()) - completions.keys())):
        raise ValueError(f"completions: none are recorded of seeds {lacking}; leave those out")
    workers = at_once and (began_with or at_once)
    metadata = _describe(benchmark, method, chosen, budget, vectors, workers)
    folder = None if out is None else _Folder(Path(out), metadata, numbers)
    if folder is not None and folder.trace.exists():
        return Trace.load(folder.trace)

    parts = [] if folder is None else folder.parts(numbers)
    left = numbers[~np.isin(numbers, [seed for part in parts for seed in part.seeds])]
    most = methods.get(method).seeds_at_once(len(benchmark.cells), 1 if at_once else _GROUP)
    groups = _Groups(most, saved=folder is not None)
    with Progress(f"{method} on {benchmark.name}", "seeds", len(numbers), enabled=progress) as bar:
        while len(left):
            bar.update(len(numbers) - len(left))
            group, left = np.split(left, [groups.size])
            problem = SearchProblem(
                benchmark=benchmark,
                seeds=group,
                recipe=replace(chosen, batch_size=1) if at_once else chosen,
                embeddings=vectors,
                device=device,
            )
            began = time.monotonic()
            searcher = methods.create(method, problem)
            report = _report(bar, len(numbers) - len(left) - len(group), len(group))
            if at_once:
                recorded = (completions or {}).get(int(group[0]), ())
                columns = _run_recorded(searcher, problem, budget, folder, recorded, report)
            else:
                columns = run_group(searcher, problem, budget, report)
            part = Trace(
                method=method,
                recipe=chosen.name,
                benchmark=benchmark.name,
                columns=columns,
                cells=benchmark.cells.codes[columns["row"]],
                metadata=metadata,
            )
            if folder is not None:
                folder.save(part, searcher, problem, numbers)
            groups.took(len(group), time.monotonic() - began)
            parts.append(part)
        bar.update(len(numbers))
    trace = Trace.concat(parts)
    if folder is not None:
        folder.finish(trace)
    return trace


class _Groups:
    """How many seeds the next group takes: all it may, or what takes a minute if it is saved.

    The first saved group is one search, from which the time of the others is guessed; what a search
    finds does not depend on its company.
    """

    def __init__(self, most: int, *, saved: bool) -> None:
        self._most, self._saved = most, saved
        self.size = 1 if saved else most

    def took(self, seeds: int, seconds: float) -> None:
        """The last group is over."""
        if self._saved:
            fitting = int(_GROUP_SECONDS * seeds / max(seconds, 1e-3))
            self.size = max(1, min(self._most, _GROWTH * seeds, fitting))


def _workers_at_first(out: Path) -> int | None:
    """With which the search of a directory began; None if it asks in rounds, or has not begun."""
    path = out / _CONFIG
    workers: int | None = read_json(path).get("workers") if path.exists() else None
    return workers


def _at_once(
    benchmark: Benchmark,
    method: str,
    completions: Mapping[int, Sequence[Completion]] | None,
    began_with: int | None,
) -> int | None:
    """Queries a search has out; None where it asks in rounds."""
    if isinstance(benchmark, Streaming) and methods.get(method).asynchronous:
        in_rounds = benchmark.at_once == 1 and completions is None and began_with is None
        return None if in_rounds else benchmark.at_once
    if completions is not None:
        raise ValueError(
            f"completions: {method} on {benchmark.name} does not depend on the order in which "
            "queries end; leave them out"
        )
    return None


def _run_recorded(
    searcher: Searcher,
    problem: SearchProblem,
    budget: Budget,
    folder: _Folder | None,
    recorded: Sequence[Completion],
    report: Callable[[float], None],
) -> dict[str, NDArray[Any]]:
    """`run_asynchronously`, going on from the record in the folder, if there is one."""
    if folder is None:
        return run_asynchronously(searcher, problem, budget, recorded=recorded, on_answer=report)
    log = folder.completions(int(problem.seeds[0]))
    with log.owned():
        kept = log.read()
        return run_asynchronously(
            searcher,
            problem,
            budget,
            recorded=continued(kept, recorded),
            on_record=len(kept),
            record=log.append,
            on_answer=report,
        )


def run_group(
    searcher: Searcher,
    problem: SearchProblem,
    budget: Budget,
    on_round: Callable[[float], None] = lambda share: None,
) -> dict[str, NDArray[Any]]:
    """Ask and tell until every search has spent its budget; the columns of the trace.

    on_round: hears what share of the budgets is spent.
    """
    benchmark, seeds = problem.benchmark, problem.seeds
    longest = benchmark.fidelities[-1]
    elapsed, count = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64)
    most_seconds, most_queries = budget.most_seconds, budget.most_queries
    active = np.ones(len(seeds), np.bool_)
    made: list[tuple[NDArray[Any], ...]] = []
    while active.any():
        rows, fidelity = searcher.ask(active)
        rewards = np.full(rows.shape, np.nan)
        active &= (rows >= 0).any(1)
        if isinstance(benchmark, Prefetching):
            benchmark.prefetch(_certain(rows, active, most_queries - count))
        for column in range(rows.shape[1]):  # one query after another: budgets end in mid-round
            going = active & (elapsed < most_seconds) & (count < most_queries)
            asking = np.flatnonzero(going & (rows[:, column] >= 0))
            asked = rows[asking, column]
            epochs = np.full(len(asked), longest)
            if fidelity is not None:
                epochs = fidelity[asking, column]
            validation, seconds = _query(benchmark, asked, seeds[asking], epochs)
            made.append((seeds[asking], count[asking], asked, epochs, seconds, validation))
            rewards[asking, column] = validation
            elapsed[asking] += np.nan_to_num(seconds)
            count[asking] += 1
        searcher.tell(rows, rewards)
        active &= (elapsed < most_seconds) & (count < most_queries)
        spent = np.maximum(elapsed / most_seconds, count / most_queries)
        on_round(float(np.where(active, spent, 1.0).mean()))
    columns = (np.concatenate(column) for column in zip(*made))
    return complete(benchmark, *columns)


def _report(bar: Progress, done: int, group: int) -> Callable[[float], None]:
    """Counts the seeds of a group as done in proportion to what they have spent."""
    return lambda share: bar.update(done + int(share * group))


def _certain(
    rows: NDArray[np.int64], active: NDArray[np.bool_], left: NDArray[Any]
) -> NDArray[np.int64]:
    """The cells of a round that a budget of queries lets all be asked."""
    asked = (rows >= 0) & active[:, None]
    return rows[asked & (asked.cumsum(1) <= left[:, None])]


def _query(
    benchmark: Benchmark,
    rows: NDArray[np.int64],
    seeds: NDArray[np.int64],
    epochs: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    validation, seconds = np.empty(len(rows)), np.empty(len(rows))
    for length in np.unique(epochs):
        where = epochs == length
        validation[where], seconds[where] = benchmark.query(rows[where], seeds[where], int(length))
    return validation, seconds


def align(embeddings: EmbeddingTable, benchmark: Benchmark) -> EmbeddingTable:
    """The vectors of the benchmark's pool, in its order, found by the cells stored with them.

    Cells are the same if isomorphic: an embedding does not depend on how nodes are numbered.

    Raises ValueError where the table is of another space or lacks cells of the pool.
    """
    cells, pool = embeddings.cells, benchmark.cells
    if cells.layout != pool.layout:
        raise ValueError(
            f"embeddings: are of cells of {cells.layout.num_nodes} nodes and "
            f"{cells.layout.num_op_types} operation types, not of {benchmark.space.name}"
        )
    if cells == pool:
        return embeddings
    rows = _places(cells.codes, pool.codes)
    if (rows < 0).any():  # one network, other numbers of its nodes: its vector is the same
        rows = _places(cells.canonical().codes, pool.canonical().codes)
    if (missing := np.flatnonzero(rows < 0)).size:
        raise ValueError(
            f"embeddings: hold no vector for {len(missing):,} of the {len(pool):,} cells of "
            f"{benchmark.name} (row {missing[0]} first); embed the whole space"
        )
    return EmbeddingTable(
        vectors=np.ascontiguousarray(embeddings.vectors[rows]),
        cells=pool,
        metadata=embeddings.metadata,
    )


def _places(codes: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """A row of `codes` [Q, W] for each of `wanted` [R, W]; -1 where there is none."""
    if not len(codes):
        return np.full(len(wanted), -1)
    keys = _keys(np.concatenate((codes, wanted)))
    order = np.argsort(keys[: len(codes)], kind="stable")
    sought = keys[len(codes) :]
    rows = order[np.searchsorted(keys[order], sought, side="right") - 1]
    found: NDArray[np.int64] = np.where(keys[rows] == sought, rows, -1)
    return found


def _keys(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number a row of `codes` [Q, W], equal for equal rows: numbers sort faster than rows."""
    keys = codes[:, 0]
    for word in codes.T[1:]:
        before, after = (np.unique(part, return_inverse=True)[1] for part in (keys, word))
        keys = before * len(codes) + after
    return keys


def _check_seeds(seeds: Sequence[int] | range) -> NDArray[np.int64]:
    numbers = np.array(list(seeds))
    if not len(numbers) or numbers.dtype.kind != "i" or numbers.ndim != 1 or numbers.min() < 0:
        raise ValueError("seeds: expected one or more integers >= 0, e.g. range(500)")
    if len(np.unique(numbers)) != len(numbers):
        raise ValueError("seeds: some are given twice; give distinct ones")
    return np.sort(numbers.astype(np.int64))


def _describe(
    benchmark: Benchmark,
    method: str,
    recipe: SearchRecipe,
    budget: Budget,
    embeddings: EmbeddingTable | None,
    workers: int | None,
) -> dict[str, Any]:
    from arch2vec_fast import __version__

    source = None
    if embeddings is not None:
        whole = np.ascontiguousarray(embeddings.vectors).data.cast("B")
        digest = hashlib.sha256(whole).hexdigest()[:16]
        source = {**embeddings.metadata, "dim": embeddings.vectors.shape[1], "sha256": digest}
    return {
        "title": methods.get(method).title,
        "space": benchmark.space.name,
        "reward": benchmark.reward,
        "noise": getattr(benchmark, "noise", None),
        "pool": len(benchmark.cells),
        "ceiling": {  # files have no NaN
            name: None if math.isnan(value) else value
            for name, value in benchmark.ceiling._asdict().items()
        },
        "budget": {"seconds": budget.seconds, "queries": budget.queries},
        "workers": workers,
        "recipe_fields": recipe.to_dict(),
        "embeddings": source,
        "version": __version__,
    }


class _Folder:
    """The directory of a study: its settings, a part for each finished group, then the trace."""

    def __init__(self, path: Path, metadata: dict[str, Any], seeds: NDArray[np.int64]) -> None:
        self._path = path
        self.trace = path / _TRACE
        config = {**metadata, "seeds": seeds.tolist()}
        path.mkdir(parents=True, exist_ok=True)
        if (path / _CONFIG).exists():
            kept = read_json(path / _CONFIG)
            keys = {*kept, *config} - {"version"}  # a finished study outlives the release
            odd = sorted(key for key in keys if kept.get(key) != config.get(key))
            if odd:
                raise ValueError(
                    f"out: {path} holds another search (its {', '.join(odd)} differ); "
                    "repeat its settings, or choose another directory"
                )
        elif any(path.iterdir()):
            raise ValueError(f"out: {path} is not empty and holds no search; choose another")
        else:
            write_json(path / _CONFIG, config)

    def parts(self, seeds: NDArray[np.int64]) -> list[Trace]:
        """Groups that ended, of these seeds; a seed in two of them counts in the first."""
        found: list[Trace] = []
        known: set[int] = set()
        for path in sorted(self._path.glob("part-*.parquet")):
            part = Trace.load(path)
            mine = set(part.seeds.tolist())
            if not mine & known and mine <= set(seeds.tolist()):
                found.append(part)
                known |= mine
        return found

    def save(
        self, part: Trace, searcher: Searcher, problem: SearchProblem, seeds: NDArray[np.int64]
    ) -> None:
        """A finished group, and what its searches have learnt; seeds: of all groups."""
        if isinstance(searcher, LearnsEmbeddings):
            self._save_embeddings(searcher, problem, part.metadata, seeds[:_KEPT_EMBEDDINGS])
        part.save(self._path / f"part-{problem.seeds[0]:06}.parquet")

    def completions(self, seed: int) -> CompletionLog:
        """The record of one search."""
        return CompletionLog(self._path / f"completions-{seed}.jsonl")

    def _save_embeddings(
        self,
        searcher: LearnsEmbeddings,
        problem: SearchProblem,
        metadata: Mapping[str, Any],
        kept: NDArray[np.int64],
    ) -> None:
        if not np.isin(problem.seeds, kept).any():
            return  # making them takes time too
        about = {"space": metadata["space"], "method": metadata["title"]}
        for seed, vectors in zip(problem.seeds.tolist(), searcher.embeddings()):
            if seed not in kept:
                continue
            EmbeddingTable(
                vectors=vectors,
                cells=problem.benchmark.cells,
                metadata={**about, "recipe": problem.recipe.name, "seed": str(seed)},
            ).save(self._path / f"embeddings-{seed}.safetensors")

    def finish(self, trace: Trace) -> None:
        trace.save(self.trace)
        for part in self._path.glob("part-*.parquet"):
            part.unlink()

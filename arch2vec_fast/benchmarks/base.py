# SPDX-License-Identifier: Apache-2.0
"""What a search asks of a benchmark, and the kind that answers from a table.

A benchmark is a numbered pool of cells and a way to query them: a query trains a cell, or looks up
how it trained, costs seconds and returns a validation accuracy. Test accuracies exist for the
report alone; no search method sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.spaces import CellBatch, CellSpace

__all__ = [
    "Answer",
    "Answers",
    "Benchmark",
    "Ceiling",
    "CellFinder",
    "Prefetching",
    "Streaming",
    "TableBenchmark",
]

_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


class Answers(NamedTuple):
    """What n queries returned."""

    validation: NDArray[np.float64]
    """Validation accuracy in [0, 1], [n]: the reward of the search."""
    seconds: NDArray[np.float64]
    """Cost of each query, [n]; NaN where the benchmark knows no times."""


class Answer(NamedTuple):
    """What one query returned."""

    row: int
    validation: float
    seconds: float


class Ceiling(NamedTuple):
    """What a search that finds the best reward returns, and the best there is; in [0, 1]."""

    validation: float
    """The largest reward of the pool."""
    test_of_pick: float
    """Test accuracy of the cell with the largest reward: what a perfect search returns. The mean
    over cells that tie for it, so a search that finds the luckier of them is above it."""
    test: float
    """The largest test accuracy of the pool: an oracle's number."""


class Benchmark(Protocol):
    """A pool of Q cells that can be queried.

    Rows are indices into `cells`. All S seeds of a study are queried at once, so everything is
    vectorised over queries.
    """

    @property
    def name(self) -> str:
        """For files and labels."""
        ...

    @property
    def space(self) -> CellSpace:
        """Where the cells come from: its `mutate` makes the neighbours of evolution."""
        ...

    @property
    def cells(self) -> CellBatch:
        """The pool, [Q]."""
        ...

    @property
    def reward(self) -> str:
        """What a query returns, in words that go beside every number, e.g. "validation accuracy
        after 12 epochs, one run"."""
        ...

    @property
    def fidelities(self) -> tuple[int, ...]:
        """Training lengths that can be asked for, in epochs, ascending; the last is the default."""
        ...

    @property
    def has_times(self) -> bool:
        """Whether queries cost known seconds; if not, budgets are numbers of queries."""
        ...

    @property
    def ceiling(self) -> Ceiling:
        """The best that can be found."""
        ...

    @property
    def test_accuracy(self) -> NDArray[np.float64]:
        """Test accuracy in [0, 1] of every cell, [Q], NaN where unknown. For reports alone."""
        ...

    def query(
        self,
        rows: NDArray[np.int64],
        seeds: NDArray[np.int64],
        fidelity: int | None = None,
    ) -> Answers:
        """Answers of n queries: cells `rows` [n], asked by the searches of `seeds` [n].

        The same (row, seed, fidelity) always gives the same answer. fidelity: one of `fidelities`,
        default the last.
        """
        ...

    def find(self, cells: CellBatch) -> NDArray[np.int64]:
        """Row of each cell in the pool, [B], up to isomorphism; -1 where it is not there."""
        ...


@runtime_checkable
class Prefetching(Protocol):
    """A benchmark that gains from hearing early what will be asked, as parallel trainings do."""

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Get ready to answer queries of the cells `rows` [n]."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A benchmark that works on several queries at once and answers each when it ends."""

    @property
    def at_once(self) -> int:
        """Queries it works on at a time, W."""
        ...

    def stream(self, rows: Iterable[int]) -> Iterator[Answer]:
        """Answers to the queries `rows`, each yielded when it ends.

        A row is taken from `rows` only when work on it can begin, so what is asked next may depend
        on the answers before. What is known already is answered at once. A row of -1 asks for
        nothing: the next is taken after the next answer.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TableBenchmark:
    """A benchmark that was measured beforehand: every answer is looked up.

    Attributes:
        name, space, cells, reward: as `Benchmark`.
        fidelities: E training lengths in epochs, ascending.
        validation: accuracies in [0, 1] of R runs, [Q, E, R].
        test: mean test accuracy after the longest training, [Q].
        times: seconds of one query, [Q, E]; None if unknown.
        noise: "mean" answers with the mean over runs; "run" with one run, drawn by (seed, row), so
            that one search always sees the same run of a cell and searches differ. Compare methods
            under one choice.
        metadata: where the numbers come from.

    Example:
        >>> from arch2vec_fast import spaces
        >>> space = spaces.get("nasbench201")
        >>> cells = space.enumerate()[:4]
        >>> bench = TableBenchmark(
        ...     name="toy", space=space, cells=cells, reward="validation accuracy",
        ...     fidelities=(12,), validation=np.array([.1, .4, .3, .2]).reshape(4, 1, 1),
        ...     test=np.array([.1, .3, .4, .2]),
        ... )
        >>> bench.query(np.array([1, 2]), seeds=np.array([0, 0])).validation.tolist()
        [0.4, 0.3]
        >>> bench.ceiling
        Ceiling(validation=0.4, test_of_pick=0.3, test=0.4)
        >>> bench.find(cells[2:]).tolist()
        [2, 3]
    """

    name: str
    space: CellSpace
    cells: CellBatch
    reward: str
    fidelities: tuple[int, ...]
    validation: NDArray[np.floating]
    test: NDArray[np.floating]
    times: NDArray[np.floating] | None = None
    noise: Literal["mean", "run"] = "mean"
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.noise not in ("mean", "run"):
            raise ValueError(f"noise: {self.noise!r} is neither 'mean' nor 'run'")
        count, lengths = len(self.cells), len(self.fidelities)
        if not count:
            raise ValueError("cells: none given; a benchmark needs at least one cell")
        if not lengths or list(self.fidelities) != sorted(set(self.fidelities)):
            raise ValueError(f"fidelities: {self.fidelities} do not ascend; give epochs in order")
        if self.validation.ndim != 3 or self.validation.shape[:2] != (count, lengths):
            raise ValueError(
                f"validation: shape {self.validation.shape} for {count} cells and {lengths} "
                "fidelities; pass [Q, E, R]"
            )
        for label, values in (("validation", self.validation), ("test", self.test)):
            if np.fmin.reduce(values, None) < 0 or np.fmax.reduce(values, None) > 1:
                raise ValueError(f"{label}: accuracies outside [0, 1]; divide per cent by 100")
        if not np.isfinite(self.validation.sum()):  # of numbers in [0, 1], NaN, infinity
            raise ValueError("validation: not all finite; leave out cells that were not trained")
        if self.test.shape != (count,):
            raise ValueError(f"test: shape {self.test.shape} for {count} cells; pass [Q]")
        if self.times is not None and (
            self.times.shape != (count, lengths) or not bool((self.times > 0).all())
        ):
            raise ValueError(
                f"times: shape {self.times.shape}; pass positive seconds [Q, E] = "
                f"[{count}, {lengths}], or None"
            )

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def has_times(self) -> bool:
        return self.times is not None

    @cached_property
    def test_accuracy(self) -> NDArray[np.float64]:
        return self.test.astype(np.float64)

    @cached_property
    def mean_validation(self) -> NDArray[np.float64]:
        """Mean over runs after the longest training, [Q]."""
        mean: NDArray[np.float64] = self.validation[:, -1].mean(1, dtype=np.float64)
        return mean

    @cached_property
    def ceiling(self) -> Ceiling:
        best = self.mean_validation.max()
        return Ceiling(
            float(best),
            float(self.test_accuracy[self.mean_validation == best].mean()),
            float(np.nanmax(self.test_accuracy)),
        )

    def query(
        self,
        rows: NDArray[np.int64],
        seeds: NDArray[np.int64],
        fidelity: int | None = None,
    ) -> Answers:
        length = self._length(fidelity)
        if self.noise == "mean":
            validation = self.validation[rows, length].mean(-1, dtype=np.float64)
        else:
            runs = _draw(rows, seeds, self.validation.shape[2])
            validation = self.validation[rows, length, runs].astype(np.float64)
        if self.times is None:
            return Answers(validation, np.full(len(rows), np.nan))
        return Answers(validation, self.times[rows, length].astype(np.float64))

    def find(self, cells: CellBatch) -> NDArray[np.int64]:
        return self._finder.find(cells)

    @cached_property
    def _finder(self) -> CellFinder:
        return CellFinder(self.cells)

    def _length(self, fidelity: int | None) -> int:
        if fidelity is None:
            return len(self.fidelities) - 1
        if fidelity not in self.fidelities:
            raise ValueError(
                f"fidelity: {self.name} has no {fidelity} epochs; choose one of {self.fidelities}"
            )
        return self.fidelities.index(fidelity)


class CellFinder:
    """Where cells are in a pool, up to isomorphism; one sort of the pool, then binary searches."""

    def __init__(self, pool: CellBatch) -> None:
        self._layout = pool.layout
        codes = _keys(pool)
        self._order = np.argsort(codes, kind="stable")
        self._codes = codes[self._order]

    def find(self, cells: CellBatch) -> NDArray[np.int64]:
        """Row of each cell in the pool, [B]; -1 where it is not there."""
        if cells.layout != self._layout:
            raise ValueError(
                f"cells: are of {cells.layout.num_nodes} nodes and {cells.layout.num_op_types} "
                f"operation types, the pool's of {self._layout.num_nodes} and "
                f"{self._layout.num_op_types}"
            )
        wanted = _keys(cells)
        at = np.minimum(np.searchsorted(self._codes, wanted), len(self._codes) - 1)
        return np.where(self._codes[at] == wanted, self._order[at], -1)


def _keys(cells: CellBatch) -> NDArray[np.void]:
    """Canonical codes as one sortable item a cell."""
    codes = np.ascontiguousarray(cells.canonical().codes)
    return codes.view([("", codes.dtype)] * codes.shape[1])[:, 0]


def _draw(rows: NDArray[np.int64], seeds: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """A number below `count` for each (row, seed): SplitMix64's finaliser of the pair."""
    mixed = rows.astype(np.uint64) * _MIX[0] + seeds.astype(np.uint64) * _MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[2]
    drawn: NDArray[np.uint64] = (mixed ^ (mixed >> np.uint64(31))) % np.uint64(count)
    return drawn.astype(np.int64)

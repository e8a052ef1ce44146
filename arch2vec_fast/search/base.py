# SPDX-License-Identifier: Apache-2.0
"""The seam between the search loop and the methods: `ask` for cells, `tell` what they scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast.benchmarks.base import Benchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search.recipes import SearchRecipe

__all__ = ["LearnsEmbeddings", "Proposals", "SearchProblem", "Searcher", "SearcherFactory"]


class Proposals(NamedTuple):
    """What S searches want queried next, B or fewer each."""

    rows: NDArray[np.int64]
    """Rows of the benchmark's pool, [S, B]; -1 where a search proposes fewer than B."""
    fidelity: NDArray[np.int64] | None = None
    """Epochs of each query, [S, B]; None: the benchmark's longest."""


class Searcher(Protocol):
    """S searches of one method in lock-step, one a seed.

    What a search does must follow from its own seed and what it was told, never from its company:
    the same seed gives the same trace whichever seeds run beside it.

    Where `Method.asynchronous` says so, a single search may also be asked before it was told all
    that it asked for, and told one row at a time, [1, 1], in any order. It answers with what to
    query beside that, or with nothing if it needs another answer first, and then is as if it had
    not been asked.
    """

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        """The next queries. active [S]: searches that still have budget; others may be skipped.

        Rows may repeat earlier ones where the method's recipe says so: a repeated query costs as
        much as a new one. No proposal at all for an active search that was told all ends it.
        """
        ...

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Answers to `ask`: the same rows [S, B] and their rewards [S, B].

        A reward is NaN where the query was not made: row -1, search over, or budget spent.
        """
        ...


@runtime_checkable
class LearnsEmbeddings(Protocol):
    """A `Searcher` that learns a representation as it searches; the runner saves it at the end."""

    def embeddings(self) -> list[NDArray[np.float32]]:
        """What each search has made of the pool so far, [Q, D] a search."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchProblem:
    """All a method may know before the first query.

    seeds: int64 [S]. embeddings: vectors of the pool, row i those of `benchmark.cells[i]`; None
    where the method needs none. device: where models of the method live, but for those that have no
    GPU kernel or do not fit it: those stay on the CPU.
    """

    benchmark: Benchmark
    seeds: NDArray[np.int64]
    recipe: SearchRecipe
    embeddings: EmbeddingTable | None = None
    device: str | torch.device = "cpu"

    def generators(self, stream: str) -> list[np.random.Generator]:
        """One NumPy generator a seed, independent of other streams' and other seeds'."""
        key = int.from_bytes(stream.encode()[:8], "little")
        return [np.random.default_rng([int(seed), key]) for seed in self.seeds]


SearcherFactory = Callable[[SearchProblem], Searcher]

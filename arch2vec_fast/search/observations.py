# SPDX-License-Identifier: Apache-2.0
"""What the searches of model-based methods have in common: first queries, memory, threads.

Model-based methods fit something to all that a search was told, for S searches at once. Searches
with equally many answers form rectangular batches, which is what the kernels want; those whose
budget is spent simply drop out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.search.random_search import distinct_rows
from arch2vec_fast.search.released import released_order

Part = TypeVar("Part")
_CUDA_INPUTS = 64  # of a network: kMaxCudaInputs of csrc/dngo/dngo_cuda.h


class Batch(NamedTuple):
    """Searches that know equally much."""

    searches: NDArray[np.int64]  # [s], which of the S
    rows: NDArray[np.int64]  # [s, M], in the order of the answers; then what is pending
    rewards: NDArray[np.float64]  # [s, M]


class Pending:
    """Rows that S searches asked for and have no answer to, in the order of asking.

    In lock-step there are none when a search is asked.
    """

    def __init__(self, num_searches: int) -> None:
        self.rows: list[list[int]] = [[] for _ in range(num_searches)]

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Rows [S, B] are asked for; -1 for none."""
        for pending, asked in zip(self.rows, rows.tolist(), strict=True):
            pending += [row for row in asked if row >= 0]

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Rows [S, B] are answered."""
        for pending, told in zip(self.rows, rows.tolist(), strict=True):
            for row in told:
                if row in pending:
                    pending.remove(row)


class Observations:
    """Rows queried and rewards received by S searches, in order.

    Models are fitted as if what is `pending` had been answered with the mean of the answers so far:
    a constant liar (Ginsbourger et al., "Kriging Is Well-Suited to Parallelize Optimization",
    2010), which makes its surroundings known without making them better or worse.

    >>> seen = Observations(2)
    >>> seen.add(np.array([[3, 1], [2, -1]]), np.array([[.5, .6], [.7, np.nan]]))
    >>> [batch.rows.tolist() for batch in seen.batches(np.array([True, True]))]
    [[[2]], [[3, 1]]]
    """

    def __init__(self, num_searches: int) -> None:
        self.counts = np.zeros(num_searches, np.int64)
        self._rows = np.full((num_searches, 64), -1, np.int64)
        self._rewards = np.full((num_searches, 64), np.nan)
        self.pending = Pending(num_searches)

    def add(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Append rows and rewards [S, B]; where a reward is NaN there was no query.

        None of them is pending any more.
        """
        self.pending.drop(rows)
        made = ~np.isnan(rewards)
        at = self.counts[:, None] + np.cumsum(made, 1) - 1
        while len(made) and at.max(initial=0) >= self._rows.shape[1]:
            self._rows = np.concatenate([self._rows, np.full_like(self._rows, -1)], 1)
            self._rewards = np.concatenate([self._rewards, np.full_like(self._rewards, np.nan)], 1)
        search, _ = np.nonzero(made)
        self._rows[search, at[made]] = rows[made]
        self._rewards[search, at[made]] = rewards[made]
        self.counts += made.sum(1)

    def batches(self, active: NDArray[np.bool_], limit: int | None = None) -> Iterator[Batch]:
        """The active searches in batches of one size, of at most `limit` searches.

        A search without any answer is in none.
        """
        sizes = self.counts + np.array([len(rows) for rows in self.pending.rows], np.int64)
        active = active & (self.counts > 0)
        for size in np.unique(sizes[active]):
            chosen = np.flatnonzero(active & (sizes == size))
            step = limit or len(chosen)
            for start in range(0, len(chosen), step):
                some = chosen[start : start + step]
                rows, rewards = zip(*map(self._believed, some.tolist()))
                yield Batch(some, np.stack(rows), np.stack(rewards))

    def _believed(self, search: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows and rewards [M] of one search, what is pending and its lie at the end."""
        count, pending = self.counts[search], self.pending.rows[search]
        rows, rewards = self._rows[search, :count], self._rewards[search, :count]
        lie = np.full(len(pending), rewards.mean())
        return np.append(rows, np.array(pending, np.int64)), np.append(rewards, lie)


class ModelSearch(ABC):
    """`ask` and `tell` of S searches that fit a model to all they were told, and go by it.

    Args:
        first: the queries before the first model, [S, B0].
        batch_size: cells a round proposes, B, after that.
        device: of the models; on the CPU each of torch's threads works on searches of its own.
        most: searches in a call of `propose`.
    """

    def __init__(
        self, first: NDArray[np.int64], batch_size: int, device: torch.device, most: int
    ) -> None:
        self.device = device
        self._first, self._batch_size, self._most = first, batch_size, most
        self._seen = Observations(len(first))
        self._round = 0

    @abstractmethod
    def _propose(self, batch: Batch) -> NDArray[np.int64]:
        """The next rows [s, B] of some searches."""

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        """The first cells, then what the model proposes each time."""
        if self._round == 0:
            rows = np.where(active[:, None], self._first, -1)
        else:
            rows = self._by_model(active)
        if (rows >= 0).any():
            self._round += 1
            self._seen.pending.expect(rows)
        return Proposals(rows)

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Keeps the answers."""
        self._seen.add(rows, rewards)

    def _by_model(self, active: NDArray[np.bool_]) -> NDArray[np.int64]:
        rows = np.full((len(active), self._batch_size), -1, np.int64)

        def propose(batch: Batch) -> None:
            rows[batch.searches] = self._propose(batch)

        share = math.ceil(int(active.sum()) / torch.get_num_threads())
        parts = list(self._seen.batches(active, min(self._most, share)))
        for_each(propose, parts, parallel=self.device.type == "cpu")
        return rows


def network_device(problem: SearchProblem, num_inputs: int) -> torch.device:
    """Where DNGO's networks of so many inputs are trained: the problem's device, or the CPU.

    A GPU's kernel holds a network and its points in the memory of one multiprocessor. Embeddings
    fit; one-hot cells of many nodes and path encodings do not.
    """
    return torch.device(problem.device if num_inputs <= _CUDA_INPUTS else "cpu")


def initial_rows(
    problem: SearchProblem, order: NDArray[np.int32] | None = None
) -> NDArray[np.int64]:
    """The queries before the first model: distinct rows [S, recipe.num_initial], uniform.

    With `recipe.released_draws` those of the released code, number by number: a permutation by
    NumPy's legacy generator, with `shuffled_pool` of cells that Python's generator had shuffled.
    order: that of `released_order`, where it is at hand.
    """
    pool = len(problem.benchmark.cells)
    count = min(problem.recipe.num_initial, pool)
    if not problem.recipe.released_draws:
        return distinct_rows(problem.generators("initial"), pool, count)
    rows = np.empty((len(problem.seeds), count), np.int64)
    order = released_order(problem) if order is None else order
    for search, seed in enumerate(problem.seeds):
        first = np.random.RandomState(seed).permutation(pool)[:count]
        rows[search] = first if order is None else order[search, first]
    return rows


def for_each(work: Callable[[Part], None], parts: Sequence[Part], *, parallel: bool) -> None:
    """`work` on every part; `parallel` gives each of torch's threads whole parts of its own.

    Many small factorisations gain nothing from threads inside each, and searches are independent:
    one search a thread keeps every core busy with no thread waiting for another.
    """
    threads = torch.get_num_threads()
    if not parallel or threads == 1 or len(parts) < threads:
        for part in parts:
            work(part)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)

# SPDX-License-Identifier: Apache-2.0
"""REINFORCE on the discrete encoding: one softmax a choice, no network, no embedding.

The baseline of the paper's figures. A cell is a list of independent choices: an operation for each
node, yes or no for each edge. Every choice has its own logits; after each query they take one step
of plain gradient ascent,

    logits += learning_rate * (reward - baseline) * d log p(choices) / d logits,

with the bias-corrected moving average of rewards, the new one included, as baseline.

Source: Ying et al., "NAS-Bench-101", ICML 2019, section 4.2 and appendix; settings of
github.com/automl/nas_benchmarks (learning rate 0.1, momentum 0.9).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.benchmarks.base import Benchmark
from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.spaces import CellBatch

__all__ = ["Choices", "DiscreteReinforce"]

_DRAWS = 16  # cells a search draws at once, until one is in the pool
_ROUNDS = 64


class Choices:
    """What there is to choose in a benchmark: V choices of at most C options.

    A choice is an edge or an operation in which the pool's largest cells differ: six operations in
    NAS-Bench-201, whose edges are fixed; edges and operations in NAS-Bench-101, where smaller cells
    come about as the benchmark prunes what hangs loose.

    Attributes:
        options: int64 [V, C], operation types, or 0 and 1 for an edge; -1 beyond a choice's last.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        present = benchmark.cells.num_present()
        adjacency, node_ops = benchmark.cells[present == present.max()].to_dense()
        self._template = adjacency[:1], node_ops[:1]
        self._edges = np.nonzero((adjacency != adjacency[:1]).any(0))
        self._nodes = np.nonzero((node_ops != node_ops[:1]).any(0))[0]
        options = [np.array([0, 1])] * len(self._edges[0])
        options += [np.unique(node_ops[:, node]) for node in self._nodes]
        most = max(map(len, options), default=1)
        self.options = np.full((len(options), most), -1, np.int64)
        for choice, values in enumerate(options):
            self.options[choice, : len(values)] = values

    def rows(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the pool that choices [n, V], positions in `options`, lead to, int64 [n].

        A cell that is not valid is first pruned, where the space prunes. -1: not in the pool.
        """
        values = self.options[np.arange(len(self.options)), chosen]
        count, edges = len(chosen), len(self._edges[0])
        adjacency, node_ops = (np.repeat(part, count, 0) for part in self._template)
        adjacency[:, self._edges[0], self._edges[1]] = values[:, :edges]
        node_ops[:, self._nodes] = values[:, edges:]
        space = self._benchmark.space
        cells = CellBatch.from_dense(adjacency, node_ops, space.layout)
        rows = np.full(count, -1, np.int64)
        valid = space.is_valid(cells)
        rows[valid] = self._benchmark.find(cells[valid])
        if not valid.all():
            pruned = space.simplify(cells[~valid])
            found = self._benchmark.find(pruned)
            rows[~valid] = np.where(space.is_valid(pruned), found, -1)
        return rows


class DiscreteReinforce:
    """S searches in lock-step, a `Searcher`; one cell a round.

    A draw that is not in the pool is drawn again, at no cost, up to 1,024 times; after that the
    search takes a cell at random, from which it does not learn. Cells may come again and then cost
    again, as published.

    Attributes:
        logits: float64 [S, V, C], options as in `Choices`; -infinity for what is none.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._recipe = problem.recipe
        self._choices = Choices(problem.benchmark)
        self._pool = len(problem.benchmark.cells)
        self._generators = problem.generators("reinforce")
        count, options = len(problem.seeds), self._choices.options
        self.logits = np.where(options < 0, -np.inf, np.zeros((count, *options.shape)))
        self._chosen = np.full((count, len(options)), -1, np.int64)
        self._total, self._weight = np.zeros(count), np.zeros(count)

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        """One row of each active search, [S, 1]."""
        rows = np.full(len(active), -1, np.int64)
        self._chosen[:] = -1
        pending = np.flatnonzero(active)
        for _ in range(_ROUNDS):
            if not len(pending):
                break
            chosen = self._draw(pending)
            found = self._choices.rows(chosen.reshape(-1, chosen.shape[2])).reshape(-1, _DRAWS)
            first = (found >= 0).argmax(1)
            hit = (found >= 0).any(1)
            rows[pending[hit]] = found[hit, first[hit]]
            self._chosen[pending[hit]] = chosen[hit, first[hit]]
            pending = pending[~hit]
        for search in pending:
            rows[search] = self._generators[search].integers(self._pool)
        return Proposals(rows[:, None])

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Rewards [S, 1] of the last `ask`; a NaN leaves a search as it is."""
        reward = rewards[:, 0]
        told = np.flatnonzero(~np.isnan(reward))
        momentum = self._recipe.baseline_momentum
        self._total[told] = momentum * self._total[told] + (1 - momentum) * reward[told]
        self._weight[told] = momentum * self._weight[told] + (1 - momentum)
        told = told[(self._chosen[told] >= 0).all(1)]
        advantage = reward[told] - self._total[told] / self._weight[told]
        picked = self._chosen[told][:, :, None] == np.arange(self.logits.shape[2])
        step = self._recipe.choice_learning_rate * advantage
        self.logits[told] += step[:, None, None] * (picked - self._probabilities(told))

    def _draw(self, searches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Choices [n, _DRAWS, V] of each search from its own generator."""
        bounds = self._probabilities(searches).cumsum(2)[:, None, :, :-1]
        shape = (_DRAWS, self.logits.shape[1])
        uniform = np.stack([self._generators[search].random(shape) for search in searches])
        chosen: NDArray[np.int64] = (uniform[..., None] >= bounds).sum(3)
        last: NDArray[np.int64] = (self._choices.options >= 0).sum(1) - 1
        return np.minimum(chosen, last)

    def _probabilities(self, searches: NDArray[np.int64]) -> NDArray[np.float64]:
        """[n, V, C]; zero for what is no option."""
        logits = self.logits[searches]
        weights = np.exp(logits - logits.max(2, keepdims=True))
        probabilities: NDArray[np.float64] = weights / weights.sum(2, keepdims=True)
        return probabilities

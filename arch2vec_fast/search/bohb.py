# SPDX-License-Identifier: Apache-2.0
"""BOHB-style search: Optuna's TPE sampler under Optuna's Hyperband.

Not the BOHB program of the paper's figures: that is unmaintained. The parts are the same, a
tree-structured Parzen estimator that proposes and successive halving that stops early, and every
label says whose they are. Optuna is the optional extra `bohb`.

Source: Falkner et al., "BOHB", ICML 2018; Akiba et al., "Optuna", KDD 2019.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.index import build_index
from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.spaces import CellBatch

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

__all__ = ["Bohb", "CellChoices"]


class CellChoices:
    """Cells as categorical choices: each possible edge, each node's operation.

    What all cells of the pool share is no choice. A combination that is no cell of the pool stands
    for the cell nearest to it (most choices in common, ties to the lowest row), so that every
    trial is a query: of NAS-Bench-101's half billion combinations one in a thousand is a cell.

    Attributes:
        options: the values each choice has in the pool, ascending.
    """

    def __init__(self, cells: CellBatch) -> None:
        adjacency, node_ops = cells.to_dense()
        upper = adjacency[:, *np.triu_indices(adjacency.shape[1], 1)].astype(np.int64)
        values = np.concatenate([upper, node_ops.astype(np.int64)], 1)
        values = values[:, (values != values[:1]).any(0)]
        self.options = [np.unique(column).tolist() for column in values.T]
        self._index = build_index(self._one_hot(values))

    def rows(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row [n] that each combination [n, choices] stands for."""
        rows: NDArray[np.int64] = self._index.nearest(self._one_hot(chosen)).indices[:, 0]
        return rows

    def _one_hot(self, values: NDArray[np.int64]) -> NDArray[np.float32]:
        parts = [values[:, i, None] == options for i, options in enumerate(self.options)]
        return np.concatenate(parts, 1).astype(np.float32)


class Bohb:
    """S searches, each an Optuna study (TPE + Hyperband) over `CellChoices`.

    One query a round. A trial is queried at the shortest training, then at longer ones until
    Hyperband stops it; each query costs what training that long costs. The recipe has no part in
    it but `num_initial`, TPE's random trials.

    Raises ImportError without Optuna, ValueError for a benchmark of one fidelity.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._fidelities = problem.benchmark.fidelities
        if len(self._fidelities) < 2:
            raise ValueError(
                f"benchmark: {problem.benchmark.name} has one training length, bohb needs several"
            )
        self._choices = CellChoices(problem.benchmark.cells)
        count = problem.recipe.num_initial
        self._studies = [self._study(int(seed), count) for seed in problem.seeds]
        self._trials: list[Trial | None] = [None] * len(problem.seeds)
        self._rows = np.full(len(problem.seeds), -1, np.int64)
        self._rung = np.zeros(len(problem.seeds), np.int64)

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        """The next rung of each search's trial, or the first of a new one."""
        fresh = [s for s in np.flatnonzero(active).tolist() if self._trials[s] is None]
        if fresh:
            self._rows[fresh] = self._choices.rows(np.array([self._begin(s) for s in fresh]))
            self._rung[fresh] = 0
        rows = np.where(active, self._rows, -1)[:, None]
        return Proposals(rows, np.array(self._fidelities)[self._rung][:, None])

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Reports each reward; Hyperband decides which trials train longer."""
        from optuna.trial import TrialState

        for search in np.flatnonzero(~np.isnan(rewards[:, 0])).tolist():
            trial, reward = self._trials[search], float(rewards[search, 0])
            assert trial is not None
            rung = int(self._rung[search])
            trial.report(reward, self._fidelities[rung])
            if rung + 1 == len(self._fidelities):
                self._studies[search].tell(trial, reward)
            elif trial.should_prune():
                self._studies[search].tell(trial, state=TrialState.PRUNED)
            else:
                self._rung[search] += 1
                continue
            self._trials[search] = None

    def _begin(self, search: int) -> list[int]:
        """What TPE proposes for a new trial, a value for each choice."""
        trial = self._trials[search] = self._studies[search].ask()
        return [
            trial.suggest_categorical(str(choice), options)
            for choice, options in enumerate(self._choices.options)
        ]

    def _study(self, seed: int, num_initial: int) -> Study:
        try:
            import optuna
        except ImportError:
            raise ImportError("bohb needs Optuna: pip install 'arch2vec-fast[bohb]'") from None
        shortest, longest = self._fidelities[0], self._fidelities[-1]
        steps = len(self._fidelities) - 1
        factor = max(2, round(math.pow(longest / shortest, 1 / steps)))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(
            # Hyperband assigns brackets by a hash of name and trial: the same for the same seed.
            study_name=f"seed-{seed}",
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=num_initial),
            pruner=optuna.pruners.HyperbandPruner(
                min_resource=shortest, max_resource=longest, reduction_factor=factor
            ),
        )

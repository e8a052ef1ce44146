# SPDX-License-Identifier: Apache-2.0
"""BANANAS-style search: an ensemble on path encodings, independent Thompson sampling.

Five networks of one hidden layer, trained from different starts on the same cells, stand for a
distribution of the reward; their training is that of DNGO's network, so all networks of all
searches are one call. (White et al. train five deeper networks; the search around them is theirs.)

Source: White et al., "BANANAS: Bayesian Optimization with Neural Architectures for Neural
Architecture Search", AAAI 2021.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast import functional
from arch2vec_fast._reference_dngo import split_parameters
from arch2vec_fast.search.base import SearchProblem
from arch2vec_fast.search.neighbours import PoolNeighbours
from arch2vec_fast.search.observations import (
    Batch,
    ModelSearch,
    initial_rows,
    network_device,
)
from arch2vec_fast.search.path_encoding import num_paths, path_encoding

__all__ = ["Bananas"]

_NETWORKS = 5
_HIDDEN = 32
_EPOCHS = 50
_PARENTS = 5
_STRANGERS = 100
_SEARCHES_AT_ONCE = 10


class Bananas(ModelSearch):
    """S searches by an ensemble of networks on path encodings.

    First `num_initial` random cells. Then each round scores the unvisited neighbours of the five
    best cells and a hundred random cells, draws one value for each candidate from the normal
    distribution of the ensemble's mean and deviation, and queries the `batch_size` largest. Other
    fields of the recipe have no part in it.

    Deterministic; a search has the same queries alone and in company.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._benchmark = problem.benchmark
        self._neighbours = PoolNeighbours(problem.benchmark)
        self._seeds = problem.seeds
        self._generators = problem.generators("bananas")
        device = network_device(problem, num_paths(problem.benchmark.space))
        super().__init__(
            initial_rows(problem), problem.recipe.batch_size, device, _SEARCHES_AT_ONCE
        )

    def _propose(self, batch: Batch) -> NDArray[np.int64]:
        pools = self._candidates(batch)
        count = self._batch_size
        rows = np.full((len(pools), count), -1, np.int64)
        size = max(len(pool) for pool in pools)
        if size == 0:
            return rows
        # Searches have differently many candidates: the last of each fills its row up.
        filled = np.array([np.resize(pool, size) if len(pool) else [0] * size for pool in pools])
        mean, std = self._predict(batch, filled)
        for place, search, pool, m, s in zip(rows, batch.searches, pools, mean, std, strict=True):
            known = len(pool)
            sample = m[:known] + s[:known] * self._generators[search].standard_normal(known)
            chosen = pool[np.argsort(-sample, kind="stable")[:count]]
            place[: len(chosen)] = chosen
        return rows

    def _candidates(self, batch: Batch) -> list[NDArray[np.int64]]:
        """Unvisited rows to choose among, for each search: near its best cells, and anywhere."""
        best = np.argsort(-batch.rewards, axis=1, kind="stable")[:, :_PARENTS]
        parents = np.take_along_axis(batch.rows, best, 1)
        near = self._neighbours.of(parents.ravel())
        pool = len(self._benchmark.cells)
        candidates = []
        for place, (search, visited) in enumerate(zip(batch.searches, batch.rows, strict=True)):
            own = near[place * parents.shape[1] : (place + 1) * parents.shape[1]]
            strangers = self._generators[search].integers(pool, size=_STRANGERS)
            rows = np.setdiff1d(np.concatenate([*own, strangers]), visited)
            if len(rows) == 0:  # a small pool nearly done: whatever is left
                rows = np.setdiff1d(np.arange(pool), visited)
            candidates.append(rows)
        return candidates

    def _predict(
        self, batch: Batch, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation [s, C] of the ensemble at the rows [s, C], in units of the fit."""
        searches = len(batch.searches)
        networks = self._train(batch)
        points = self._encode(rows)
        weight, bias, readout, last = split_parameters(networks, points.shape[2])
        hidden = weight.reshape(searches, -1, points.shape[2]) @ points.mT
        hidden = torch.tanh(hidden + bias.reshape(searches, -1, 1))
        hidden = hidden.reshape(searches, _NETWORKS, _HIDDEN, -1)
        values = torch.einsum("snh,snhc->snc", readout.view(searches, _NETWORKS, -1), hidden)
        values += last.view(searches, _NETWORKS, 1)
        return (
            values.mean(1).double().cpu().numpy(),
            values.std(1).double().cpu().numpy(),
        )

    def _train(self, batch: Batch) -> Tensor:
        """Parameters [5 s, P] of the networks, five a search, after all epochs."""
        points = self._encode(batch.rows).repeat_interleave(_NETWORKS, 0)
        rewards = torch.from_numpy(batch.rewards).to(self.device, torch.float32)
        spread = rewards.std(1, correction=0, keepdim=True)
        rewards = (rewards - rewards.mean(1, keepdim=True)) / torch.where(spread > 0, spread, 1)
        member = torch.arange(_NETWORKS) << 32
        keys = torch.from_numpy(self._seeds[batch.searches])[:, None] + member
        parameters, order = functional.dngo_draw(
            (keys.flatten() + (self._round << 40)).to(self.device),
            num_inputs=points.shape[2],
            num_points=points.shape[1],
            num_hidden=_HIDDEN,
            num_epochs=_EPOCHS,
        )
        targets = rewards.repeat_interleave(_NETWORKS, 0)
        functional.dngo_fit(parameters, points, targets, order)
        return parameters

    def _encode(self, rows: NDArray[np.int64]) -> Tensor:
        """Path encodings [s, C, P] of rows [s, C], ones and zeros."""
        cells = self._benchmark.cells[rows.ravel()]
        paths = path_encoding(cells, self._benchmark.space)
        return torch.from_numpy(paths).to(self.device, torch.float32).view(*rows.shape, -1)

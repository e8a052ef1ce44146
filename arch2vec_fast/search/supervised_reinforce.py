# SPDX-License-Identifier: Apache-2.0
"""The supervised counterpart of arch2vec-RL: an encoder learnt from the search's rewards alone.

As `search.reinforce`, but the embeddings are those of a graph isomorphism network that starts at
random and is trained by the policy gradient, which passes through the states the policy saw. The
pool is embedded anew at the start of each episode, and that is what costs: about 0.3 s for 15,625
cells a core.

Source: Yan et al. 2020, section 4.2 ("supervised architecture representation learning-based RL").
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from arch2vec_fast.index import LatentIndex, VisitedSet, build_index
from arch2vec_fast.models import Recipe
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.gin_vae import GinVae
from arch2vec_fast.models.inference import readout_encoder
from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.search.recipes import SearchRecipe
from arch2vec_fast.search.reinforce import Agent, nearest_rows, start_rows
from arch2vec_fast.spaces import CellLayout

__all__ = ["SupervisedReinforce", "untrained_encoder"]

_SAMPLE = 512  # cells of the pool whose statistics batch norm takes


class SupervisedReinforce:
    """S searches in lock-step, a `Searcher`; one cell a round, each with an encoder of its own.

    Fields of the recipe: those of arch2vec-RL, and

    - `directed`: sums over successors alone, as the released baseline, where arch2vec takes both
      directions;
    - `evaluate_in_train_mode`: the state shown to the policy is normalised by the statistics of its
      own few nodes; otherwise by those of the pool, as the embeddings are;
    - `frozen_policy_input`: the policy is shown the start for ever.

    Memory: 8 D bytes a cell of the pool and 2 MB a search.
    """

    def __init__(self, problem: SearchProblem) -> None:
        cells = problem.benchmark.cells
        codes = cells.to_torch()
        self._learners = [
            _Learner(int(seed), int(start), codes, cells.layout, problem.recipe)
            for seed, start in zip(problem.seeds, start_rows(problem))
        ]

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        """One unvisited row of each active search, [S, 1]."""
        pairs = zip(self._learners, active)
        rows = [learner.next_row() if going else -1 for learner, going in pairs]
        return Proposals(np.array(rows, np.int64)[:, None])

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Rewards [S, 1] of the last `ask`; a NaN leaves a search as it is."""
        for learner, reward in zip(self._learners, rewards[:, 0]):
            if not np.isnan(reward):
                learner.observe(float(reward))

    def embeddings(self) -> list[NDArray[np.float32]]:
        """What each search has made of the pool so far, [Q, D] a search."""
        return [learner.embed().numpy() for learner in self._learners]


class _Learner:
    """One search: encoder, policy, and the index of the pool as this episode embeds it."""

    def __init__(
        self, seed: int, start: int, codes: Tensor, layout: CellLayout, recipe: SearchRecipe
    ) -> None:
        self._recipe = recipe
        self._layout = layout
        self._codes = codes
        generator = torch.Generator()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._encoder = untrained_encoder(layout, directed=recipe.directed)
            generator.set_state(torch.get_rng_state())  # the policy's numbers follow
        self._agent = Agent(generator, self._encoder.recipe.latent_dim, recipe)
        self._adam = torch.optim.Adam(
            [p for p in self._encoder.parameters() if p.requires_grad],
            lr=recipe.encoder_learning_rate,
            foreach=False,
        )
        self._visited = VisitedSet(len(codes))
        self._visited.visit([start])
        self._row = start
        self._index: LatentIndex | None = None
        self._states: list[Tensor] = []

    def next_row(self) -> int:
        """The unvisited row next to the policy's action; -1 where none is left."""
        if self._index is None:
            self._index = build_index(self.embed())
        state = self._state()
        self._states.append(state)
        action = self._agent.act(state.detach())
        skip = self._recipe.skip_nearest
        found = nearest_rows(self._index, action[None], self._visited, skip_nearest=skip)
        row = int(found[0])
        self._visited.visit(found)
        if not self._recipe.frozen_policy_input:
            self._row = row
        return row

    def observe(self, reward: float) -> None:
        """The reward of the last row; at the end of an episode encoder and policy learn."""
        gradients = self._agent.observe(reward)
        if gradients is None:
            return
        self._adam.zero_grad()
        torch.autograd.backward(self._states, list(gradients.unbind()))
        self._adam.step()
        self._states = []
        self._index = None

    def embed(self) -> Tensor:
        """The pool's vectors under the encoder as it is, float32 [Q, D]."""
        if not self._recipe.evaluate_in_train_mode:
            self._take_statistics()
        self._encoder.eval()
        return readout_encoder(self._encoder, self._layout)(self._codes)

    def _state(self) -> Tensor:
        """The vector [D] of the cell the policy is shown, with its graph for `backward`."""
        self._encoder.train(self._recipe.evaluate_in_train_mode)
        adjacency, node_ops = unpack(self._codes[self._row : self._row + 1], self._layout)
        mu, _ = self._encoder.encode(adjacency, node_ops)
        return self._encoder.readout(mu, node_ops)[0]

    @torch.no_grad()
    def _take_statistics(self) -> None:
        """Give batch norm the mean and variance of an even sample of the pool."""
        for module in self._encoder.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = 1.0
        step = max(1, len(self._codes) // _SAMPLE)
        self._encoder.train()
        self._encoder.encode(*unpack(self._codes[::step][:_SAMPLE], self._layout))


def untrained_encoder(layout: CellLayout, *, directed: bool) -> GinVae:
    """The encoder of the supervised baselines: arch2vec's, without a decoder to learn from.

    directed: aggregate over A alone; otherwise over A + A^T. Weights come from torch's global
    generator.
    """
    recipe = replace(Recipe.without_kl(), dropout=0.0)
    encoder = GinVae(layout, replace(recipe, direction="gated") if directed else recipe)
    encoder.decoder.requires_grad_(False)
    for gate in encoder.gates or []:
        gate.requires_grad_(False)
        gate.copy_(torch.tensor([[1.0], [0.0]]))  # successors, predecessors
    return encoder

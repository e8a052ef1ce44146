# SPDX-License-Identifier: Apache-2.0
"""arch2vec-RL: REINFORCE with an LSTM policy that walks through the embeddings.

The policy sees the embedding of the cell it stands on and proposes a point of the latent space; the
nearest unvisited cell is queried and becomes the next state. After each episode the policy takes
one step up the policy gradient,

    -1/T sum_t log N(action_t; mean_t, I) advantage_t -> min.

The recipe `best` keeps that policy and its updates, and changes what an action means: a step of
`action_scale` from the best cell found so far, in embeddings turned to unit covariance.

Source: Yan et al. 2020, section 3.3. What the released code does otherwise is a field of
`SearchRecipe` each (`docs/semantics.md`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.index import LatentIndex, VisitedSet, build_index
from arch2vec_fast.search.base import Proposals, SearchProblem
from arch2vec_fast.search.policy import Episode, LstmPolicy
from arch2vec_fast.search.recipes import SearchRecipe

__all__ = ["Agent", "LatentReinforce", "advantages", "nearest_rows", "start_rows", "whitened"]


class LatentReinforce:
    """S arch2vec-RL searches in lock-step, a `Searcher`; one cell a round.

    The start is drawn uniformly; it is marked visited but not queried, as in the released code. A
    cell is never proposed twice. A search that has visited the whole pool ends. While rewards are
    out, the policy goes on from where it stands.

    Raises ValueError where the problem has no embeddings, or they are not those of its pool.
    """

    def __init__(self, problem: SearchProblem) -> None:
        recipe = problem.recipe
        table = require_embeddings(problem)
        vectors = torch.from_numpy(whitened(table.vectors) if recipe.whiten else table.vectors)
        self._recipe = recipe
        self._from_incumbent = recipe.action_origin == "incumbent"
        self._vectors = vectors
        self._index = build_index(vectors)
        self._visited = VisitedSet(len(vectors), rows=len(problem.seeds))
        self._agents = [
            Agent(
                torch.Generator().manual_seed(int(seed)),
                vectors.shape[1],
                recipe,
                zero_head=self._from_incumbent,
            )
            for seed in problem.seeds
        ]
        self._rows = start_rows(problem)  # where each search stands
        self._best = np.full(len(self._rows), -np.inf)
        self._actions: list[dict[int, int]] = [{} for _ in self._rows]  # that led to a row
        self._visited.visit(self._rows)

    def ask(self, active: NDArray[np.bool_]) -> Proposals:
        """One unvisited row of each active search, [S, 1]."""
        actions = torch.zeros(len(self._agents), self._vectors.shape[1])
        for s in np.flatnonzero(active):
            state = self._vectors[self._rows[s]]
            actions[s] = self._recipe.action_scale * self._agents[s].act(state)
            if self._from_incumbent:
                actions[s] += state
        found = nearest_rows(
            self._index, actions, self._visited, skip_nearest=self._recipe.skip_nearest
        )
        rows = np.where(active, found.numpy(), -1)
        self._visited.visit(rows)
        for s in np.flatnonzero(rows >= 0):
            self._actions[s][int(rows[s])] = self._agents[s].actions - 1
        return Proposals(rows[:, None])

    def tell(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Rewards [S, 1] of rows asked for; a NaN leaves a search as it is."""
        for s in np.flatnonzero(~np.isnan(rewards[:, 0])):
            reward = float(rewards[s, 0])
            self._agents[s].observe(reward, self._actions[s].pop(int(rows[s, 0])))
            if reward > self._best[s] or not self._from_incumbent:
                self._rows[s] = rows[s, 0]
                self._best[s] = reward


@dataclass(slots=True, eq=False)
class _Walk:
    """An episode of T actions, each reward of which comes when it comes."""

    episode: Episode
    updates: int
    """Of the policy, before it began."""
    noise: list[Tensor] = field(default_factory=list)
    actions: list[Tensor] = field(default_factory=list)
    rewards: dict[int, float] = field(default_factory=dict)


class Agent:
    """The policy of one search with the noise and the rewards of its episodes under way.

    An episode begins when the one before has all its actions, whether it has its rewards or not.
    The policy learns from it when all rewards are in. If meanwhile it learnt from another, the
    gradient is that of the policy as it is, at actions that an older one drew, which are weighted
    like its own.

    generator: draws the policy's parameters, then the noise of its actions. zero_head: see
    `LstmPolicy`.

    Attributes:
        actions: their number so far.
    """

    def __init__(
        self,
        generator: torch.Generator,
        dim: int,
        recipe: SearchRecipe,
        *,
        zero_head: bool = False,
    ) -> None:
        self._recipe = recipe
        self._generator = generator
        self._policy = LstmPolicy(
            dim,
            recipe.policy_hidden,
            learning_rate=recipe.policy_learning_rate,
            generator=generator,
            zero_head=zero_head,
        )
        self._dim = dim
        self.actions = 0
        self._updates = 0
        self._walks: dict[int, _Walk] = {}

    def act(self, state: Tensor) -> Tensor:
        """An action [D] drawn in a state [D]."""
        number, step = divmod(self.actions, self._recipe.episode_length)
        if step == 0:
            self._walks[number] = _Walk(self._policy.begin(), self._updates)
        self.actions += 1
        walk = self._walks[number]
        noise = torch.empty(self._dim).normal_(generator=self._generator)
        action = self._policy.forward(state, walk.episode) + noise
        walk.noise.append(noise)
        walk.actions.append(action)
        return action

    def observe(self, reward: float, action: int | None = None) -> Tensor | None:
        """A reward. With the last of an episode the policy learns.

        action: whose, counted from 0; default the latest. Returns the loss's gradient in the
        episode's states, [T, D], where one is complete.
        """
        length = self._recipe.episode_length
        number, step = divmod(self.actions - 1 if action is None else action, length)
        walk = self._walks[number]
        walk.rewards[step] = reward
        if len(walk.rewards) < length:
            return None
        del self._walks[number]
        weights = advantages([walk.rewards[step] for step in range(length)], self._recipe)
        # log N(action; mean, I) grows in the mean by the noise
        episode, noise = walk.episode, torch.stack(walk.noise)
        if walk.updates != self._updates:
            episode, means = self._policy.retrace(episode)
            noise = torch.stack(walk.actions) - means
        self._updates += 1
        return self._policy.learn(-noise * weights[:, None] / length, episode)


def advantages(rewards: list[float], recipe: SearchRecipe) -> Tensor:
    """What the log-probabilities of an episode's T actions are weighted with, float32 [T]."""
    returns = torch.tensor(rewards)
    if recipe.returns == "discounted":
        for t in reversed(range(len(rewards) - 1)):
            returns[t] += recipe.discount * returns[t + 1]
    baseline = returns.mean() if recipe.baseline is None else recipe.baseline
    if recipe.normalize_advantages and (spread := float(returns.std(unbiased=False))) > 0:
        return (returns - baseline) / spread
    return returns - baseline


def whitened(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [Q, D] moved and turned to zero mean and unit covariance.

    Directions in which they hardly differ (a millionth of the largest deviation) become zero.
    """
    centred = vectors - vectors.mean(0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = variances > 1e-12 * variances[-1]
    scales = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1.0)), 0.0)
    turned: NDArray[np.float32] = (centred @ axes * scales).astype(np.float32)
    return turned


def nearest_rows(
    index: LatentIndex, actions: Tensor, visited: VisitedSet, *, skip_nearest: bool
) -> Tensor:
    """The unvisited row next to each action [S, D], int64 [S]; -1 where there is none.

    skip_nearest: leave out the nearest of all rows, whether visited or not.
    """
    if not skip_nearest:
        return index.nearest(actions, 1, visited=visited).indices[:, 0]
    nearest = index.nearest(actions, 1).indices[:, 0]
    first, second = index.nearest(actions, 2, visited=visited).indices.unbind(1)
    return torch.where(first == nearest, second, first)


def start_rows(problem: SearchProblem) -> NDArray[np.int64]:
    """Where each search begins, a row of the pool each, int64 [S].

    released_draws: as the released code has it, from Python's generator: a number below Q, of the
    pool as it is or, on NAS-Bench-201, of the pool shuffled under the same seed. (That code draws
    from 0..Q and dies at Q, row R6 of `docs/semantics.md`; we draw again.)
    """
    count = len(problem.benchmark.cells)
    if not problem.recipe.released_draws:
        return np.array([g.integers(count) for g in problem.generators("start")], np.int64)
    return np.array([_released_start(int(seed), count, problem) for seed in problem.seeds])


def _released_start(seed: int, count: int, problem: SearchProblem) -> int:
    order = list(range(count))
    if problem.recipe.shuffled_pool:
        random.Random(seed).shuffle(order)
    generator = random.Random(seed)
    while (start := generator.randint(0, count)) == count:
        pass
    return order[start]


def require_embeddings(problem: SearchProblem) -> EmbeddingTable:
    """The embeddings of a problem whose method needs them; checks that they are of its pool."""
    table, pool = problem.embeddings, problem.benchmark.cells
    if table is None:
        raise ValueError("embeddings: none given, but this method searches in them; pass a table")
    if len(table) != len(pool):
        raise ValueError(
            f"embeddings: {len(table)} vectors for the {len(pool)} cells of "
            f"{problem.benchmark.name}; embed its cells"
        )
    if table.cells != pool:
        raise ValueError(
            f"embeddings: are of other cells than those of {problem.benchmark.name}, or in "
            "another order; embed its cells"
        )
    return table

# SPDX-License-Identifier: Apache-2.0
"""Random numbers as the released search scripts take them from the global generators.

Those scripts seed Python's, NumPy's legacy and torch's generators with the seed of the search and
draw from them as they go. Here each search has generators of its own that give the same numbers.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast.search.base import SearchProblem

__all__ = ["ReleasedDraws", "released_order"]


def released_order(problem: SearchProblem) -> NDArray[np.int32] | None:
    """The order [S, Q] in which the released code holds the pool; None: as it is numbered."""
    if not problem.recipe.shuffled_pool:
        return None
    order = np.empty((len(problem.seeds), len(problem.benchmark.cells)), np.int32)
    for search, seed in enumerate(problem.seeds):
        rows = list(range(order.shape[1]))
        random.Random(int(seed)).shuffle(rows)
        order[search] = rows
    return order


class ReleasedDraws:
    """The generators of one search.

    Args:
        seed: of the search.
        chained: cells of the pool; each refit's seed comes from NumPy's generator, which the
            initial permutation of the pool advanced (the scripts of NAS-Bench-201 and of the
            supervised baseline). 0: each refit has the seed of the search.
    """

    def __init__(self, seed: int, chained: int) -> None:
        self._seed = seed
        self._torch = torch.Generator().manual_seed(seed)
        self._numpy: np.random.RandomState | None = None
        if chained:
            self._numpy = np.random.RandomState(seed)
            self._numpy.permutation(chained)

    def key(self) -> int:
        """The seed of the next refit."""
        if self._numpy is None:
            return self._seed
        key = self._numpy.randint(0, 10_000)
        self._numpy.randint(0, 10_000)  # taken by the regression, which uses it for nothing
        return int(key)

    def permutation(self, count: int) -> NDArray[np.int64]:
        """`torch.randperm`."""
        rows: NDArray[np.int64] = torch.randperm(count, generator=self._torch).numpy()
        return rows

    def linear(self, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of a new `torch.nn.Linear`."""
        weight = torch.empty(outputs, inputs)
        torch.nn.init.kaiming_uniform_(weight, math.sqrt(5), generator=self._torch)
        bound = 1 / math.sqrt(inputs)
        return weight, torch.empty(outputs).uniform_(-bound, bound, generator=self._torch)

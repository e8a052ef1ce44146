# SPDX-License-Identifier: Apache-2.0
"""Search: one loop, many methods, one trace."""

from arch2vec_fast.search.base import Proposals, Searcher, SearchProblem
from arch2vec_fast.search.methods import METHODS
from arch2vec_fast.search.recipes import SearchRecipe
from arch2vec_fast.search.runner import Budget, search
from arch2vec_fast.search.trace import Trace

__all__ = [
    "METHODS",
    "Budget",
    "Proposals",
    "SearchProblem",
    "SearchRecipe",
    "Searcher",
    "Trace",
    "search",
]

# SPDX-License-Identifier: Apache-2.0
"""Search: one loop, many methods, one trace."""

from arch2vec_fast.search.asynchronous import Completion, read_completions
from arch2vec_fast.search.base import Proposals, Searcher, SearchProblem
from arch2vec_fast.search.budget import Budget
from arch2vec_fast.search.finalists import finalists
from arch2vec_fast.search.methods import METHODS
from arch2vec_fast.search.recipes import SearchRecipe
from arch2vec_fast.search.runner import search
from arch2vec_fast.search.trace import Trace

__all__ = [
    "METHODS",
    "Budget",
    "Completion",
    "Proposals",
    "SearchProblem",
    "SearchRecipe",
    "Searcher",
    "Trace",
    "finalists",
    "read_completions",
    "search",
]

# SPDX-License-Identifier: Apache-2.0
"""The methods of `search`, by name. A method is a class that asks and is told (`search.base`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from arch2vec_fast.benchmarks.base import Benchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search.base import Searcher, SearchProblem

__all__ = ["METHODS", "Method", "check", "create", "get"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One entry of the list.

    factory: "module:callable", imported when used; takes a `SearchProblem`, returns a `Searcher`.
    title: for tables and legends. summary: one line for people. cells_at_once: seeds times cells of
    the pool that memory has room for, where a search keeps something of every cell. asynchronous:
    goes on while queries are out (`Searcher`); the others need all answers of a round.
    """

    factory: str
    title: str
    summary: str
    needs_embeddings: bool = False
    needs_fidelities: bool = False
    cells_at_once: int | None = None
    asynchronous: bool = False

    def seeds_at_once(self, num_cells: int, most: int) -> int:
        """How many searches of a pool of `num_cells` run in lock-step, 1 .. most."""
        if self.cells_at_once is None:
            return most
        return min(most, max(1, self.cells_at_once // num_cells))


METHODS: dict[str, Method] = {
    "random": Method(
        factory="arch2vec_fast.search.random_search:RandomSearch",
        title="Random search",
        summary="distinct cells, uniformly",
        asynchronous=True,
    ),
    "evolution": Method(
        factory="arch2vec_fast.search.evolution:RegularizedEvolution",
        title="Regularised evolution",
        summary="tournaments and single edits; the oldest dies (Real et al. 2019)",
        asynchronous=True,
    ),
    "local-search": Method(
        factory="arch2vec_fast.search.local_search:LocalSearch",
        title="Local search",
        summary="all neighbours, move to the best, restart at an optimum (White et al. 2021)",
    ),
    "reinforce": Method(
        factory="arch2vec_fast.search.discrete_reinforce:DiscreteReinforce",
        title="REINFORCE",
        summary="one softmax for each operation and edge (Ying et al. 2019)",
    ),
    "arch2vec-rl": Method(
        factory="arch2vec_fast.search.reinforce:LatentReinforce",
        title="arch2vec-RL",
        summary="REINFORCE with an LSTM that walks through the embeddings (Yan et al. 2020)",
        needs_embeddings=True,
        asynchronous=True,
    ),
    "bo": Method(
        factory="arch2vec_fast.search.bayes_opt:discrete_bo",
        title="Bayesian optimisation, discrete",
        summary="DNGO and expected improvement on one-hot cells",
        asynchronous=True,
    ),
    "arch2vec-bo": Method(
        factory="arch2vec_fast.search.bayes_opt:arch2vec_bo",
        title="arch2vec-BO",
        summary="a surrogate of the embeddings and expected improvement (Yan et al. 2020)",
        needs_embeddings=True,
        cells_at_once=1 << 21,  # 1.2 GB after 150 queries of the Gaussian process
        asynchronous=True,
    ),
    "bananas": Method(
        factory="arch2vec_fast.search.bananas:Bananas",
        title="BANANAS-style ensemble",
        summary="five networks on path encodings, Thompson sampling (White et al. 2021)",
        asynchronous=True,
    ),
    "bohb": Method(
        factory="arch2vec_fast.search.bohb:Bohb",
        title="BOHB-style (Optuna TPE + Hyperband)",
        summary="short trainings first, the promising go on; pip install 'arch2vec-fast[bohb]'",
        needs_fidelities=True,
    ),
    "supervised-bo": Method(
        factory="arch2vec_fast.search.supervised_bo:SupervisedBo",
        title="Supervised BO",
        summary="arch2vec-BO whose encoder learns from the rewards alone (Yan et al. 2020)",
    ),
    "supervised-rl": Method(
        factory="arch2vec_fast.search.supervised_reinforce:SupervisedReinforce",
        title="Supervised RL",
        summary="arch2vec-RL whose encoder learns from the rewards alone (Yan et al. 2020)",
        cells_at_once=16_000_000,
    ),
}


def get(name: str) -> Method:
    """The method called `name`; a ValueError lists them."""
    if name not in METHODS:
        raise ValueError(f"method: no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def check(name: str, benchmark: Benchmark, embeddings: EmbeddingTable | None) -> None:
    """ValueError where the method called `name` needs embeddings or fidelities that are lacking."""
    method = get(name)
    if method.needs_embeddings and embeddings is None:
        raise ValueError(f"embeddings: {name} searches in an embedding; give --embeddings")
    if method.needs_fidelities and len(benchmark.fidelities) < 2:
        raise ValueError(
            f"method: {name} trains for several lengths, but {benchmark.name} has "
            "one; choose a benchmark with fidelities"
        )


def create(name: str, problem: SearchProblem) -> Searcher:
    """The S searches of `problem` by the method called `name`; raises what `check` does."""
    check(name, problem.benchmark, problem.embeddings)
    method = get(name)
    module, _, attribute = method.factory.partition(":")
    factory: Callable[[SearchProblem], Searcher] = getattr(import_module(module), attribute)
    return factory(problem)

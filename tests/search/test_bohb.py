# SPDX-License-Identifier: Apache-2.0
"""BOHB-style search: short trainings first, the promising go on, each costs what it costs."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.search import SearchProblem, SearchRecipe, Trace, search
from arch2vec_fast.search.bohb import Bohb, CellChoices
from toy import toy_benchmark

pytest.importorskip("optuna")

LENGTHS = (4, 12, 36, 108)


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    whole = toy_benchmark(fidelities=LENGTHS)
    some = np.random.default_rng(1).permutation(len(whole))[:800]
    assert whole.times is not None
    return replace(
        whole,
        cells=whole.cells[some],
        validation=whole.validation[some],
        test=whole.test[some],
        times=whole.times[some],
    )


@pytest.fixture(scope="module")
def trace(toy: TableBenchmark) -> Trace:
    return search(toy, "bohb", seeds=range(3), queries=90)


def test_few_trials_are_trained_for_long(trace: Trace) -> None:
    counts = [int((trace["fidelity"] == length).sum()) for length in LENGTHS]
    assert counts[0] > counts[1] > counts[2] > counts[3] > 0


def test_a_trial_climbs_rung_by_rung(trace: Trace) -> None:
    for _, rows in trace.searches():
        cells, lengths = trace["row"][rows], trace["fidelity"][rows]
        for before, after, cell, same in zip(lengths, lengths[1:], cells, cells[1:]):
            if after > LENGTHS[0]:
                assert same == cell
                assert after == 3 * before


def test_the_trials_that_go_on_are_the_better(toy: TableBenchmark, trace: Trace) -> None:
    first = toy.validation[trace["row"], 0, 0]
    longest = trace["fidelity"] == LENGTHS[-1]
    assert first[longest].mean() > first[trace["fidelity"] == LENGTHS[0]].mean()


def test_each_query_costs_its_own_length(toy: TableBenchmark, trace: Trace) -> None:
    assert toy.times is not None
    place = np.searchsorted(LENGTHS, trace["fidelity"])
    np.testing.assert_allclose(trace["seconds"], toy.times[trace["row"], place])


def test_a_seed_does_not_know_its_company(toy: TableBenchmark, trace: Trace) -> None:
    alone = search(toy, "bohb", seeds=[1], queries=90)
    np.testing.assert_array_equal(trace["row"][trace["seed"] == 1], alone["row"])


def test_choices_name_the_cells_of_the_pool(toy: TableBenchmark) -> None:
    choices = CellChoices(toy.cells)
    assert [len(options) for options in choices.options] == [5] * 6
    _, node_ops = toy.cells.to_dense()
    np.testing.assert_array_equal(choices.rows(node_ops[:, 1:7].astype(np.int64)), np.arange(800))


def test_a_combination_outside_the_pool_stands_for_the_nearest() -> None:
    cells = spaces.get("nasbench201").from_string(
        [
            "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|none~1|none~2|",
        ]
    )
    choices = CellChoices(cells)
    skip, none = 4, 5
    assert choices.rows(np.array([[skip, none, none], [skip, skip, none]])).tolist() == [0, 1]


def test_needs_fidelities_and_optuna(toy: TableBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^method: bohb trains for several lengths"):
        search(toy_benchmark(), "bohb", seeds=[0], queries=5)
    problem = SearchProblem(benchmark=toy, seeds=np.arange(1), recipe=SearchRecipe.best())
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"^bohb needs Optuna: pip install"):
        Bohb(problem)

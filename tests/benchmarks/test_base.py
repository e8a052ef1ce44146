# SPDX-License-Identifier: Apache-2.0
"""Benchmarks from tables: answers, ceilings, and finding cells."""

from dataclasses import replace

import numpy as np
import pytest

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks import TableBenchmark

SPACE = spaces.get("nasbench101")


@pytest.fixture(scope="module")
def small() -> TableBenchmark:
    cells = SPACE.enumerate()[::50_000]
    rng = np.random.default_rng(0)
    return TableBenchmark(
        name="small",
        space=SPACE,
        cells=cells,
        reward="validation accuracy",
        fidelities=(4, 108),
        validation=rng.random((len(cells), 2, 3)),
        test=rng.random(len(cells)),
        times=rng.random((len(cells), 2)) + 1,
    )


def test_mean_of_runs_or_one_run_by_seed(small: TableBenchmark) -> None:
    rows = np.arange(len(small))
    zeros = np.zeros_like(rows)
    mean = small.query(rows, zeros).validation
    np.testing.assert_allclose(mean, small.validation[:, 1].mean(1))
    one = replace(small, noise="run")
    answers = np.stack([one.query(rows, zeros + seed).validation for seed in range(200)])
    np.testing.assert_array_equal(answers[7], one.query(rows, zeros + 7).validation)
    for row in rows:  # every run of every cell is seen, about equally often
        values, counts = np.unique(answers[:, row], return_counts=True)
        np.testing.assert_array_equal(values, np.sort(small.validation[row, 1]))
        assert counts.min() > 40


def test_fidelities_cost_their_own_time(small: TableBenchmark) -> None:
    rows = np.array([3, 1])
    answers = small.query(rows, np.zeros(2, np.int64), 4)
    np.testing.assert_allclose(answers.validation, small.validation[rows, 0].mean(1))
    np.testing.assert_allclose(answers.seconds, small.times[rows, 0])
    with pytest.raises(ValueError, match="small has no 5 epochs; choose one of"):
        small.query(rows, np.zeros(2, np.int64), 5)


def test_cells_are_found_in_any_numbering(small: TableBenchmark) -> None:
    renumbered = SPACE.benchmark_labelling(small.cells)
    assert renumbered != small.cells
    np.testing.assert_array_equal(small.find(renumbered), np.arange(len(small)))
    absent = SPACE.enumerate()[1::60_000]
    assert (small.find(absent) == -1).all()
    with pytest.raises(
        ValueError, match="cells: are of 8 nodes and 7 operation types, the pool's of 7 and 5"
    ):
        small.find(spaces.get("nasbench201").sample(1, seed=0))


def test_ceiling_averages_over_ties(small: TableBenchmark) -> None:
    validation = small.validation.copy()
    validation[[2, 5]] = 1.0
    tied = replace(small, validation=validation)
    assert tied.ceiling.validation == 1.0
    assert tied.ceiling.test_of_pick == pytest.approx(tied.test[[2, 5]].mean())
    assert tied.ceiling.test == tied.test.max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": "all"}, "noise: 'all' is neither"),
        ({"fidelities": (108, 4)}, "fidelities: .* do not ascend"),
        ({"validation": np.ones((2, 2, 1))}, r"validation: shape .* pass \[Q, E, R\]"),
        ({"validation": np.full((9, 2, 1), 94.0)}, "validation: accuracies outside"),
        ({"validation": np.full((9, 2, 1), np.nan)}, "validation: not all finite"),
        ({"test": np.ones(3)}, "test: shape"),
        ({"times": np.zeros((9, 2))}, "times: shape .* pass positive seconds"),
    ],
)
def test_rejects(change: dict, message: str, small: TableBenchmark) -> None:
    assert len(small) == 9
    with pytest.raises(ValueError, match=message):
        replace(small, **change)

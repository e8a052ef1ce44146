# SPDX-License-Identifier: Apache-2.0
"""The few best cells of a search: by reward, different networks, the pick first."""

import numpy as np
import pytest

from arch2vec_fast.search import Trace, finalists, search
from arch2vec_fast.search.trace import complete
from toy import SPACE, toy_benchmark


def trace_of(rows: list[int], rewards: list[float], fidelity: list[int], space: str) -> Trace:
    toy = toy_benchmark()
    count = len(rows)
    numbers = np.arange(count)
    columns = complete(
        toy,
        np.zeros(count, np.int64),
        numbers,
        np.array(rows),
        np.array(fidelity),
        np.ones(count),
        np.array(rewards),
    )
    return Trace(
        method="m",
        recipe="r",
        benchmark="toy",
        columns=columns,
        cells=toy.cells.codes[columns["row"]],
        metadata={"space": space},
    )


def test_the_best_rewards_in_order_and_each_cell_once() -> None:
    trace = trace_of([5, 9, 5, 700, 3], [0.2, 0.5, 0.2, 0.4, 0.5], [12] * 5, "mine")
    assert finalists(trace, 3)[0].tolist() == [1, 4, 3]
    assert finalists(trace, 9)[0].tolist() == [1, 4, 3, 0]


def test_cells_that_compute_the_same_are_one_finalist() -> None:
    cells = SPACE.enumerate()
    codes = SPACE.simplify(cells).canonical().codes
    _, number, count = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    twins = np.flatnonzero(number.reshape(-1) == count.argmax())[:3].tolist()
    trace = trace_of([*twins, 0], [0.7, 0.9, 0.8, 0.1], [12] * 4, "nasbench201")
    expected = [1] if number.reshape(-1)[0] == count.argmax() else [1, 3]
    assert finalists(trace)[0].tolist() == expected
    apart = trace_of([*twins, 0], [0.7, 0.9, 0.8, 0.1], [12] * 4, "mine")
    assert finalists(apart)[0].tolist() == [1, 2, 0, 3]
    assert finalists(apart, space=SPACE)[0].tolist() == expected


def test_short_trainings_take_no_part() -> None:
    trace = trace_of([1, 2, 30], [0.9, 0.3, 0.4], [4, 12, 12], "mine")
    assert finalists(trace)[0].tolist() == [2, 1]


def test_the_first_finalist_is_the_pick() -> None:
    toy = toy_benchmark()
    trace = search(toy, "random", seeds=range(4), queries=30)
    for (_, rows), five in zip(trace.searches(), finalists(trace), strict=True):
        assert trace["incumbent"][rows.stop - 1] == trace["validation"][five[0]]
        assert trace["incumbent_test"][rows.stop - 1] == trace["test"][five[0]]
        assert len(five) == 5
        assert rows.start <= five.min() <= five.max() < rows.stop


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="count: 0 is below 1"):
        finalists(trace_of([1], [0.5], [12], "mine"), 0)

# SPDX-License-Identifier: Apache-2.0
"""Means of step functions, standard errors and distributions, on cases worked out by hand."""

import math

import numpy as np
import pytest

from arch2vec_fast.analysis.statistics import (
    ecdf,
    estimate,
    mean_steps,
    step_grid,
    t_quantile,
)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def test_mean_holds_the_last_value_of_each_seed() -> None:
    """At equal time, not at equal number of queries: the fast seed is not delayed by the slow."""
    xs = [array(1, 2, 3), array(2, 6)]
    ys = [array(4, 2, 1), array(8, 0)]
    grid = array(2, 2.5, 3, 5.9, 6)
    band = mean_steps(xs, ys, grid)
    np.testing.assert_allclose(band.mean, [5, 5, 4.5, 4.5, 0.5])
    assert band.seeds == 2


def test_a_seed_that_ended_keeps_its_value() -> None:
    band = mean_steps([array(1), array(1, 100)], [array(3), array(5, 1)], array(1, 99, 100, 1e6))
    np.testing.assert_allclose(band.mean, [4, 4, 2, 2])


def test_no_mean_before_every_seed_has_a_value() -> None:
    band = mean_steps([array(1, 5), array(3)], [array(9, 8), array(1)], array(1, 2.9, 3))
    assert np.isnan(band.mean[:2]).all()
    assert band.mean[2] == 5


def test_of_jumps_at_one_position_the_last_counts() -> None:
    assert mean_steps([array(1, 1, 1)], [array(5, 4, 3)], array(1)).mean.tolist() == [3]


def test_band_is_students() -> None:
    ys = [array(y) for y in (1.0, 2.0, 3.0)]
    band = mean_steps([array(1)] * 3, ys, array(1))
    error = 1 / math.sqrt(3)
    assert band.error[0] == pytest.approx(error)
    assert band.upper[0] - band.mean[0] == pytest.approx(4.3027 * error, rel=1e-4)
    assert band.mean[0] - band.lower[0] == pytest.approx(band.upper[0] - band.mean[0])


def test_one_seed_has_no_error() -> None:
    band = mean_steps([array(1, 2)], [array(3, 1)], array(1, 2))
    assert np.isnan(band.error).all()
    assert (band.lower == band.mean).all()
    single = estimate(array(3))
    assert single.mean == 3
    assert math.isnan(single.error)
    assert math.isnan(single.std)


def test_t_quantiles_agree_with_tables() -> None:
    tabled = {1: 12.7062, 5: 2.5706, 10: 2.2281, 11: 2.20099, 30: 2.04227, 499: 1.96473}
    for degrees, value in tabled.items():
        assert t_quantile(degrees) == pytest.approx(value, rel=1e-4)
    assert math.isnan(t_quantile(0))


def test_grid_is_all_jumps_from_the_first_common_one() -> None:
    assert step_grid([array(1, 3), array(2, 2.5, 9)]).tolist() == [2, 2.5, 3, 9]


def test_a_coarse_grid_keeps_both_ends_and_whole_queries() -> None:
    xs = [np.arange(1.0, 5_001)] * 2
    grid = step_grid(xs, points=100)
    assert len(grid) <= 100
    assert (grid[0], grid[-1]) == (1, 5_000)
    assert (grid == grid.round()).all()
    assert (np.diff(grid) > 0).all()


def test_ecdf_counts_ties_once() -> None:
    values, shares = ecdf(array(0.2, 0.1, 0.2, 0.2))
    assert values.tolist() == [0.1, 0.2]
    assert shares.tolist() == [0.25, 1.0]


@pytest.mark.parametrize("function", [estimate, ecdf])
def test_no_seeds_is_an_error(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="no seeds"):
        function(array())


def test_a_seed_without_queries_is_an_error() -> None:
    with pytest.raises(ValueError, match="without queries"):
        step_grid([array(1), array()])

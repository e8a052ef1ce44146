# SPDX-License-Identifier: Apache-2.0
"""Acquisition functions against their definition, far tails included."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arch2vec_fast.surrogates import (
    expected_improvement,
    log_expected_improvement,
    released_expected_improvement,
)


@given(u=st.floats(-3, 3), std=st.floats(1e-3, 10))
def test_expected_improvement_is_the_expectation(u: float, std: float) -> None:
    """Against the integral of max(y - incumbent, 0) over the density of y."""
    z = np.linspace(-12, 12, 20_001)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    expected = std * np.trapezoid(np.maximum(u + z, 0) * density, z)
    actual = expected_improvement(0.5 + u * std, std, 0.5)
    assert float(actual) == pytest.approx(expected, rel=1e-5)


@given(u=st.floats(-1e6, 1e6))
def test_log_expected_improvement_is_finite_and_increasing(u: float) -> None:
    low, high = log_expected_improvement(np.array([u, u + max(1e-3, abs(u) * 1e-3)]), 1.0, 0.0)
    assert np.isfinite(low)
    assert low < high


def test_log_expected_improvement_in_the_far_tail() -> None:
    """log(phi(u) / u^2) and the next terms of the series, where the difference has no digits."""
    for u in (-40.0, -999.0, -1001.0, -1e5):
        series = np.log1p(-3 / u**2 + 15 / u**4)
        expected = -0.5 * u**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-u) + series
        actual = float(log_expected_improvement(np.float64(u), 1.0, 0.0))
        assert actual == pytest.approx(expected, rel=1e-9)


def test_kinds_and_types_of_the_arguments() -> None:
    mean = np.array([0.1, 0.4], np.float32)
    from_numpy = expected_improvement(mean, 0.2, 0.3)
    from_torch = expected_improvement(torch.from_numpy(mean), 0.2, 0.3)
    assert isinstance(from_numpy, np.ndarray)
    np.testing.assert_allclose(from_torch.numpy(), from_numpy, rtol=1e-5)
    mean64 = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    expected_improvement(mean64, 0.2, 0.3).backward()
    # The derivative by the mean is the probability of improvement.
    probability = torch.distributions.Normal(0, 1).cdf(torch.tensor(-1.0))
    assert float(mean64.grad) == pytest.approx(float(probability), rel=1e-5)


def test_released_formula_cancels_in_float32() -> None:
    mean = torch.linspace(0.5, 0.95, 2001)
    improvement = released_expected_improvement(mean, torch.full_like(mean, 0.01))
    assert (improvement <= 0).any()
    assert improvement.argmax() == 2000

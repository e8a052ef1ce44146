# SPDX-License-Identifier: Apache-2.0
"""Acquisition functions: what a query at a candidate promises, for a reward to be maximised.

Each takes tensors, NumPy arrays or numbers, which broadcast, and returns a tensor if one of them is
a tensor, else an array. Differentiable in tensors. `DNGO.acquire` evaluates the same functions in
its kernel; these serve other models and readers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast import _reference_dngo

ArrayLike = Tensor | NDArray[np.floating[Any]] | float


def log_expected_improvement(mean: ArrayLike, std: ArrayLike, incumbent: ArrayLike) -> Any:
    """The logarithm of `expected_improvement`, finite where that underflows to zero.

    Float64 to about 1e-9, whatever the distance from the incumbent; -inf nowhere for std > 0. Ranks
    candidates as the expected improvement does.

    Source: Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian
    Optimization", NeurIPS 2023.

    Example:
        >>> float(log_expected_improvement(0.0, 1.0, 100.0))  # its exponential is 0 in float64
        -5010.1...
    """
    return _apply(_reference_dngo.log_improvement, mean, std, incumbent)


def expected_improvement(mean: ArrayLike, std: ArrayLike, incumbent: ArrayLike) -> Any:
    """E[max(y - incumbent, 0)] of y ~ N(mean, std^2); never negative.

    Args:
        mean, std: of the reward; std > 0 is a standard deviation, not a variance.
        incumbent: the best reward observed so far, or another target.

    Source: Jones, Schonlau and Welch 1998.

    Example:
        >>> round(float(expected_improvement(0.9, 0.1, 0.9)), 4)  # std / sqrt(2 pi)
        0.0399
    """
    result = log_expected_improvement(mean, std, incumbent)
    return result.exp() if isinstance(result, Tensor) else np.exp(result)


def released_expected_improvement(
    mean: ArrayLike, variance: ArrayLike, target: ArrayLike = 0.95
) -> Any:
    """What the released code computes: its formula with the *variance* where the deviation belongs.

    Nearly greedy, because u = (mean - target) / variance is large; in float32 it cancels to zero or
    slightly below for most candidates. Kept to reproduce published runs.

    Args:
        mean, variance: of the reward, the noise included.
        target: 0.95 on NAS-Bench-101 and DARTS, 1.0 on NAS-Bench-201.
    """
    return _apply(_reference_dngo.released_improvement, mean, variance, target)


def _apply(function: Callable[..., Tensor], *values: ArrayLike) -> Any:
    if any(isinstance(value, Tensor) for value in values):
        like = next(value for value in values if isinstance(value, Tensor))
        tensors = [torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in values]
        return function(*tensors)
    arrays = [np.asarray(value) for value in values]
    dtype = np.result_type(np.float32, *arrays)
    return function(*(torch.from_numpy(np.array(array, dtype)) for array in arrays)).numpy()

# SPDX-License-Identifier: Apache-2.0
"""Tolerances of comparisons, one per kind, explained once; a test with its own says why."""

from typing import NamedTuple

import torch


class Tolerance(NamedTuple):
    """Passed to `torch.testing.assert_close(actual, expected, **tolerance._asdict())`."""

    rtol: float
    atol: float


# The same arithmetic in another order of summation. float32: sums of a few hundred terms of order
# one carry about 16 roundings of 6e-8; float64: the same with 1e-16, kept wide because gradients
# pass through two layers.
REORDERED = {
    torch.float32: Tolerance(rtol=1e-5, atol=1e-6),
    torch.float64: Tolerance(rtol=1e-9, atol=1e-12),
}

# The same operations in the same order, on the same or on another build of torch: golden files.
SAME_ORDER = {
    torch.float32: Tolerance(rtol=1e-6, atol=1e-6),
    torch.float64: Tolerance(rtol=1e-12, atol=1e-12),
}

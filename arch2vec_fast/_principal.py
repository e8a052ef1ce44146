# SPDX-License-Identifier: Apache-2.0
"""Principal axes of more vectors than memory holds, from two passes over their chunks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 8192  # vectors whose products are summed in float32


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalAxes:
    """The P directions of largest variance. mean: float64 [D]; axes: float64 [D, P], orthonormal.

    Each axis points where its largest loading is positive, so that axes are unique where variances
    differ.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coordinates of vectors [B, D] along the axes, float32 [B, P]; not whitened."""
        coordinates: NDArray[np.float32] = (vectors - self.mean.astype(np.float32)) @ (
            self.axes.astype(np.float32)
        )
        return coordinates


def check_components(components: int, width: int) -> None:
    """Accepts 1 .. width."""
    if not 1 <= components <= width:
        raise ValueError(f"components: {components} is outside 1 .. {width}, the dimensions")


def principal_axes(chunks: Iterable[NDArray[np.float32]], components: int) -> PrincipalAxes:
    """The leading `components` axes of the vectors [., D] in `chunks`.

    Exact: the covariance [D, D] is summed over all vectors, in float64 over blocks, and decomposed.
    Raises ValueError for more components than dimensions, fewer than 1, or no vectors.

    >>> found = principal_axes([np.array([[0, 0], [2, 0], [4, 1]], np.float32)], 1)
    >>> found.axes.round(2).tolist()
    [[0.97], [0.25]]
    """
    count, shift = 0, np.zeros(0)
    total, products = np.zeros(0), np.zeros((0, 0))
    for chunk in chunks:
        if not count:  # products of vectors far from zero would cancel later
            shift = chunk.mean(0, dtype=np.float64) if len(chunk) else np.zeros(chunk.shape[1])
            total, products = np.zeros_like(shift), np.zeros((len(shift), len(shift)))
        for start in range(0, len(chunk), _BLOCK):
            centred = chunk[start : start + _BLOCK] - shift.astype(np.float32)
            total += centred.sum(0, dtype=np.float64)
            products += centred.T @ centred
            count += len(centred)
    if not count:
        raise ValueError("components: there are no vectors to find axes of")
    check_components(components, len(shift))
    offset = total / count
    # float32 is what the sums were taken about.
    mean = shift.astype(np.float32).astype(np.float64) + offset
    _, axes = np.linalg.eigh(products / count - np.outer(offset, offset))
    axes = axes[:, ::-1][:, :components]
    largest = np.abs(axes).argmax(0)
    return PrincipalAxes(mean, axes * np.sign(axes[largest, np.arange(components)]))

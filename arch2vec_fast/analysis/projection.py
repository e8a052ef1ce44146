# SPDX-License-Identifier: Apache-2.0
"""Two dimensions out of many, for maps of the latent space."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

METHODS = ("pca", "tsne")
_TSNE_POINTS = 5_000


def project(vectors: ArrayLike, method: str = "pca", *, seed: int = 0) -> NDArray[np.float64]:
    """Map vectors [Q,D] to the plane, float64 [Q,2].

    pca: the two directions of largest variance; each axis points where its largest loading is
    positive, so that the result is unique. tsne: scikit-learn's, for at most 5,000 vectors.
    Raises ValueError for an unknown method, a wrong shape or too many vectors; ImportError where
    tsne lacks scikit-learn.

    >>> project([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]]).shape
    (3, 2)
    """
    points = np.asarray(vectors, np.float64)
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(f"vectors: expected shape [Q,D] with Q >= 2, got {list(points.shape)}")
    if method == "pca":
        return _pca(points)
    if method == "tsne":
        return _tsne(points, seed)
    raise ValueError(f"projection: unknown method {method!r}; choose one of {', '.join(METHODS)}")


def _pca(points: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = points - points.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    plane = centred @ axes
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))


def _tsne(points: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    if len(points) > _TSNE_POINTS:
        raise ValueError(
            f"vectors: t-SNE of {len(points):,} would take minutes; pass at most {_TSNE_POINTS:,}"
        )
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise ImportError("projection: tsne needs scikit-learn: pip install scikit-learn") from None
    perplexity = min(30.0, (len(points) - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return np.asarray(plane, np.float64)

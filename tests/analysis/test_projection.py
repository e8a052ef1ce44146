# SPDX-License-Identifier: Apache-2.0
"""Projections to the plane."""

import numpy as np
import pytest

from arch2vec_fast.analysis.projection import project


def test_pca_keeps_the_plane_of_largest_variance() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(200, 2)) * [5.0, 2.0]
    basis = np.linalg.qr(rng.normal(size=(9, 9)))[0][:2]
    points = plane @ basis + 1e-6 * rng.normal(size=(200, 9))
    mapped = project(points)
    distance = np.linalg.norm(plane[:50, None] - plane[None, :50], axis=2)
    np.testing.assert_allclose(
        np.linalg.norm(mapped[:50, None] - mapped[None, :50], axis=2), distance, atol=1e-4
    )
    assert mapped[:, 0].var() > mapped[:, 1].var()


def test_pca_is_unique_whatever_the_order_of_rows() -> None:
    points = np.random.default_rng(1).normal(size=(60, 5)) * [3, 2, 1, 1, 1]
    np.testing.assert_allclose(project(points)[::-1], project(points[::-1]), atol=1e-9)


def test_one_dimension_is_padded() -> None:
    assert project([[1.0], [2.0], [4.0]])[:, 1].tolist() == [0, 0, 0]


def test_tsne() -> None:
    pytest.importorskip("sklearn")
    points = np.random.default_rng(2).normal(size=(40, 6))
    mapped = project(points, "tsne", seed=3)
    assert mapped.shape == (40, 2)
    assert np.isfinite(mapped).all()


def test_rejects_bad_input() -> None:
    with pytest.raises(ValueError, match="unknown method 'umap'"):
        project(np.zeros((3, 2)), "umap")
    with pytest.raises(ValueError, match="expected shape"):
        project(np.zeros(3))
    with pytest.raises(ValueError, match="pass at most"):
        project(np.zeros((6_000, 2)), "tsne")

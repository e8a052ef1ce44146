# SPDX-License-Identifier: Apache-2.0
"""The surrogate of NAS-Bench-301: its published predictions, and the benchmark made of it."""

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast.benchmarks.nasbench301 import (
    FILE,
    Nasbench301Surrogate,
    pool,
    surrogate_benchmark,
)
from arch2vec_fast.search import search
from arch2vec_fast.spaces.darts import Darts, Genotype
from arch2vec_fast.spaces.darts_genotype import genotypes_to_edges
from surrogate_weights import surrogate_weights


@pytest.fixture(scope="module")
def tables() -> Path:
    folder = os.environ.get("ARCH2VEC_DATA")
    if not folder or not (Path(folder) / FILE).exists():
        pytest.skip(f"needs {FILE} of $ARCH2VEC_DATA")
    return Path(folder)


@pytest.mark.data
def test_equals_the_published_predictions(tables: Path) -> None:
    with gzip.open(tables / "darts_nb301_surrogate.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    genotypes = [Genotype.from_items(row["normal"], row["reduce"]) for row in rows]
    normal = genotypes_to_edges(genotypes)
    found = Nasbench301Surrogate.load(tables / FILE).predict(
        normal, genotypes_to_edges(genotypes, reduce=True)
    )
    accuracy, seconds = (
        np.array([float(row[name]) for row in rows])
        for name in ("yahpo_val_acc_98", "yahpo_runtime_s_98")
    )
    np.testing.assert_allclose(100 * found.validation, accuracy, atol=1e-3)
    np.testing.assert_allclose(found.seconds, seconds, rtol=1e-4)


@pytest.mark.data
def test_searches_run_on_it(tables: Path) -> None:
    cells = pool(500, seed=1)
    bench = surrogate_benchmark(Nasbench301Surrogate.load(tables / FILE), cells)
    assert bench.has_times
    assert 0.9 < bench.ceiling.validation < 0.96
    trace = search(bench, "evolution", seeds=range(2), queries=120)
    assert trace["regret"][-1] < 0.01


def test_order_of_a_nodes_operations_does_not_matter() -> None:
    surrogate = Nasbench301Surrogate(surrogate_weights())
    edges = Darts().edges(Darts().sample(50, seed=0))
    swapped = edges.reshape(-1, 4, 2, 2)[:, :, ::-1].reshape(-1, 8, 2)
    first, second = surrogate.predict(edges), surrogate.predict(swapped)
    np.testing.assert_array_equal(first.validation, second.validation)
    assert len(np.unique(first.validation)) == 50
    early = surrogate.predict(edges, epochs=5)
    assert (early.validation != first.validation).all()


def test_rejects(tmp_path: Path) -> None:
    surrogate = Nasbench301Surrogate(surrogate_weights())
    edges = Darts().edges(Darts().sample(1, seed=0))
    with pytest.raises(ValueError, match=r"epochs: 99 is outside 1\.\.98"):
        surrogate.predict(edges, epochs=99)
    with pytest.raises(FileNotFoundError, match="no such file; give the surrogate's weights"):
        Nasbench301Surrogate.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: not the surrogate's weights"):
        Nasbench301Surrogate.load(tmp_path / "other.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"torn\.npz: no whole \.npz file"):
        Nasbench301Surrogate.load(tmp_path / "torn.npz")

# SPDX-License-Identifier: Apache-2.0
"""The programs that hold `released` to the authors' own; a stand-in takes the clone's place."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from arch2vec_fast.embeddings import EmbeddingTable
from bench.contenders import authors
from bench.end_to_end import agreement
from toy import toy_benchmark

# Asks for the cells in the order of the table, in the words of the authors' REINFORCE script.
_SCRIPT = """
import argparse, emcee, torch
from nasbench.lib import graph_util

class Env:
    def __init__(self):
        name = f"pretrained/dim-{args.latent_dim}/{args.dataset_name}-arch2vec.pt"
        self.table, self.next = torch.load(name), args.seed

    def step(self, action):
        row = self.table[self.next]
        self.next += 1
        return row["feature"].cuda(), row["valid_accuracy"] / 100, row["test_accuracy"] / 100

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("latent_dim", "bs", "seed"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("gamma", "baseline", "MAX_BUDGET"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("dataset_name", "output_path"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--saved_arch2vec", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(999)
    env = Env()
    while True:
        env.step(None)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `at_hand` takes for a clone."""
    for script in ("models/pretraining_nasbench201.py", "search_methods/x.py"):
        (tmp_path / script).parent.mkdir()
    (tmp_path / "models/pretraining_nasbench201.py").touch()
    (tmp_path / "search_methods/reinforce_search_NB201_8x8.py").write_text(_SCRIPT)
    return tmp_path


@pytest.fixture
def study() -> agreement.Study:
    benchmark = toy_benchmark()
    vectors = np.random.default_rng(0).normal(size=(len(benchmark.cells), 4)).astype(np.float32)
    table = EmbeddingTable(vectors=vectors, cells=benchmark.cells)
    return agreement.Study("arch2vec-rl", benchmark, table, range(3), 1000.0)


def test_queries_of_the_authors_program_are_read_off_and_kept(
    study: agreement.Study, clone: Path, tmp_path: Path
) -> None:
    threads, kept = torch.get_num_threads(), tmp_path / "kept.jsonl"
    found = agreement.authors_queries(study._replace(seeds=range(2)), kept, clone)
    cost = study.benchmark.times[:, 0]
    for seed, rows in found.items():
        assert rows == list(range(seed, seed + len(rows)))
        assert cost[rows[:-1]].sum() < study.seconds <= cost[rows].sum()
    assert torch.get_num_threads() == threads
    assert "emcee" not in sys.modules
    assert "cuda" not in vars(torch.Tensor)

    (clone / "search_methods/reinforce_search_NB201_8x8.py").unlink()  # kept ones need it no more
    assert agreement.authors_queries(study, kept, None) == found
    other = study._replace(seconds=500.0)
    assert agreement.authors_queries(other, kept, None) == {}
    assert len(kept.read_text().splitlines()) == 2
    assert json.loads(kept.read_text().splitlines()[1])["seed"] == 1


def test_a_folder_that_is_no_clone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^reference: .* is no clone"), authors.at_hand(tmp_path):
        pass


def test_equal_searches_agree_and_others_are_told_apart(study: agreement.Study) -> None:
    rows = {seed: list(range(100 * seed, 100 * seed + 12)) for seed in study.seeds}
    same = agreement.compare(study, rows, rows)
    assert same["identical_searches"] == 3
    assert same["same_leading_queries"] == {"least": 12, "median": 12.0, "most": 12}
    assert same["final"]["test"]["difference"] == {"mean": 0, "std": 0, "se": 0}
    assert same["regret_over_time"]["test"]["largest_in_se"]["ratio"] == 0

    best = int(study.benchmark.mean_validation.argmax())
    better = {seed: [*asked[:3], best, *asked[4:]] for seed, asked in rows.items()}
    apart = agreement.compare(study, rows, better)
    assert apart["identical_searches"] == 0
    assert apart["by_seed"]["same_leading_queries"] == [3, 3, 3]
    assert apart["parted_by_equal_embeddings"] == 0
    assert apart["final"]["validation"]["difference"]["mean"] > 0
    assert apart["regret_over_time"]["validation"]["ours"][-1] == 0


def test_a_tie_that_parts_searches_is_told_and_can_be_removed(study: agreement.Study) -> None:
    study.embeddings.vectors[5] = study.embeddings.vectors[6]
    first = {seed: [1, 5, 9] for seed in study.seeds}
    second = {**first, 1: [1, 6, 4], 2: [1]}
    found = agreement.compare(study, first, second)
    assert found["parted_by_equal_embeddings"] == 1
    assert found["by_seed"]["distance_where_parted"] == [None, 0.0, None]
    moved = agreement.untied(study.embeddings)
    assert len(np.unique(moved.vectors, axis=0)) == len(moved)
    assert np.allclose(moved.vectors, study.embeddings.vectors, atol=0.01)
    assert moved.metadata["untied"]


def test_incumbents_hold_from_the_end_of_their_query(study: agreement.Study) -> None:
    rows = [7, 3, 9]
    curve = agreement.Curve(study.benchmark, rows)
    first, second = np.cumsum(study.benchmark.times[rows[:2], 0])
    values = study.benchmark.mean_validation[rows]
    assert curve.at(np.array([first, second - 1e-6]))[0].tolist() == [values[0]] * 2
    assert curve.at(np.array([second]))[0] == max(values[:2])


def test_samples_of_pretrainings_are_compared_by_measure() -> None:
    pytest.importorskip("scipy")
    from bench.end_to_end import pretraining_agreement

    def run(valid: float) -> dict[str, Any]:
        shares = {rule: {"valid": valid, "unique": 0.9} for rule in ("released", "strict")}
        return {"reconstruction": {"strict": {"exact": 1.0}}, "raw": shares}

    theirs = [run(0.70 + 0.01 * i) for i in range(10)]
    found = pretraining_agreement.compare(theirs, [run(0.75 + 0.05 * i) for i in range(10)])
    assert list(found) == list(pretraining_agreement.MEASURES)
    assert found["valid, strict"]["authors"] == {
        "least": 0.7,
        "most": 0.79,
        "mean": 0.745,
        "std": 0.03028,
        "se": 0.00957,
    }
    assert found["valid, strict"]["ks_p_value"] < 0.05
    assert found["unique, strict"]["ks_p_value"] == 1

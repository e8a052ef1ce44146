# SPDX-License-Identifier: Apache-2.0
"""The program that times rounds of the authors' search; a stand-in takes the clone's place."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from arch2vec_fast.embeddings import EmbeddingTable
from bench.contenders import authors
from bench.end_to_end import authors_rounds
from toy import toy_benchmark

# In the words of the authors' script: first samples, then rounds until a budget is spent.
_SCRIPT = """
import argparse, time, torch

def load_arch2vec(path):
    raise FileNotFoundError(path)

def get_init_samples(features, valid, test, seconds, visited):
    return features[:args.init_size]

def propose_location(features):
    time.sleep(1e-3)
    return features[:args.topk]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("dim", "init_size", "topk", "seed"):
        parser.add_argument(f"--{name}", type=int)
    args = parser.parse_args()
    features, valid, test, seconds = load_arch2vec("absent.pt")
    known = get_init_samples(features, valid, test, seconds, {})
    for _ in range(LIMIT):
        known = torch.cat([known, propose_location(features)])
"""


@pytest.mark.parametrize(("limit", "enough"), [(9, True), (2, False)])
def test_rounds_are_timed_without_what_stands_before_them(
    tmp_path: Path, limit: int, enough: bool
) -> None:
    (tmp_path / "dngo.py").write_text(_SCRIPT.replace("LIMIT", str(limit)))
    program = authors.Program(tmp_path, "dngo.py")
    before = dict(program.names)
    toy = toy_benchmark()
    table = EmbeddingTable(vectors=np.zeros((len(toy), 4), np.float32), cells=toy.cells)
    rounds = authors_rounds.authors_rounds(program, table, toy.mean_validation, 20)
    if enough:
        seconds = rounds(3)
        assert len(seconds) == 3
        assert min(seconds) >= 1e-3
        assert len(rounds(2)) == 2
    else:
        with pytest.raises(RuntimeError, match="before its rounds were done"):
            rounds(3)
    for name in ("load_arch2vec", "get_init_samples", "propose_location"):
        assert program.names[name] is before[name]


def test_rounds_between_two_sizes_are_interpolated() -> None:
    total = authors_rounds.extrapolated([16, 116], [1.0, 2.0], 36)
    assert total == pytest.approx(1.0 + 1.05 + 1.10 + 1.15)
    # Beyond the largest size a round costs what it costs there; 77 rounds are 400 queries.
    assert authors_rounds.extrapolated([20], [2.0], 400) == pytest.approx(77 * 2.0)

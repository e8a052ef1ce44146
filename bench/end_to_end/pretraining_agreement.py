# SPDX-License-Identifier: Apache-2.0
"""Recipe `released` on NAS-Bench-201 against the authors' own pretraining: two samples of seeds.

    python -m bench.end_to_end.pretraining_agreement --reference CLONE --seeds 10 \\
        --ours bench/results/epyc-zen3-2core/table1/nasbench201-released-*.json --out FILE

The authors' program trains on the same cells by its own defaults, and its weights and its prior are
measured as `arch2vec-fast evaluate` measures ours: held-out cells, 10,000 samples. A seed gives
other weights and batches here than there, so the samples are compared, never single runs: range,
mean, standard error, and the p-value of a two-sample Kolmogorov-Smirnov test. A seed takes a
minute or two; those already in FILE are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import ks_2samp

from arch2vec_fast import spaces
from arch2vec_fast.pretrain.decoding import raw_cells
from arch2vec_fast.pretrain.metrics import (
    RULES,
    reconstruction_quality,
    sample_decoded,
    sample_quality,
)
from bench.contenders import authors
from bench.environment import describe

_SAMPLES = 10_000

# Measure -> where it stands in the result of `evaluate`.
MEASURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "exact": lambda result: result["reconstruction"]["strict"]["exact"],
    "valid, released rule": lambda result: result["raw"]["released"]["valid"],
    "unique, released rule": lambda result: result["raw"]["released"]["unique"],
    "valid, strict": lambda result: result["raw"]["strict"]["valid"],
    "unique, strict": lambda result: result["raw"]["strict"]["unique"],
}


def measure(reference: Path, seed: int) -> dict[str, Any]:
    """One run of the authors' program, in the form of `evaluate`, and what it printed itself."""
    space = spaces.get("nasbench201")
    cells = space.enumerate()
    with tempfile.TemporaryDirectory() as scratch, authors.at_hand(reference):
        data = Path(scratch) / "data" / "cifar10_valid_converged.json"
        data.parent.mkdir()
        space.save_json(cells, data)
        model, prior, printed = authors.pretrain_nasbench201(
            reference, space, Path(scratch), seed=seed, samples=_SAMPLES
        )
    held_out = cells[int(len(cells) * 0.9) :]
    raw = raw_cells(sample_decoded(model, prior, _SAMPLES, seed=0), space)
    return {
        "run_seed": seed,
        "reconstruction": reconstruction_quality(model, held_out, space),
        "raw": {rule: sample_quality(raw, space, rule) for rule in RULES},
        "printed": printed,
    }


def compare(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """For each measure, both samples, their moments and whether they can be told apart."""
    result: dict[str, Any] = {}
    for name, pick in MEASURES.items():
        samples = {"authors": list(map(pick, theirs)), "ours": list(map(pick, ours))}
        test = ks_2samp(samples["authors"], samples["ours"])
        result[name] = {
            **{side: _moments(values) for side, values in samples.items()},
            "ks_statistic": round(float(test.statistic), 4),
            "ks_p_value": round(float(test.pvalue), 4),
        }
    return result


def _moments(values: list[float]) -> dict[str, float]:
    deviation = np.std(values, ddof=1)
    numbers = {
        "least": min(values),
        "most": max(values),
        "mean": np.mean(values),
        "std": deviation,
        "se": deviation / np.sqrt(len(values)),
    }
    return {name: round(float(number), 5) for name, number in numbers.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="clone of MSU-MLSys-Lab/arch2vec")
    parser.add_argument("--ours", type=Path, nargs="+", required=True, help="results of evaluate")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ours = [json.loads(path.read_text()) for path in sorted(given.ours)]
    document: dict[str, Any] = {"name": "agreement of pretraining", "authors": []}
    if given.out.exists():
        document = json.loads(given.out.read_text())
    done = {run["run_seed"] for run in document["authors"]}
    missing = [seed for seed in range(given.seeds) if seed not in done]
    if missing and given.reference is None:
        raise SystemExit(f"{given.out}: holds {len(done)} seeds; pass --reference for the others")
    for seed in missing:
        run = measure(given.reference, seed)
        print(run, flush=True)
        document["authors"].append(run)
        given.out.write_text(json.dumps(document, indent=1) + "\n")
    document["ours"] = [{"run_seed": run["run_seed"], "commit": run["commit"]} for run in ours]
    document["comparison"] = compare(document["authors"], ours)
    document["run"] = describe()
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["comparison"], indent=1))


if __name__ == "__main__":
    main()

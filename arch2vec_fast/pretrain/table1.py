# SPDX-License-Identifier: Apache-2.0
"""Table 1 of the paper, run by run: pretrain, evaluate, keep one JSON file each, resume.

A directory holds `runs/SPACE-METHOD-SEED` (run directories) and `SPACE-METHOD-SEED.json` (what
`evaluate` returned). A finished pair is read back, never run again; an interrupted one goes on
from its checkpoint, and one with another number of samples is evaluated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from arch2vec_fast import spaces
from arch2vec_fast._files import read_json, write_json
from arch2vec_fast.models.recipes import Recipe
from arch2vec_fast.pretrain.loop import pretrain
from arch2vec_fast.pretrain.metrics import evaluate
from arch2vec_fast.pretrain.run import is_run

SPACES = ("nasbench101", "nasbench201", "darts")
METHODS = ("gae", "vgae", "without-kl", "released", "best")

# Reconstruction accuracy, validity and uniqueness in per cent, as published (Yan et al., NeurIPS
# 2020, Table 1). Only values confirmed by a second source stand here; the arch2vec row is what the
# released code computes, so it stands beside `released`.
PAPER: dict[tuple[str, str], tuple[float | None, float | None, float | None]] = {
    ("nasbench201", "released"): (None, 79.41, 98.72),
}

# Cells seen per second by one CPU core in plain PyTorch; only for the first estimate of the time.
_CELLS_PER_SECOND = 4_000
_SPACE_CELLS = {"nasbench101": 381_262, "nasbench201": 14_063, "darts": 540_000}


@dataclass(frozen=True, slots=True)
class Job:
    """One pretraining and its evaluation."""

    space: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """SPACE-METHOD-SEED, of files and directories."""
        return f"{self.space}-{self.method}-{self.seed}"

    def result_path(self, out: Path) -> Path:
        """Where the result is kept."""
        return out / f"{self.name}.json"

    @property
    def cells_to_see(self) -> int:
        """Training cells over all epochs: the measure of work."""
        return _SPACE_CELLS[self.space] * Recipe.get(self.method, self.space).epochs

    @property
    def estimate(self) -> float:
        """Rough seconds on one CPU core."""
        return self.cells_to_see / _CELLS_PER_SECOND


def jobs(space_names: Sequence[str], methods: Sequence[str], seeds: int) -> list[Job]:
    """All runs of the table, quick ones first. Raises ValueError for unknown names."""
    if seeds < 1:
        raise ValueError(f"seeds: {seeds} is below 1")
    for name in space_names:
        if name not in SPACES:
            raise ValueError(f"spaces: unknown space {name!r}; choose from {', '.join(SPACES)}")
    for name in methods:
        if name not in Recipe.names():
            known = ", ".join(Recipe.names())
            raise ValueError(f"methods: unknown method {name!r}; choose from {known}")
    pairs = dict.fromkeys((s, m) for s in space_names for m in methods)  # each once
    table = [Job(*pair, seed) for pair in pairs for seed in range(seeds)]
    return sorted(table, key=lambda job: job.estimate)


def finished(job: Job, out: Path, samples: int) -> dict[str, Any] | None:
    """The kept result of a job, if there is one of the whole run and of as many samples.

    Raises ValueError for the result of another run.
    """
    path = job.result_path(out)
    if not path.exists():
        return None
    result: Any = read_json(path)
    foreign = ValueError(f"{path}: not a result of {job.name}; move it away")
    try:
        for pick in COLUMNS.values():
            pick(result)
        run = (result["space"], result["recipe"], result["run_seed"])
        counts = result["counts"]
        how = (counts["samples"], counts["epochs"], result["seed"], result["prior"])
    except (KeyError, TypeError):
        raise foreign from None
    if run != (job.space, job.method, job.seed):
        raise foreign
    recipe = Recipe.get(job.method, job.space)
    return result if how == (samples, recipe.epochs, 0, recipe.prior) else None


def run_jobs(
    table: Sequence[Job],
    out: Path,
    *,
    samples: int = 10_000,
    device: str = "cpu",
    progress: bool = False,
    on_start: Callable[[Job], None] = lambda job: None,
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Run what is not finished; yields every job with its result, in the order of `table`."""
    out.mkdir(parents=True, exist_ok=True)
    for job in table:
        if (result := finished(job, out, samples)) is None:
            on_start(job)
            folder = out / "runs" / job.name
            run = pretrain(
                spaces.get(job.space),
                Recipe.get(job.method, job.space),
                folder,
                seed=job.seed,
                device=device,
                resume=is_run(folder),
                progress=progress,
            )
            result = evaluate(run, samples=samples, progress=progress)
            write_json(job.result_path(out), result)
        yield job, result


def summary(results: Sequence[tuple[Job, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per (space, method): mean and spread over seeds, in [0, 1], and the paper's row.

    Keys: space, method, seeds, paper (accuracy, validity, uniqueness in [0, 1] or None) and each
    of `COLUMNS` as {"mean", "std"}, std None for one seed.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job, result in results:
        groups.setdefault((job.space, job.method), []).append(result)
    rows = []
    for (space, method), found in sorted(groups.items(), key=_paper_order):
        published = PAPER.get((space, method))
        row: dict[str, Any] = {"space": space, "method": method, "seeds": len(found)}
        row["paper"] = published and [None if x is None else round(x / 100, 6) for x in published]
        for name, pick in COLUMNS.items():
            values = [value for value in map(pick, found) if value is not None]
            row[name] = {
                "mean": mean(values) if values else None,
                "std": stdev(values) if len(values) > 1 else None,
            }
        rows.append(row)
    return rows


COLUMNS: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "released_ops_accuracy": lambda result: result["reconstruction"]["released"]["ops_accuracy"],
    "released_edge_accuracy": lambda result: result["reconstruction"]["released"]["edge_accuracy"],
    "released_validity": lambda result: result["raw"]["released"]["valid"],
    "released_uniqueness": lambda result: result["raw"]["released"]["unique"],
    "exact": lambda result: result["reconstruction"]["strict"]["exact"],
    "strict_validity": lambda result: result["raw"]["strict"]["valid"],
    "strict_uniqueness": lambda result: result["raw"]["strict"]["unique"],
    "legal_uniqueness": lambda result: result["legal"]["strict"]["unique"],
    "uniform_uniqueness": lambda result: result["uniform"]["unique"],
}


def _paper_order(item: tuple[tuple[str, str], Any]) -> tuple[int, int]:
    (space, method), _ = item
    methods = list(METHODS) + [name for name in Recipe.names() if name not in METHODS]
    return SPACES.index(space), methods.index(method)

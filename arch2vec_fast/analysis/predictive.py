# SPDX-License-Identifier: Apache-2.0
"""How well accuracies are predicted from embeddings, beside what needs no pretraining.

A Gaussian process is fitted to the test accuracies of M cells drawn at random and predicts those of
all others (section 4.1 of the paper, where M = 250). What it predicts from:

| features | what they are |
|---|---|
| latent | the paper's vectors: the read-out of mu of the cells as they are |
| latent, simplified | the same of the smallest equal cells, where there are such |
| hidden | node states of all layers of the simplified cells, 128 principal components |
| hidden + WL | those, and a Weisfeiler-Lehman kernel: what search recipe `best` predicts from |

An embedding shows that pretraining helps only where it beats both baselines: the same encoder
before training, and the counts of a cell's operations. One-hot cells and the Weisfeiler-Lehman
kernel alone stand beside them. For one seed all rows see the same cells, so differences are paired.

Source: Yan et al. 2020, section 4.1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.analysis.statistics import estimate
from arch2vec_fast.benchmarks.base import Benchmark
from arch2vec_fast.embeddings import embed
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.search.neighbours import one_hot_encoding
from arch2vec_fast.search.protocol import embed_pool
from arch2vec_fast.spaces import CellBatch, WlHistogram, wl_histogram
from arch2vec_fast.surrogates import GaussianProcess, GpRecipe
from arch2vec_fast.surrogates.gp_observations import transform_targets

__all__ = ["Features", "Scores", "operation_counts", "predict", "study"]

PAPER_LABELS, PAPER_SEEDS = 250, 10
_PAPER_LEAST = {"nasbench101": 0.8}  # where errors of predictions are counted, by space

Vectors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """What a benchmark's Q cells are predicted from.

    name: as in the table of the module. vectors: [Q, D] of one encoder or of several, which take
    turns over the draws; none if the kernel of `histogram` does alone. recipe: of the encoder;
    None for none. trained: whether it has been.
    """

    name: str
    vectors: tuple[Vectors, ...] = ()
    histogram: WlHistogram | None = None
    recipe: str | None = None
    trained: bool = False

    @property
    def title(self) -> str:
        """The row's name in tables."""
        if self.recipe is None:
            return self.name
        return f"{self.name}, {self.recipe}{'' if self.trained else ', untrained'}"


class Scores(NamedTuple):
    """Of each draw of training cells, [S]; over the cells that were not drawn."""

    kendall: NDArray[np.float64]
    """Kendall's tau-b of predictions and accuracies, of all cells."""
    pearson: NDArray[np.float64]
    """Pearson's r, of cells above the least accuracy."""
    rmse: NDArray[np.float64]
    """Root mean square error, of those; in [0, 1] as accuracies are."""


def predict(
    features: Features,
    accuracy: NDArray[np.float64],
    *,
    labels: int = PAPER_LABELS,
    seeds: Sequence[int] | range = range(PAPER_SEEDS),
    targets: str = "rank",
    least: float = 0.0,
) -> Scores:
    """Scores of a Gaussian process (`surrogates.GaussianProcess`) over several draws.

    Args:
        accuracy: of each cell in [0, 1], [Q]; all known.
        labels: M, cells of a draw, 2 .. Q - 2, uniform and distinct.
        seeds: of the draws; a seed draws the same cells whatever the features.
        targets: what the process is fitted to, `GpRecipe.targets`. Predictions are put back into
            accuracies between those of the M cells, in whose order the transform keeps them; ranks
            are compared before that.
        least: errors and r are those of cells above this accuracy.

    Raises ValueError for impossible arguments, ImportError without scipy. Deterministic.
    """
    kendalltau = _kendalltau()
    _check(accuracy, labels, seeds, least)
    recipe = GpRecipe(targets=targets)  # type: ignore[arg-type]  # checked there
    processes = [
        GaussianProcess(vectors, features.histogram, recipe=recipe)
        for vectors in features.vectors or (None,)
    ]
    scores = []
    for number, seed in enumerate(seeds):
        rows = draw(len(accuracy), labels, seed)
        known = accuracy[rows]
        process = processes[number % len(processes)].fit(rows[None], known[None])
        score = process.predict()[0][0].astype(np.float64)
        left = np.ones(len(accuracy), np.bool_)
        left[rows] = False
        true = accuracy[left]
        rank = float(kendalltau(score[left], true).statistic)
        counted = true > least
        guess = _accuracies(score[left], known, recipe)[counted]
        scores.append((rank, *_errors(guess, true[counted])))
    return Scores(*np.array(scores).T)


def draw(cells: int, labels: int, seed: int) -> NDArray[np.int64]:
    """The rows [labels] of one draw, distinct and uniform."""
    chosen: NDArray[np.int64] = np.random.default_rng(seed).permutation(cells)[:labels]
    return chosen


def _accuracies(
    score: NDArray[np.float64], known: NDArray[np.float64], recipe: GpRecipe
) -> NDArray[np.float64]:
    """Predictions in transformed units as accuracies within those of the training cells."""
    transformed, order = np.unique(transform_targets(known, recipe.targets), return_index=True)
    return np.interp(score, transformed, known[order])


def _errors(guess: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[float, float]:
    """Pearson's r, NaN where all guesses are one, and the root mean square error."""
    constant = np.ptp(guess) == 0 or np.ptp(true) == 0
    correlation = np.nan if constant else float(np.corrcoef(guess, true)[0, 1])
    return correlation, float(np.sqrt(np.mean((guess - true) ** 2)))


def _check(
    accuracy: NDArray[np.float64], labels: int, seeds: Sequence[int] | range, least: float
) -> None:
    if not np.isfinite(accuracy).all():
        raise ValueError("accuracy: not all known; leave out those cells")
    if not 2 <= labels <= len(accuracy) - 2:
        raise ValueError(f"labels: {labels} is outside 2 .. {len(accuracy) - 2}, the cells less 2")
    if not len(seeds) or min(seeds) < 0:
        raise ValueError("seeds: expected one or more integers >= 0, e.g. range(10)")
    if int((accuracy > least).sum()) < labels + 2:
        raise ValueError(f"least: too few cells are above {least}; give a lower accuracy")


def _kendalltau() -> Any:
    try:
        from scipy.stats import kendalltau
    except ImportError:
        raise ImportError("predictive: needs scipy: pip install scipy") from None
    return kendalltau


# -- what is compared ----------------------------------------------------------------------


def operation_counts(cells: CellBatch) -> Vectors:
    """How often each operation occurs in a cell, [Q, F]; those that all cells have alike left out.

    >>> from arch2vec_fast import spaces
    >>> operation_counts(spaces.get("nasbench201").enumerate()[:2]).astype(int).tolist()
    [[2, 0, 3], [0, 3, 2]]
    """
    _, node_ops = cells.to_dense()
    counts = np.stack([(node_ops == op).sum(1) for op in range(cells.layout.num_op_types)], 1)
    return counts[:, (counts != counts[:1]).any(0)].astype(np.float32)


def baselines(benchmark: Benchmark) -> Iterator[Features]:
    """What needs no encoder; counts and kernel are of the simplified cells, as for encoders."""
    simple = benchmark.space.simplify(benchmark.cells)
    yield Features(name="operation counts", vectors=(operation_counts(simple),))
    yield Features(name="one-hot cells", vectors=(one_hot_encoding(benchmark.cells),))
    yield Features(name="WL kernel alone", histogram=wl_histogram(simple))


def encoded(benchmark: Benchmark, runs: Sequence[Run], *, trained: bool) -> Iterator[Features]:
    """The read-outs of runs of one recipe that differ in their seeds."""
    recipe = runs[0].recipe
    facts: dict[str, Any] = {"recipe": recipe.name, "trained": trained}
    cells = benchmark.cells

    def vectors(simplify: bool) -> tuple[Vectors, ...]:
        return tuple(embed(run, cells, simplify=simplify).vectors for run in runs)

    yield Features(name="latent", vectors=vectors(False), **facts)
    if (benchmark.space.simplify(cells).codes != cells.codes).any():
        yield Features(name="latent, simplified", vectors=vectors(True), **facts)
    if recipe.encoder == "gin":
        hidden = tuple(embed_pool(run, benchmark, "hidden").vectors for run in runs)
        histogram = wl_histogram(benchmark.space.simplify(cells))
        yield Features(name="hidden", vectors=hidden, **facts)
        yield Features(name="hidden + WL", vectors=hidden, histogram=histogram, **facts)


def study(
    benchmark: Benchmark,
    runs: Sequence[Run],
    *,
    labels: Sequence[int] = (PAPER_LABELS,),
    seeds: Sequence[int] | range = range(PAPER_SEEDS),
    targets: str = "rank",
    least: float | None = None,
) -> Iterator[dict[str, Any]]:
    """A row for each kind of features and number of labels, as soon as it is known.

    Args:
        runs: pretrainings on the benchmark's space. Of several runs of one recipe, draw s takes
            run s modulo their number, so that errors hold the spread of pretrainings too. The same
            encoders with the fresh weights of those runs' seeds are the rows "untrained".
        least: see `predict`; default 0.8 on NAS-Bench-101 as in the paper, elsewhere 0.
        Others as `predict`.

    Yields:
        title, features, recipe, trained, labels, draws; kendall, pearson and rmse, each mean,
        standard error and deviation; over_untrained: the same of the paired difference in kendall,
        None but for trained rows; by_seed: the three numbers of each draw.
    """
    if least is None:
        least = _PAPER_LEAST.get(benchmark.space.name, 0.0)
    _kendalltau()
    for count in labels:
        _check(benchmark.test_accuracy, count, seeds, least)
    controls: dict[tuple[str | None, str, int], NDArray[np.float64]] = {}
    for features in _all_features(benchmark, runs):
        for count in labels:
            scores = predict(
                features,
                benchmark.test_accuracy,
                labels=count,
                seeds=seeds,
                targets=targets,
                least=least,
            )
            key = (features.recipe, features.name, count)
            gain = None
            if features.trained:
                gain = _summary(scores.kendall - controls[key])
            else:
                controls[key] = scores.kendall
            yield {
                "title": features.title,
                "features": features.name,
                "recipe": features.recipe,
                "trained": features.trained,
                "labels": count,
                "draws": len(seeds),
                **{name: _summary(values) for name, values in scores._asdict().items()},
                "over_untrained": gain,
                "by_seed": {
                    name: [_known(value) for value in values.tolist()]
                    for name, values in scores._asdict().items()
                },
            }


def _all_features(benchmark: Benchmark, runs: Sequence[Run]) -> Iterator[Features]:
    """Baselines, then each recipe's encoders before and after training."""
    yield from baselines(benchmark)
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.space.layout != benchmark.cells.layout:
            raise ValueError(
                f"run: {run.path} is of {run.space.name}, not of {benchmark.space.name}"
            )
        groups.setdefault(run.recipe.name, []).append(run)
    for group in groups.values():
        with tempfile.TemporaryDirectory() as folder:
            fresh = [_untrained(run, Path(folder) / str(i)) for i, run in enumerate(group)]
            yield from encoded(benchmark, fresh, trained=False)
        yield from encoded(benchmark, group, trained=True)


def _untrained(run: Run, folder: Path) -> Run:
    """The run before its first step, on a few of its cells: no more are needed for its weights."""
    cells = run.cells[: min(64, len(run.cells))]
    return pretrain(run.space, run.recipe, folder, epochs=0, seed=run.seed, cells=cells)


def _summary(values: NDArray[np.float64]) -> dict[str, float | None]:
    found = estimate(values)
    return {
        "mean": _known(found.mean),
        "standard_error": _known(found.error),
        "std": _known(found.std),
    }


def _known(value: float) -> float | None:
    """Six digits, or None for what is undefined: JSON has no NaN."""
    return None if np.isnan(value) else round(value, 6)

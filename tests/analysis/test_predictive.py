# SPDX-License-Identifier: Apache-2.0
"""Predictions of accuracies: scores, baselines, pairing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast.analysis.predictive import Features, draw, operation_counts, predict, study
from arch2vec_fast.pretrain import Run, pretrain
from toy import SPACE, toy_benchmark

pytest.importorskip("scipy")

_ACCURACY = np.linspace(0.5, 0.9, 400)
_TELLING = Features(name="telling", vectors=(_ACCURACY[:, None].astype(np.float32),))


def features(vectors: np.ndarray) -> Features:
    return Features(name="made up", vectors=(vectors.astype(np.float32),))


@pytest.mark.parametrize("targets", ["rank", "clip", "standard", "none"])
def test_features_that_tell_the_accuracy_predict_it(targets: str) -> None:
    scores = predict(_TELLING, _ACCURACY, labels=40, seeds=range(3), targets=targets)
    assert scores.kendall.shape == (3,)
    assert scores.kendall.min() > 0.98
    assert scores.pearson.min() > 0.99
    assert scores.rmse.max() < 0.01


def test_noise_predicts_nothing() -> None:
    noise = np.random.default_rng(0).normal(size=(400, 4))
    scores = predict(features(noise), _ACCURACY, labels=40, seeds=range(4))
    assert abs(scores.kendall.mean()) < 0.1
    assert scores.rmse.min() > 0.08


def test_a_draw_depends_on_its_seed_alone() -> None:
    first = predict(_TELLING, _ACCURACY, labels=20, seeds=[3, 4])
    again = predict(_TELLING, _ACCURACY, labels=20, seeds=[4])
    assert again.kendall[0] == first.kendall[1]
    rows = draw(400, 20, 3)
    assert len(set(rows.tolist())) == 20
    assert rows.tolist() == draw(400, 30, 3)[:20].tolist()


def test_errors_are_those_above_the_least_accuracy() -> None:
    """A cell that failed for no reason of its structure spoils the error unless it is left out."""
    accuracy = _ACCURACY.copy()
    accuracy[np.random.default_rng(0).choice(400, 20, replace=False)] = 0.1
    every = predict(_TELLING, accuracy, labels=60, seeds=[0])
    above = predict(_TELLING, accuracy, labels=60, seeds=[0], least=0.4)
    assert above.rmse[0] < every.rmse[0] / 2
    assert above.kendall[0] == every.kendall[0]


def test_several_encoders_take_turns() -> None:
    both = replace(_TELLING, vectors=(*_TELLING.vectors, np.zeros((400, 1), np.float32)))
    scores = predict(both, _ACCURACY, labels=20, seeds=range(2))
    assert scores.kendall[0] > 0.9
    assert not scores.kendall[1] > 0.1  # nothing to predict from: undefined
    assert np.isnan(scores.pearson[1])


def test_operation_counts() -> None:
    cells = SPACE.enumerate()[:50]
    _, node_ops = cells.to_dense()
    counts = operation_counts(cells)
    for op in np.unique(node_ops):
        each = (node_ops == op).sum(1)
        assert np.ptp(each) == 0 or (counts == each[:, None]).all(0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": 1}, "labels: 1 is outside 2 .. 398"),
        ({"labels": 399}, "labels: 399 is outside"),
        ({"seeds": []}, "seeds: expected"),
        ({"least": 0.95}, "least: too few cells"),
        ({"targets": "log"}, "unknown transform 'log'"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(_TELLING, _ACCURACY, **{"labels": 20, **arguments})


def test_unknown_accuracies_are_refused() -> None:
    with pytest.raises(ValueError, match="accuracy: not all known"):
        predict(_TELLING, np.where(_ACCURACY > 0.8, np.nan, _ACCURACY), labels=20)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("predictive")
    made = [("best", 0), ("best", 1), ("vgae", 0)]
    return [
        pretrain("nasbench201", recipe, folder / f"{recipe}-{seed}", epochs=1, limit=600, seed=seed)
        for recipe, seed in made
    ]


def test_a_study_shows_both_baselines_and_pairs_with_the_untrained(runs: list[Run]) -> None:
    toy = toy_benchmark()
    rows = list(study(toy, runs, labels=(20, 40), seeds=range(2)))
    by_key = {(row["title"], row["labels"]): row for row in rows}
    assert len(by_key) == len(rows)
    titles = [row["title"] for row in rows if row["labels"] == 20]
    assert titles[:3] == ["operation counts", "one-hot cells", "WL kernel alone"]
    for name in ("latent", "latent, simplified", "hidden", "hidden + WL"):
        trained, control = (by_key[f"{name}, {title}", 40] for title in ("best", "best, untrained"))
        pairs = zip(trained["by_seed"]["kendall"], control["by_seed"]["kendall"])
        gain = np.mean([a - b for a, b in pairs])
        assert trained["over_untrained"]["mean"] == pytest.approx(gain, abs=2e-6)
        assert control["over_untrained"] is None
    assert ("hidden, vgae", 20) not in by_key  # it has no such layers
    assert ("latent, vgae, untrained", 20) in by_key
    counts = by_key["operation counts", 40]["kendall"]["mean"]
    assert counts > by_key["operation counts", 20]["kendall"]["mean"] > 0.3


def test_untrained_encoders_are_those_that_pretraining_began_with(
    runs: list[Run], tmp_path: Path
) -> None:
    from arch2vec_fast.analysis.predictive import _untrained

    fresh = _untrained(runs[0], tmp_path / "fresh").model.state_dict()
    for name, weight in runs[0].new_model().state_dict().items():
        assert weight.equal(fresh[name]), name


def test_runs_of_another_space_are_refused(tmp_path: Path) -> None:
    other = pretrain("nasbench101", "best", tmp_path / "r", epochs=0, limit=64)
    with pytest.raises(ValueError, match="is of nasbench101, not of nasbench201"):
        list(study(toy_benchmark(), [other], labels=(20,), seeds=range(1)))

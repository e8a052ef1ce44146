# SPDX-License-Identifier: Apache-2.0
"""Measurements: the released accuracies, validity and uniqueness by hand, the shape of a result."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast.embeddings import embed
from arch2vec_fast.models.decoder import Decoded
from arch2vec_fast.models.gin_vae import GinVae
from arch2vec_fast.models.recipes import Recipe
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.pretrain.metrics import (
    evaluate,
    reconstruction_quality,
    released_accuracy,
    sample_quality,
    unique_ceiling,
)
from arch2vec_fast.spaces import CellBatch

GOLDEN = Path(__file__).parents[1] / "golden"


def released_accuracy_in_loops(
    node_probability: Any, edge_probability: Any, adjacency: Any, node_ops: Any
) -> list[float]:
    """The released definition, one label and one pair at a time."""
    labels, on_edges, off_edges, pairs = [], [], [], []
    for cell in range(len(adjacency)):
        for v, row in enumerate(node_ops[cell]):
            labels.append(node_probability[cell][v].argmax() == row.argmax())
            for u in range(v):
                probability, edge = edge_probability[cell][u][v], adjacency[cell][u][v] == 1
                (on_edges if edge else off_edges).append(probability)
                pairs.append((probability > 0.5) == edge)
    return [float(np.mean(part)) for part in (labels, on_edges, off_edges, pairs)]


def test_released_accuracy_matches_loops(generator: torch.Generator) -> None:
    cells = spaces.get("nasbench101").sample(21, seed=0)
    adjacency, node_ops = (torch.from_numpy(x).float() for x in cells.to_dense(one_hot=True))
    decoded = Decoded(
        torch.randn(21, 7, 5, generator=generator), torch.randn(21, 7, 7, generator=generator)
    )
    expected = released_accuracy_in_loops(
        decoded.node_logits.sigmoid(), decoded.edge_logits.sigmoid(), adjacency, node_ops
    )
    assert released_accuracy(decoded, adjacency, node_ops) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201"])
def test_released_accuracy_matches_the_released_code(name: str) -> None:
    """The authors' own accuracy of their own weights on the same 384 cells."""
    with np.load(GOLDEN / f"gin_vae_{name}_steps.npz") as golden:
        adjacency = torch.from_numpy(golden["adjacency"]).float()
        node_ops = torch.from_numpy(golden["node_ops"]).float()
        expected = golden["accuracy4"].tolist()
    with np.load(GOLDEN / f"gin_vae_{name}_final.npz") as golden:
        state = {key.removeprefix("final/"): torch.from_numpy(golden[key]) for key in golden.files}
    model = GinVae(spaces.get(name).layout, Recipe.released()).eval()
    model.load_state_dict(state)
    with torch.no_grad():
        decoded = model.decode(model.encode(adjacency, node_ops)[0])
    assert released_accuracy(decoded, adjacency, node_ops) == pytest.approx(expected, abs=1e-6)


def test_predicted_absence_counts_as_label_zero() -> None:
    """An absent node has label 0 in the released code, so a decoder that says absent is right."""
    node_logits = torch.zeros(1, 2, 4)
    node_logits[0, :, 3] = 1.0
    node_ops = torch.zeros(1, 2, 3)
    node_ops[0, 0, 2] = 1.0
    decoded = Decoded(node_logits, torch.ones(1, 2, 2))
    adjacency = torch.zeros(1, 2, 2)
    adjacency[0, 0, 1] = 1
    assert released_accuracy(decoded, adjacency, node_ops)[0] == 0.5


def test_quality_of_hand_made_nasbench201_cells() -> None:
    space = spaces.get("nasbench201")
    adjacency, labels = space.enumerate()[[0, 0, 0, 7, 8, 9]].to_dense()
    adjacency, labels = adjacency.copy(), labels.copy()
    adjacency[3, 0, 7] ^= 1  # an edge too many: only the strict rule sees it
    labels[4, 1] = 0  # an input as node 1: only the strict rule sees it
    labels[5, 3] = 6  # an output in the middle: both see it
    cells = CellBatch.from_dense(adjacency, labels, space.layout)
    released = sample_quality(cells, space, "released")
    assert released["valid"] == pytest.approx(5 / 6)
    assert released["unique"] == pytest.approx(3 / 5)
    strict = sample_quality(cells, space, "strict", lambda batch: len(batch) - 1)
    assert strict["valid"] == pytest.approx(3 / 6)
    assert strict["unique"] == pytest.approx(1 / 3)
    assert strict["novel"] == pytest.approx(2 / 3)


def test_quality_of_hand_made_nasbench101_cells() -> None:
    """Isomorphic cells count once; a dangling node is valid as released and not strictly."""
    space = spaces.get("nasbench101")
    adjacency = np.zeros((4, 7, 7), np.uint8)
    labels = np.full((4, 7), -1)
    labels[:3, :4] = [0, 1, 2, 4]
    labels[1, 1:3] = [2, 1]
    for x, y in ((0, 1), (0, 2), (1, 3), (2, 3)):
        adjacency[:2, x, y] = 1
    adjacency[2, 0, 1] = adjacency[2, 1, 3] = adjacency[2, 0, 2] = 1  # node 2 leads nowhere
    labels[3, :2] = [0, 4]  # no edge at all
    cells = CellBatch.from_dense(adjacency, labels, space.layout)
    released = sample_quality(cells, space, "released")
    assert (released["valid"], released["unique"]) == (0.75, pytest.approx(2 / 3))
    strict = sample_quality(cells, space, "strict")
    assert (strict["valid"], strict["unique"]) == (0.5, 0.5)
    assert strict["unique_ceiling"] == pytest.approx(1.0, abs=1e-5)
    assert released["unique_ceiling"] is None  # dead ends make more cells than the space has


def test_quality_of_nothing_valid_is_none() -> None:
    space = spaces.get("nasbench201")
    cells = CellBatch(np.zeros((3, 1), np.int64), space.layout)
    expected = {"valid": 0.0, "unique": None, "unique_ceiling": None, "novel": None}
    assert sample_quality(cells, space, "strict", len) == expected


def test_uniform_ceilings() -> None:
    assert unique_ceiling(spaces.get("nasbench101"), 10_000) == pytest.approx(0.988, abs=5e-4)
    assert unique_ceiling(spaces.get("nasbench201"), 10_000) == pytest.approx(0.739, abs=5e-4)
    assert unique_ceiling(spaces.get("darts"), 10_000) > 0.9999
    assert unique_ceiling(spaces.get("nasbench201"), 1) == pytest.approx(1.0)


def test_uniform_ceiling_is_what_sampling_reaches() -> None:
    space = spaces.get("nasbench201")
    reached = len(space.sample(10_000, seed=1).unique()[0]) / 10_000
    assert reached == pytest.approx(unique_ceiling(space, 10_000), abs=0.01)


# -- whole runs ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("metrics") / "run"
    return pretrain("nasbench201", "best", folder, epochs=2, limit=1_500, seed=1)


@pytest.fixture(scope="module")
def result(run: Run) -> dict[str, Any]:
    return evaluate(run, samples=500, seed=3)


def shares(value: Any, path: str = "") -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in shares(part, f"{path}.{key}")]
    return [(path, value)] if value is not None else []


def test_result_has_the_documented_keys(result: dict[str, Any]) -> None:
    assert {
        "space", "recipe", "engine", "run_seed", "seed", "commit", "version", "prior", "counts",
        "reconstruction", "raw", "legal", "reasons", "uniform", "untrained", "seconds",
    } == set(result)  # fmt: skip
    assert set(result["untrained"]) == {"reconstruction", "raw", "legal"}
    for part in (result, result["untrained"]):
        for decoding in ("raw", "legal"):
            assert set(part[decoding]) == {"released", "strict"}
            for quality in part[decoding].values():
                assert set(quality) == {"valid", "unique", "unique_ceiling", "novel"}
    assert result["counts"]["samples"] == 500


def test_result_is_json_and_all_shares_are_shares(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for part in ("reconstruction", "raw", "legal", "uniform", "untrained", "reasons"):
        for path, share in shares(result[part], part):
            assert 0 <= share <= 1, path


def test_result_is_consistent(result: dict[str, Any]) -> None:
    assert result["legal"]["strict"]["valid"] == 1
    assert result["untrained"]["legal"]["strict"]["valid"] == 1
    invalid = sum(result["reasons"].values())
    assert invalid == pytest.approx(1 - result["raw"]["strict"]["valid"])
    trained, control = result["reconstruction"], result["untrained"]["reconstruction"]
    assert trained["strict"]["exact_legal"] >= trained["strict"]["exact"] - 1e-9
    assert trained["strict"]["edge_accuracy"] > control["strict"]["edge_accuracy"]


def test_evaluation_is_deterministic(run: Run, result: dict[str, Any]) -> None:
    again = evaluate(Run.load(run.path), samples=500, seed=3)
    assert {**again, "seconds": None} == {**result, "seconds": None}
    other = evaluate(run, samples=500, seed=4, untrained=False)
    assert "untrained" not in other
    assert other["raw"] != result["raw"]


def test_training_cells_are_not_novel(run: Run) -> None:
    from arch2vec_fast.pretrain.metrics import _Known

    known = _Known(run.train_cells)
    assert known.count_novel(run.train_cells) == 0
    unseen = set(run.space.enumerate().codes[:, 0].tolist()) - set(
        run.train_cells.codes[:, 0].tolist()
    )
    rest = CellBatch(np.array(sorted(unseen))[:, None], run.space.layout)
    assert known.count_novel(rest) == len(rest)


def test_two_word_cells_can_be_known() -> None:
    from arch2vec_fast.pretrain.metrics import _Known

    cells = spaces.get("darts").sample(40, seed=0)
    assert _Known(cells[:30]).count_novel(cells) == 10


def test_other_priors_and_bad_arguments(run: Run) -> None:
    result = evaluate(run, samples=50, prior="posterior", untrained=False)
    assert result["prior"] == "posterior"
    with pytest.raises(ValueError, match="prior: unknown kind 'flat'"):
        evaluate(run, samples=50, prior="flat")
    with pytest.raises(ValueError, match="samples: 0 is below 1"):
        evaluate(run, samples=0)
    run.model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            reconstruction_quality(run.model, run.validation_cells, run.space)
    finally:
        run.model.eval()


def test_a_directory_stands_for_its_run(run: Run) -> None:
    again = evaluate(str(run.path), samples=20, untrained=False)
    assert again["raw"] == evaluate(run, samples=20, untrained=False)["raw"]
    np.testing.assert_array_equal(embed(run.path).vectors, embed(run).vectors)
    with pytest.raises(TypeError, match="run: expected a Run or its directory, got int"):
        evaluate(3)  # type: ignore[arg-type]

# SPDX-License-Identifier: Apache-2.0
"""Run directories: what is refused, and why, in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arch2vec_fast import spaces
from arch2vec_fast._files import read_cells, write_cells, write_tensors
from arch2vec_fast.embeddings import embed
from arch2vec_fast.models import PRIORS, Recipe
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.pretrain.metrics import evaluate
from arch2vec_fast.spaces import CellBatch, CellSpace

SPACE = spaces.get("nasbench201")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "run"
    return pretrain(SPACE, "best", path, epochs=1, limit=600, batch_size=128)


def test_load_gives_back_what_was_made(run: Run) -> None:
    again = Run.load(run.path)
    assert again.recipe.name == "best"
    assert again.cells == run.cells
    assert again.prior.kind == "gaussian"
    assert not again.model.training
    train, validation = again.train_cells, again.validation_cells
    assert len(train) + len(validation) == 600
    assert not set(train.codes[:, 0]) & set(validation.codes[:, 0])


@pytest.mark.parametrize("kind", PRIORS)
def test_any_prior_can_be_fitted(run: Run, kind: str) -> None:
    z = run.fit_prior(kind).sample(3)
    assert z.shape == (3, 8, 16)
    assert z.isfinite().all()


def test_rejects_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not a run directory \(it has no config"):
        Run.load(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 1, "spa')
    with pytest.raises(ValueError, match=r"config\.json: not a JSON file .* truncated"):
        Run.load(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="not of a run of this version"):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": 3}, "'cells' cannot be 3"),
        ({"cells": {"source": "stored"}}, "lacks 'order'"),
        ({"seed": "x"}, "'seed' cannot be 'x'"),
        ({"recipe": {"name": "best"}}, "unknown or missing fields"),
        ({"engine": 1}, "'engine' cannot be 1"),
    ],
)
def test_rejects_a_config_edited_by_hand(
    run: Run, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(run.config | change))
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        Run.load(tmp_path)


def test_opens_runs_of_the_first_format(run: Run, tmp_path: Path) -> None:
    new = ("engine", "processes", "input_ops", "output_op", "allow_dangling", "rule")
    before = {name: value for name, value in run.config.items() if name not in new}
    (tmp_path / "config.json").write_text(json.dumps({**before, "format": 1}))
    assert (Run.load(tmp_path).engine, Run.load(tmp_path).processes) == ("eager", 1)


def test_a_space_with_another_rule_is_another_space(tmp_path: Path) -> None:
    def sparse(cells: CellBatch) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = cells.num_edges() < 5
        return mask

    names = ("input", "conv", "pool", "output")
    space = CellSpace(5, names, rule=sparse)
    run = pretrain(space, "best", tmp_path / "run", epochs=0)
    assert run.config["rule"] is True
    for other, what in (
        (CellSpace(5, names), "rule"),
        (CellSpace(5, names, rule=sparse, allow_dangling=True), "allow_dangling"),
        (CellSpace(5, names, rule=sparse, output_op=None), "output_op"),
    ):
        with pytest.raises(ValueError, match=f"with other {what} than"):
            Run.load(run.path, other)


def test_rejects_another_space(run: Run) -> None:
    with pytest.raises(ValueError, match="was made on the space 'nasbench201'"):
        Run.load(run.path, spaces.get("darts"))


def copy_of(run: Run, path: Path) -> Run:
    for file in run.path.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return Run.load(path)


def test_rejects_damaged_and_foreign_checkpoints(run: Run, tmp_path: Path) -> None:
    damaged = copy_of(run, tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"checkpoint\.pt: not a whole file of tensors"):
        damaged.checkpoint()
    torch.save({"weights": {}}, checkpoint)
    with pytest.raises(ValueError, match="not a checkpoint"):
        damaged.checkpoint()
    other = run.checkpoint()
    other["model_state"]["mlps.0.linears.0.weight"] = torch.zeros(128, 5)
    torch.save(other, checkpoint)
    with pytest.raises(ValueError, match="weights are of another space or recipe"):
        _ = damaged.model
    for foreign in ({"model_state": 5}, {"model_state": {"a": 5}}, {**other, "epoch": "last"}, [1]):
        torch.save(foreign, checkpoint)
        with pytest.raises(ValueError, match=r"checkpoint\.pt: not a checkpoint"):
            damaged.checkpoint()
    checkpoint.unlink()
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet; resume it first"):
        damaged.checkpoint()


def test_weights_and_priors_that_are_no_numbers_go_nowhere(run: Run, tmp_path: Path) -> None:
    damaged = copy_of(run, tmp_path)
    lost = run.checkpoint()
    lost["model_state"]["mlps.0.linears.0.weight"][0, 0] = float("nan")
    torch.save(lost, tmp_path / "checkpoint.pt")
    arguments: dict[str, Any] = {"epochs": 1, "batch_size": 128, "limit": 600}
    uses = [
        lambda: embed(damaged),
        lambda: evaluate(damaged, samples=10),
        lambda: pretrain(SPACE, "best", tmp_path, resume=True, **arguments),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"checkpoint\.pt: mlps.* holds NaN or infinity"):
            use()
    for state, metadata in (
        ({"vectors": torch.zeros(2)}, {}),
        ({"mean": torch.zeros(8, 16), "scale": torch.ones(8, 16)}, {"kind": "gaussian"}),
        ({"mean": torch.ones(8, 16) / 0, "scale": torch.ones(8, 16)}, {"kind": "standard"}),
    ):
        write_tensors(tmp_path / "prior.safetensors", state, metadata)
        with pytest.raises(ValueError, match=r"prior\.safetensors: .* fitted anew"):
            _ = Run.load(tmp_path).prior


@pytest.mark.parametrize("change", [{"optimizer_state": {}}, {"epoch": 7}, {"window": 3}])
def test_progress_that_cannot_be_resumed_names_the_file(
    run: Run, tmp_path: Path, change: dict[str, Any]
) -> None:
    copy_of(run, tmp_path)
    torch.save(run.checkpoint() | change, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: has no progress to resume from"):
        pretrain(SPACE, "best", tmp_path, epochs=1, batch_size=128, limit=600, resume=True)


def test_foreign_lines_of_metrics_are_left_out(run: Run, tmp_path: Path) -> None:
    copied = copy_of(run, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('5\n{"mine": 1}\n{"event": "epoch", "epoch": 1, "step": "x"}\n')
    assert copied.metrics == run.metrics


def test_pickled_code_is_never_run(run: Run, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "exploded",)  # type: ignore[return-value]

    damaged = copy_of(run, tmp_path)
    torch.save({"model_state": Bomb()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="loaded safely"):
        damaged.checkpoint()
    assert not (tmp_path / "exploded").exists()


def test_rejects_changed_cells(run: Run, tmp_path: Path) -> None:
    changed = copy_of(run, tmp_path)
    (tmp_path / "cells.npz").unlink()
    write_cells(tmp_path / "cells.npz", run.cells[::-1])
    with pytest.raises(ValueError, match="differ from those it was trained on"):
        _ = changed.cells


def test_cells_file_round_trip_and_errors(tmp_path: Path) -> None:
    cells = SPACE.sample(20, seed=3)
    path = tmp_path / "cells.npz"
    write_cells(path, cells)
    assert read_cells(path, SPACE) == cells
    with pytest.raises(ValueError, match=r"cells\.npz: holds cells of 8 nodes and 7 operation"):
        read_cells(path, spaces.get("nasbench101"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="not a whole file of cells"):
        read_cells(path, SPACE)
    np.savez(path, codes=np.array([object()]), layout=np.array([8, 7]))
    with pytest.raises(ValueError, match="not a whole file of cells"):
        read_cells(path, SPACE)
    for codes, layout in (([[1]], [99, 7]), ([[-1]], [8, 7]), ([[0.5]], [8, 7])):
        np.savez(path, codes=np.array(codes), layout=np.array(layout))
        with pytest.raises(ValueError, match=r"cells\.npz: not a whole file of cells"):
            read_cells(path, SPACE)
    with pytest.raises(FileNotFoundError, match="no such file of cells"):
        read_cells(tmp_path / "none.npz", SPACE)
    (tmp_path / "cells.txt").write_text("")
    with pytest.raises(ValueError, match=r"\.npz or \.json files, not '\.txt'"):
        read_cells(tmp_path / "cells.txt", SPACE)


def test_config_names_everything(run: Run) -> None:
    config = json.loads((run.path / "config.json").read_text())
    assert config["space"] == "nasbench201"
    assert Recipe.from_dict(config["recipe"]).batch_size == 128
    assert config["cells"]["count"] == 600
    assert isinstance(run.cells, CellBatch)

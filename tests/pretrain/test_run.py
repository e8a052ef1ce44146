# SPDX-License-Identifier: Apache-2.0
"""Run directories: what is refused, and why, in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast._files import read_cells, write_cells
from arch2vec_fast.models import PRIORS, Recipe
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.spaces import CellBatch

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
    with pytest.raises(ValueError, match="not a run of this version"):
        Run.load(tmp_path)


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
    checkpoint.unlink()
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet; resume it first"):
        damaged.checkpoint()


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

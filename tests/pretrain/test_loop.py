# SPDX-License-Identifier: Apache-2.0
"""The loop: same trajectory after any interruption, honest metrics, nothing half written."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast.models import Recipe
from arch2vec_fast.pretrain import Interrupted, Run, pretrain
from arch2vec_fast.pretrain.loop import Trainer
from arch2vec_fast.pretrain.run import held_out
from arch2vec_fast.spaces import CellBatch, CellLayout, CellSpace

SPACE = spaces.get("nasbench201")
CELLS = SPACE.enumerate()[:320]


def small(name: str, **changes: object) -> Recipe:
    return replace(Recipe.get(name, SPACE.name), batch_size=64, **changes)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.checkpoint()["model_state"]


def assert_same_weights(first: Run, second: Run) -> None:
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name


@pytest.mark.parametrize("name", ["best", "released"])
def test_same_seed_same_run(name: str, tmp_path: Path) -> None:
    runs = [
        pretrain(SPACE, small(name, epochs=2), tmp_path / str(i), cells=CELLS, seed=seed)
        for i, seed in enumerate([4, 4, 5])
    ]
    assert_same_weights(runs[0], runs[1])
    assert not torch.equal(weights(runs[0])["fc1.weight"], weights(runs[2])["fc1.weight"])


@pytest.mark.parametrize("name", ["best", "released"])
@pytest.mark.parametrize("stop_after", [1, 3, 5, 8])
def test_resume_follows_the_same_trajectory(name: str, stop_after: int, tmp_path: Path) -> None:
    """Five steps an epoch: stopped at the start, within, at an epoch's end, in the second."""
    recipe = small(name, epochs=2)
    whole = pretrain(SPACE, recipe, tmp_path / "whole", cells=CELLS)
    parted = Run.create(tmp_path / "parted", SPACE, recipe, seed=0, cells=CELLS)
    trainer = Trainer(parted, torch.device("cpu"), checkpoint_seconds=1e9)
    while trainer.step < stop_after:
        for _ in trainer.steps():
            if trainer.step == stop_after:
                break
        else:
            trainer.end_epoch()
    trainer.save()
    torch.manual_seed(999)  # the global generator must not matter
    resumed = pretrain(SPACE, recipe, tmp_path / "parted", resume=True)
    assert_same_weights(whole, resumed)
    for before, after in zip(whole.prior.state().values(), resumed.prior.state().values()):
        assert torch.equal(before, after)

    def comparable(run: Run) -> list[dict[str, object]]:
        return [{k: v for k, v in m.items() if k != "cells_per_second"} for m in run.metrics]

    assert comparable(whole) == comparable(resumed)


def test_killed_process_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """kill -9 in the middle of training, in another process."""
    program = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from arch2vec_fast.pretrain import pretrain\n"
        "from arch2vec_fast.pretrain.run import is_run\n"
        "pretrain('nasbench201', 'best', sys.argv[1], epochs=4, limit=640, batch_size=64,\n"
        "         resume=is_run(Path(sys.argv[1])), checkpoint_seconds=0)\n"
    )
    command = [sys.executable, "-c", program]
    victim = subprocess.Popen([*command, str(tmp_path / "victim")])
    checkpoint = tmp_path / "victim" / "checkpoint.pt"
    for _ in range(6000):
        if checkpoint.exists():
            break
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert Run.load(tmp_path / "victim").checkpoint()["step"] < 4 * 9
    subprocess.run([*command, str(tmp_path / "victim")], check=True)
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    assert_same_weights(Run.load(tmp_path / "victim"), Run.load(tmp_path / "whole"))
    assert not [path for path in (tmp_path / "victim").iterdir() if path.name.startswith(".")]


def test_interrupt_saves_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer._train

    def interrupted(self: Trainer, *arguments: Any) -> None:
        original(self, *arguments)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "_train", interrupted)
    with pytest.raises(Interrupted, match=r"stopped at step 3.*--resume --out"):
        pretrain(SPACE, small("best", epochs=1), tmp_path / "run", cells=CELLS)
    assert Run.load(tmp_path / "run").checkpoint()["step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_released_freezes_batch_norm_after_the_first_epoch(tmp_path: Path) -> None:
    one = pretrain(SPACE, small("released", epochs=1), tmp_path / "one", cells=CELLS)
    two = pretrain(SPACE, small("released", epochs=2), tmp_path / "two", cells=CELLS)
    key = "batch_norms.0.running_mean"
    assert torch.equal(weights(one)[key], weights(two)[key])
    assert not torch.equal(weights(one)["fc1.weight"], weights(two)["fc1.weight"])


def test_metrics_are_json_lines_with_falling_loss(tmp_path: Path) -> None:
    run = pretrain(SPACE, small("best", epochs=3), tmp_path / "run", cells=CELLS)
    epochs = [line for line in run.metrics if line["event"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert epochs[-1]["loss"] < 0.7 * epochs[0]["loss"]
    for line in run.metrics:
        assert line["loss"] == pytest.approx(line["node"] + line["edge"] + line["kl"])
    assert 0 <= epochs[-1]["validation"]["exact"] <= 1
    assert epochs[-1]["learning_rate"] < 1e-4 < epochs[0]["learning_rate"]


def test_split_by_hash_does_not_depend_on_order_or_subset() -> None:
    recipe = Recipe.best()
    cells = SPACE.enumerate()
    whole = held_out(cells, recipe)
    order = np.random.default_rng(0).permutation(len(cells))
    np.testing.assert_array_equal(held_out(cells[order], recipe), whole[order])
    np.testing.assert_array_equal(held_out(cells[:100], recipe), whole[:100])
    assert abs(whole.mean() - 0.1) < 4 * (0.09 / len(cells)) ** 0.5


def test_split_in_order_holds_out_the_tail() -> None:
    mask = held_out(CELLS, Recipe.released())
    assert mask.sum() == 32
    assert mask[288:].all()


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"seed": 1}, "seed"), ({"batch_size": 8}, "batch_size"), ({"epochs": 5}, "epochs")],
)
def test_resume_rejects_other_settings(changes: dict[str, int], name: str, tmp_path: Path) -> None:
    pretrain(SPACE, small("best", epochs=0), tmp_path / "run", cells=CELLS)
    with pytest.raises(ValueError, match=f"resume: .* started with another {name}; use its"):
        pretrain(SPACE, small("best", epochs=0), tmp_path / "run", resume=True, **changes)


def test_refuses_to_write_over_anything(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"^out: .* is not an empty directory; choose another"):
        pretrain(SPACE, small("best", epochs=0), tmp_path, cells=CELLS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    pretrain(SPACE, small("best", epochs=0), tmp_path / "run", cells=CELLS)
    with pytest.raises(ValueError, match="pass resume to go on"):
        pretrain(SPACE, small("best", epochs=0), tmp_path / "run", cells=CELLS)


@pytest.mark.parametrize("name", Recipe.names())
def test_not_a_number_stops_with_advice(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        FloatingPointError, match=r"^loss: is no finite number.*lower learning_rate"
    ):
        pretrain(SPACE, small(name, epochs=2), tmp_path / "run", cells=CELLS, learning_rate=1e30)
    assert not (tmp_path / "run" / "prior.safetensors").exists()


def test_lost_weights_never_replace_a_checkpoint(tmp_path: Path) -> None:
    run = pretrain(SPACE, small("best", epochs=1), tmp_path / "run", cells=CELLS)
    before = (run.path / "checkpoint.pt").read_bytes()
    trainer = Trainer(run, torch.device("cpu"), 60.0)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="is no finite number"):
        trainer.save()
    assert (run.path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("name", Recipe.names())
def test_every_recipe_runs_on_a_user_defined_space(name: str, tmp_path: Path) -> None:
    space = CellSpace(5, ("input", "conv", "pool", "output"), max_edges=6, name="mine")
    run = pretrain(space, Recipe.get(name), tmp_path / "run", epochs=1)
    assert run.epochs_done == 1
    assert Run.load(tmp_path / "run", space).cells == space.enumerate()
    with pytest.raises(ValueError, match=r"user-defined space 'mine'; open it with Run.load"):
        Run.load(tmp_path / "run")
    wider = CellSpace(5, ("input", "conv", "pool", "output"), max_edges=7, name="mine")
    with pytest.raises(ValueError, match="with other max_edges than 'mine'"):
        Run.load(tmp_path / "run", wider)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": CELLS[:1]}, "cells: 1 cannot be split"),
        ({"cells": CELLS[:0]}, "cells: 0 cannot be split"),
        ({"cells": CellBatch(CELLS.codes & ~0xFFFFFFF, CELLS.layout)}, "cell 0 of 320 is not of"),
        ({"cells": CellBatch(np.zeros((3, 1), np.int64), CellLayout(7, 5))}, "are of 7 nodes"),
        ({"limit": 1}, "limit: 1 cells cannot be split"),
        ({"limit": 20_000}, "limit: 20000 cells asked of nasbench201, which has 15625"),
        ({"seed": -3}, "seed: -3 is outside"),
        ({"seed": 10**30}, "seed: 1000000000000000000000000000000 is outside"),
        ({"resume": True}, "resume: .* holds no run; check out"),
    ],
)
def test_bad_input_leaves_nothing_behind(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain(SPACE, "best", tmp_path / "run", **arguments)
    assert not list(tmp_path.iterdir())


def test_resume_rejects_other_cells(tmp_path: Path) -> None:
    pretrain(SPACE, small("best", epochs=0), tmp_path / "run", cells=CELLS)
    for arguments, name in (({"cells": CELLS[:200]}, "cells"), ({"limit": 300}, "limit")):
        with pytest.raises(ValueError, match=f"started with another {name}"):
            pretrain(SPACE, small("best", epochs=0), tmp_path / "run", resume=True, **arguments)


def test_limit_takes_different_cells(tmp_path: Path) -> None:
    run = pretrain(SPACE, small("best", epochs=0), tmp_path / "run", limit=15_000)
    assert len(run.cells.unique()[0]) == 15_000


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "mps", "cpu:1"])
def test_rejects_unknown_device(device: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^device: "):
        pretrain(SPACE, "best", tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


def test_full_disk_is_one_line_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretrain(SPACE, small("best", epochs=1), tmp_path / "run", cells=CELLS)
    before = (run.path / "checkpoint.pt").read_bytes()

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    trainer = Trainer(run, torch.device("cpu"), 60.0)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"checkpoint\.pt: could not be written .*No space left"):
        trainer.save()
    assert (run.path / "checkpoint.pt").read_bytes() == before
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_full_disk_at_the_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file is the first that does not fit; then the same command works."""
    real, out = os.fsync, tmp_path / "run"
    for fits in range(3):  # cells.npz, config.json, checkpoint.pt
        left = iter(range(fits))

        def no_space(descriptor: int, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match=rf"{out}.*No space left on device\)"):
            pretrain(SPACE, small("best", epochs=0), out, cells=CELLS)
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", real)
    pretrain(SPACE, small("best", epochs=0), out, cells=CELLS)


def test_a_kill_between_log_and_checkpoint_leaves_one_line_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, save = small("best", epochs=2), Trainer.save

    def killed(trainer: Trainer) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        save(trainer)

    monkeypatch.setattr(Trainer, "save", killed)
    with pytest.raises(KeyboardInterrupt):  # a checkpoint after each window, so at the last step
        pretrain(SPACE, recipe, tmp_path / "run", cells=CELLS, checkpoint_seconds=0)
    monkeypatch.setattr(Trainer, "save", save)
    run = pretrain(SPACE, recipe, tmp_path / "run", cells=CELLS, resume=True)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    epochs = [line for line in map(json.loads, lines) if line["event"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2]


def test_torn_metrics_line_is_dropped_on_resume(tmp_path: Path) -> None:
    recipe = small("best", epochs=1)
    run = pretrain(SPACE, recipe, tmp_path / "run", cells=CELLS)
    whole = run.metrics
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "st')
    assert run.metrics == whole
    again = pretrain(SPACE, recipe, tmp_path / "run", resume=True)
    lines = (again.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == again.metrics == whole

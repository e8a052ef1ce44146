# SPDX-License-Identifier: Apache-2.0
"""Several processes train one model: equal on all, and what a batch's mean gradient says."""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from arch2vec_fast import spaces
from arch2vec_fast._processes import Processes
from arch2vec_fast.embeddings import EmbeddingTable, embed
from arch2vec_fast.models import GinVae, Recipe, build_model
from arch2vec_fast.pretrain import Run, pretrain, train
from arch2vec_fast.pretrain.engine import FusedEngine, build_engine, process_seed
from arch2vec_fast.pretrain.loop import Trainer
from arch2vec_fast.pretrain.shared import SharedFusedEngine
from several import on_two_processes, run_torchrun, start_torchrun

SPACE = spaces.get("nasbench201")
CELLS = SPACE.enumerate()[:320]
SMALL = {"hidden_dim": 32, "latent_dim": 8, "batch_size": 65, "epochs": 2}


def small(name: str, **changes: object) -> Recipe:
    recipe = Recipe.get(name, SPACE.name)
    mixing = min(recipe.node_mixing, 24)
    return replace(recipe, **{**SMALL, "node_mixing": mixing, **changes})


def model_of(recipe: Recipe) -> GinVae:
    torch.manual_seed(0)
    model = build_model(recipe, SPACE.layout)
    assert isinstance(model, GinVae)
    return model


def flat(model: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# -- the engines, one step ---------------------------------------------------------------------


def one_step(processes: Processes, name: str, engine: str, cells: int) -> dict[str, Tensor]:
    recipe = small(name)
    model = model_of(recipe)
    shared = build_engine(engine, model, SPACE.layout, CELLS.to_torch(), 3, processes)
    sums = shared.train(torch.arange(cells), 0, [1e-3], training=True)
    return {"parameters": flat(model), "losses": sums.losses, "mu": sums.mu}


def gradients_apart(name: str, engine: str, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """What two processes must arrive at, by one alone: mean gradient, losses, sums of mu."""
    recipe = small(name)
    gradient, losses, mu = torch.zeros(()), torch.zeros(4), torch.zeros(())
    for rank in range(2):
        share = torch.arange(cells)[Processes(rank, 2).share(cells)]
        if not len(share):
            continue
        model = model_of(replace(recipe, batch_size=len(share), grad_clip=1e9))
        alone = build_engine(
            engine, model, SPACE.layout, CELLS.to_torch(), process_seed(3, rank), Processes()
        )
        sums = alone.train(share, 0, [0.0], training=True)
        entries = alone.optimizer_state()["state"].values()
        part = torch.cat([10 * entry["exp_avg"].flatten() for entry in entries])
        gradient = gradient + part * (len(share) / cells)
        losses, mu = losses + sums.losses, mu + sums.mu
    return gradient, losses, mu


# An odd batch, an even one, and one of fewer cells than processes.
STEPS = [
    (name, cells, engine)
    for name, cells in [("best", 65), ("paper", 64), ("released", 3), ("best", 1)]
    for engine in ("fused", "eager")
]
RUNS = [("best", "fused"), ("released", "fused"), ("released", "eager")]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes made of everything below, and the folder of their runs."""
    folder = tmp_path_factory.mktemp("together")
    works: dict[str, Any] = {"lost": lost_on_one}
    for name, cells, engine in STEPS:
        step = partial(one_step, name=name, engine=engine, cells=cells)
        works[f"{name}-{cells}-{engine}"] = step
    for name, engine in RUNS:
        works[f"{name}-{engine}"] = partial(whole_run, name=name, engine=engine, folder=str(folder))
    return {"folder": folder, **on_two_processes(works)}


@pytest.mark.parametrize(("name", "cells", "engine"), STEPS)
def test_two_processes_step_on_the_mean_gradient(
    name: str, cells: int, engine: str, together: dict[str, Any]
) -> None:
    first, second = together[f"{name}-{cells}-{engine}"]
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    gradient, losses, mu = gradients_apart(name, engine, cells)
    recipe = small(name)
    model = model_of(recipe)
    before = flat(model)
    gradient *= min(1.0, recipe.grad_clip / float(gradient.norm()))
    # Adam's first step is the sign of the gradient, but where it is near its floor of 1e-8.
    expected = before - 1e-3 * gradient / (gradient.abs() + 1e-8)
    certain = gradient.abs() > 1e-5 * gradient.abs().max()
    assert certain.float().mean() > 0.5
    assert_close(first["parameters"][certain], expected[certain], rtol=1e-5, atol=2e-6)
    assert_close(first["losses"], losses.double(), rtol=1e-6, atol=0)
    assert_close(first["mu"], mu, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_one_process_of_the_shared_engine_is_the_fused_engine(device: str) -> None:
    """The same kernel; only Adam and the norm for clipping are another's."""
    recipe, codes = small("best"), CELLS.to_torch(device)
    models = [model_of(recipe).to(device), model_of(recipe).to(device)]
    order = torch.arange(65, device=device)
    plain = FusedEngine(models[0], SPACE.layout, codes, 0)
    shared = SharedFusedEngine(models[1], SPACE.layout, codes, 0, Processes())
    expected = plain.train(order, 0, [1e-3], training=True)
    actual = shared.train(order, 0, [1e-3], training=True)
    assert_close(actual.losses, expected.losses, rtol=1e-6, atol=0)
    states = [engine.optimizer_state()["state"] for engine in (shared, plain)]
    for index, entry in states[1].items():
        for key, value in entry.items():
            assert_close(states[0][index][key].cpu(), value.cpu(), rtol=1e-5, atol=1e-7)
    for name, buffer in models[0].named_buffers():
        assert_close(models[1].get_buffer(name), buffer, rtol=1e-4, atol=1e-5)
    version = models[1].eps._version
    shared.train(order, 1, [1e-3], training=False)
    assert models[1].eps._version > version
    assert int(models[1].batch_norms[0].num_batches_tracked) == 1


def lost_on_one(processes: Processes) -> dict[str, Tensor]:
    """The released loss refuses lost numbers on one process; the other must learn of it."""
    recipe = small("released")
    model = model_of(recipe)
    codes = CELLS.to_torch()
    engine = build_engine("eager", model, SPACE.layout, codes, 3, processes)
    if processes.rank == 1:
        with torch.no_grad():
            model.eps.fill_(torch.nan)
    return {"losses": engine.train(torch.arange(64), 0, [1e-3], training=True).losses}


def test_numbers_lost_on_one_process_are_lost_on_all(together: dict[str, Any]) -> None:
    for result in together["lost"]:
        assert result["losses"].isnan().all()


# -- whole runs --------------------------------------------------------------------------------


def whole_run(processes: Processes, name: str, engine: str, folder: str) -> dict[str, Tensor]:
    """A run, and the same one stopped within the first and in the second epoch."""
    recipe = small(name)
    paths = [Path(folder) / f"{name}-{engine}-{part}" for part in ("whole", "parted")]
    run = pretrain(SPACE, recipe, paths[0], cells=CELLS, engine=engine)
    processes.on_first(partial(create, paths[1], recipe, engine))  # as `pretrain` does
    parted = Run.load(paths[1])
    for stop_after in (2, 7):
        trainer = Trainer(parted, torch.device("cpu"), 1e9, processes)
        while trainer.step < stop_after:
            for _ in trainer.steps():
                if trainer.step >= stop_after:
                    break
            else:
                trainer.end_epoch()
        trainer.save()
        processes.wait()
    parted = train(parted)
    trainer = Trainer(parted, torch.device("cpu"), 1e9, processes)
    return {
        "whole": flat(run.model),
        "parted": flat(parted.model),
        "held": torch.cat([flat(trainer.model), *map(torch.flatten, trainer.model.buffers())]),
    }


def create(path: Path, recipe: Recipe, engine: str) -> None:
    Run.create(path, SPACE, recipe, seed=0, cells=CELLS, engine=engine, processes=2)


@pytest.mark.parametrize(("name", "engine"), RUNS)
def test_resume_with_two_processes(name: str, engine: str, together: dict[str, Any]) -> None:
    """released freezes its batch norms in the second epoch: at the first process's statistics."""
    first, second = together[f"{name}-{engine}"]
    assert torch.equal(first["whole"], first["parted"])
    assert torch.equal(first["held"], second["held"])
    whole, parted = (
        Run.load(together["folder"] / f"{name}-{engine}-{part}") for part in ("whole", "parted")
    )
    losses = [
        [line["loss"] for line in run.metrics if line["event"] == "train"]
        for run in (whole, parted)
    ]
    assert losses[0] == losses[1]
    assert len([line for line in whole.metrics if line["event"] == "epoch"]) == 2
    assert torch.equal(whole.prior.mean, parted.prior.mean)
    assert sorted(path.name for path in whole.path.iterdir()) == sorted(
        ["cells.npz", "checkpoint.pt", "config.json", "metrics.jsonl", "prior.safetensors"]
    )
    with pytest.raises(ValueError, match="by 2 processes, not by 1; start torchrun with 2"):
        pretrain(SPACE, small(name), whole.path, engine=engine, resume=True)


# -- the command -------------------------------------------------------------------------------

COMMAND = ("pretrain", "nasbench201", "--limit", "300", "--batch-size", "64", "--seed", "5")


@pytest.mark.slow
def test_one_process_of_torchrun_is_a_plain_run(tmp_path: Path) -> None:
    result = run_torchrun(1, *COMMAND, "--epochs", "1", "--out", str(tmp_path / "torchrun"))
    assert result.returncode == 0, result.stderr
    plain = pretrain(SPACE, "best", tmp_path / "plain", epochs=1, limit=300, batch_size=64, seed=5)
    states = [run.checkpoint()["model_state"] for run in (plain, Run.load(tmp_path / "torchrun"))]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_torchrun_writes_and_speaks_once_and_stops_together(tmp_path: Path) -> None:
    out = tmp_path / "run"
    finished = run_torchrun(2, *COMMAND, "--epochs", "1", "--out", str(out), "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["run"] == str(out)
    assert json.loads((out / "config.json").read_text())["processes"] == 2

    again = run_torchrun(2, *COMMAND, "--epochs", "1", "--out", str(out))
    assert again.returncode != 0
    # All processes find it; torchrun may end the others before the first has spoken.
    assert re.search(r"^arch2vec-fast( \(process 1\))?: out: ", again.stderr, re.MULTILINE)

    refused = run_torchrun(2, "evaluate", str(out))
    assert "torchrun: evaluate runs in one process" in refused.stderr


@pytest.mark.cuda
def test_two_gpus_train_and_embed(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU; NCCL connects two")
    out, shards = tmp_path / "run", tmp_path / "shards"
    on_gpus = ("--device", "cuda", "--json", "--out")
    trained = run_torchrun(2, *COMMAND, "--epochs", "1", *on_gpus, str(out))
    assert trained.returncode == 0, trained.stderr
    run = Run.load(out)
    assert run.epochs_done == 1
    assert all(value.isfinite().all() for value in run.checkpoint()["model_state"].values())
    written = run_torchrun(
        2, "embed", str(out), "--space", "--shard", "4000", *on_gpus, str(shards)
    )
    assert written.returncode == 0, written.stderr
    table = EmbeddingTable.load(shards)
    assert len(table) == 15_625
    alone = embed(run, table.cells, device="cuda").vectors
    assert_close(torch.from_numpy(table.vectors), torch.from_numpy(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_interrupt_saves_and_a_killed_process_ends_all(tmp_path: Path) -> None:
    out = tmp_path / "run"
    long = (*COMMAND, "--epochs", "500", "--out", str(out))
    for resume, stop in (((), signal.SIGINT), (("--resume",), signal.SIGKILL)):
        step = last_step(out)
        with start_torchrun(2, *long, *resume) as process:
            wait_for(lambda step=step: last_step(out) > step, process)
            target = process.pid if stop == signal.SIGINT else children(process.pid)[-1]
            os.kill(target, stop)
            _, errors = process.communicate(timeout=120)
        assert process.returncode != 0
        assert ("everything is saved" in errors) == (stop == signal.SIGINT)
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
        Run.load(out).checkpoint()


def last_step(out: Path) -> int:
    return max((line["step"] for line in Run.load(out).metrics), default=0) if out.exists() else 0


def children(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listing.split()]


def wait_for(ready, process: subprocess.Popen[str]) -> None:
    for _ in range(1800):
        if ready() or process.poll() is not None:
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened for three minutes")

# SPDX-License-Identifier: Apache-2.0
"""The whole path on a GPU: pretrain, resume, embed, evaluate. Checkpoints carry no device."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast.embeddings import embed
from arch2vec_fast.models import Recipe
from arch2vec_fast.pretrain import Run, evaluate, pretrain, train
from arch2vec_fast.pretrain.loop import Trainer

pytestmark = pytest.mark.cuda

SPACE = spaces.get("nasbench201")
CELLS = SPACE.enumerate()[:320]


def small(name: str) -> Recipe:
    return replace(Recipe.get(name, SPACE.name), batch_size=64, epochs=2)


@pytest.mark.parametrize("name", ["best", "paper", "released"])
def test_pretrain_embed_evaluate(name: str, tmp_path: Path) -> None:
    run = pretrain(SPACE, small(name), tmp_path / "run", cells=CELLS, device="cuda")
    assert run.epochs_done == 2
    assert all(value.isfinite().all() for value in run.checkpoint()["model_state"].values())
    on_cpu, on_gpu = (embed(run, device=device).vectors for device in ("cpu", "cuda"))
    torch.testing.assert_close(
        torch.from_numpy(on_gpu), torch.from_numpy(on_cpu), rtol=1e-3, atol=1e-4
    )
    quality = evaluate(run, samples=50)
    assert 0 <= quality["reconstruction"]["strict"]["exact"] <= 1


@pytest.mark.parametrize("name", ["best", "released"])
@pytest.mark.parametrize(("first", "then"), [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_on_any_device(name: str, first: str, then: str, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", SPACE, small(name), seed=0, cells=CELLS)
    trainer = Trainer(run, torch.device(first), checkpoint_seconds=1e9)
    for _ in zip(range(2), trainer.steps()):
        pass
    trainer.save()
    train(run, device=then)
    assert run.epochs_done == 2
    assert run.prior.mean.device.type == "cpu"

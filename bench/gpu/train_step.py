# SPDX-License-Identifier: Apache-2.0
"""The training kernel: time of a step, of a pretraining, and where the cycles go.

Steps are timed sixteen at a time, by one call of ours and by a loop over plain PyTorch, because a
call has a constant part (clearing its workspace, copying the weights) that long calls do not feel.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from arch2vec_fast import functional, spaces
from arch2vec_fast._gin_train import GinTrainBuffers, GinTrainConfig
from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.spaces import CellLayout
from bench.gpu.report import OURS, Report, graphed
from bench.gpu.training import new_model, step_of

STEPS = 16
LONG_CELLS = 64_000  # of a call whose constant part does not show
PHASES = ("forward", "decoder", "backward", "wait", "gradients", "wait", "update", "wait")
RELEASED = GinTrainConfig(
    layout=CellLayout(7, 5),
    num_classes=5,
    hidden_dim=128,
    latent_dim=16,
    num_layers=4,
    num_mlp_layers=2,
    dropout=0.3,
)
BEST = replace(
    *(RELEASED,),
    num_classes=6,
    node_mixing=256,
    gated=True,
    bilinear=True,
    position_bias=True,
    softmax=True,
    logits=True,
    elbo=True,
    beta=0.05,
    dropout=0.0,
)


@cache
def all_cells() -> Tensor:
    """NAS-Bench-101 on the GPU."""
    return spaces.get("nasbench101").enumerate().to_torch("cuda")


class Training:
    """A model's buffers and cells on the GPU, and calls of the operator on them."""

    def __init__(self, config: GinTrainConfig, batch: int, models: int = 1) -> None:
        self.config, self.batch, self.models = config, batch, models
        self.codes = all_cells()
        self.seed = torch.arange(models, device="cuda")
        self.buffers = GinTrainBuffers.zeros(config, models, device="cuda")
        name = "best" if config.gated else "released"
        model = build_model(
            Recipe.get(name, "nasbench101"),
            spaces.get("nasbench101").layout,
            variable_size=config.num_classes > config.layout.num_op_types,
        )
        flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        self.buffers.parameters.copy_(flat)
        self.done = 0

    def inputs(self, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cells, rates and seeds of a call."""
        shape = (self.models, steps * self.batch)
        order = torch.randint(len(self.codes), shape, device="cuda")
        rate = torch.full((steps,), 1e-3, dtype=torch.float64, device="cuda")
        return self.codes, order, rate, self.seed

    def work(self, steps: int) -> Callable[[], object]:
        """`steps` steps, going on with the model wherever it is."""
        inputs = self.inputs(steps)

        def run() -> Tensor:
            losses, _ = functional.gin_train(
                self.buffers,
                *inputs,
                self.config,
                batch_size=self.batch,
                first_step=self.done,
            )
            self.done += steps
            return losses

        return run

    def phases(self, steps: int) -> dict[str, list[float]]:
        """Thousands of cycles a step in each phase: of the first block, and of the last."""
        *_, cycles = torch.ops.arch2vec_fast.gin_train_phases(
            *self.buffers,
            *self.inputs(steps),
            *(None, None, self.batch, self.done, self.config.sizes, self.config.settings),
        )
        self.done += steps
        each = (cycles.double() / steps / 1000).cpu()
        return {"first": each[0].tolist(), "last": each[-1].tolist()}


def repeat(step: Callable[[], object]) -> Callable[[], None]:
    """STEPS steps of plain PyTorch."""

    def run() -> None:
        for _ in range(STEPS):
            step()

    return run


def steps_in_a_call(
    report: Report, name: str, config: GinTrainConfig, batch: int, models: int
) -> None:
    """Microseconds a step in a call of many, with the cycles of its phases."""
    training = Training(config, batch, models)
    steps = max(100, LONG_CELLS // training.batch)
    work = training.work(steps)
    work()
    times = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        losses = work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / steps)
    assert isinstance(losses, Tensor)
    cycles = training.phases(100)
    for block, values in cycles.items():
        pairs = zip(PHASES, values)
        print(f"  {block} block, kcycles:", ", ".join(f"{p} {v:.1f}" for p, v in pairs))
    report.add(
        f"{name}, in a call of {steps}",
        statistics.median(times),
        "us a step",
        min=min(times),
        max=max(times),
        loss=float(losses[0, -1, 0]),
        kilocycles=cycles,
    )


def against_torch(report: Report, name: str, config: GinTrainConfig) -> None:
    """Ours and plain PyTorch in turns, STEPS steps of 32 cells each."""
    recipe = Recipe.get("best" if config.gated else "released", "nasbench101")
    frozen = not config.batch_mode
    graph = graphed(step_of(new_model(recipe, frozen=frozen), recipe, capturable=True))
    goal = 25e-6 if frozen else 60e-6
    report.race(
        name,
        {
            OURS: Training(config, 32).work(STEPS),
            "eager": repeat(step_of(new_model(recipe, frozen=frozen), recipe)),
            "eager in a graph": repeat(graph),
        },
        goal=None if config.gated else STEPS * goal,
    )


def pretraining(report: Report) -> None:
    """Eight epochs over nine tenths of NAS-Bench-101, the first one with batch statistics."""
    cells, batch = 381_261, 32
    steps = -(-cells // batch)
    training = Training(RELEASED, batch)
    rate = torch.full((steps,), 1e-3, dtype=torch.float64, device="cuda")
    order = torch.randint(len(training.codes), (1, cells), device="cuda")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for epoch in range(8):
        losses, _ = functional.gin_train(
            *(training.buffers, training.codes, order, rate, training.seed),
            replace(RELEASED, batch_mode=epoch == 0),
            batch_size=batch,
            first_step=epoch * steps,
        )
    end.record()
    end.synchronize()
    report.add(
        "pretraining on NAS-Bench-101, 8 epochs of 11,915 steps",
        begin.elapsed_time(end) * 1e-3,
        "s",
        goal=6,
        loss=float(losses[0, -1000:, 0].mean()),
    )


def run(report: Report) -> None:
    """Rows of the training kernel."""
    report.attempt("pretraining on NAS-Bench-101", lambda: pretraining(report))
    frozen = replace(RELEASED, batch_mode=False)
    rows = (
        ("released, batch statistics", RELEASED, (32, 256, 1024)),
        ("released, frozen statistics", frozen, (32, 256, 1024)),
        ("best", BEST, (32, 256, 1024, 2048)),
    )
    cases = [(f"{name}, {n} cells", config, n, 1) for name, config, sizes in rows for n in sizes]
    for models in (4, 33):
        name = f"released, frozen statistics, 32 cells, {models} models at once"
        cases.append((name, frozen, 32, models))
    for name, config, batch, models in cases:
        report.attempt(
            f"step of {name}",
            partial(steps_in_a_call, report, f"step of {name}", config, batch, models),
        )
    # Last, because a loss of torch's that sees a NaN takes the device with it.
    for name, config, _ in reversed(rows):
        label = f"{STEPS} steps of {name}, 32 cells"
        report.attempt(label, partial(against_torch, report, label, config))

# SPDX-License-Identifier: Apache-2.0
"""Training steps of the CIFAR-10 network of DARTS: number formats, memory formats, compilation.

With `REFERENCE=clone` in the environment the authors' network takes part, in their own loop.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import torch

from arch2vec_fast.darts.train import Speed
from arch2vec_fast.spaces.darts import DartsNetwork, network_cost
from bench.contenders.darts_step import GENOTYPE, Task, our_step, released_step
from bench.gpu.report import OURS, Report

FINAL = Task(
    channels=36, layers=20, batch=96, auxiliary=True, drop_path=0.1, device="cuda"
)  # half-way through the final training
SMALL = Task(channels=36, layers=5, batch=96, drop_path=0.1, device="cuda")
_BF16 = Speed(bf16=True)
_COMPILED = Speed(bf16=True, compile=True)
_SECONDS = 45  # after so many nothing is compiled any more


def flops(task: Task) -> float:
    """Of a step: two a multiply-add, and the backward pass costs two forward ones."""
    size = DartsNetwork(channels=task.channels, layers=task.layers, classes=10, stem="cifar")
    return 6.0 * task.batch * float(network_cost(GENOTYPE, size).mult_adds[0])


def label(task: Task) -> str:
    """For rows."""
    return f"{task.channels} channels, {task.layers} cells, {task.batch} images"


def eager(report: Report) -> None:
    """What `Speed` offers but compilation, and the authors' loop."""
    released = None
    if reference := os.environ.get("REFERENCE"):
        try:
            released = released_step(FINAL, Path(reference))
        except Exception as error:
            report.fail(f"DARTS training step, {label(FINAL)}, released", error)
    report.race(
        f"DARTS training step, {label(FINAL)}",
        {
            OURS: our_step(FINAL),
            "contiguous": our_step(FINAL, Speed(channels_last=False)),
            "bf16": our_step(FINAL, _BF16),
            "bf16, contiguous": our_step(FINAL, Speed(bf16=True, channels_last=False)),
            "released": released,
        },
        flops=flops(FINAL),
    )


def compiled(report: Report) -> None:
    """A quarter of the cells: compiling all of them takes minutes."""
    step = our_step(SMALL, _COMPILED)
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    report.add(f"compiling the step of {label(SMALL)}", time.perf_counter() - began, "s")
    report.race(
        f"DARTS training step, {label(SMALL)}",
        {OURS: our_step(SMALL), "bf16": our_step(SMALL, _BF16), "bf16, compiled": step},
        flops=flops(SMALL),
    )


def run(report: Report) -> None:
    """All rows."""
    began = time.monotonic()
    for rows in (eager, compiled):
        if rows is compiled and time.monotonic() - began > _SECONDS:
            report.add("seconds left for compiling", 0, "s")
            return
        report.attempt(f"DARTS training step, {rows.__name__}", partial(rows, report))

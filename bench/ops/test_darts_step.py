# SPDX-License-Identifier: Apache-2.0
"""Training steps of a DARTS network, against the authors' network in their own loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arch2vec_fast.darts.train import Speed
from arch2vec_fast.spaces.darts import DartsNetwork, network_cost
from bench.contenders.darts_step import GENOTYPE, Step, Task, our_step, released_step
from bench.harness import Absent, Contender


def contender(step: Step, steps: int) -> Contender:
    """`steps` steps a turn, going on with the network wherever it is."""

    def work() -> float:
        for _ in range(steps):
            step()
        return steps

    return work


def operations(task: Task) -> float:
    """Two a multiply-add, and the backward pass costs two forward ones."""
    size = DartsNetwork(channels=task.channels, layers=task.layers, classes=10, stem="cifar")
    return 6.0 * task.batch * float(network_cost(GENOTYPE, size).mult_adds[0])


@pytest.mark.parametrize(("channels", "layers"), [(8, 5), (16, 8)])
def test_training_step_of_a_darts_network(
    race: Callable[..., dict[str, Any]],
    threads: int,
    quick: bool,
    channels: int,
    layers: int,
    pytestconfig: pytest.Config,
) -> None:
    if quick:
        channels, layers = 8, 3
    task = Task(channels=channels, layers=layers, batch=4 if quick else 32)
    steps = 1 if quick or layers > 5 else 3
    reference: Path | None = pytestconfig.getoption("--reference")
    theirs: Contender | Absent = Absent("needs the authors' network, --reference")
    if reference is not None:
        theirs = contender(released_step(task, reference), steps)
    race(
        f"training step of a DARTS network, {channels} channels, {layers} cells, "
        f"{task.batch} images of 32x32",
        {
            "arch2vec_fast": contender(our_step(task), steps),
            "released": theirs,
        },
        unit="step",
        flops=operations(task),
    )


def test_options_of_a_training_step(
    race: Callable[..., dict[str, Any]], threads: int, pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("--slow"):
        pytest.skip("three minutes a number of threads, most of them compiling; --slow runs it")
    task = Task(channels=8, layers=5, batch=32)
    options = {
        "contiguous": Speed(channels_last=False),
        "bf16": Speed(bf16=True),
        "compiled": Speed(compile=True),
    }
    race(
        "options of a DARTS training step, 8 channels, 5 cells, 32 images of 32x32",
        {
            "arch2vec_fast": contender(our_step(task), 1),
            **{name: contender(our_step(task, speed), 1) for name, speed in options.items()},
        },
        unit="step",
        flops=operations(task),
    )

# SPDX-License-Identifier: Apache-2.0
"""Training steps, against the released loop body and against our own steps in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.pretrain.engine import build_engine
from bench.contenders import compiled
from bench.contenders import released as released_way
from bench.harness import Absent, Contender

# Forward and backward of a cell: products and sums over neighbours of the plain engine.
_FLOPS_A_CELL = {"nasbench101": 5.13e6, "nasbench201": 5.9e6, "darts": 8.2e6}
_FLOPS_A_CELL_OF_BEST = 5.56e6  # NAS-Bench-101: a decoder that mixes nodes, a bilinear form
# A step reads and writes the weights and both moments of Adam, and reads each gradient once.
_BYTES_A_STEP = 7 * 4 * 122_617


def engine(
    name: str, recipe: Recipe, cells: spaces.CellBatch, *, training: bool, steps: int
) -> Contender:
    """`steps` steps a turn of the engine that `pretrain(engine=name)` uses."""
    torch.manual_seed(0)
    model = build_model(recipe, cells.layout).train(training)
    steps_of = build_engine(name, model, cells.layout, cells.to_torch(), seed=0)
    order = torch.arange(steps * recipe.batch_size) % len(cells)
    rates = [recipe.learning_rate] * steps
    taken = 0

    def work() -> float:
        nonlocal taken
        for first in range(0, steps, steps_of.steps_a_call):
            count = min(steps - first, steps_of.steps_a_call)
            batch = order[first * recipe.batch_size : (first + count) * recipe.batch_size]
            steps_of.train(batch, taken, rates[:count], training=training)
            taken += count
        return steps

    return work


def _compiled(
    quick: bool, recipe: Recipe, cells: spaces.CellBatch, once: dict[str, Any]
) -> Contender | Absent:
    if quick:
        return Absent("nothing is compiled in the quick run")
    return compiled.training(recipe, cells, **once)


@pytest.mark.parametrize("mode", ["batch", "frozen"])
def test_training_step_of_32_cells(
    race: Callable[..., dict[str, Any]],
    threads: int,
    quick: bool,
    mode: str,
    nasbench101: spaces.CellBatch,
    released: SimpleNamespace,
) -> None:
    cells = nasbench101[:: len(nasbench101) // 20_000]
    recipe, steps = Recipe.released("nasbench101"), 10 if quick else 60
    training = mode == "batch"
    once = {"training": training, "steps": steps}
    race(
        f"training step, 32 cells, {mode} mode",
        {
            "arch2vec_fast": engine("fused", recipe, cells, **once),
            "eager": engine("eager", recipe, cells, **once),
            **({"compiled": _compiled(quick, recipe, cells, once)} if training else {}),
            "released": released_way.training(released, cells, frozen=not training, steps=steps),
        },
        unit="step",
        goals={
            "released": {"batch": (3.5, 6), "frozen": (4, 7)}[mode][threads > 1],
            **({"compiled": 2} if training else {}),
        },
        flops=32 * _FLOPS_A_CELL["nasbench101"],
        moved=_BYTES_A_STEP,
    )


@pytest.mark.parametrize("batch_size", [256, 1024])
@pytest.mark.parametrize("name", ["released", "best"])
def test_training_step_of_many_cells(
    race: Callable[..., dict[str, Any]],
    threads: int,
    quick: bool,
    name: str,
    batch_size: int,
    nasbench101: spaces.CellBatch,
    released: SimpleNamespace,
) -> None:
    """Rates in cells against the released step, which takes 32 of them."""
    cells = nasbench101[:: len(nasbench101) // 20_000]
    recipe = replace(Recipe.get(name, "nasbench101"), batch_size=batch_size)
    once: dict[str, Any] = {"training": True, "steps": 2 if quick else 4096 // batch_size}
    flops = _FLOPS_A_CELL["nasbench101"] if name == "released" else _FLOPS_A_CELL_OF_BEST
    goals = {"released": 3.0}
    if (name, batch_size) == ("released", 1024):
        goals["eager"] = 1.8
    theirs = released_way.training(released, cells, frozen=False, steps=batch_size // 32)

    def as_released() -> float:
        theirs()
        return 1

    race(
        f"training step, {batch_size} cells, recipe {name}",
        {
            "arch2vec_fast": engine("fused", recipe, cells, **once),
            "eager": engine("eager", recipe, cells, **once),
            **({"compiled": _compiled(quick, recipe, cells, once)} if "eager" in goals else {}),
            "released": as_released,
        },
        unit="step",
        goals=goals,
        flops=batch_size * flops,
        moved=_BYTES_A_STEP,
    )


@pytest.mark.parametrize("space_name", ["nasbench201", "darts"])
def test_training_step_of_other_spaces(
    race: Callable[..., dict[str, Any]],
    threads: int,
    quick: bool,
    space_name: str,
    released: SimpleNamespace,
) -> None:
    cells = spaces.get(space_name).sample(2000, seed=0)
    recipe = Recipe.released(space_name)
    once: dict[str, Any] = {"training": True, "steps": 5 if quick else 30}
    race(
        f"training step, 32 cells, {space_name}",
        {
            "arch2vec_fast": engine("fused", recipe, cells, **once),
            "eager": engine("eager", recipe, cells, **once),
            "released": released_way.training(released, cells, frozen=False, steps=once["steps"]),
        },
        unit="step",
        flops=32 * _FLOPS_A_CELL[space_name],
        moved=_BYTES_A_STEP,
    )

# SPDX-License-Identifier: Apache-2.0
"""`torch.compile` of plain PyTorch: Inductor makes C++ of it and needs a compiler for that.

Compiling happens where a contender is made, never inside a timed turn. Inductor writes the number
of threads into its code, so a contender is for the number that torch was set to when it was made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from arch2vec_fast import spaces
from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.gin_vae import GinVae
from arch2vec_fast.pretrain.flat import FlatAdam
from arch2vec_fast.pretrain.objective import objective
from bench.contenders.lean import LeanEncoder
from bench.harness import Absent, Contender

_CHUNK = 1024  # cells of a pass; the node states of NAS-Bench-101 (4 MB) stay in cache


def compiled(
    function: Callable[..., Any], first_call: Callable[[Callable[..., Any]], object]
) -> Callable[..., Any] | Absent:
    """`function` compiled for the shapes that `first_call` gives it, or why that is impossible."""
    torch.compiler.reset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Inductor's own, from its import on
            result = torch.compile(function, dynamic=False)
            first_call(result)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return Absent(f"torch.compile failed: {(lines or [type(error).__name__])[0][:120]}")
    return result


def training(
    recipe: Recipe, cells: spaces.CellBatch, *, training: bool, steps: int
) -> Contender | Absent:
    """The steps of `pretrain(engine="eager")`, forward, loss and backward compiled.

    Unpacking, clipping and Adam are the eager engine's: one operator, and a few over flat buffers.
    """
    torch.manual_seed(0)
    model = build_model(recipe, cells.layout).train(training)
    adam = FlatAdam(model.parameters(), recipe.learning_rate, fused=recipe.reduction != "released")
    order = torch.arange(steps * recipe.batch_size) % len(cells)
    batches = cells.to_torch()[order].split(recipe.batch_size)

    def loss_of(adjacency: Tensor, node_ops: Tensor) -> Tensor:
        return objective(model(adjacency, node_ops), adjacency, node_ops, recipe)[0]

    def step(loss: Callable[..., Tensor], codes: Tensor) -> None:
        adam.zero_grad()
        loss(*unpack(codes, cells.layout)).backward()
        adam.step(recipe.grad_clip)

    loss = compiled(loss_of, lambda loss: step(loss, batches[0]))
    if isinstance(loss, Absent):
        return loss

    def work() -> float:
        for codes in batches:
            step(loss, codes)
        return steps

    return work


def embedding(model: GinVae, cells: spaces.CellBatch) -> Contender | Absent:
    """`lean.embedding`, compiled."""
    lean = LeanEncoder(model, cells.layout)
    codes = cells.to_torch()
    codes = codes[: len(codes) // _CHUNK * _CHUNK]  # one shape, one compilation

    @torch.no_grad()
    def encode(adjacency: Tensor, node_ops: Tensor) -> Tensor:
        return lean.encode(adjacency, node_ops)

    encoder = compiled(encode, lambda encode: encode(*unpack(codes[:_CHUNK], cells.layout)))
    if isinstance(encoder, Absent):
        return encoder

    def work() -> float:
        for chunk in codes.split(_CHUNK):
            encoder(*unpack(chunk, cells.layout))
        return len(codes)

    return work

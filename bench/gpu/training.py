# SPDX-License-Identifier: Apache-2.0
"""One pretraining step of plain PyTorch on the GPU: eager, compiled, in a graph, with PyG's layers.

The rivals of the training kernels; the work is the released step on 32 NAS-Bench-101 cells, batch
norm in training mode, dropout, clipping and Adam included, and the same with frozen statistics.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from arch2vec_fast import spaces
from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.pretrain import objective
from bench.gpu.report import Report, graphed

BATCH = 32


def batch(count: int = BATCH) -> tuple[Tensor, Tensor]:
    """Dense NAS-Bench-101 cells on the GPU."""
    space = spaces.get("nasbench101")
    cells = space.sample(count, seed=0)
    adjacency, node_ops = unpack(cells.to_torch(), cells.layout)
    return adjacency.cuda(), node_ops.cuda()


def new_model(recipe: Recipe, *, frozen: bool) -> nn.Module:
    """A fresh model; `frozen` as the released code trains from its second epoch on."""
    torch.manual_seed(0)
    model = build_model(recipe, spaces.get("nasbench101").layout).cuda()
    return model.train(not frozen)


def step_of(
    model: nn.Module, recipe: Recipe, *, capturable: bool = False, compiled: bool = False
) -> Callable[[], Tensor]:
    """A training step on one batch, as a function.

    At a rate of zero, which is the same work: thousands of real steps on one batch end in numbers
    that are none, and torch's loss of sigmoids answers those by an assertion on the device.
    """
    adjacency, node_ops = batch()
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.0, fused=True, capturable=capturable)

    def loss_of(adjacency: Tensor, node_ops: Tensor) -> Tensor:
        return objective(model(adjacency, node_ops), adjacency, node_ops, recipe)[0]

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = forward(adjacency, node_ops)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.grad_clip, foreach=True)
        optimizer.step()
        return loss

    return step


def pyg_step(recipe: Recipe) -> Callable[[], object] | None:
    """Forward and backward of the encoder built of PyG's DenseGINConv, or None without PyG."""
    try:
        geometric = importlib.import_module("torch_geometric.nn")
    except ImportError:
        return None
    adjacency, node_ops = batch()
    both = adjacency + adjacency.transpose(1, 2)
    sizes = [node_ops.shape[2], *[recipe.hidden_dim] * (recipe.num_layers)]

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                geometric.DenseGINConv(
                    nn.Sequential(
                        nn.Linear(width, recipe.hidden_dim),
                        nn.ReLU(),
                        nn.Linear(recipe.hidden_dim, recipe.hidden_dim),
                        nn.ReLU(),
                    ),
                    train_eps=True,
                )
                for width in sizes[:-1]
            )
            self.head = nn.Linear(recipe.hidden_dim, 2 * recipe.latent_dim)

        def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x, adjacency)
            return self.head(x)

    model = Encoder().cuda()

    def step() -> None:
        model.zero_grad(set_to_none=False)
        model(node_ops, both).square().mean().backward()

    return step


def run(report: Report) -> None:
    """Rows of the training step in plain PyTorch."""
    recipe = Recipe.get("released", "nasbench101")

    def rival(name: str, make: Callable[[], Callable[[], object] | None]) -> None:
        row = f"training step, {BATCH} cells, {name}"
        report.attempt(row, lambda: report.race(row, {"torch": make()}))

    def step(frozen: bool, **options: bool) -> Callable[[], Tensor]:
        return step_of(new_model(recipe, frozen=frozen), recipe, **options)

    for frozen in (False, True):
        mode = "frozen statistics" if frozen else "batch statistics"
        rival(f"{mode}, eager", partial(step, frozen))
        rival(f"{mode}, torch.compile", partial(step, frozen, compiled=True))
        rival(
            f"{mode}, eager in a CUDA graph",
            lambda frozen=frozen: graphed(step(frozen, capturable=True)),
        )
    rival("PyG DenseGINConv encoder, forward and backward only", partial(pyg_step, recipe))

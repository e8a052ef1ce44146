# SPDX-License-Identifier: Apache-2.0
"""The DARTS supernet: every edge of a cell is a softmax-weighted sum of all operations.

Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arch2vec_fast.darts.operations import FactorizedReduce, build_operation, relu_conv_norm
from arch2vec_fast.spaces.darts import DartsNetwork, Genotype
from arch2vec_fast.spaces.darts_genotype import NUM_NODES, OPERATIONS

__all__ = ["NUM_EDGES", "Supernet", "discretize"]

NUM_EDGES = sum(2 + node for node in range(NUM_NODES))
"""Edges of a cell before discretisation: each of four nodes reads all earlier states, 14."""


class MixedOp(nn.Module):
    """All operations of the space on one edge, added with the weights given.

    Batch norms have no scale and shift, and pooling is followed by one, so that no operation can
    make itself louder than the others.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList()
        for name in OPERATIONS:
            operation = build_operation(name, channels, stride, affine=False)
            if "pool" in name:
                operation = nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False))
            self._ops.append(operation)

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        # `none` is zeros: its weight counts in the softmax, its arithmetic does not.
        return torch.stack(
            [
                weight * operation(images)
                for weight, operation, name in zip(weights, self._ops, OPERATIONS)
                if name != "none"
            ]
        ).sum(0)


class SearchCell(nn.Module):
    """A cell with a mixed operation on each of its 14 edges."""

    def __init__(
        self, inputs: tuple[int, int], channels: int, *, reduction: bool, after_reduction: bool
    ) -> None:
        super().__init__()
        self.preprocess0 = (
            FactorizedReduce(inputs[0], channels, affine=False)
            if after_reduction
            else relu_conv_norm(inputs[0], channels, affine=False)
        )
        self.preprocess1 = relu_conv_norm(inputs[1], channels, affine=False)
        self._ops = nn.ModuleList(
            MixedOp(channels, 2 if reduction and source < 2 else 1)
            for node in range(NUM_NODES)
            for source in range(2 + node)
        )
        self.reduction = reduction
        self.outputs = NUM_NODES * channels

    def forward(self, last: Tensor, now: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess0(last), self.preprocess1(now)]
        edge = 0
        for _ in range(NUM_NODES):
            reads = [
                self._ops[edge + i](state, weights[edge + i]) for i, state in enumerate(states)
            ]
            edge += len(states)
            states.append(torch.stack(reads).sum(0))
        return torch.cat(states[2:], dim=1)


class Supernet(nn.Module):
    """The network whose architecture is a pair of matrices, `arch_params` [2, 14, 8].

    config: size of the network; its `stem` must be "cifar". `arch_params` (normal cell, reduction
    cell) are given to `forward`, not part of the state dict: they are learnt by another optimiser.
    """

    def __init__(self, config: DartsNetwork) -> None:
        super().__init__()
        if config.stem != "cifar":
            raise ValueError(f"config.stem: {config.stem!r}; the supernet has the 'cifar' stem")
        channels, before = config.channels, 3 * config.channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, before, 3, padding=1, bias=False), nn.BatchNorm2d(before)
        )
        before_last, reduced = before, False
        self.cells = nn.ModuleList()
        for layer in range(config.layers):
            reduction = layer in (config.layers // 3, 2 * config.layers // 3)
            channels *= 2 if reduction else 1
            cell = SearchCell(
                (before_last, before), channels, reduction=reduction, after_reduction=reduced
            )
            self.cells.append(cell)
            before_last, before, reduced = before, cell.outputs, reduction
        self.classifier = nn.Linear(before, config.classes)

    def forward(self, images: Tensor, arch_params: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, 3, H, W] under arch_params [2, 14, 8]."""
        normal, reduce = arch_params.softmax(-1)
        last = now = self.stem(images)
        for cell in self.cells:
            last, now = now, cell(last, now, reduce if cell.reduction else normal)
        logits: Tensor = self.classifier(now.mean((2, 3)))
        return logits


def discretize(arch_params: Tensor) -> Genotype:
    """The genotype that arch_params [2, 14, 8] stand for.

    A node keeps the two edges whose strongest operation, `none` aside, has the largest weight, and
    on each of them that operation. Ties go to the earlier edge or operation.

    >>> discretize(torch.zeros(2, 14, 8)).normal[:2]
    (('max_pool_3x3', 0), ('max_pool_3x3', 1))
    """
    weights = arch_params.detach().double().softmax(-1).cpu()
    cells = []
    for matrix in weights:
        edges: list[tuple[str, int]] = []
        first = 0
        for node in range(NUM_NODES):
            inputs = 2 + node
            strength, best = matrix[first : first + inputs, 1:].max(1)  # 0 is `none`
            order = sorted(range(inputs), key=lambda source: -float(strength[source]))
            edges += [(OPERATIONS[int(best[source]) + 1], source) for source in sorted(order[:2])]
            first += inputs
        cells.append(tuple(edges))
    return Genotype(normal=cells[0], reduce=cells[1])

# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds and parameters of the network of a DARTS genotype, from a table.

Every operation of a cell writes the cell's own channels at the cell's own resolution, so what it
costs depends on itself alone; only `skip_connect` in a reduction cell depends on its input too (a
strided 1x1 convolution when it reads a cell input, nothing when it reads an inner node). The
network is therefore a constant plus one table entry an edge:

    cost = base + sum_e normal_table[op_e] + sum_e reduce_table[op_e, input_e < 2]

Layers are counted as thop 0.0.31 counts them in eval mode, the tool and release with which the
600,000 cells of arch2vec were chosen: convolution = outputs x kernel x inputs a group, linear =
inputs x outputs, batch norm = 2 an element, average pooling = 1 an output element, adaptive
average pooling = kernel + 1 an output element, all else 0. This gives the published 533M and 580M
of arch2vec's two cells (convolutions alone would give 524M and 571M, thop 0.1 with its 4 for each
batch-normalised element 540M and 588M). The auxiliary head is left out.

Source: Liu et al. (ICLR 2019), sections 3.1 and A; Yan et al. (NeurIPS 2020), appendix on the
DARTS space.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from arch2vec_fast.spaces.darts_genotype import OPERATIONS, Genotype, genotypes_to_edges

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DartsNetwork:
    """A network made of one normal and one reduction cell: its size and what surrounds the cells.

    Parameters
    ----------
    channels
        Channels C of the first cell; doubled at the reduction cells, layers // 3 and 2 * layers
        // 3.
    layers
        Number of cells.
    classes
        Outputs of the classifier.
    stem
        "cifar" (32x32 images, one convolution to 3C) or "imagenet" (224x224, three strided ones
        to C).
    affine
        Whether batch norms inside operations have scale and shift. NAS-Bench-301 counts without.
    """

    channels: int
    layers: int
    classes: int
    stem: Literal["cifar", "imagenet"]
    affine: bool = True

    def __post_init__(self) -> None:
        if self.channels < 2 or self.channels % 2:
            raise ValueError(
                f"channels: {self.channels}; give an even number, a reduction writes two halves"
            )
        if self.layers < 3:
            raise ValueError(
                f"layers: {self.layers}; give at least 3, two cells of the network are reductions"
            )
        if self.classes < 1:
            raise ValueError(f"classes: {self.classes}; give at least 1")
        if self.stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem: {self.stem!r}; give 'cifar' or 'imagenet'")


CIFAR10: Final = DartsNetwork(channels=36, layers=20, classes=10, stem="cifar")
IMAGENET: Final = DartsNetwork(channels=48, layers=14, classes=1000, stem="imagenet")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCost:
    """What networks cost, int64 [B]: multiply-adds for one image, and trainable parameters."""

    mult_adds: IntArray
    parameters: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """Additive cost of a network: last axis = (multiply-adds, parameters).

    ``base`` int64 [2] is everything but the operations of the cells; ``normal`` int64 [8, 2] one
    edge of the normal cell by operation, summed over all normal cells; ``reduce`` int64 [8, 2, 2]
    one edge of the reduction cell by operation and by "reads a cell input".
    """

    base: IntArray
    normal: IntArray
    reduce: IntArray

    def of_edges(self, normal: npt.NDArray[np.uint8], reduce: npt.NDArray[np.uint8]) -> NetworkCost:
        """Cost of B networks from edges uint8 [B, 8, 2] = (input, operation)."""
        reads_cell_input = (reduce[..., 0] < 2).astype(np.intp)
        total = self.base + self.normal[normal[..., 1]].sum(axis=1)
        total = total + self.reduce[reduce[..., 1], reads_cell_input].sum(axis=1)
        return NetworkCost(mult_adds=total[:, 0].copy(), parameters=total[:, 1].copy())

    def same_cell(self) -> IntArray:
        """int64 [8, 2, 2] like `reduce`: one edge when normal and reduction cell are the same."""
        return self.normal[:, None, :] + self.reduce


def _conv(inputs: int, outputs: int, kernel: int, size: int, groups: int = 1) -> IntArray:
    weights = outputs * (inputs // groups) * kernel * kernel
    return np.array([weights * size * size, weights], dtype=np.int64)


def _norm(channels: int, size: int, *, affine: bool = True) -> IntArray:
    return np.array([2 * channels * size * size, 2 * channels if affine else 0], dtype=np.int64)


def _operation_cost(op: str, channels: int, size: int, *, strided: bool, affine: bool) -> IntArray:
    """(multiply-adds, parameters) of one operation that writes [channels, size, size]."""
    norm = _norm(channels, size, affine=affine)
    if op in ("none", "max_pool_3x3"):
        return np.zeros(2, dtype=np.int64)
    if op == "avg_pool_3x3":
        return np.array([channels * size * size, 0], dtype=np.int64)
    if op == "skip_connect":  # strided: two 1x1 convolutions, each to half of the channels
        return (_conv(channels, channels, 1, size) + norm) * int(strided)
    repeats, kernel = (2 if op.startswith("sep") else 1), int(op[-1])
    depthwise = _conv(channels, channels, kernel, size, groups=channels)
    return repeats * (depthwise + _conv(channels, channels, 1, size) + norm)


def _stem_cost(network: DartsNetwork) -> tuple[IntArray, int, int]:
    """Cost of the stem, channels it writes, and the resolution of the first cell."""
    channels = network.channels
    if network.stem == "cifar":
        return _conv(3, 3 * channels, 3, 32) + _norm(3 * channels, 32), 3 * channels, 32
    half = channels // 2
    cost = _conv(3, half, 3, 112) + _norm(half, 112)
    cost = cost + _conv(half, channels, 3, 56) + _norm(channels, 56)
    return cost + _conv(channels, channels, 3, 28) + _norm(channels, 28), channels, 28


def _head_cost(network: DartsNetwork, channels: int, size: int) -> IntArray:
    pooled = 1 if network.stem == "imagenet" else size * size + 1
    linear = channels * network.classes
    return np.array([channels * pooled + linear, linear + network.classes], dtype=np.int64)


@lru_cache(maxsize=32)
def cost_table(network: DartsNetwork) -> CostTable:
    """The additive cost table of `network` (cached)."""
    base, before, size = _stem_cost(network)
    before_last, channels = before, network.channels
    normal = np.zeros((len(OPERATIONS), 2), dtype=np.int64)
    reduce = np.zeros((len(OPERATIONS), 2, 2), dtype=np.int64)
    for layer in range(network.layers):
        is_reduction = layer in (network.layers // 3, 2 * network.layers // 3)
        channels *= 2 if is_reduction else 1
        # A 1x1 convolution each brings both inputs to `channels` and to the later one's resolution.
        for inputs in (before_last, before):
            base = base + _conv(inputs, channels, 1, size) + _norm(channels, size)
        size //= 2 if is_reduction else 1
        for index, op in enumerate(OPERATIONS):
            flat, strided = (
                _operation_cost(op, channels, size, strided=stride, affine=network.affine)
                for stride in (False, True)
            )
            if is_reduction:
                reduce[index] += np.stack((flat, strided))
            else:
                normal[index] += flat
        before_last, before = before, 4 * channels
    for table in (base := base + _head_cost(network, before, size), normal, reduce):
        table.setflags(write=False)  # shared by every caller
    return CostTable(base=base, normal=normal, reduce=reduce)


def network_cost(
    genotypes: Genotype | list[Genotype] | tuple[Genotype, ...], network: DartsNetwork = IMAGENET
) -> NetworkCost:
    """Multiply-adds and parameters of the networks of ``genotypes``, both cells as they stand.

    Parameters
    ----------
    genotypes
        One or B of them; the costs are int64 [B], with B = 1 for one genotype.
    network
        ``IMAGENET`` (C = 48, 14 cells, 224x224, the default), ``CIFAR10`` (C = 36, 20 cells,
        32x32), or another. An auxiliary head is never counted.

    Examples
    --------
    >>> rl = Genotype.from_items("0:sep_conv_3x3|1:dil_conv_3x3|0:max_pool_3x3|1:dil_conv_3x3"
    ...                          "|0:skip_connect|1:sep_conv_3x3|1:dil_conv_5x5|0:sep_conv_3x3")
    >>> network_cost(rl).mult_adds, network_cost(rl, CIFAR10).parameters
    (array([532687680]), array([3298150]))
    """
    batch = [genotypes] if isinstance(genotypes, Genotype) else list(genotypes)
    normal = genotypes_to_edges(batch)
    return cost_table(network).of_edges(normal, genotypes_to_edges(batch, reduce=True))

# SPDX-License-Identifier: Apache-2.0
"""The networks that a DARTS genotype stands for: cells in a row, with an optional auxiliary head.

One class serves CIFAR-10 and ImageNet: they differ in the stem and in the auxiliary head. State
dicts have the keys of DARTS' and the released arch2vec code's `weights.pt`.

Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 3 and appendix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from arch2vec_fast.darts.operations import FactorizedReduce, build_operation, relu_conv_norm
from arch2vec_fast.spaces.darts import CIFAR10, DartsNetwork, Genotype

__all__ = ["Logits", "Network", "draw_paths"]


class Logits(NamedTuple):
    """What a network says of B images."""

    main: Tensor
    """[B, classes]."""
    auxiliary: Tensor | None
    """[B, classes] from the auxiliary head, in training alone; else None."""


class Network(nn.Module):
    """The network of a genotype.

    Args:
        genotype: normal and reduction cell.
        config: channels, layers, classes, stem; `spaces.darts.CIFAR10` or `IMAGENET`, or another.
        auxiliary: with the auxiliary head, for images of 32x32 ("cifar") or 224x224 ("imagenet").

    Example:
        >>> genotype = Genotype.from_items(
        ...     "0:sep_conv_3x3|1:skip_connect|0:none|2:max_pool_3x3"
        ...     "|0:sep_conv_5x5|1:dil_conv_3x3|3:skip_connect|4:avg_pool_3x3"
        ... )
        >>> config = DartsNetwork(channels=4, layers=3, classes=10, stem="cifar")
        >>> Network(genotype, config).eval()(torch.zeros(2, 3, 32, 32)).main.shape
        torch.Size([2, 10])
    """

    def __init__(
        self, genotype: Genotype, config: DartsNetwork = CIFAR10, *, auxiliary: bool = False
    ) -> None:
        super().__init__()
        self.genotype, self.config = genotype, config
        channels, before = config.channels, self._build_stem()
        before_last, reduced = before, config.stem == "imagenet"
        self.cells = nn.ModuleList()
        self.num_paths = 0
        self._auxiliary_after = 2 * config.layers // 3
        for layer in range(config.layers):
            reduction = layer in (config.layers // 3, 2 * config.layers // 3)
            channels *= 2 if reduction else 1
            cell = Cell(
                genotype,
                (before_last, before),
                channels,
                reduction=reduction,
                after_reduction=reduced,
                first_path=self.num_paths,
                affine=config.affine,
            )
            self.num_paths += cell.num_paths
            self.cells.append(cell)
            before_last, before, reduced = before, cell.outputs, reduction
            if layer == self._auxiliary_after:
                auxiliary_inputs = before
        self.auxiliary_head = None
        if auxiliary:
            self.auxiliary_head = AuxiliaryHead(auxiliary_inputs, config)
        self.classifier = nn.Linear(before, config.classes)

    def _build_stem(self) -> int:
        """Adds the stem's modules; returns the channels it writes."""
        channels = self.config.channels
        if self.config.stem == "cifar":
            self.stem = nn.Sequential(
                nn.Conv2d(3, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels)
            )
            return 3 * channels
        self.stem0 = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.stem1 = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        return channels

    def forward(self, images: Tensor, paths: Tensor | None = None) -> Logits:
        """Logits of images float [B, 3, H, W].

        paths: float [num_paths, B] of `draw_paths`, for drop path while training; None keeps all.
        """
        if self.config.stem == "cifar":
            last = now = self.stem(images)
        else:
            last = self.stem0(images)
            now = self.stem1(last)
        auxiliary = None
        for layer, cell in enumerate(self.cells):
            last, now = now, cell(last, now, paths)
            if layer == self._auxiliary_after and self.auxiliary_head is not None and self.training:
                auxiliary = self.auxiliary_head(now)
        return Logits(self.classifier(now.mean((2, 3))), auxiliary)


def draw_paths(
    network: Network, batch_size: int, drop_prob: float, generator: torch.Generator
) -> Tensor | None:
    """Drop path (Larsson et al. 2017): 0 or 1 / (1 - drop_prob) for every path and image.

    Every operation but an unstrided skip is dropped for a whole image with probability
    `drop_prob`. Returns float32 [num_paths, B] on the generator's device, None if nothing drops.
    """
    if not 0 <= drop_prob < 1:
        raise ValueError(f"drop_prob: {drop_prob} is outside [0, 1)")
    if drop_prob == 0:
        return None
    keep = 1 - drop_prob
    drawn = torch.empty(network.num_paths, batch_size, device=generator.device)
    return drawn.bernoulli_(keep, generator=generator) / keep


class Cell(nn.Module):
    """One cell: two inputs, four nodes that add two operations each, and their concatenation.

    first_path: where this cell's paths begin among those of the network; `num_paths` are its own.
    """

    def __init__(
        self,
        genotype: Genotype,
        inputs: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        after_reduction: bool,
        first_path: int,
        affine: bool,
    ) -> None:
        super().__init__()
        # After a reduction the earlier input has twice the resolution.
        self.preprocess0 = (
            FactorizedReduce(inputs[0], channels)
            if after_reduction
            else relu_conv_norm(inputs[0], channels)
        )
        self.preprocess1 = relu_conv_norm(inputs[1], channels)
        edges = genotype.reduce if reduction else genotype.normal
        self._ops = nn.ModuleList(
            build_operation(op, channels, 2 if reduction and source < 2 else 1, affine=affine)
            for op, source in edges
        )
        self._sources = [source for _, source in edges]
        self._paths: list[int | None] = []
        self.num_paths = 0
        for operation in self._ops:
            skips = isinstance(operation, nn.Identity)
            self._paths.append(None if skips else first_path + self.num_paths)
            self.num_paths += not skips
        self._concat = genotype.reduce_concat if reduction else genotype.normal_concat
        self.outputs = len(self._concat) * channels

    def forward(self, last: Tensor, now: Tensor, paths: Tensor | None) -> Tensor:
        states = [self.preprocess0(last), self.preprocess1(now)]
        for first in range(0, len(self._ops), 2):
            states.append(
                self._apply_operation(first, states, paths)
                + self._apply_operation(first + 1, states, paths)
            )
        return torch.cat([states[node] for node in self._concat], dim=1)

    def _apply_operation(
        self, index: int, states: Sequence[Tensor], paths: Tensor | None
    ) -> Tensor:
        result: Tensor = self._ops[index](states[self._sources[index]])
        path = self._paths[index]
        if paths is None or path is None or not self.training:
            return result
        return result * paths[path].to(result.dtype)[:, None, None, None]


class AuxiliaryHead(nn.Module):
    """A second classifier, two thirds of the way, that training alone listens to.

    The ImageNet head lacks the last batch norm, as in DARTS, whose numbers were made without it.
    """

    def __init__(self, inputs: int, config: DartsNetwork) -> None:
        super().__init__()
        imagenet = config.stem == "imagenet"
        self._size = 7 if imagenet else 8
        self._image = 224 if imagenet else 32
        last = [] if imagenet else [nn.BatchNorm2d(768)]
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=2 if imagenet else 3, count_include_pad=False),
            nn.Conv2d(inputs, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
            nn.Conv2d(128, 768, 2, bias=False),
            *last,
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(768, config.classes)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-2:] != (self._size, self._size):
            raise ValueError(
                f"auxiliary: the head needs images of {self._image}x{self._image}; "
                "pad or resize them, or train without auxiliary=True"
            )
        logits: Tensor = self.classifier(self.features(features).flatten(1))
        return logits

# SPDX-License-Identifier: Apache-2.0
"""The operations of the DARTS space as torch modules (Liu et al., ICLR 2019, appendix A.1).

Names and numbering of parameters are those of DARTS checkpoints (`op.1.weight`, `conv_1.weight`),
so released weights load. Images are [B, C, H, W]; every operation keeps C and, with stride 2,
halves H and W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arch2vec_fast.darts.depthwise import Depthwise

__all__ = ["FactorizedReduce", "build_operation", "relu_conv_norm"]


def build_operation(name: str, channels: int, stride: int, *, affine: bool = True) -> nn.Module:
    """The module of one of `spaces.darts_genotype.OPERATIONS` for `channels` channels.

    >>> build_operation("dil_conv_3x3", 4, 2)(torch.zeros(1, 4, 8, 8)).shape
    torch.Size([1, 4, 4, 4])
    """
    kind, _, kernel = name.rpartition("_")
    size = int(kernel[0]) if kernel[0].isdigit() else 0
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=affine)
    if kind == "max_pool":
        return nn.MaxPool2d(size, stride, padding=size // 2)
    if kind == "avg_pool":
        return nn.AvgPool2d(size, stride, padding=size // 2, count_include_pad=False)
    if kind == "sep_conv":
        first = _depthwise_separable(channels, size, stride, dilation=1, affine=affine)
        second = _depthwise_separable(channels, size, 1, dilation=1, affine=affine)
        return _Operation(*first, *second)
    if kind == "dil_conv":
        return _Operation(*_depthwise_separable(channels, size, stride, dilation=2, affine=affine))
    raise ValueError(f"name: {name!r} is not an operation of the DARTS space")


def relu_conv_norm(inputs: int, outputs: int, *, affine: bool = True) -> nn.Module:
    """ReLU, 1x1 convolution, batch norm: how a cell brings its inputs to its own width."""
    return _Operation(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs, affine=affine),
    )


class _Operation(nn.Module):
    """A sequence under the name `op`, which DARTS checkpoints carry."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.op(images)
        return result


def _depthwise_separable(
    channels: int, size: int, stride: int, *, dilation: int, affine: bool
) -> tuple[nn.Module, ...]:
    """ReLU, depthwise convolution, 1x1 convolution, batch norm."""
    depthwise = Depthwise(channels, size, stride, dilation=dilation)
    pointwise = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.ReLU(), depthwise, pointwise, nn.BatchNorm2d(channels, affine=affine)


class Zero(nn.Module):
    """The operation `none`: zeros of the output's shape."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros_like(images[:, :, :: self.stride, :: self.stride])


class FactorizedReduce(nn.Module):
    """Halves the resolution by two 1x1 convolutions, one on even pixels and one on odd ones."""

    def __init__(self, inputs: int, outputs: int, *, affine: bool = True) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.conv_2 = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, images: Tensor) -> Tensor:
        # Picking the pixels first is faster than a stride: the others are not even activated.
        halves = [
            convolution(torch.relu(images[:, :, first::2, first::2]))
            for first, convolution in enumerate((self.conv_1, self.conv_2))
        ]
        result: Tensor = self.bn(torch.cat(halves, dim=1))
        return result

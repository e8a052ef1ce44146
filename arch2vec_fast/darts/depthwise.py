# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolutions; those that are dilated have a backward pass that is fast on the CPU.

oneDNN 3.12 (in torch 2.13) has no depthwise kernel for either gradient of a dilated convolution:
grouped and matrix-product kernels take ten times as long there, and took most of a training step.
Its other depthwise kernels do the same work:

- stride 2 and dilation 2 touch every other pixel alone: neither is needed on those pixels;
- the gradient of the images is a convolution with the mirrored kernel;
- the gradient of the weights is that of k kernels k x 1, one for each column, on images shifted
  sideways; with two rows of pixels read as one, the row below is two rows below.

Results differ from torch's by rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

__all__ = ["Depthwise"]

_DILATION = 2


class Depthwise(nn.Conv2d):
    """A depthwise convolution that keeps height and width, or halves them with stride 2.

    size: of the kernel, odd. dilation: 1 or 2. Parameters, results and gradients are those of
    `nn.Conv2d(C, C, size, stride, padding=dilation * (size // 2), dilation=dilation, groups=C,
    bias=False)` for images [B, C, H, W].

    On the CPU a dilated one is computed as the module says: with stride 2 always, with stride 1 for
    float32 in channels_last and C a multiple of eight, if neither autocast nor compiled. All else
    is torch's.
    """

    def __init__(self, channels: int, size: int, stride: int, *, dilation: int = 1) -> None:
        super().__init__(
            *(channels, channels, size, stride),
            padding=dilation * (size // 2),
            dilation=dilation,
            groups=channels,
            bias=False,
        )

    def forward(self, images: Tensor) -> Tensor:
        dilated = self.dilation[0] == _DILATION and images.is_cpu
        if not dilated or torch.compiler.is_compiling():
            return super().forward(images)
        if self.stride[0] == 2:
            last = images.is_contiguous(memory_format=torch.channels_last)
            images = images[:, :, ::2, ::2].contiguous(
                memory_format=torch.channels_last if last else torch.contiguous_format
            )
            padding = self.kernel_size[0] // 2
            return F.conv2d(images, self.weight, padding=padding, groups=self.groups)
        if not self._suits(images):
            return super().forward(images)
        result: Tensor = _Dilated.apply(images, self.weight)  # type: ignore[no-untyped-call]
        return result

    def _suits(self, images: Tensor) -> bool:
        return (
            images.dtype == self.weight.dtype == torch.float32
            and self.weight.requires_grad
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and images.shape[1] % 8 == 0
            and images.is_contiguous(memory_format=torch.channels_last)
        )


class _Dilated(torch.autograd.Function):
    """Dilation 2, stride 1."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return _convolve(images, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        images, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_images = _convolve(grad, weight.flip(2, 3)) if ctx.needs_input_grad[0] else None
        return of_images, _weight_gradient(images, grad, weight)


def _convolve(images: Tensor, weight: Tensor) -> Tensor:
    size = weight.shape[2]
    return F.conv2d(
        *(images, weight), padding=size // 2 * _DILATION, dilation=_DILATION, groups=len(weight)
    )


def _weight_gradient(images: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """[C, 1, k, k] from images and the gradient of the result, both [B, C, H, W].

    Both get zeros to the right and, up to the kernel's height, below; the images also some pixels
    of zeros before the first and after the last. A pixel two columns on is then two places on in
    memory: what runs over an edge meets zeros of the images or of the gradient.
    """
    batch, channels, height, width = images.shape
    size = weight.shape[2]
    reach = size // 2 * _DILATION
    pairs, wide = max(-(-height // 2), size), width + reach
    pixels = batch * 2 * pairs * wide
    padded = [images.new_zeros(pixels + 2 * reach, channels) for _ in range(2)]
    for values, place in zip((images, grad), padded):
        body = place[reach : reach + pixels].view(batch, 2 * pairs, wide, channels)
        body[:, :height, :width] = values.permute(0, 2, 3, 1)
    columns = []
    for column in range(size):
        shift = column * _DILATION - reach
        there, here = (
            place[reach + by : reach + by + pixels]
            .view(batch, pairs, 2 * wide, channels)
            .permute(0, 3, 1, 2)
            for place, by in zip(padded, (shift, 0))
        )
        gradient = conv2d_weight(
            there, (channels, 1, size, 1), here, padding=(size // 2, 0), groups=channels
        )
        columns.append(gradient)
    return torch.cat(columns, dim=3)

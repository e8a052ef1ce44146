# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolutions: torch's results and gradients, whichever way they are computed."""

import pytest
import torch
from torch import Tensor, nn

from arch2vec_fast.darts.depthwise import Depthwise

FORMATS = {"last": torch.channels_last, "first": torch.contiguous_format}


def pair(channels: int, size: int, stride: int, dilation: int) -> tuple[Depthwise, nn.Conv2d]:
    torch.manual_seed(0)
    ours = Depthwise(channels, size, stride, dilation=dilation)
    padding = dilation * (size // 2)
    theirs = nn.Conv2d(
        *(channels, channels, size, stride),
        padding=padding,
        dilation=dilation,
        groups=channels,
        bias=False,
    )
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def both_ways(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Result, gradient of the images and of the weights, for one gradient of the result."""
    images = images.detach().requires_grad_()
    result = module(images)
    upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return [result, *torch.autograd.grad(result, (images, *module.parameters()), upstream)]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 4), (9, 16), (11, 7)])
def test_matches_torch(
    height: int, width: int, size: int, dilation: int, stride: int, format_: str
) -> None:
    ours, theirs = pair(8, size, stride, dilation)
    images = torch.randn(3, 8, height, width).contiguous(memory_format=FORMATS[format_])
    for mine, expected in zip(both_ways(ours, images), both_ways(theirs, images)):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-4)


def test_dilated_ones_are_computed_anew_and_keep_their_memory_format() -> None:
    ours, theirs = pair(16, 5, 1, 2)
    images = torch.randn(2, 16, 6, 6).contiguous(memory_format=torch.channels_last)
    result = ours(images)
    assert "Dilated" in type(result.grad_fn).__name__
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, theirs(images), rtol=0, atol=1e-6)
    for stride in (1, 2):
        halves = pair(16, 3, stride, 2)[0](images)
        assert halves.is_contiguous(memory_format=torch.channels_last)


def test_a_step_has_the_same_bits_every_time() -> None:
    ours, _ = pair(8, 5, 1, 2)
    images = torch.randn(4, 8, 10, 10).contiguous(memory_format=torch.channels_last)
    first, second = both_ways(ours, images), both_ways(ours, images)
    for one, two in zip(first, second):
        assert torch.equal(one, two)


def test_ways_that_are_torchs_own() -> None:
    """Other channels, number formats and modes fall back, silently and rightly."""
    ours, theirs = pair(8, 3, 1, 2)
    images = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(images).dtype == torch.bfloat16
    double = ours.double()
    assert torch.autograd.gradcheck(double, images[:1, :, :3, :3].double().requires_grad_())
    odd, other = pair(6, 3, 1, 2)
    for mine, expected in zip(both_ways(odd, images[:, :6]), both_ways(other, images[:, :6])):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-4)

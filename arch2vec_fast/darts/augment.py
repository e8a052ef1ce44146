# SPDX-License-Identifier: Apache-2.0
"""Crop, mirror, colours and cutout of a whole batch in a few tensor operations, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["augment", "jitter", "normalize"]

# Of red, green and blue in the brightness of a pixel (ITU-R 601), as Pillow and torchvision weigh.
_LUMA = (0.299, 0.587, 0.114)


def augment(
    images: Tensor, generator: torch.Generator, *, padding: int = 0, flip: bool = False
) -> Tensor:
    """Crop and mirror images, each in its own way.

    padding: zeros on every side before a crop of the old size at a uniform place. flip: mirror each
    image with probability 1/2. images: any dtype [B, C, H, W], on the generator's device; the
    result has the same dtype and shape.

    Example:
        >>> batch = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
        >>> augment(batch, torch.Generator().manual_seed(0), padding=1).shape
        torch.Size([1, 1, 2, 2])
    """
    batch, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(batch, -1)
    columns = torch.arange(width, device=device).expand(batch, -1)
    if padding:
        images = torch.nn.functional.pad(images, (padding,) * 4)
        offsets = torch.randint(
            0, 2 * padding + 1, (2, batch, 1), generator=generator, device=device
        )
        rows, columns = rows + offsets[0], columns + offsets[1]
    if flip:
        mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    # A gather of rows, then of columns, moves whole lines: far cheaper than one of single pixels.
    index = torch.arange(batch, device=device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def jitter(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    order: Sequence[int] = (0, 1, 2, 3),
) -> Tensor:
    """Change the colours of images, each in its own way, as torchvision's ColorJitter does.

    Brightness multiplies, contrast blends with the image's mean grey, saturation with its own grey
    version, by factors uniform in [1 - x, 1 + x] (from 0 at least); hue turns the colour circle by
    a share of it uniform in [-hue, hue], at most 1/2. order: in which the four are done, one for
    the whole batch (ColorJitter draws one an image). Values are clipped to 0..255 after each and,
    unlike Pillow's, never rounded.

    images: any dtype [B, 3, H, W], in 0..255, on the generator's device. Returns float32.

    Example:
        >>> grey = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
        >>> turned = jitter(grey, torch.Generator().manual_seed(0), saturation=0.4, hue=0.2)
        >>> torch.allclose(turned, grey.float())
        True
    """
    pixels = images.float()
    steps = (
        (_change_brightness, brightness),
        (_change_contrast, contrast),
        (_change_saturation, saturation),
        (_turn_hue, hue),
    )
    for index in order:
        change, strength = steps[index]
        if not strength:
            continue
        drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
        low, high = (-hue, hue) if change is _turn_hue else (max(0.0, 1 - strength), 1 + strength)
        pixels = change(pixels, low + (high - low) * drawn)
    return pixels


def _change_brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return (pixels * factor).clamp(0, 255)


def _change_contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(pixels).mean((2, 3), keepdim=True)
    return torch.lerp(mean, pixels, factor).clamp(0, 255)


def _change_saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(pixels), pixels, factor).clamp(0, 255)


def _grey(pixels: Tensor) -> Tensor:
    """Brightness of each pixel, [B, 1, H, W]."""
    red, green, blue = pixels.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def _turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of the HSV hexagon by a share of the circle, [B, 1, 1, 1].

    Value and chroma (largest minus smallest channel) stay, so only hues in sixths of the circle
    are worked out: channel n of (5, 3, 1) is value - chroma * clip(min(k, 4 - k), 0, 1) with
    k = (n + hue) mod 6.
    """
    value, largest = pixels.max(1, keepdim=True)
    chroma = value - pixels.amin(1, keepdim=True)
    red, green, blue = pixels.unbind(1)
    ahead = torch.stack((green - blue, blue - red, red - green), 1).gather(1, largest)
    # Where chroma is zero `ahead` is too, and the hue makes no difference.
    hue = 2 * largest + ahead / chroma.clamp(min=1e-6) + 6 * turn
    starts = torch.tensor((5.0, 3.0, 1.0), device=pixels.device)[:, None, None]
    place = (starts + hue) % 6
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def normalize(
    images: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    cutout: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Levels 0..255 to float32 of zero mean and unit deviation a channel, a square set to zero.

    cutout (DeVries and Taylor 2017): side of the square; its centre is uniform over the image, and
    it is clipped at the border. mean, std: [C], in units of [0, 1].
    """
    scale = 1 / (255 * std)
    result = images.float() * scale[:, None, None] - (mean / std)[:, None, None]
    if not cutout:
        return result
    batch, _, height, width = images.shape
    hidden = []
    for size in (height, width):
        centre = torch.randint(0, size, (batch, 1), generator=generator, device=images.device)
        place = torch.arange(size, device=images.device)
        hidden.append((place >= centre - cutout // 2) & (place < centre + cutout // 2))
    square = hidden[0][:, None, :, None] & hidden[1][:, None, None, :]
    return result.masked_fill(square, 0.0)

# SPDX-License-Identifier: Apache-2.0
"""Random crop, mirror and cutout of a whole batch in a few tensor operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["augment", "normalize"]


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


def normalize(
    images: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    cutout: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Bytes to float32 of zero mean and unit deviation a channel, with a square set to zero.

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

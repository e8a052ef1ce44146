# SPDX-License-Identifier: Apache-2.0
"""Crop, mirror and cutout of a batch, against the plain way one image at a time."""

import numpy as np
import torch

from arch2vec_fast.darts.augment import augment, normalize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_image_is_a_crop_of_itself_mirrored_or_not() -> None:
    images = torch.randint(1, 256, (64, 3, 5, 7), dtype=torch.uint8)
    result = augment(images, generator(), padding=2, flip=True)
    assert result.dtype == torch.uint8
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for image, whole in zip(result, padded):
        matches = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if torch.equal(
                image.flip(2) if mirrored else image, whole[:, top : top + 5, left : left + 7]
            )
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 30  # of 50 ways
    assert torch.equal(result, augment(images, generator(), padding=2, flip=True))
    assert not torch.equal(result, augment(images, generator(1), padding=2, flip=True))


def test_nothing_asked_nothing_done() -> None:
    images = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    assert torch.equal(augment(images, generator()), images)


def test_normalised_as_torchvision_does() -> None:
    images = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    expected = (images.double() / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(normalize(images, mean, std).double(), expected, rtol=0, atol=1e-5)


def test_cutout_blanks_one_clipped_square() -> None:
    images = torch.full((200, 3, 12, 12), 255, dtype=torch.uint8)
    half = torch.full((3,), 0.5)
    result = normalize(images, half, half, cutout=4, generator=generator())
    corners = set()
    for image in result:
        assert torch.equal(image[0], image[1])
        rows, columns = (np.flatnonzero((image[0] == 0).any(dim)) for dim in (1, 0))
        assert (image[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 0).all()
        assert 2 <= len(rows) <= 4
        assert 2 <= len(columns) <= 4
        assert (image[0] == 0).sum() == len(rows) * len(columns)
        corners.add((rows[-1], columns[-1]))
    assert len(corners) > 60  # the centre is anywhere, of 144 places

# SPDX-License-Identifier: Apache-2.0
"""Crop, mirror and cutout of a batch, against the plain way one image at a time."""

import numpy as np
import pytest
import torch

from arch2vec_fast.darts.augment import augment, jitter, normalize


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


ALL = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}


def drawn(seed: int, low: float, high: float, count: int) -> np.ndarray:
    """The factors that `jitter` draws when it does one thing alone."""
    return (low + (high - low) * torch.rand(count, generator=generator(seed))).numpy()


def test_no_change_of_colour_is_no_change() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 7), dtype=torch.uint8)
    assert torch.equal(jitter(images, generator()), images.float())
    for strength in ALL:  # factors of almost exactly one, a turn of almost nothing
        result = jitter(images, generator(), **{strength: 1e-9})
        torch.testing.assert_close(result, images.float(), rtol=0, atol=1e-3)


def test_grey_stays_grey_and_black_black() -> None:
    images = torch.randint(0, 256, (9, 1, 5, 7), dtype=torch.uint8).expand(-1, 3, -1, -1)
    result = jitter(images, generator(), **ALL, order=(3, 1, 0, 2))
    assert (result.amax(1) - result.amin(1)).max() < 1e-3
    assert not jitter(torch.zeros(2, 3, 4, 4), generator(), **ALL).any()


def test_values_stay_in_range_and_images_differ() -> None:
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8).expand(50, -1, -1, -1)
    result = jitter(images, generator(), brightness=2.0, contrast=2.0, saturation=2.0, hue=0.5)
    assert result.min() >= 0
    assert result.max() <= 255
    assert len({image.sum().item() for image in result}) > 45
    strengths = {"brightness": 0.4, "contrast": 0.9}
    one, other = (
        jitter(images, generator(), **strengths, order=order) for order in ((0, 1), (1, 0))
    )
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")],
)
def test_factors_as_pillow_applies_them(name: str, enhancer: str) -> None:
    """What torchvision calls on Pillow images; Pillow rounds to whole levels."""
    enhance = pytest.importorskip("PIL.ImageEnhance")
    from PIL import Image

    images = torch.randint(0, 256, (20, 3, 9, 7), dtype=torch.uint8)
    result = jitter(images, generator(5), **{name: 0.4}).permute(0, 2, 3, 1).numpy()
    factors = drawn(5, 0.6, 1.4, 20)
    assert factors.min() < 0.7
    assert factors.max() > 1.3
    for image, changed, factor in zip(images.permute(0, 2, 3, 1).numpy(), result, factors):
        expected = getattr(enhance, enhancer)(Image.fromarray(image)).enhance(float(factor))
        np.testing.assert_allclose(changed, np.array(expected, np.float32), rtol=0, atol=1.6)


def test_hue_turns_as_colorsys_does() -> None:
    from colorsys import hsv_to_rgb, rgb_to_hsv

    images = torch.randint(0, 256, (12, 3, 4, 5), dtype=torch.uint8)
    images[0, :2] = 200  # two channels share the largest value
    result = jitter(images, generator(2), hue=0.5).permute(0, 2, 3, 1).reshape(12, -1, 3)
    turns = drawn(2, -0.5, 0.5, 12)
    for image, changed, turn in zip(images.permute(0, 2, 3, 1).reshape(12, -1, 3), result, turns):
        for before, after in zip((image / 255).tolist(), changed.tolist()):
            hue, saturation, value = rgb_to_hsv(*before)
            expected = hsv_to_rgb((hue + float(turn)) % 1, saturation, value)
            np.testing.assert_allclose(after, np.multiply(expected, 255), rtol=0, atol=2e-2)


def test_the_same_draws_change_colours_alike() -> None:
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    one, two, other = (jitter(images, generator(seed), **ALL) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)

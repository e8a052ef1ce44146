# SPDX-License-Identifier: Apache-2.0
"""A benchmark whose accuracies are a smooth function of the cell, and images easy to tell apart."""

import numpy as np
import torch

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.darts.images import ImageSet

SPACE = spaces.get("nasbench201")
_WORTH = np.array([0, 2, 3, 1, 1.5, 0, 0])  # by operation of a node


def toy_benchmark(*, fidelities: tuple[int, ...] = (12,), runs: int = 1) -> TableBenchmark:
    """Reward: the worth of a cell's operations, weighted by edge, with small fixed noise."""
    cells = SPACE.enumerate()
    _, node_ops = cells.to_dense()
    worth = _WORTH[node_ops[:, 1:7]] @ np.array([1, 1.2, 0.8, 1.5, 1, 1.3])
    rng = np.random.default_rng(0)
    clean = 0.2 + 0.7 * worth / worth.max()
    validation = np.empty((len(cells), len(fidelities), runs))
    for index, epochs in enumerate(fidelities):
        noise = rng.normal(0, 0.02 / epochs, (len(cells), runs))
        validation[:, index] = clean[:, None] * (1 - 0.3 / epochs) + noise
    times = np.outer(50 + 100 * clean, np.array(fidelities) / fidelities[-1])
    return TableBenchmark(
        name="toy",
        space=SPACE,
        cells=cells,
        reward="made-up accuracy",
        fidelities=fidelities,
        validation=validation.clip(0, 1),
        test=clean,
        times=times,
    )


def toy_images() -> ImageSet:
    """Three classes of 16x16: noise with bright rows, bright columns, or neither."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=240)
    pixels = rng.integers(0, 100, (240, 3, 16, 16), dtype=np.uint8)
    pixels[labels == 0, :, ::4] += 140
    pixels[labels == 1, :, :, ::4] += 140
    images, classes = torch.from_numpy(pixels), torch.from_numpy(labels)
    return ImageSet(
        name="stripes",
        train_images=images[:200],
        train_labels=classes[:200],
        test_images=images[200:],
        test_labels=classes[200:],
        classes=3,
        mean=(0.25, 0.25, 0.25),
        std=(0.2, 0.2, 0.2),
    )

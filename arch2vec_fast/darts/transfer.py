# SPDX-License-Identifier: Apache-2.0
"""The ImageNet transfer of the paper: cells found on CIFAR-10, trained on ImageNet.

A directory holds `GENOTYPE/SEED`, the training of each network (`train`): resumable, and a
finished one is read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arch2vec_fast.darts.published import IMAGENET_RESULTS
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.source import ImageSource
from arch2vec_fast.darts.train import Speed, TrainResult, train
from arch2vec_fast.spaces.darts import IMAGENET, Genotype, network_cost

__all__ = ["sizes", "train_rows"]


def sizes(genotypes: Mapping[str, Genotype]) -> list[dict[str, Any]]:
    """A row a genotype: its mobile network on ImageNet, exactly, and what is published of it.

    Keys: name, genotype, parameters, mult_adds, quoted (method, error, top5, parameters, mult_adds,
    source; None if nothing is), trained (None).
    """
    found = []
    for name, genotype in genotypes.items():
        cost = network_cost(genotype, IMAGENET)
        quoted = IMAGENET_RESULTS.get(name)
        found.append(
            {
                "name": name,
                "genotype": str(genotype),
                "parameters": int(cost.parameters[0]),
                "mult_adds": int(cost.mult_adds[0]),
                "quoted": quoted
                and {
                    "method": quoted.method,
                    "error": quoted.error,
                    "top5": quoted.top5,
                    "parameters": quoted.parameters,
                    "mult_adds": quoted.mult_adds,
                    "source": quoted.source,
                },
                "trained": None,
            }
        )
    return found


def train_rows(
    genotypes: Mapping[str, Genotype],
    images: ImageSource,
    recipe: TrainRecipe,
    out: str | Path,
    *,
    seeds: int = 1,
    device: str | torch.device = "cpu",
    speed: Speed | None = None,
    progress: bool = False,
    on_start: Callable[[str, int], None] = lambda name, seed: None,
) -> Iterator[dict[str, Any]]:
    """The rows of `sizes` with "trained" filled in: errors, top5 (a number a seed), seconds,
    parameters of the network that was trained.

    Raises as `train` does.
    """
    for row in sizes(genotypes):
        name, genotype = row["name"], genotypes[row["name"]]
        results: list[TrainResult] = []
        for seed in range(seeds):
            on_start(name, seed)
            place = Path(out) / name / str(seed)
            results.append(
                train(
                    genotype,
                    images,
                    recipe,
                    out=place,
                    seed=seed,
                    device=device,
                    speed=speed,
                    progress=progress,
                )
            )
        errors = [1 - result.test for result in results]
        size = network_cost(genotype, recipe.network(images.classes))
        row["trained"] = {
            "errors": errors,
            "error": float(np.mean(errors)),
            "std": float(np.std(errors, ddof=1)) if seeds > 1 else None,
            "top5": float(np.mean([1 - result.test_top5 for result in results])),
            "seconds": [result.seconds for result in results],
            "parameters": int(size.parameters[0]),
        }
        yield row

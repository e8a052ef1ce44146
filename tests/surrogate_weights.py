# SPDX-License-Identifier: Apache-2.0
"""A NAS-Bench-301 surrogate of a few weights."""

import numpy as np


def surrogate_weights() -> dict[str, np.ndarray]:
    """Small random weights of the right names."""
    rng = np.random.default_rng(0)
    sizes = [8] * 28 + [4, 7, 11] * 2
    arrays = {f"embds_fct_{i}_weight": rng.normal(size=(n, 2)) for i, n in enumerate(sizes)}
    towers = {"wide": [69, 2], "deep": [69, 5, 4, 2], "deeper": [69, 4, 4, 3, 3, 2]}
    for tower, widths in towers.items():
        for layer, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            last = layer == len(widths) - 2
            name = f"{tower}_{layer}" + ("" if tower == "wide" else f"_{int(not last)}")
            arrays[f"{name}_weight"] = rng.normal(size=(outputs, inputs))
            arrays[f"{name}_bias"] = rng.normal(size=outputs)
    return {name: (0.2 * array).astype(np.float32) for name, array in arrays.items()}

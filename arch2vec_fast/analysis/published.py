# SPDX-License-Identifier: Apache-2.0
"""The authors' own search curves on NAS-Bench-101, drawn beside ours where they are at hand.

The file `arch2vec_nb101_published_traces.npz` of `ARCH2VEC_DATA` holds the curves published with
the released code: mean regret over 500 searches against seconds, on all 423,624 cells. They were
averaged in the authors' way (times and regrets at equal query index, cut to the shortest search),
so near the right end they are not comparable to the last per mille.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["FILE", "NOTE", "SEARCHES", "PublishedCurve", "published_curves"]

FILE = "arch2vec_nb101_published_traces.npz"
SEARCHES = 500
NOTE = (
    f"published (authors' curves): another reward and pool, all 423,624 cells, {SEARCHES} searches"
)

_METHODS = {
    "Random_Search_Encoding_A": "random",
    "Regularized_Evolution_Encoding_A": "evolution",
    "Reinforce_Search_Encoding_A": "reinforce",
    "BOHB_Search_Encoding_A": "bohb",
    "RL_supervised_nasbench_101": "supervised-rl",
    "BO_supervised_nasbench_101": "supervised-bo",
    "RL_arch2vec_model_nasbench_101": "arch2vec-rl",
    "BO_arch2vec_model_nasbench_101": "arch2vec-bo",
}


@dataclass(frozen=True, slots=True, eq=False)
class PublishedCurve:
    """Mean regrets of one method against seconds, [n] each, in [0, 1]."""

    method: str
    seconds: NDArray[np.float64]
    test: NDArray[np.float64]
    validation: NDArray[np.float64]


def published_curves(folder: Path | None = None) -> list[PublishedCurve]:
    """The curves in `folder`, by default that of `ARCH2VEC_DATA`; none where there is no file."""
    if folder is None:
        value = os.environ.get("ARCH2VEC_DATA")
        if not value:
            return []
        folder = Path(value)
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [
                PublishedCurve(
                    method,
                    *(
                        archive[f"{name}__{part}_plot"].astype(np.float64)
                        for part in ("time", "test", "valid")
                    ),
                )
                for name, method in _METHODS.items()
            ]
    except Exception as error:  # zipfile, zlib, numpy and KeyError, by where the file is cut
        raise ValueError(f"{path}: not the file of published curves ({error})") from None

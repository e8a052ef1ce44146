# SPDX-License-Identifier: Apache-2.0
"""What others published of searches on NAS-Bench-101, to stand beside ours as quoted.

The file `arch2vec_nb101_published_traces.npz` of `ARCH2VEC_DATA` holds the curves published with
the released code: mean regret over 500 searches against seconds, on all 423,624 cells. They were
averaged in the authors' way (times and regrets at equal query index, cut to the shortest search),
so near the right end they are not comparable to the last per mille.

Single numbers stand here only as a text prints them that was read. The rows of the paper's Table 2
and Table 3 that nobody runs here, NAO among them, are in no text at hand and are left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["ERRORS", "FILE", "NOTE", "SEARCHES", "Errors", "PublishedCurve", "published_curves"]

FILE = "arch2vec_nb101_published_traces.npz"
SEARCHES = 500
NOTE = (
    f"published (authors' curves): another reward and pool, all 423,624 cells, {SEARCHES} searches"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Mean test errors in [0, 1] of what searches returned, a number of `searches` a method.

    queries: after how many.
    """

    source: str
    searches: int
    queries: int
    methods: Mapping[str, float]


ERRORS = Errors(
    source="Sci. Rep. s41598-025-94187-8",
    searches=200,
    queries=150,
    methods={
        "BANANAS": 0.05923,
        "Local search": 0.05932,
        "BONAS": 0.05954,
        "BOHAMIANN": 0.06010,
        "DNGO": 0.06085,
        "Regularised evolution": 0.06109,
        "AlphaX": 0.06233,
        "NASBOT": 0.06250,
        "BO with a Gaussian process": 0.06267,
        "GCN predictor": 0.06331,
        "Random search": 0.06341,
        "BOHB": 0.06356,
        "TPE": 0.06415,
        "REINFORCE": 0.06436,
    },
)
"""Methods that nobody runs here (BONAS, BOHAMIANN, AlphaX, ...) and others, best first.

Table 1 of that article, as far as it takes its rows from BANANAS (White et al. 2021).
"""

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

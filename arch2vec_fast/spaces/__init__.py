# SPDX-License-Identifier: Apache-2.0
"""Cells and cell spaces: packed batches, canonical form, validity, enumeration, sampling.

Needs numpy and the compiled ``_cells`` only; torch is imported inside ``CellBatch.to_torch`` alone.
"""

from arch2vec_fast.spaces._registry import get, names
from arch2vec_fast.spaces.base import CellSpace
from arch2vec_fast.spaces.cell_batch import CellBatch
from arch2vec_fast.spaces.layout import CellLayout
from arch2vec_fast.spaces.wl import WlHistogram, wl_histogram

__all__ = [
    "CellBatch",
    "CellLayout",
    "CellSpace",
    "WlHistogram",
    "get",
    "names",
    "wl_histogram",
]

# SPDX-License-Identifier: Apache-2.0
"""arch2vec, fast: embeddings of neural-network cells, learnt without accuracies.

The public names, nothing else. They are resolved on first use, because `arch2vec_fast.spaces` must
work without torch.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from arch2vec_fast import (
        analysis,
        compat,
        embeddings,
        functional,
        index,
        models,
        pretrain,
        reference,
        spaces,
        surrogates,
    )
    from arch2vec_fast.embeddings import EmbeddingTable, embed
    from arch2vec_fast.index import LatentIndex, VisitedSet, build_index
    from arch2vec_fast.models import Recipe, build_model
    from arch2vec_fast.pretrain import Run
    from arch2vec_fast.pretrain.metrics import evaluate
    from arch2vec_fast.spaces import CellBatch, CellLayout, CellSpace

__all__ = [
    "CellBatch",
    "CellLayout",
    "CellSpace",
    "EmbeddingTable",
    "LatentIndex",
    "Recipe",
    "Run",
    "VisitedSet",
    "analysis",
    "build_index",
    "build_model",
    "compat",
    "embed",
    "embeddings",
    "evaluate",
    "functional",
    "index",
    "models",
    "pretrain",
    "reference",
    "spaces",
    "surrogates",
]

_HOME = {
    "CellBatch": "spaces",
    "CellLayout": "spaces",
    "CellSpace": "spaces",
    "EmbeddingTable": "embeddings",
    "LatentIndex": "index",
    "Recipe": "models",
    "Run": "pretrain",
    "VisitedSet": "index",
    "build_index": "index",
    "build_model": "models",
    "embed": "embeddings",
    "evaluate": "pretrain.metrics",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

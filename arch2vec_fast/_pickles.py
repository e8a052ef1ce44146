# SPDX-License-Identifier: Apache-2.0
"""Pickles of plain containers and NumPy arrays, read without running what else they may name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_pickled_arrays"]

# NumPy 2 renamed the module; files of either name are read by whichever is installed.
_MULTIARRAY: Any = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray  # type: ignore[attr-defined]
_ARRAYS = {
    "_reconstruct": _MULTIARRAY._reconstruct,
    "scalar": _MULTIARRAY.scalar,
}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{("numpy.core.multiarray", name): function for name, function in _ARRAYS.items()},
    **{("numpy._core.multiarray", name): function for name, function in _ARRAYS.items()},
}


def read_pickled_arrays(path: Path) -> Any:
    """What a pickle of dicts, lists, strings, numbers and NumPy arrays holds.

    Anything else it names (any other class or function) is refused before it is touched. Strings of
    Python 2 come as bytes. Raises ValueError, one line, for such a file and for a truncated one.
    """
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file, encoding="bytes").load()
    except OSError:
        raise
    except Exception as error:  # a torn pickle raises a dozen kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a whole pickle of plain arrays ({reason})") from None


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 spells bytes
            return lambda text, encoding: text.encode(encoding)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which is not data")
        return _ALLOWED[module, name]

# SPDX-License-Identifier: Apache-2.0
"""The benchmark spaces by name. Each has a module of its own, imported when first asked for."""

from functools import cache
from importlib import import_module

from arch2vec_fast.spaces.base import CellSpace

# name -> (module below arch2vec_fast.spaces, class)
_SPACES = {
    "nasbench101": ("nasbench101", "NasBench101"),
    "nasbench201": ("nasbench201", "NasBench201"),
    "darts": ("darts", "Darts"),
}


def names() -> tuple[str, ...]:
    """Names that ``get`` accepts."""
    return tuple(_SPACES)


@cache
def get(name: str) -> CellSpace:
    """The benchmark space called ``name``; one shared instance.

    Raises
    ------
    ValueError
        Unknown name.

    Examples
    --------
    >>> get("nasbench101").layout
    CellLayout(num_nodes=7, num_op_types=5)
    """
    if name not in _SPACES:
        raise ValueError(f"name: unknown space {name!r}; choose one of {', '.join(_SPACES)}")
    module, cls = _SPACES[name]
    space = getattr(import_module(f"arch2vec_fast.spaces.{module}"), cls)()
    assert isinstance(space, CellSpace)
    return space

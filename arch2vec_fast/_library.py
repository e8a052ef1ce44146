# SPDX-License-Identifier: Apache-2.0
"""Loads `_C`, the operators, after torch.

Why the order matters: `_C` is linked against `libtorch_cpu` without a search path, so that one
binary serves any torch >= 2.10 wherever it is installed. The dynamic loader finds that library only
because torch has loaded it already. There is no pure-Python fallback: a slow path nobody asked for
would hide a broken installation.
"""

import importlib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch  # must stay above the import of _C, see the module docstring

MINIMUM_TORCH = (2, 10)


def load(name: str = "_C") -> None:
    """Imports `arch2vec_fast.<name>`; raises an `ImportError` that lists what was tried."""
    try:
        importlib.import_module(f"arch2vec_fast.{name}")
    except ImportError as error:
        raise ImportError(_explain(name, error)) from error


def simd_level() -> str:
    """Returns what the CPU kernels use: "scalar", "avx2" or "avx512"; `A2V_SIMD` overrides."""
    level: str = torch.ops.arch2vec_fast.simd_level()
    return level


def _explain(name: str, error: ImportError) -> str:
    folder = Path(__file__).parent
    files = [folder / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES]
    tried = [f"  {file}: {error if file.exists() else 'absent'}" for file in files]
    others = sorted(set(folder.glob(f"{name}.*")) - set(files))
    tried += [f"  {file}: built for another interpreter" for file in others]
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < MINIMUM_TORCH:
        fix = f"torch {torch.__version__} is too old: pip install 'torch>=2.10'"
    else:
        fix = (
            "build it with `pip install .` or `python setup.py build_ext --inplace` in the checkout"
        )
    return "\n".join(
        [f"arch2vec_fast.{name}: not loaded (torch {torch.__version__}); {fix}; tried", *tried]
    )


load()

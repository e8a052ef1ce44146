# SPDX-License-Identifier: Apache-2.0
"""Loads `_C`, the operators, after torch, and `_C_cuda`, their CUDA kernels, where torch has CUDA.

Why the order matters: `_C` is linked against `libtorch_cpu` without a search path, so that one
binary serves any torch >= 2.10 wherever it is installed. The dynamic loader finds that library only
because torch has loaded it already. There is no pure-Python fallback: a slow path nobody asked for
would hide a broken installation.

`_C_cuda` may be missing: the package is complete without it as long as no tensor is on a GPU.
`cuda_kernels()` says what became of it, and the checks of the public functions pass that on.
"""

import importlib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch  # must stay above the import of _C, see the module docstring

MINIMUM_TORCH = (2, 10)
NAMESPACE = "arch2vec_fast::"

_BUILD = "build it with `pip install .` or `python setup.py build_ext --inplace` in the checkout"


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


def cuda_kernels() -> str | None:
    """None if the CUDA kernels are loaded, else one line: why not, and the fix."""
    return _cuda_kernels


def cuda_library() -> Path | None:
    """The file of `_C_cuda`, built for this interpreter, or None."""
    files = [Path(__file__).parent / f"_C_cuda{suffix}" for suffix in EXTENSION_SUFFIXES]
    return next((file for file in files if file.exists()), None)


def has_cuda_kernel(operator: str) -> bool:
    """Whether `arch2vec_fast::<operator>` runs on CUDA tensors."""
    return f"{NAMESPACE}{operator}" in _cuda_operators


def check_arguments(operator: str, expected: tuple[str, ...]) -> None:
    """ImportError, one line, where the loaded library and the Python files are of two versions.

    A checkout whose sources moved on keeps its old binary until it is built again; a call of an
    operator that changed would fail far from the cause.
    """
    found = torch._C._jit_get_schemas_for_operator(f"{NAMESPACE}{operator}")
    have = tuple(argument.name for argument in found[0].arguments) if found else None
    if have != expected:
        what = "lacks the operator" if have is None else "has other arguments of"
        raise ImportError(
            f"arch2vec_fast._C: {what} {operator}: the library is of another version than the "
            f"Python files; {_BUILD}"
        )


def _load_cuda() -> str | None:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA; install a CUDA build of torch"
    if cuda_library() is None:
        return "_C_cuda is not built; reinstall arch2vec-fast where nvcc is (PATH or CUDA_HOME)"
    try:
        load("_C_cuda")
    except ImportError as error:
        return " ".join(str(error).splitlines())
    return None


def _operators_on_cuda() -> frozenset[str]:
    return frozenset(
        name
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith(NAMESPACE)
        and torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")
    )


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
        fix = _BUILD
    return "\n".join(
        [f"arch2vec_fast.{name}: not loaded (torch {torch.__version__}); {fix}; tried", *tried]
    )


load()
_cuda_kernels = _load_cuda()
_cuda_operators = _operators_on_cuda()  # looked up once: torch.compile cannot trace the question

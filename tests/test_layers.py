# SPDX-License-Identifier: Apache-2.0
"""The shape of the source tree: who may import whom, file headers, file lengths.

A part of the package is a module or folder right below `arch2vec_fast`. Parts of one level may
import each other, every part may import all levels below its own, and nothing imports upwards.
"""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "arch2vec_fast"

# From the bottom up. `_cells` and `_C` are the compiled modules.
LEVELS = [
    {"_cells", "_C", "_C_cuda"},
    {"_atomic", "_fakes", "_library"},
    {"_autograd", "_checks", "_edges", "_gin_shape", "_latents", "reference"}
    | {"_gin_train", "_gin_train_twin", "_philox"}
    | {"_checks_dngo", "_reference_dngo"}
    | {"_checks_gp", "_reference_gp"},
    {"spaces", "_functional_dngo", "_functional_gp", "functional"},
    {"_files", "_machine", "_memory", "_pickles", "_principal", "_processes", "_progress"}
    | {"surrogates", "index", "models", "benchmarks"},
    {"pretrain", "embeddings", "sharded", "search", "darts", "analysis"},
    {"cli", "compat"},
]
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}

# spaces must work where torch is not installed, so it may import nothing of the package but these.
TORCH_FREE = {"_atomic", "spaces"}
TORCH_FREE_IMPORTS = {"_atomic", "spaces", "_cells", "__init__"}

# Optional or heavy: imported inside the functions that need them, never while a module loads.
LAZY = {
    "faiss",
    "matplotlib",
    "optuna",
    "plotly",
    "pyarrow",
    "ray",
    "scipy",
    "torch_geometric",
    "torchvision",
}

RAW_OPERATORS = {"_autograd", "_fakes", "_library"}
MAXIMUM_LINES = 600


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.Module, *, while_loading: bool = False) -> Iterator[str]:
    """Dotted names of all imports; with `while_loading` only of those that run on import."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports absolutely"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif while_loading and isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        ):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack.extend(node.orelse)
            continue
        stack.extend(ast.iter_child_nodes(node))


def imported_parts(tree: ast.Module, *, while_loading: bool = False) -> set[str]:
    """Parts of the package that a module imports; a name of `__init__` counts as `__init__`."""
    parts = set()
    for name in imports(tree, while_loading=while_loading):
        top, _, rest = name.partition(".")
        if top == "arch2vec_fast":
            part = rest.partition(".")[0]
            parts.add(part if part in LEVEL_OF else "__init__")
    return parts


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        assert not imported_parts(parse(path), while_loading=True)
        return
    assert part in LEVEL_OF, f"give {part} a level in {Path(__file__).name}"
    upwards = {
        other
        for other in imported_parts(parse(path)) - {"__init__"}
        if LEVEL_OF[other] > LEVEL_OF[part]
    }
    assert not upwards


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_free_parts_stay_so(path: Path) -> None:
    if part_of(path) not in TORCH_FREE:
        return
    tree = parse(path)
    assert imported_parts(tree) <= TORCH_FREE_IMPORTS
    assert "torch" not in {name.partition(".")[0] for name in imports(tree, while_loading=True)}


def test_optional_packages_are_imported_lazily() -> None:
    for path in sources():
        loaded = {name.partition(".")[0] for name in imports(parse(path), while_loading=True)}
        assert not loaded & LAZY, path


def test_only_the_plumbing_touches_raw_operators() -> None:
    for path in sources():
        if part_of(path) not in RAW_OPERATORS:
            assert "torch.ops" not in path.read_text(), path


def test_cell_core_knows_no_torch() -> None:
    for path in sorted((ROOT / "csrc" / "cells").iterdir()):
        assert "<torch/" not in path.read_text(), path


def test_only_bindings_know_pybind11_and_only_operators_know_torch() -> None:
    """Kernel files take raw pointers: they compile in a second and run under sanitizers."""
    for path in sorted((ROOT / "csrc").rglob("*.cpp")):
        text = path.read_text()
        if not path.stem.startswith("bindings"):
            assert "pybind11" not in text.replace("no pybind11", ""), path
        if not path.stem.endswith("_op") and path.name != "library.cpp":
            assert "<torch/" not in text, path


def tracked_sources() -> list[Path]:
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    suffixes = {".py", ".pyi", ".cpp", ".h", ".hpp", ".cu", ".cuh"}
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def test_files_start_with_a_licence_line() -> None:
    for path in tracked_sources():
        lines = path.read_text().splitlines() or [""]
        first = lines[1] if lines[0].startswith("#!") else lines[0]
        assert first.endswith("SPDX-License-Identifier: Apache-2.0"), path


def test_files_are_short() -> None:
    for path in tracked_sources():
        length = len(path.read_text().splitlines())
        assert length <= MAXIMUM_LINES, f"{path} has {length} lines: split it by purpose"

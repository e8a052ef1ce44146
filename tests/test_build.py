# SPDX-License-Identifier: Apache-2.0
"""The build: where torch is looked for, what is required, what it says when a tool is missing.

The installations themselves (isolated, without isolation, without torch) are run by .ci/run.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest

import arch2vec_fast
from arch2vec_fast import _cells

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def toolchain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "_build"))
    monkeypatch.delenv("A2V_TORCH_DIR", raising=False)
    return importlib.import_module("toolchain")


@pytest.fixture
def backend(toolchain: ModuleType) -> ModuleType:
    pytest.importorskip("setuptools")
    return importlib.import_module("backend")


def make_torch(site_packages: Path, version: str, *, headers: bool = True) -> Path:
    folder = site_packages / "torch"
    stable = folder / "include" / "torch" / "csrc" / "stable"
    (stable if headers else folder).mkdir(parents=True)
    (folder / "version.py").write_text(f"__version__ = '{version}'\n")
    return folder


def hide_torch(toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, platlib: Path) -> None:
    """What an isolated build sees: no importable torch, but the target's site-packages as files."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda *_, **__: str(platlib))
    monkeypatch.setattr(toolchain, "_sees_base_packages", lambda: False)
    monkeypatch.setattr(toolchain.site, "ENABLE_USER_SITE", False)


def test_finds_the_torch_in_use(toolchain: ModuleType) -> None:
    import torch

    assert toolchain.find_torch() == Path(torch.__file__).parent


def test_finds_torch_beside_platlib_in_an_isolated_build(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = make_torch(tmp_path, "2.10.0+cpu")
    hide_torch(toolchain, monkeypatch, tmp_path)
    assert toolchain.find_torch() == expected


def test_finds_torch_behind_a_pth_file(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = make_torch(tmp_path / "elsewhere", "2.13.0")
    platlib = tmp_path / "site-packages"
    platlib.mkdir()
    lines = ["import nothing", "", str(tmp_path / "absent"), str(tmp_path / "elsewhere")]
    (platlib / "borrowed.pth").write_text("\n".join(lines))
    hide_torch(toolchain, monkeypatch, platlib)
    assert toolchain.find_torch() == expected


def test_environment_names_the_torch(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = make_torch(tmp_path, "3.0.1")
    monkeypatch.setenv("A2V_TORCH_DIR", str(expected))
    assert toolchain.find_torch() == expected


@pytest.mark.parametrize(
    ("version", "headers", "reason"),
    [("2.9.1", True, r"\(2\.9\)"), ("2.10.0", False, r"\(without headers\)")],
)
def test_rejects_unusable_torch_in_one_line(
    toolchain: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    version: str,
    headers: bool,
    reason: str,
) -> None:
    make_torch(tmp_path, version, headers=headers)
    hide_torch(toolchain, monkeypatch, tmp_path)
    pattern = rf"^torch: no release >= 2\.10 found; .*A2V_TORCH_DIR; tried .*torch {reason}$"
    with pytest.raises(toolchain.BuildError, match=pattern):
        toolchain.find_torch()


def test_backend_requires_no_torch_where_there_is_one(
    backend: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any("torch" in wanted for wanted in backend.get_requires_for_build_wheel())
    assert "arch2vec-fast: building against " in capsys.readouterr().err


def test_backend_requires_torch_where_there_is_none_and_says_so(
    backend: ModuleType,
    toolchain: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hide_torch(toolchain, monkeypatch, tmp_path)
    monkeypatch.setattr(backend.build_meta, "get_requires_for_build_wheel", lambda _: ["x"])
    monkeypatch.setattr(backend.build_meta, "get_requires_for_build_editable", lambda _: ["y"])
    assert backend.get_requires_for_build_wheel() == ["x", "torch>=2.10"]
    assert backend.get_requires_for_build_editable() == ["y", "torch>=2.10"]
    message = capsys.readouterr().err.splitlines()[0]
    assert message.startswith("arch2vec-fast: no torch in the target environment, so the build")


@pytest.mark.parametrize(("program", "fix"), [("cmake", "cmake"), ("ninja", "ninja")])
def test_missing_program_is_one_line(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, fix: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda *_, **__: str(tmp_path))
    with pytest.raises(toolchain.BuildError, match=rf"^{program}: not found on PATH; .*{fix}"):
        toolchain.find_program(program, f"`pip install {fix}`")


@pytest.mark.parametrize("named", [None, "/absent/c++"])
def test_missing_compiler_is_one_line(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if named:
        monkeypatch.setenv("CXX", named)
    with pytest.raises(toolchain.BuildError) as caught:
        toolchain.find_compiler()
    message = str(caught.value)
    assert message.startswith(f"compiler: no C++20 compiler found (tried {named or 'c++'}")
    assert "\n" not in message


def fake_nvcc(folder: Path, here: Path) -> Path:
    """A program that answers --dryrun as nvcc does, for a toolkit in the folder `here`."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nvcc"
    program.write_text(f"#!/bin/sh\necho '#$ _HERE_={here}' >&2\n")
    program.chmod(0o755)
    return program


def test_nvcc_behind_a_wrapper_is_the_one_in_its_toolkit(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = fake_nvcc(tmp_path / "cuda" / "bin", tmp_path / "cuda" / "bin")
    fake_nvcc(tmp_path / "bin", real.parent)
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.delenv("A2V_CUDA", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert toolchain.find_nvcc() == real
    monkeypatch.setenv("A2V_CUDA", "OFF")
    assert toolchain.find_nvcc() is None


def test_nvcc_is_optional_unless_asked_for(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDACXX", "/absent/nvcc")
    monkeypatch.delenv("A2V_CUDA", raising=False)
    assert toolchain.find_nvcc() is None
    monkeypatch.setenv("A2V_CUDA", "on")
    with pytest.raises(toolchain.BuildError, match=r"^nvcc: not found, but A2V_CUDA=ON; put it"):
        toolchain.find_nvcc()
    monkeypatch.setenv("A2V_CUDA", "yes")
    with pytest.raises(toolchain.BuildError, match=r"^A2V_CUDA: 'YES' is none of AUTO, ON, OFF$"):
        toolchain.find_nvcc()


def test_setup_fails_in_one_line_without_a_compiler() -> None:
    pytest.importorskip("setuptools")
    result = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext"],
        cwd=ROOT,
        env={**os.environ, "CXX": "/absent/c++"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("arch2vec-fast: compiler: no C++20 compiler")


def test_sources_on_disk_are_those_of_the_one_list() -> None:
    """A file that nobody compiles is dead; CMakeLists.txt lists without wildcards."""
    listed = (ROOT / "CMakeLists.txt").read_text()
    tested = (ROOT / "tests" / "cuda_on_cpu" / "CMakeLists.txt").read_text()
    for path in sorted((ROOT / "csrc").rglob("*.c[pu]*")):
        name = path.relative_to(ROOT)
        if path.suffix in (".cpp", ".cu"):
            assert f"  {name}\n" in listed, name
        if path.suffix == ".cu":
            assert re.search(rf"\s{re.escape(str(name))}[\s)]", tested), f"{name}: no kernel test"
    assert "GLOB" not in listed + tested


def test_minimum_torch_is_the_same_everywhere(toolchain: ModuleType) -> None:
    from arch2vec_fast import _library

    major, minor = toolchain.MINIMUM_TORCH
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"torch>={major}.{minor}" in project["dependencies"]
    assert (major, minor) == _library.MINIMUM_TORCH
    target = f"TORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000"
    assert target in (ROOT / "CMakeLists.txt").read_text()


def stub_signatures() -> dict[str, list[str]]:
    """Functions and methods of the stub with the names of their arguments."""
    tree = ast.parse((ROOT / "arch2vec_fast" / "_cells.pyi").read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for group in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        methods = (node for node in group.body if isinstance(node, ast.FunctionDef))
        functions |= {f"{group.name}.{method.name}": method for method in methods}
    return {name: [a.arg for a in node.args.args] for name, node in functions.items()}


def test_stub_of_the_cell_core_is_complete() -> None:
    stub = stub_signatures()
    public = {name for name in dir(_cells) if not name.startswith("_")}
    assert {name.partition(".")[0] for name in stub} == public
    for name, arguments in stub.items():
        documented = attrgetter(name)(_cells).__doc__.splitlines()[0]  # pybind11 writes it there
        assert re.findall(r"(\w+): ", documented) == arguments, documented


def test_public_names_resolve() -> None:
    for name in arch2vec_fast.__all__:
        assert getattr(arch2vec_fast, name) is not None
    assert set(arch2vec_fast.__all__) <= set(dir(arch2vec_fast))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        arch2vec_fast.absent  # noqa: B018

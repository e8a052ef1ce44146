# SPDX-License-Identifier: Apache-2.0
"""The operator library: how it is found, what it says when not, its instruction set."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from arch2vec_fast import _checks, _library

LEVELS = ["scalar", "avx2", "avx512"]


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_simd_level_is_detected() -> None:
    assert _library.simd_level() in LEVELS


def test_simd_level_obeys_and_checks_the_environment() -> None:
    """In a process of its own: the level is chosen once, at the first call that succeeds."""
    code = """
import os
from arch2vec_fast import _library
for word in ("neon", "avx512", "scalar"):
    os.environ["A2V_SIMD"] = word
    try:
        print(_library.simd_level())
    except ValueError as error:
        print(error)
        continue
    break
"""
    first, second, *last = run_python(code).splitlines()
    assert first == "A2V_SIMD: 'neon' is not a level; use scalar, avx2 or avx512"
    detected = _library.simd_level()
    if detected == "avx512":
        assert second == "avx512"
    else:
        assert second == f"A2V_SIMD: this machine does not run avx512; unset it or use {detected}"
        assert last == ["scalar"]


def test_missing_library_lists_what_was_tried() -> None:
    with pytest.raises(ImportError) as caught:
        _library.load("_absent")
    first, *tried = str(caught.value).splitlines()
    assert first.startswith("arch2vec_fast._absent: not loaded (torch ")
    assert "pip install ." in first
    assert tried
    assert all(line.endswith(": absent") for line in tried)


def test_broken_library_shows_the_loaders_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix = _library.EXTENSION_SUFFIXES[0]
    (tmp_path / f"_broken{suffix}").write_bytes(b"not a shared object")
    (tmp_path / "_broken.cpython-38-old.so").touch()
    monkeypatch.setattr(_library, "__file__", str(tmp_path / "_library.py"))
    monkeypatch.setattr("arch2vec_fast.__path__", [str(tmp_path)])
    with pytest.raises(ImportError) as caught:
        _library.load("_broken")
    message = str(caught.value)
    assert f"_broken{suffix}: " in message
    assert "file too short" in message or "invalid" in message
    assert "_broken.cpython-38-old.so: built for another interpreter" in message


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (
            "_C_cuda is not built; reinstall arch2vec-fast where nvcc is (PATH or CUDA_HOME)",
            r"^codes: on cuda:0, but the CUDA kernels are missing: _C_cuda is not built; reinstall",
        ),
        (None, r"^codes: on cuda:0, but simd_level has no kernels for it; pass codes.cpu\(\)"),
    ],
)
def test_cuda_tensor_without_kernels_names_the_fix(
    monkeypatch: pytest.MonkeyPatch, reason: str | None, message: str
) -> None:
    monkeypatch.setattr(_library, "_cuda_kernels", reason)
    monkeypatch.setattr(_library, "_cuda_operators", frozenset())
    codes = SimpleNamespace(device=torch.device("cuda:0"))
    with pytest.raises(ValueError, match=message) as caught:
        _checks.check_kernels("codes", codes, "simd_level")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_cuda_kernels_are_loaded_exactly_where_torch_has_cuda() -> None:
    reason = _library.cuda_kernels()
    if torch.version.cuda is None:
        assert reason is not None
        assert re.match(r"torch \S+ has no CUDA; install a CUDA build of torch$", reason)
    assert _library.has_cuda_kernel("unpack_cells") == (reason is None)


def test_spaces_do_not_import_torch() -> None:
    code = "import sys, arch2vec_fast.spaces; print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_library_carries_no_search_path() -> None:
    """A RUNPATH of the build machine would load a second libtorch where that folder exists."""
    libraries = {path.name.partition(".")[0]: path.read_bytes() for path in _built_libraries()}
    assert {"_C"} <= libraries.keys() <= {"_C", "_C_cuda"}
    for content in libraries.values():
        assert b"libtorch_cpu.so" in content
        assert b"site-packages" not in content


def _built_libraries() -> list[Path]:
    return list(Path(_library.__file__).parent.glob("_C*.so"))


def test_a_library_of_another_version_is_one_line() -> None:
    with pytest.raises(
        ImportError, match=r"other arguments of gp_acquire: .* build it with"
    ) as odd:
        _library.check_arguments("gp_acquire", ("mean", "another"))
    assert "\n" not in str(odd.value)
    with pytest.raises(ImportError, match="lacks the operator gp_forget"):
        _library.check_arguments("gp_forget", ())

# SPDX-License-Identifier: Apache-2.0
"""The report on the CUDA kernels' resources: read right, strict on spills."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN3a2v8x_kernelILi7EEEvPKfif' for 'sm_90'
ptxas info    : Function properties for _ZN3a2v8x_kernelILi7EEEvPKfif
    16 bytes stack frame, {stores} bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, {shared} bytes smem, 380 bytes cmem[0]
ptxas info    : Compile time = 18.699 ms
ptxas info    : Compiling entry function 'plain' for 'sm_80'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""


@pytest.fixture
def ptxas(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "_build"))
    return importlib.import_module("ptxas")


def test_reads_every_kernel(ptxas: ModuleType) -> None:
    first, second = ptxas.parse(REPORT.format(stores=0, shared=128), "x.cu")
    assert (first.architecture, first.registers, first.shared_bytes) == ("sm_90", 40, 128)
    assert (first.stack_bytes, first.spill_bytes) == (16, 4)
    assert (second.name, second.registers, second.shared_bytes) == ("plain", 8, 0)
    assert second.complaint() is None


def test_refuses_what_it_does_not_understand(ptxas: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"^ptxas: x\.cu: report not understood"):
        list(ptxas.parse("ptxas info : Compiling entry function 'x' for 'sm_90'\n", "x.cu"))


@pytest.mark.parametrize(
    ("stores", "shared", "complaint"),
    [(8, 128, "spills 12 bytes of registers"), (0, 50_000, "spills 4 bytes of registers")],
)
def test_report_fails_on_spills(
    ptxas: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stores: int,
    shared: int,
    complaint: str,
) -> None:
    (tmp_path / "x.cu.o.ptxas").write_text(REPORT.format(stores=stores, shared=shared))
    assert ptxas.report(tmp_path, tmp_path / "kernels.json") == 1
    assert complaint in capsys.readouterr().out
    rows = json.loads((tmp_path / "kernels.json").read_text())
    assert {row["architecture"] for row in rows} == {"sm_80", "sm_90"}


def test_report_without_a_build_says_so(ptxas: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no report below .*; build _C_cuda there first"):
        ptxas.report(tmp_path, None)


def test_compiler_messages_pass_and_the_report_is_kept(tmp_path: Path) -> None:
    """As CMake calls it: `-o object` somewhere in the line, exit code handed on."""
    compiler = tmp_path / "compiler.py"
    compiler.write_text(
        f"import sys\nsys.stderr.write({REPORT!r} + 'a warning\\n')\nprint('out')\nsys.exit(3)\n"
    )
    command = [sys.executable, compiler, "-c", "x.cu", "-o", tmp_path / "x.cu.o", "-O3"]
    result = subprocess.run(
        [sys.executable, ROOT / "_build" / "ptxas.py", "run", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "a warning\n")
    assert (tmp_path / "x.cu.o.ptxas").read_text().startswith("ptxas info")

# SPDX-License-Identifier: Apache-2.0
"""What the machine charges for launches, barriers and memory: builds and runs constants.cu.

python -m bench.gpu.constants            prints the numbers; needs nvcc and a GPU
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.gpu.report import Report

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent

_TARGETS = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=[sm_90,compute_90]",
]


def run(report: Report) -> None:
    """One row a number."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "constants"
        sys.path.insert(0, str(_ROOT / "_build"))
        import toolchain

        nvcc = toolchain.find_nvcc()
        if nvcc is None:
            raise RuntimeError("nvcc: not found; put it on PATH or set CUDACXX or CUDA_HOME")
        flags = ["-std=c++20", "-O3", f"-I{_ROOT / 'csrc'}", *_TARGETS]
        subprocess.run([nvcc, *flags, _HERE / "constants.cu", "-o", program], check=True)
        with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                row = json.loads(line)
                report.add(row.pop("name"), row.pop("value"), row.pop("unit"), **row)
        if process.returncode != 0:
            raise RuntimeError(f"constants: ended with exit code {process.returncode}; see above")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        run(Report(Path(scratch) / "rows.jsonl"))

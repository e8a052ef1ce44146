# SPDX-License-Identifier: Apache-2.0
"""Drives CMake + ninja: CMakeLists.txt lists what is compiled, pyproject.toml everything else.

Why so thin: setuptools only has to know which binary modules exist and where CMake puts them.
`_C_cuda` exists where nvcc does (`A2V_CUDA=OFF` forbids it, `A2V_CUDA=ON` requires it).
`python setup.py build_ext --inplace` rebuilds incrementally, because the CMake folder is kept in
`build/` (one per interpreter).

Environment: `A2V_WERROR=1` turns warnings into errors, `A2V_CMAKE_ARGS` is appended to the
configure line, `CMAKE_BUILD_PARALLEL_LEVEL` bounds the number of compile jobs.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "_build"))

import toolchain  # noqa: E402  (in-tree module, importable only after the line above)


class CMakeBuild(build_ext):
    """Configures, builds and installs the modules into the folder setuptools collects from."""

    def build_extensions(self) -> None:
        try:
            tools = toolchain.find()
        except toolchain.BuildError as error:
            raise SystemExit(f"arch2vec-fast: {error}") from None
        target = Path(self.build_lib).resolve()
        folder = ROOT / "build" / f"cmake-{sysconfig.get_config_var('SOABI')}"
        for command in (
            [tools.cmake, "-S", ROOT, "-B", folder, "-G", "Ninja", *self._definitions(tools)],
            [tools.cmake, "--build", folder],
            [tools.cmake, "--install", folder, "--strip", "--prefix", target],
        ):
            try:
                subprocess.run(list(map(str, command)), check=True)
            except subprocess.CalledProcessError as error:
                raise SystemExit(
                    f"arch2vec-fast: `{shlex.join(map(str, command[:3]))} ...` failed with exit "
                    f"code {error.returncode}; the compiler's message stands above"
                ) from None

    @staticmethod
    def _definitions(tools: toolchain.Tools) -> list[str]:
        return [
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_MAKE_PROGRAM={tools.ninja}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={tools.pybind11}",
            f"-DA2V_TORCH_DIR={tools.torch}",
            f"-DA2V_WERROR={os.environ.get('A2V_WERROR', 'OFF')}",
            f"-DA2V_CUDA={'ON' if tools.nvcc else 'OFF'}",
            *([f"-DCMAKE_CUDA_COMPILER={tools.nvcc}"] if tools.nvcc else []),
            *shlex.split(os.environ.get("A2V_CMAKE_ARGS", "")),
        ]


try:
    MODULES = ["_cells", "_C", *(["_C_cuda"] if toolchain.find_nvcc() else [])]
except toolchain.BuildError as error:
    raise SystemExit(f"arch2vec-fast: {error}") from None

setup(
    ext_modules=[Extension(f"arch2vec_fast.{name}", []) for name in MODULES],
    cmdclass={"build_ext": CMakeBuild},
)

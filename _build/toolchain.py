# SPDX-License-Identifier: Apache-2.0
"""Finds what the build needs: compiler, cmake, ninja, pybind11, the target's torch, perhaps nvcc.

Why torch is searched for instead of imported: an isolated build (`pip install .`) hides the
target's site-packages, but the interpreter still is the target's, so its `platlib` folder is known
and torch's headers and libraries are files there. Installing a second torch into the build
environment would cost gigabytes. Importing it is not needed either: the two modules use only
headers and one library by name. Every failure is a `BuildError` of one line.
"""

import importlib.util
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MINIMUM_TORCH = (2, 10)  # the first release with torch::stable::parallel_for and TORCH_BOX


class BuildError(RuntimeError):
    """Something the build needs is missing; the message is one line that names the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Absolute paths of everything that the CMake configure line names."""

    cmake: str
    ninja: str
    pybind11: Path
    torch: Path
    nvcc: Path | None  # None: the package is built without CUDA kernels


def torch_candidates() -> Iterator[Path]:
    """Yields the folders that may hold the target's torch, best first; they need not exist.

    `A2V_TORCH_DIR`, then what this interpreter would import, then the target's own site-packages
    (hidden in an isolated build), then those of the base interpreter if the virtual environment
    lets them show through, then the user's.
    """
    if override := os.environ.get("A2V_TORCH_DIR"):
        yield Path(override)
        return
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent
    folders = [sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]
    if _sees_base_packages():
        base = {"base": sys.base_prefix, "platbase": sys.base_prefix}
        folders += [
            sysconfig.get_path("platlib", vars=base),
            *site.getsitepackages([sys.base_prefix]),
        ]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    folders += [path for folder in folders for path in _named_by_pth_files(Path(folder))]
    yield from (Path(folder) / "torch" for folder in dict.fromkeys(folders))


def _named_by_pth_files(folder: Path) -> list[str]:
    """Folders that the .pth files of a site-packages folder add to the path of its interpreter."""
    lines = [
        line for file in sorted(folder.glob("*.pth")) for line in file.read_text().splitlines()
    ]
    return [line for line in lines if line.startswith("/") and Path(line).is_dir()]


def _sees_base_packages() -> bool:
    if sys.prefix == sys.base_prefix:
        return False
    settings = Path(sys.prefix) / "pyvenv.cfg"
    pattern = r"(?im)^\s*include-system-site-packages\s*=\s*true\s*$"
    return settings.is_file() and re.search(pattern, settings.read_text()) is not None


def torch_version(folder: Path) -> tuple[int, int] | None:
    """Returns (major, minor) read from `folder/version.py`, or None where there is no torch."""
    try:
        text = (folder / "version.py").read_text()
    except OSError:
        return None
    match = re.search(r"""__version__\s*=\s*['"](\d+)\.(\d+)""", text)
    return (int(match[1]), int(match[2])) if match else None


def find_torch() -> Path:
    """Returns the folder of the first torch that is new enough and has headers."""
    tried = []
    for folder in torch_candidates():
        version = torch_version(folder)
        if version is None:
            tried.append(f"{folder} (absent)")
        elif version < MINIMUM_TORCH:
            tried.append(f"{folder} ({version[0]}.{version[1]})")
        elif not (folder / "include" / "torch" / "csrc" / "stable").is_dir():
            tried.append(f"{folder} (without headers)")
        else:
            return folder
    wanted = ".".join(map(str, MINIMUM_TORCH))
    raise BuildError(
        f"torch: no release >= {wanted} found; `pip install 'torch>={wanted}'` or set "
        f"A2V_TORCH_DIR; tried {'; '.join(tried)}"
    )


def find_program(name: str, fix: str) -> str:
    """Returns the path of a program, looking beside the interpreter first."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise BuildError(f"{name}: not found on PATH; {fix}")
    return found


def find_compiler() -> str:
    """Returns the C++ compiler CMake will use: $CXX, else one of c++, g++, clang++."""
    named = os.environ.get("CXX", "").split()
    names = named[:1] or ["c++", "g++", "clang++"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise BuildError(
        f"compiler: no C++20 compiler found (tried {', '.join(names)}); "
        "install one (Debian: apt-get install g++, macOS: xcode-select --install) or set CXX"
    )


def find_pybind11() -> Path:
    """Returns the folder of pybind11's CMake files."""
    try:
        import pybind11
    except ImportError:
        raise BuildError("pybind11: not installed; `pip install pybind11`") from None
    return Path(pybind11.get_cmake_dir())


def nvcc_candidates() -> Iterator[str]:
    """Yields what may be a CUDA compiler, best first; absolute paths or words for PATH."""
    if named := os.environ.get("CUDACXX"):
        yield named
        return
    yield "nvcc"
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    yield from (str(Path(home) / "bin" / "nvcc") for home in [*homes, "/usr/local/cuda"])


def find_nvcc() -> Path | None:
    """Returns the CUDA compiler to build `_C_cuda` with, or None to build without.

    `A2V_CUDA` says what is wanted: AUTO (default: where there is one), ON or OFF.
    """
    wanted = os.environ.get("A2V_CUDA", "AUTO").upper()
    if wanted not in ("AUTO", "ON", "OFF"):
        raise BuildError(f"A2V_CUDA: {wanted!r} is none of AUTO, ON, OFF")
    if wanted == "OFF":
        return None
    for name in nvcc_candidates():
        if (found := shutil.which(name)) is not None:
            return _resolve_nvcc(Path(found))
    if wanted == "ON":
        raise BuildError(
            "nvcc: not found, but A2V_CUDA=ON; put it on PATH or set CUDACXX or CUDA_HOME"
        )
    return None


def _resolve_nvcc(nvcc: Path) -> Path:
    """The compiler in its toolkit: on PATH there may be a script that only starts it.

    CMake looks for the toolkit's headers and libraries beside it.
    """
    result = subprocess.run(
        [nvcc, "--dryrun", "-x", "cu", os.devnull, "-c", "-o", os.devnull],
        capture_output=True,
        text=True,
        check=False,
    )
    here = re.search(r"^#\$ _HERE_=(.+)$", result.stderr, re.MULTILINE)
    real = Path(here[1].strip()) / "nvcc" if here else nvcc
    return real if real.exists() else nvcc


def find() -> Tools:
    """Finds everything, in the order in which a fresh machine lacks it."""
    find_compiler()
    return Tools(
        cmake=find_program("cmake", "`pip install cmake` or your system's package"),
        ninja=find_program("ninja", "`pip install ninja` or your system's package"),
        pybind11=find_pybind11(),
        torch=find_torch(),
        nvcc=find_nvcc(),
    )

# SPDX-License-Identifier: Apache-2.0
"""Finds what the build needs: compiler, cmake, ninja, pybind11 and the target's torch.

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


def find() -> Tools:
    """Finds everything, in the order in which a fresh machine lacks it."""
    find_compiler()
    return Tools(
        cmake=find_program("cmake", "`pip install cmake` or your system's package"),
        ninja=find_program("ninja", "`pip install ninja` or your system's package"),
        pybind11=find_pybind11(),
        torch=find_torch(),
    )

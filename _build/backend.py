# SPDX-License-Identifier: Apache-2.0
"""PEP 517 backend: setuptools, plus torch as a requirement where the target has none.

A static `requires = ["torch"]` would download gigabytes into every isolated build and compile
against another torch than the one in use. None at all would fail in a fresh environment, in `uv`
and in `python -m build`. So the requirement is decided when the front end asks. Source: PEP 517
`get_requires_for_build_wheel`, PEP 660.
"""

import sys
from typing import Any

import toolchain
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (the hooks that need no change)

Config = dict[str, Any] | None


def _with_torch(requirements: list[str]) -> list[str]:
    wanted = "torch>=" + ".".join(map(str, toolchain.MINIMUM_TORCH))
    try:
        print(f"arch2vec-fast: building against {toolchain.find_torch()}", file=sys.stderr)
    except toolchain.BuildError:
        print(
            "arch2vec-fast: no torch in the target environment, so the build installs "
            f"{wanted} for itself; to avoid that install torch first or set A2V_TORCH_DIR",
            file=sys.stderr,
        )
        return [*requirements, wanted]
    return requirements


def get_requires_for_build_wheel(config_settings: Config = None) -> list[str]:
    """Returns setuptools' requirements, and torch's if the target lacks it."""
    return _with_torch(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: Config = None) -> list[str]:
    """As for a wheel."""
    return _with_torch(build_meta.get_requires_for_build_editable(config_settings))

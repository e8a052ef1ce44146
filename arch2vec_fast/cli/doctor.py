# SPDX-License-Identifier: Apache-2.0
"""What is installed, what is built and what this machine offers: paste it into bug reports.

Nothing here may fail because something else is broken: a library that does not load is a line of
the report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

import arch2vec_fast
from arch2vec_fast._machine import usable_cores

Facts = dict[str, dict[str, Any]]

PACKAGES = ("numpy", "safetensors", "typer", "rich", "plotly", "faiss-cpu", "torch-geometric")


def diagnose() -> Facts:
    """Collects the report: sections of named facts, ready for JSON; missing things are None."""
    built = _built()
    return {
        "arch2vec_fast": {
            "version": arch2vec_fast.__version__,
            "commit": commit(),
            "folder": str(_package_folder()),
        },
        "versions": _versions(),
        "built": built,
        "machine": _machine(operators_load=built["_C"] == "built"),
        "devices": _devices(),
        "faiss": _faiss(),
        "data": _data(),
    }


def render(facts: Facts) -> Table:
    """The report as a table for people."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section, entries in facts.items():
        for position, (name, value) in enumerate(entries.items()):
            heading = section if position == 0 else ""
            table.add_row(heading, name, "-" if value is None else escape(str(value)))
    return table


def commit() -> str | None:
    """The commit installed from, where pip recorded it or the package lies in a checkout."""
    try:
        recorded = importlib.metadata.distribution("arch2vec-fast").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        recorded = None
    vcs = json.loads(recorded).get("vcs_info", {}) if recorded else {}
    if "commit_id" in vcs:
        return str(vcs["commit_id"])
    root = _package_folder().parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    result = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None


def _package_folder() -> Path:
    return Path(arch2vec_fast.__file__).parent


def _versions() -> dict[str, Any]:
    versions: dict[str, Any] = {"python": platform.python_version()}
    try:
        import torch
    except ImportError as error:
        versions["torch"] = f"does not load: {error}"
    else:
        versions["torch"] = torch.__version__
        versions["torch CUDA"] = torch.version.cuda
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _built() -> dict[str, Any]:
    return {
        "_cells": _load_state("arch2vec_fast._cells"),
        "_C": _load_state("arch2vec_fast._library"),
        "_C_cuda": _cuda_state(),
        "nvcc": shutil.which("nvcc"),
    }


def _cuda_state() -> str:
    try:
        from arch2vec_fast import _library
    except ImportError:
        return "needs _C"
    if (reason := _library.cuda_kernels()) is None:
        return "built"
    return reason if _library.cuda_library() is None else f"built, but not loaded: {reason}"


def _load_state(module: str) -> str:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"does not load: {error}"
    return "built"


def _machine(*, operators_load: bool) -> dict[str, Any]:
    machine: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "simd": None,
        "A2V_SIMD": os.environ.get("A2V_SIMD"),
        "threads": None,
    }
    if operators_load:
        import torch

        from arch2vec_fast import _library

        machine["threads"] = torch.get_num_threads()
        try:
            machine["simd"] = _library.simd_level()
        except ValueError as error:
            machine["simd"] = str(error)
    return machine


def _devices() -> dict[str, Any]:
    devices: dict[str, Any] = {"cpu": _cpu_name()}
    try:
        import torch
    except ImportError:
        return devices
    if not torch.cuda.is_available():
        return devices | {"cuda": None}
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        memory = f"{card.total_memory / 2**30:.0f} GiB"
        devices[f"cuda:{index}"] = f"{card.name}, {memory}, sm_{card.major}{card.minor}"
    return devices


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _faiss() -> dict[str, Any]:
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        return {"version": None, "gpus": None}
    has_gpu = hasattr(faiss, "StandardGpuResources")
    return {"version": faiss.__version__, "gpus": faiss.get_num_gpus() if has_gpu else 0}


def _data() -> dict[str, Any]:
    value = os.environ.get("ARCH2VEC_DATA")
    if not value:
        return {"ARCH2VEC_DATA": None}
    found = "found" if Path(value).is_dir() else "no such folder"
    return {"ARCH2VEC_DATA": f"{value} ({found})"}

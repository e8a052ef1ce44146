# SPDX-License-Identifier: Apache-2.0
"""What runs, tables and searches keep on disk: JSON lines, tensors, cells."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from arch2vec_fast._atomic import atomic_file, read_json, write_json
from arch2vec_fast.spaces import CellBatch, CellLayout, CellSpace

__all__ = [
    "append_line",
    "atomic_file",
    "keep_lines",
    "read_cells",
    "read_json",
    "read_lines",
    "read_tensors",
    "read_torch",
    "remove_leftovers",
    "write_cells",
    "write_json",
    "write_tensors",
    "write_torch",
]

_ATOMIC_NAMES = ("config.json", "metrics.jsonl", "checkpoint.pt", "prior.safetensors", "cells.npz")


def remove_leftovers(folder: Path) -> None:
    """Delete what `atomic_file` left beside its target when the process was killed."""
    for path in folder.glob(".*.*"):
        if path.name.startswith(tuple(f".{name}." for name in _ATOMIC_NAMES)):
            path.unlink()


def append_line(path: Path, value: Any, *, durable: bool = False) -> None:
    """Append `value` as one line of JSON, in a single write; `durable`: on the disk on return."""
    try:
        with path.open("ab") as file:
            file.write((json.dumps(value) + "\n").encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"{path}: could not be written ({error})") from error


def read_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Objects of a file of JSON lines, raw and parsed; a line torn by a kill is left out."""
    for raw in path.read_bytes().splitlines(keepends=True):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield raw, line


def keep_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a file of JSON lines with those that `keep` accepts; a torn last line goes too."""
    if not path.exists():
        return
    kept = [raw for raw, line in read_lines(path) if keep(line)]
    with atomic_file(path) as file:
        file.writelines(kept)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and string metadata as safetensors."""
    with atomic_file(path) as file:
        file.write(save(tensors, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file; a foreign or truncated one is a ValueError that names it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}); write it again"
        ) from None


def write_torch(path: Path, value: Any) -> None:
    """Write with `torch.save`."""
    buffer = io.BytesIO()  # torch.save hides the reason of a failed write; write() does not
    torch.save(value, buffer)
    with atomic_file(path) as file:
        file.write(buffer.getbuffer())


def read_torch(path: Path) -> Any:
    """Read with `torch.load(weights_only=True)`: tensors and plain containers, no code."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds, from EOFError to UnpicklingError
        raise ValueError(
            f"{path}: not a whole file of tensors that can be loaded safely: it is cut off, "
            "foreign or holds code; take another copy, or write it again"
        ) from error


def write_cells(path: Path, cells: CellBatch) -> None:
    """Write cells as `.npz`: codes int64 [B,W] and the layout."""
    layout = np.array([cells.layout.num_nodes, cells.layout.num_op_types])
    with atomic_file(path) as file:
        np.savez_compressed(file, codes=cells.codes, layout=layout)


def read_cells(path: Path, space: CellSpace) -> CellBatch:
    """Read cells from a `.npz` of `write_cells` or a `.json` of the space; all are of its layout.

    Whether they are cells of the space is not judged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of cells")
    readers: dict[str, Callable[[], CellBatch]] = {
        ".npz": lambda: _read_npz(path),
        ".json": lambda: space.load_json(path),
    }
    if path.suffix not in readers:
        raise ValueError(f"{path}: cells are read from .npz or .json files, not {path.suffix!r}")
    cells, layout = readers[path.suffix](), space.layout
    if cells.layout != layout:
        raise ValueError(
            f"{path}: holds cells of {cells.layout.num_nodes} nodes and "
            f"{cells.layout.num_op_types} operation types, but the space has "
            f"{layout.num_nodes} and {layout.num_op_types}; choose the matching space"
        )
    return cells


def _read_npz(path: Path) -> CellBatch:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            num_nodes, num_op_types = archive["layout"].tolist()
            return CellBatch(archive["codes"], CellLayout(num_nodes, num_op_types))
    except Exception as error:  # zipfile, zlib, numpy and KeyError, by where the file is cut
        raise ValueError(f"{path}: not a whole file of cells ({error})") from None

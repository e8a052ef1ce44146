# SPDX-License-Identifier: Apache-2.0
"""Benchmark tables as files: one safetensors file each, mapped into memory, not read.

| tensor | dtype | shape |
|---|---|---|
| `codes` | int64 | [Q, W], packed cells of the layout of the space |
| `validation` | float32 or float64 | [Q, E, R], accuracies in [0, 1] |
| `test` | float32 or float64 | [Q], accuracy in [0, 1], NaN where unknown |
| `times` | float32 or float64 | [Q, E], seconds of a query; absent where unknown |

String metadata: `format` (with its version), `name`, `space`, `reward`, `fidelities` (JSON list of
epochs) and `metadata` (JSON object: `source`, `runs`, `quantity`, ...).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import torch

from arch2vec_fast import spaces
from arch2vec_fast._files import read_tensors, write_tensors
from arch2vec_fast.benchmarks.base import TableBenchmark
from arch2vec_fast.spaces import CellBatch

__all__ = ["SUFFIX", "read_table", "write_table"]

SUFFIX: Final = ".safetensors"

_FAMILY: Final = "arch2vec-fast-benchmark-"
_FORMAT: Final = _FAMILY + "1"
_FLOATS: Final = (torch.float32, torch.float64)


def write_table(path: str | Path, bench: TableBenchmark) -> None:
    """Write `bench` as one file, whole or not at all.

    Only tables of the named spaces (`spaces.names()`) can be written: a file names its space. The
    choice of noise is the reader's and is not kept. Raises ValueError or OSError.
    """
    if bench.space.name not in spaces.names():
        raise ValueError(
            f"bench: {bench.space.name} is no named space; choose one of {spaces.names()}"
        )
    columns = {"validation": bench.validation, "test": bench.test}
    if bench.times is not None:
        columns["times"] = bench.times
    tensors = {name: torch.from_numpy(np.array(a, order="C")) for name, a in columns.items()}
    metadata = {
        "format": _FORMAT,
        "name": bench.name,
        "space": bench.space.name,
        "reward": bench.reward,
        "fidelities": json.dumps(list(bench.fidelities)),
        "metadata": json.dumps(bench.metadata),
    }
    write_tensors(Path(path), {"codes": bench.cells.to_torch(), **tensors}, metadata)


def read_table(path: str | Path, *, noise: str = "mean") -> TableBenchmark:
    """Read a file of `write_table`.

    noise: as `TableBenchmark`; where the file holds several runs, `reward` says which of them
    answer. Numbers are views of the mapped file: loading all of NAS-Bench-101 takes tens of
    milliseconds, and the file must not be changed in place while it is used (`write_table`
    replaces files, which is safe). Raises FileNotFoundError, or ValueError, one line, for a file
    that is foreign, truncated, damaged or of a later version.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    if not metadata.get("format", "").startswith(_FAMILY):
        raise ValueError(f"{path}: a safetensors file, but not a benchmark table")
    if metadata["format"] != _FORMAT:
        raise ValueError(
            f"{path}: has format {metadata['format']!r}, this version reads {_FORMAT}; "
            "upgrade arch2vec-fast or import the table again"
        )
    try:
        bench = _build(tensors, metadata)
    except KeyError as error:
        raise ValueError(f"{path}: lacks {error}; import the table again") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged table ({error}); import it again") from None
    return with_noise(bench, noise)


def with_noise(bench: TableBenchmark, noise: str) -> TableBenchmark:
    """`bench` under a choice of noise; with several runs its reward says which of them answer.

    The text is made of two entries of the metadata: `quantity`, e.g. "validation accuracy after
    108 epochs", and `runs`, e.g. "3 runs". Raises ValueError for another noise, and for "run" where
    a cell has one value: there is nothing to draw from.
    """
    if noise not in ("mean", "run"):
        raise ValueError(f"noise: {noise!r} is neither 'mean' nor 'run'")
    if noise == "run" and bench.validation.shape[2] == 1:
        raise ValueError(
            f"noise: this table of {bench.name} holds one value a cell, no runs to draw from; "
            "choose 'mean', or import the benchmark's own file"
        )
    reward = bench.reward
    if bench.validation.shape[2] > 1 and {"quantity", "runs"} <= set(bench.metadata):
        runs = bench.metadata["runs"]
        which = f"mean of {runs}" if noise == "mean" else f"one of {runs}, drawn by seed"
        reward = f"{bench.metadata['quantity']}, {which}"
    return replace(bench, noise=cast("Literal['mean', 'run']", noise), reward=reward)


def _build(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> TableBenchmark:
    space = spaces.get(metadata["space"])
    for name in ("validation", "test", *(("times",) if "times" in tensors else ())):
        if tensors[name].dtype not in _FLOATS:
            raise TypeError(f"{name}: {tensors[name].dtype} is no column of numbers")
    extra: Any = json.loads(metadata["metadata"])
    return TableBenchmark(
        name=metadata["name"],
        space=space,
        cells=CellBatch.from_torch(tensors["codes"], space.layout),
        reward=metadata["reward"],
        fidelities=tuple(json.loads(metadata["fidelities"])),
        validation=tensors["validation"].numpy(),
        test=tensors["test"].numpy(),
        times=tensors["times"].numpy() if "times" in tensors else None,
        metadata={str(key): str(value) for key, value in dict(extra).items()},
    )

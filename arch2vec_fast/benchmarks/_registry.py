# SPDX-License-Identifier: Apache-2.0
"""Benchmarks by name, and where their tables are found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal, NamedTuple

from arch2vec_fast.benchmarks import analog, nasbench301, npz
from arch2vec_fast.benchmarks.base import TableBenchmark
from arch2vec_fast.benchmarks.store import SUFFIX, read_table, with_noise

__all__ = ["find", "get", "names"]

VARIABLE: Final = "ARCH2VEC_DATA"

_IMPORT_201: Final = "arch2vec-fast import nasbench201 FILE --out FOLDER"
_IMPORT_301: Final = "arch2vec-fast import nasbench301 FILE --out FOLDER"
_IMPORT_101: Final = "arch2vec-fast import nasbench101 FILE --out FOLDER"

# name -> the command that makes its table
_BENCHMARKS: Final = {
    "nasbench201-cifar10": _IMPORT_201,
    "nasbench201-cifar10-200": _IMPORT_201,
    "nasbench201-cifar100": _IMPORT_201,
    "nasbench201-imagenet16-120": _IMPORT_201,
    "nasbench101": _IMPORT_101,
    "nasbench101-30k": None,
    "nasbench201-demo": "arch2vec-fast import analog --out FOLDER",
    "darts-nb301": _IMPORT_301,
}
_DEMO: Final = "nasbench201-demo"
_SURROGATE: Final = "darts-nb301"


class Place(NamedTuple):
    """Where the table of a benchmark is."""

    kind: Literal["table", "npz", "package", "surrogate"]
    """An imported table file, a public `.npz` table, the data of an installed package, or the
    weights of a surrogate."""
    path: Path


def names() -> tuple[str, ...]:
    """Names that `get` knows, whether or not their tables are at hand."""
    return tuple(_BENCHMARKS)


def find(name: str, *, data: str | Path | None = None) -> Place | None:
    """Where the table of benchmark `name` lies; None where there is none. Nothing is read.

    In the folder `data` (default `$ARCH2VEC_DATA`), `NAME.safetensors`, as `arch2vec-fast import`
    writes it, comes before the public `.npz` tables. Raises ValueError for an unknown name.
    """
    if name not in _BENCHMARKS:
        raise ValueError(f"name: unknown benchmark {name!r}; choose one of {', '.join(names())}")
    folder, file = _folder(data), npz.file_of(name)
    if folder is not None:
        table = folder / (name + SUFFIX)
        if table.is_file():
            return Place("table", table)
        if file is not None and (folder / file).is_file():
            return Place("npz", folder / file)
        if name == _SURROGATE and (folder / nasbench301.FILE).is_file():
            return Place("surrogate", folder / nasbench301.FILE)
    package = analog.find_analog() if name == _DEMO else None
    return None if package is None else Place("package", package)


def get(name: str, *, data: str | Path | None = None, noise: str = "mean") -> TableBenchmark:
    """The benchmark called `name`.

    | name | a query returns |
    |---|---|
    | `nasbench201-cifar10` | 12-epoch validation; costs 12 x training + 1 x validation seconds |
    | `nasbench201-cifar10-200` | 200-epoch validation, 12 epochs as a fidelity; costs seconds |
    | `nasbench201-cifar100` | imported: as `-cifar10-200`; npz: 12-epoch validation, no times |
    | `nasbench201-imagenet16-120` | the same on ImageNet16-120 |
    | `nasbench101` | imported: 108-epoch validation, costs seconds; npz: mean *test* accuracy |
    | `nasbench101-30k` | 30,001 cells: 108-epoch validation (also 4, 12, 36); costs seconds |
    | `darts-nb301` | 600,000 DARTS cells: what a surrogate predicts; costs predicted seconds |
    | `nasbench201-demo` | CIFAR-10 *test* accuracy of the package analog-nasbench; no times |

    data: folder of tables, default `$ARCH2VEC_DATA`; or one table file of this benchmark. Where the
    folder holds an imported table and a public `.npz` table, the imported one is used. noise:
    "mean" of the runs or one "run", see `TableBenchmark`; a table of one run has no choice. The
    `reward` of what is returned always says what a query returns.

    Raises ValueError for an unknown name and a file that is foreign or damaged, FileNotFoundError
    where the table is not at hand; the message says how to get it.
    """
    given = None if data is None else Path(data)
    if given is not None and given.is_file():
        return _from_file(name, given, noise)
    place = find(name, data=data)
    if place is None:
        raise FileNotFoundError(_missing(name, data))
    if place.kind == "table":
        return _from_file(name, place.path, noise)
    if place.kind == "package":
        return with_noise(analog.read_analog(place.path), noise)
    if place.kind == "surrogate":
        surrogate = nasbench301.Nasbench301Surrogate.load(place.path)
        return with_noise(nasbench301.surrogate_benchmark(surrogate, nasbench301.pool()), noise)
    return with_noise(npz.read_npz(name, place.path), noise)


def _from_file(name: str, path: Path, noise: str) -> TableBenchmark:
    bench = read_table(path, noise=noise)
    if bench.name != name:
        raise ValueError(f"data: {path} is a table of {bench.name}, not of {name}; name it so")
    return bench


def _folder(data: str | Path | None) -> Path | None:
    value = os.environ.get(VARIABLE) if data is None else data
    return Path(value) if value else None


def _missing(name: str, data: str | Path | None) -> str:
    """What is not there and how to get it, in one line."""
    if name == _DEMO:
        return f"{name}: no table found: {analog.missing_package()}"
    folder = _folder(data)
    if folder is None:
        where = f"{VARIABLE} is not set; let it name a folder"
    elif not folder.is_dir():
        where = f"{folder} is no folder; give one"
    else:
        where = f"{folder} lacks it; use a folder"
    command, file = _BENCHMARKS[name], npz.file_of(name)
    table = nasbench301.FILE if name == _SURROGATE else name + SUFFIX
    made = "" if command is None else f"{table} (made by: {command})"
    public = "" if file is None else f"{file}"
    return f"{name}: no table found: {where} with {' or '.join(filter(None, (made, public)))}"

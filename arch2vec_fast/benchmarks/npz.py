# SPDX-License-Identifier: Apache-2.0
"""Benchmarks from public `.npz` tables: what can be had without the official multi-gigabyte files.

Three files, in the folder that `ARCH2VEC_DATA` names: `nasbench201.npz` (all cells; 12-epoch
validation, on CIFAR-10 the mean of the two runs there are; 200-epoch test means; seconds an epoch),
`nasbench101_test.npz` (all cells, test means only) and `nasbench101_val30k.npz` (30,001 cells; one
run at four lengths). They hold less than an import of the official files, which wins where both are
there; every reward says what it is.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks.base import TableBenchmark
from arch2vec_fast.spaces import CellBatch

__all__ = ["file_of", "read_npz"]

Columns = dict[str, NDArray[Any]]

_EXACT_TEST: Final = 3 * 9984  # test accuracies of NAS-Bench-101: the mean of three of k / 9984
_NASBENCH101_OPS: Final = np.array([2, 1, 3])  # 3x3, 1x1, maxpool of the file in the space's order
_ONE_RUN: Final = {"runs": "one run"}
_MEAN: Final = {"runs": "mean of 1 to 3 runs"}

_EDGES: Final = ("c10valid_train_s_per_epoch", "c10valid_valid_s_per_epoch")


def file_of(name: str) -> str | None:
    """Name of the `.npz` file that holds benchmark `name`; None where none does."""
    return None if name not in _TABLES else _TABLES[name][0]


def read_npz(name: str, path: Path) -> TableBenchmark:
    """Benchmark `name` from its `.npz` table.

    Raises ValueError, one line, for a file that is no such table or lacks a column.
    """
    _, needed, build = _TABLES[name]
    columns, missing = _load(path, needed)
    if missing:
        raise ValueError(
            f"{path}: lacks the column {missing[0]}, which {name} needs; fetch it again"
        )
    try:
        return build(name, columns)
    except (ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: damaged table of {name} ({reason}); fetch it again") from None


def _load(path: Path, needed: Sequence[str]) -> tuple[Columns, list[str]]:
    """The columns that are needed and there, and the names of those that are not."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [column for column in needed if column not in archive.files]
            return {name: archive[name] for name in needed if name not in missing}, missing
    except (zipfile.BadZipFile, EOFError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).partition(".")[0] or type(error).__name__
        raise ValueError(f"{path}: not a whole .npz table ({reason}); fetch it again") from None


# -- NAS-Bench-201 -----------------------------------------------------------------------------


def _nasbench201(
    name: str,
    columns: Columns,
    validation: Sequence[NDArray[np.floating]],
    test: NDArray[np.floating],
    **facts: Any,
) -> TableBenchmark:
    """A NAS-Bench-201 table of per cents: validation [Q] for each training length."""
    space = spaces.get("nasbench201")
    return TableBenchmark(
        name=name,
        space=space,
        cells=_nasbench201_cells(columns),
        validation=np.stack(validation, 1).astype(np.float64)[:, :, None] / 100,
        test=test.astype(np.float64) / 100,
        **facts,
    )


def _nasbench201_cells(columns: Columns) -> CellBatch:
    space = spaces.get("nasbench201")
    names = [str(op) for op in columns["op_names"]]
    if unknown := sorted(set(names) - set(space.op_names)):
        raise ValueError(f"op_names: {unknown[0]!r} is no operation of nasbench201")
    number = np.array([space.op_names.index(op) for op in names])
    inner = number[columns["ops"]]
    adjacency, node_ops = space.enumerate()[[0]].to_dense()
    labels = np.repeat(node_ops, len(inner), 0)
    labels[:, 1:7] = inner
    return CellBatch.from_dense(np.repeat(adjacency, len(inner), 0), labels, space.layout)


def _cifar10(name: str, columns: Columns) -> TableBenchmark:
    """A query trains 12 epochs and validates once: the seconds of the released converter."""
    train, valid = (columns[column].astype(np.float64) for column in _EDGES)
    return _nasbench201(
        name,
        columns,
        [columns["c10valid_valid_acc_12"]],
        columns["c10_test_acc_200"],
        reward="validation accuracy after 12 epochs, mean of 2 runs",
        fidelities=(12,),
        times=(12 * train + valid)[:, None],
        metadata={"runs": "mean of 2 runs"},
    )


def _cifar10_200(name: str, columns: Columns) -> TableBenchmark:
    """Both training lengths, for methods that use fidelities."""
    train, valid = (columns[column].astype(np.float64) for column in _EDGES)
    return _nasbench201(
        name,
        columns,
        [columns["c10valid_valid_acc_12"], columns["c10valid_valid_acc_200"]],
        columns["c10_test_acc_200"],
        reward="validation accuracy after 200 epochs, mean of 1 to 3 runs",
        fidelities=(12, 200),
        times=np.stack([12 * train + valid, 200 * train + valid], 1),
        metadata=_MEAN,
    )


def _other(prefix: str) -> Callable[[str, Columns], TableBenchmark]:
    def build(name: str, columns: Columns) -> TableBenchmark:
        return _nasbench201(
            name,
            columns,
            [columns[f"{prefix}_valid_acc_12"]],
            columns[f"{prefix}_test_acc_200"],
            reward="validation accuracy after 12 epochs, one run",
            fidelities=(12,),
            metadata=_ONE_RUN,
        )

    return build


# -- NAS-Bench-101 -----------------------------------------------------------------------------


def _nasbench101_cells(columns: Columns) -> CellBatch:
    """Cells from the file's bits; the edges have the order of the package's own layout."""
    layout = spaces.get("nasbench101").layout
    sizes = columns["n_vertices"].astype(np.int64)
    labels = np.zeros((len(sizes), layout.num_nodes), np.int64)  # operation + 1, 0 = absent
    labels[:, 0] = 1
    inner = columns["ops"]
    present = inner != 255
    labels[:, 1:6][present] = _NASBENCH101_OPS[inner[present]] + 1
    labels[np.arange(len(sizes)), sizes - 1] = layout.num_op_types
    shifts = layout.edge_bits + layout.op_bits * np.arange(layout.num_nodes)
    codes = columns["adj_bits"].astype(np.int64) | (labels << shifts).sum(1)
    return CellBatch(codes[:, None], layout)


def _nasbench101(name: str, columns: Columns) -> TableBenchmark:
    test = columns["test_acc_108_x29952"] / _EXACT_TEST
    return TableBenchmark(
        name=name,
        space=spaces.get("nasbench101"),
        cells=_nasbench101_cells(columns),
        reward="test accuracy after 108 epochs, mean of 3 runs (no validation accuracy here)",
        fidelities=(108,),
        validation=test[:, None, None],
        test=test,
        metadata={"runs": "mean of 3 runs"},
    )


def _nasbench101_30k(name: str, columns: Columns) -> TableBenchmark:
    """Seconds were measured at 108 epochs; shorter trainings cost their share of epochs."""
    epochs = columns["val_epochs"].astype(np.int64)
    seconds = columns["train_time_s_108"].astype(np.float64)
    return TableBenchmark(
        name=name,
        space=spaces.get("nasbench101"),
        cells=_nasbench101_cells(columns),
        reward="validation accuracy after 108 epochs, one run; 30,001 cells",
        fidelities=tuple(epochs.tolist()),
        validation=(columns["val_acc_x9984"] / 9984)[:, :, None],
        test=columns["test_acc_108_x29952"] / _EXACT_TEST,
        times=seconds[:, None] * (epochs / epochs[-1]),
        metadata=_ONE_RUN,
    )


_CELLS_201 = ("ops", "op_names")
_CELLS_101 = ("n_vertices", "adj_bits", "ops", "test_acc_108_x29952")

# benchmark -> (file, columns, builder)
_TABLES: Final[dict[str, tuple[str, tuple[str, ...], Callable[[str, Columns], TableBenchmark]]]] = {
    "nasbench201-cifar10": (
        "nasbench201.npz",
        (*_CELLS_201, *_EDGES, "c10valid_valid_acc_12", "c10_test_acc_200"),
        _cifar10,
    ),
    "nasbench201-cifar10-200": (
        "nasbench201.npz",
        (
            *(*_CELLS_201, *_EDGES, "c10valid_valid_acc_12"),
            *("c10valid_valid_acc_200", "c10_test_acc_200"),
        ),
        _cifar10_200,
    ),
    "nasbench201-cifar100": (
        "nasbench201.npz",
        (*_CELLS_201, "c100_valid_acc_12", "c100_test_acc_200"),
        _other("c100"),
    ),
    "nasbench201-imagenet16-120": (
        "nasbench201.npz",
        (*_CELLS_201, "in16_valid_acc_12", "in16_test_acc_200"),
        _other("in16"),
    ),
    "nasbench101": ("nasbench101_test.npz", _CELLS_101, _nasbench101),
    "nasbench101-30k": (
        "nasbench101_val30k.npz",
        (*_CELLS_101, "val_acc_x9984", "val_epochs", "train_time_s_108"),
        _nasbench101_30k,
    ),
}

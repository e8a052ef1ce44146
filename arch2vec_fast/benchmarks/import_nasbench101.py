# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-101 from its official file, without TensorFlow.

`nasbench_only108.tfrecord` (499 MB) and `nasbench_full.tfrecord` (1.9 GB) hold one record a
training: JSON `[hash, epochs, adjacency, operations, metrics]`, the metrics a base64 protobuf
`ModelMetrics{1: repeated EvaluationData}` with `EvaluationData{2: training_time, 4:
validation_accuracy, 5: test_accuracy}` at the start, half-way and at the end. Every cell was
trained three times at every length.

Source: google-research/nasbench, `api.py` and `model_metrics.proto`; Ying et al., ICML 2019.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from bisect import bisect_left
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast import spaces
from arch2vec_fast._progress import Progress
from arch2vec_fast.benchmarks.base import TableBenchmark
from arch2vec_fast.benchmarks.protobuf import fields
from arch2vec_fast.benchmarks.store import SUFFIX, with_noise, write_table
from arch2vec_fast.benchmarks.tfrecord import read_records
from arch2vec_fast.spaces import CellLayout
from arch2vec_fast.spaces.nasbench101 import NasBench101

__all__ = ["import_nasbench101", "read_nasbench101"]

_NAME: Final = "nasbench101"
_REPEATS: Final = 3
_DOUBLE: Final = struct.Struct("<d")
_OPS: Final = {
    op: number
    for number, op in enumerate(
        ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output"), 1
    )
}
_EDGES: Final = {  # by length of the adjacency text: where each edge is, and its bit in a code
    n * n: [(x * n + y, 1 << (x + y * (y - 1) // 2)) for y in range(n) for x in range(y)]
    for n in range(2, 8)
}
_TIME, _VALIDATION, _TEST = 2, 4, 5  # field numbers of EvaluationData
_MEGABYTE: Final = 1_000_000


class _Training(NamedTuple):
    """One record."""

    hash: str
    epochs: int
    adjacency: str
    operations: str
    seconds: float
    validation: float
    test: float


def import_nasbench101(
    file: str | Path, out: str | Path, *, partial: bool = False, progress: bool = False
) -> Path:
    """Turn an official file into the table file `OUT/nasbench101.safetensors`.

    file: `nasbench_only108.tfrecord` or `nasbench_full.tfrecord`, told apart by content. out: an
    existing folder, e.g. that of `ARCH2VEC_DATA`. partial: accept a file that lacks cells; the
    table then holds the cells with all their runs. progress: a bar on standard error. Returns the
    path written. Checksums and hashes are verified; nothing is written unless the whole file is
    sound. Memory does not grow with the file.

    Raises FileNotFoundError, or ValueError, one line, that names the record at fault.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"out: {folder} is no folder; make it first")
    bench = read_nasbench101(file, partial=partial, progress=progress)
    target = folder / (_NAME + SUFFIX)
    write_table(target, bench)
    return target


def read_nasbench101(
    file: str | Path, *, partial: bool = False, progress: bool = False
) -> TableBenchmark:
    """The table of an official file in memory; see `import_nasbench101`."""
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"file: no such file {path}; give nasbench_only108.tfrecord")
    space = spaces.get("nasbench101")
    assert isinstance(space, NasBench101)
    runs = _Runs(space, path)
    megabytes = path.stat().st_size // _MEGABYTE
    number = 0
    with path.open("rb") as stream, Progress(_NAME, "MB", megabytes, enabled=progress) as bar:
        for batch in read_records(stream, path):
            for data in batch:
                runs.add(number, _parse(data, number, path))
                number += 1
            bar.update(stream.tell() // _MEGABYTE)
    return runs.table(partial=partial)


class _Runs:
    """Trainings sorted into rows: the benchmark's own order, whatever that of the file."""

    def __init__(self, space: NasBench101, path: Path) -> None:
        self._space, self._path = space, path
        self._cells = space.enumerate("official")
        self._names = _official_names()
        self._seen = np.zeros(len(self._cells), np.bool_)
        self._count: dict[int, NDArray[np.uint8]] = {}  # by epochs, [Q]
        self._values: dict[int, NDArray[np.float32]] = {}  # [Q, 3, 3]: seconds, validation, test

    def add(self, number: int, training: _Training) -> None:
        """Keep training `number` of the file."""
        row = bisect_left(self._names, training.hash)
        if row == len(self._names) or self._names[row] != training.hash:
            raise ValueError(
                f"{self._path}: record {number} is of the cell {training.hash!r:.80}, which "
                f"{_NAME} does not have; is this a NAS-Bench-101 file?"
            )
        if not self._seen[row]:
            if _pack(training, self._space.layout) != int(self._cells.codes[row, 0]):
                self._check_cell(number, training)  # another labelling, or another cell
            self._seen[row] = True
        if training.epochs not in self._count:
            shape = (len(self._cells), _REPEATS, 3)
            self._count[training.epochs] = np.zeros(len(self._cells), np.uint8)
            self._values[training.epochs] = np.full(shape, np.nan, np.float32)
        run = int(self._count[training.epochs][row])
        if run == _REPEATS:
            raise ValueError(
                f"{self._path}: record {number} is run {run + 1} of one cell at "
                f"{training.epochs} epochs; the benchmark has {_REPEATS}"
            )
        self._count[training.epochs][row] += 1
        self._values[training.epochs][row, run] = training[-3:]

    def _check_cell(self, number: int, training: _Training) -> None:
        """The cell that a record describes has the hash that it claims."""
        size = round(len(training.adjacency) ** 0.5)
        try:
            bits = np.array([int(bit) for bit in training.adjacency]).reshape(size, size)
            cell = self._space.from_matrix(bits, training.operations.split(","))
            name = self._space.nasbench_hash(cell)[0]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self._path}: record {number} describes no cell of {_NAME} ({error})"
            ) from None
        if name != training.hash:
            raise ValueError(
                f"{self._path}: record {number} describes another cell than its hash "
                f"{training.hash}; download the file again"
            )

    def table(self, *, partial: bool) -> TableBenchmark:
        """The benchmark of what was added."""
        epochs = sorted(self._count)
        if not epochs:
            raise ValueError(f"{self._path}: holds no record; download the file again")
        whole = np.all([self._count[length] == _REPEATS for length in epochs], axis=0)
        if not whole.all() and not (partial and whole.any()):
            first = self._names[int(whole.argmin())]
            raise ValueError(
                f"{self._path}: {int((~whole).sum()):,} of {len(whole):,} cells lack runs, the "
                f"first is {first}; download the file again, or pass partial"
            )
        rows = np.flatnonzero(whole)
        values = np.stack([self._values[length][rows] for length in epochs], 1)  # [Q, E, 3, 3]
        quantity = f"validation accuracy after {epochs[-1]} epochs"
        bench = TableBenchmark(
            name=_NAME,
            space=self._space,
            cells=self._cells[rows],
            reward=quantity,
            fidelities=tuple(epochs),
            validation=np.ascontiguousarray(values[..., 1]),
            test=values[:, -1, :, 2].mean(1, dtype=np.float64),
            times=values[..., 0].mean(2, dtype=np.float64),
            metadata={
                "source": f"imported from {self._path.name}",
                "quantity": quantity,
                "runs": f"{_REPEATS} runs",
            },
        )
        return with_noise(bench, "mean")


@cache
def _official_names() -> list[str]:
    """The hash of every cell in the benchmark's order, which is that of the hashes."""
    space = spaces.get("nasbench101")
    assert isinstance(space, NasBench101)
    return space.nasbench_hash(space.enumerate("official"))


def _pack(training: _Training, layout: CellLayout) -> int | None:
    """The code of the cell as the record labels it; None where it takes a closer look."""
    adjacency, operations = training.adjacency, training.operations.split(",")
    edges = _EDGES.get(len(adjacency))
    if edges is None or len(operations) ** 2 != len(adjacency) or not _OPS.keys() >= {*operations}:
        return None
    code = sum(bit for at, bit in edges if adjacency[at] == "1")
    if adjacency.count("1") != code.bit_count():
        return None
    for node, operation in enumerate(operations):
        code |= _OPS[operation] << (layout.edge_bits + layout.op_bits * node)
    return code


def _parse(data: bytes, number: int, path: Path) -> _Training:
    """The training that a record describes; ValueError that names the record."""
    try:
        name, epochs, adjacency, operations, encoded = json.loads(data.decode())
        final = _final_evaluation(base64.b64decode(encoded, validate=True))
        training = _Training(
            name, epochs, adjacency, operations, final[_TIME], final[_VALIDATION], final[_TEST]
        )
        if not isinstance(epochs, int) or not all(
            isinstance(text, str) for text in (name, adjacency, operations)
        ):
            raise TypeError("fields of other types")
        if not (training.seconds > 0 and 0 <= training.validation <= 1 >= training.test >= 0):
            raise ValueError("accuracies or seconds out of range")
    except (
        *(ValueError, TypeError, KeyError, IndexError, struct.error),
        *(UnicodeDecodeError, binascii.Error, RecursionError),
    ) as error:
        raise ValueError(
            f"{path}: record {number} is no training of NAS-Bench-101 ({error}); "
            "give nasbench_only108.tfrecord or nasbench_full.tfrecord"
        ) from None
    return training


def _final_evaluation(message: bytes) -> dict[int, float]:
    """Numbers of the third `EvaluationData` of a serialized `ModelMetrics`, by field number."""
    evaluations = [value for field, wire, value in fields(message) if (field, wire) == (1, 2)]
    return {
        field: _DOUBLE.unpack(value)[0]
        for field, wire, value in fields(evaluations[2])
        if wire == 1
    }

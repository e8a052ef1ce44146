# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-201 from its official files, without executing them.

Read are `NAS-Bench-201-v1_1-096897.pth` (and v1_0), `NATS-tss-v1_0-3ffb9.pickle.pbz2` and the
folder `NATS-tss-v1_0-3ffb9-simple`. All hold, per architecture and schedule (12 epochs: "less" or
"12"; 200: "full" or "200"), one result for each data set and seed: accuracies by set and epoch
("x-valid@11"), training seconds by epoch. `cifar10-valid` is trained on half of CIFAR-10 and
validated on the other, `cifar10` is trained on both and tested.

Runs: architectures were trained once to three times. A table has as many columns as the least
common multiple of those numbers, each run filling its share, so means and draws are exact.

Source: D-X-Y/NAS-Bench-201 and D-X-Y/NATS-Bench, `ResultsCount` and `ArchResults` of their APIs.
"""

from __future__ import annotations

import bz2
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast import spaces
from arch2vec_fast._progress import Progress
from arch2vec_fast.benchmarks.base import TableBenchmark
from arch2vec_fast.benchmarks.pickles import Constructors, PickleReader, Readable
from arch2vec_fast.benchmarks.store import SUFFIX, with_noise, write_table
from arch2vec_fast.spaces.nasbench201 import NasBench201

__all__ = ["import_nasbench201", "read_nasbench201"]

_SCHEDULES: Final = {"less": 12, "12": 12, "full": 200, "200": 200}
_LONG, _SHORT = 200, 12

# data set -> the set that is its test
_TESTS: Final = {
    "cifar10-valid": "ori-test",
    "cifar10": "ori-test",
    "cifar100": "x-test",
    "ImageNet16-120": "x-test",
}
_TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C
_MEGABYTE: Final = 1_000_000
_FORGET_EVERY: Final = 250  # architectures
_KEPT_TEXTS: Final = frozenset(
    f"{part}@{epoch}"
    for part in ("x-valid", "x-test", "ori-test")
    for epoch in (*range(_SHORT), _LONG - 1)
)


class _Table(NamedTuple):
    """One table file: whose validation over which schedules, and whose test."""

    name: str
    validated: str
    tested: str
    epochs: tuple[int, ...]


_TABLES: Final = (
    _Table("nasbench201-cifar10", "cifar10-valid", "cifar10", (_SHORT,)),
    _Table("nasbench201-cifar10-200", "cifar10-valid", "cifar10", (_SHORT, _LONG)),
    _Table("nasbench201-cifar100", "cifar100", "cifar100", (_SHORT, _LONG)),
    _Table("nasbench201-imagenet16-120", "ImageNet16-120", "ImageNet16-120", (_SHORT, _LONG)),
)


class _Runs(NamedTuple):
    """What one architecture did on one data set under one schedule; accuracies in [0, 1]."""

    validation: tuple[float, ...]
    test: tuple[float, ...]
    training_seconds: float | None
    """Of one epoch, mean over runs."""
    validation_seconds: float | None


_Record = dict[tuple[str, int], _Runs]


def import_nasbench201(
    file: str | Path, out: str | Path, *, partial: bool = False, progress: bool = False
) -> list[Path]:
    """Turn an official file or folder into table files `OUT/nasbench201-*.safetensors`.

    Written are CIFAR-10 with the 12-epoch reward of the paper (`nasbench201-cifar10`) and with both
    schedules (`-cifar10-200`), CIFAR-100 and ImageNet16-120. Test accuracies are means over the
    runs of 200 epochs. A query of E epochs costs E x training + 1 x validation seconds, per epoch
    as measured under the 12-epoch schedule; a table whose file lacks them has no times.

    file: see above. out: an existing folder, e.g. that of `ARCH2VEC_DATA`. partial: accept a file
    that lacks architectures. progress: a bar on standard error. Returns the paths written; nothing
    is written unless the whole file is sound. Ten minutes for the files of gigabytes, whose
    parts are dropped as they are read: memory stays far below the file's size.

    Raises FileNotFoundError, or ValueError, one line, that names the architecture at fault.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"out: {folder} is no folder; make it first")
    tables = read_nasbench201(file, partial=partial, progress=progress)
    paths = [folder / (bench.name + SUFFIX) for bench in tables]
    for path, bench in zip(paths, tables):
        write_table(path, bench)
    return paths


def read_nasbench201(
    file: str | Path, *, partial: bool = False, progress: bool = False
) -> list[TableBenchmark]:
    """The tables of an official file in memory; see `import_nasbench201`."""
    path = Path(file)
    records = _Records(path)
    if path.is_dir():
        _read_folder(path, records, progress=progress)
    elif path.is_file():
        _read_file(path, records, progress=progress)
    else:
        raise FileNotFoundError(f"file: no such file {path}; give NAS-Bench-201-v1_1-096897.pth")
    rows = records.rows(partial=partial)
    return [_build(table, records, rows) for table in _TABLES]


# -- files ---------------------------------------------------------------------------------------


def _read_folder(path: Path, records: _Records, *, progress: bool) -> None:
    """A folder of one compressed pickle an architecture."""
    files = sorted(
        entry for entry in path.iterdir() if re.fullmatch(r"\d{6}\.pickle\.pbz2", entry.name)
    )
    if not files:
        raise ValueError(f"{path}: holds no 000000.pickle.pbz2, ...; give the folder of NATS-tss")
    with Progress("nasbench201", "architectures", len(files), enabled=progress) as bar:
        for done, entry in enumerate(files):
            with _naming(entry, records), bz2.open(entry) as stream:
                value = PickleReader(stream, _CONSTRUCTORS, keep=_keep).load()
                records.add(int(entry.name[:6]), value)
            bar.update(done + 1)


def _read_file(path: Path, records: _Records, *, progress: bool) -> None:
    """A file of all architectures: each is reduced as soon as it is complete."""
    megabytes = path.stat().st_size // _MEGABYTE
    with (
        path.open("rb") as raw,
        Progress("nasbench201", "MB", megabytes, enabled=progress) as bar,
        _naming(path, records),
    ):

        def reduce(key: Any, value: dict[Any, Any]) -> Any:
            if type(key) is not int or value.keys().isdisjoint(_SCHEDULES):
                return value
            records.add(key, value)
            bar.update(raw.tell() // _MEGABYTE)
            if len(records) % _FORGET_EVERY == 0:
                reader.forget(_is_done)
            return None

        with _stream(raw) as stream:
            reader = PickleReader(stream, _CONSTRUCTORS, keep=_keep, reduce=reduce)
            value = reader.load()
            if value == _TORCH_MAGIC:  # torch before 1.6: magic, protocol, system, then the object
                reader.load(), reader.load()
                value = reader.load()
        if not isinstance(value, dict) or "arch2infos" not in value:
            raise ValueError("holds no 'arch2infos': no file of NAS-Bench-201")


@contextmanager
def _stream(raw: BinaryIO) -> Iterator[Readable]:
    """The pickle inside a file: compressed, in a zip archive of torch, or bare."""
    start = raw.read(4)
    raw.seek(0)
    if start[:3] == b"BZh":
        with bz2.open(raw) as stream:
            yield stream
    elif start == b"PK\x03\x04":
        with zipfile.ZipFile(raw) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(names) != 1:
                raise ValueError("is an archive, but not one that torch wrote")
            with archive.open(names[0]) as file:
                yield file
    else:
        yield raw


@contextmanager
def _naming(path: Path, records: _Records) -> Iterator[None]:
    """Faults inside become a ValueError that names the file and how far it was sound."""
    try:
        yield
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, RecursionError) as error:
        raise ValueError(
            f"{path}: {error} (after {len(records)} architectures); download the file again"
        ) from None


def _keep(key: str | int) -> bool:
    """Of the 200 epochs, those that count: the last, and the twelve whose seconds are known."""
    if isinstance(key, int):
        return 0 <= key < _SHORT
    return "@" not in key or key in _KEPT_TEXTS


def _is_done(value: Any) -> bool:
    """Parts of one architecture; what architectures share is names, classes and types."""
    if isinstance(value, str):
        return "@" in value or not value.isascii()
    return value == {} or isinstance(value, tuple | list | bytes | float)


def _dtype(code: str, *_: Any) -> dict[str, Any]:
    return {"code": code}


def _scalar(kind: dict[str, Any], data: bytes) -> float:
    if kind["code"] not in ("f8", "f4", "i8", "i4") or len(data) != int(kind["code"][1]):
        raise ValueError(f"holds a number of type {kind['code']!r:.20}")
    number: float = np.frombuffer(data, "<" + kind["code"])[0].item()
    return number


def _encode(text: str, *_: Any) -> bytes:
    return text.encode("latin1")


_CONSTRUCTORS: Final[Constructors] = {
    ("collections", "OrderedDict"): dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


# -- records -------------------------------------------------------------------------------------


class _Records:
    """Architectures read so far, by row of the space."""

    def __init__(self, path: Path) -> None:
        space = spaces.get("nasbench201")
        assert isinstance(space, NasBench201)
        self.space, self.path = space, path
        self._of_row: dict[int, _Record] = {}

    def __len__(self) -> int:
        return len(self._of_row)

    def __getitem__(self, row: int) -> _Record:
        return self._of_row[row]

    def add(self, number: int, value: Any) -> None:
        """Reduce what the file says of architecture `number`, and empty `value`."""
        try:
            arch, record = _extract(value)
            row = int(self.space.index_of(self.space.from_string(arch))[0])
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged ({error})"
            raise ValueError(f"architecture {number} {reason}") from None
        if row != number:
            raise ValueError(f"architecture {number} is {arch}, which is number {row}")
        self._of_row[row] = record
        _empty(value)

    def rows(self, *, partial: bool) -> list[int]:
        """Rows to make tables of, ascending."""
        total = self.space.num_cells
        if not self._of_row or (len(self._of_row) != total and not partial):
            raise ValueError(
                f"{self.path}: holds {len(self._of_row):,} of {total:,} architectures; download "
                "it again, or pass partial"
            )
        return sorted(self._of_row)


def _empty(value: Any) -> None:
    """Empty a dict and all dicts in it: the reader may still hold them."""
    if isinstance(value, dict):
        for part in value.values():
            _empty(part)
        value.clear()


def _extract(value: dict[str, Any]) -> tuple[str, _Record]:
    """Arch string and results of one architecture."""
    record: _Record = {}
    archs = set()
    for schedule, part in value.items():
        epochs = _SCHEDULES[schedule]
        archs.add(part["arch_str"])
        for dataset, seeds in part["dataset_seed"].items():
            if dataset in _TESTS and seeds:
                results = [part["all_results"][dataset, seed] for seed in seeds]
                record[dataset, epochs] = _runs(dataset, epochs, results)
    if len(archs) != 1:
        raise ValueError(f"{len(archs)} arch strings")
    return archs.pop(), record


def _runs(dataset: str, epochs: int, results: list[dict[str, Any]]) -> _Runs:
    last = epochs - 1
    accuracies = [result["eval_acc1es"] for result in results]
    validated = dataset != "cifar10"  # which trains on its validation set
    training, validation = [], []
    if epochs == _SHORT:
        for result in results:
            training.append(_mean_seconds(result["train_times"], range(_SHORT)))
            keys = [f"x-valid@{epoch}" for epoch in range(_SHORT)]
            validation.append(_mean_seconds(result["eval_times"], keys))
    return _Runs(
        tuple(_share(a[f"x-valid@{last}"]) for a in accuracies) if validated else (),
        tuple(_share(a[f"{_TESTS[dataset]}@{last}"]) for a in accuracies),
        _mean_known(training),
        _mean_known(validation),
    )


def _share(per_cent: float) -> float:
    if not 0 <= per_cent <= 100:
        raise ValueError(f"accuracy {per_cent} is no per cent")
    return per_cent / 100


def _mean_seconds(times: Any, keys: Sequence[int | str]) -> float | None:
    """Mean over epochs; None where the file has no times, or not all."""
    if not isinstance(times, dict) or any(times.get(key) is None for key in keys):
        return None
    return math.fsum(times[key] for key in keys) / len(keys)


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


# -- tables --------------------------------------------------------------------------------------


def _build(table: _Table, records: _Records, rows: list[int]) -> TableBenchmark:
    for dataset, length in ((table.validated, table.epochs[-1]), (table.tested, _LONG)):
        for row in rows:
            if (dataset, length) not in records[row]:
                raise ValueError(
                    f"{records.path}: architecture {row} lacks the results of {length} epochs on "
                    f"{dataset}; download the file again"
                )
    # version 1.0 has the 12-epoch schedule on cifar10-valid alone
    epochs = [e for e in table.epochs if all((table.validated, e) in records[row] for row in rows)]
    runs = [[records[row][table.validated, e].validation for e in epochs] for row in rows]
    columns = math.lcm(*{len(values) for lengths in runs for values in lengths})
    spread = [[[*v] * (columns // len(v)) for v in lengths] for lengths in runs]
    counts = [len(lengths[-1]) for lengths in runs]
    quantity = f"validation accuracy after {epochs[-1]} epochs"
    words = _count_words(min(counts), max(counts))
    bench = TableBenchmark(
        name=table.name,
        space=records.space,
        cells=records.space.enumerate()[rows],
        reward=f"{quantity}, {words}",
        fidelities=tuple(epochs),
        validation=np.array(spread, np.float32),
        test=np.array([np.mean(records[row][table.tested, _LONG].test) for row in rows]),
        times=_times(table.validated, epochs, records, rows),
        metadata={
            "source": f"imported from {records.path.name}",
            "quantity": quantity,
            "runs": words,
        },
    )
    return with_noise(bench, "mean")


def _times(
    dataset: str, epochs: list[int], records: _Records, rows: list[int]
) -> NDArray[np.float64] | None:
    """Seconds of a query, [Q, E]; None where the file does not know them all."""
    known = [records[row].get((dataset, _SHORT)) for row in rows]
    pairs = [(r.training_seconds, r.validation_seconds) for r in known if r is not None]
    if len(pairs) < len(rows) or any(None in pair for pair in pairs):
        return None
    seconds: NDArray[np.float64] = np.array(pairs, np.float64)
    return np.outer(seconds[:, 0], epochs) + seconds[:, 1:]


def _count_words(low: int, high: int) -> str:
    if low == high:
        return "one run" if low == 1 else f"{low} runs"
    return f"{low} to {high} runs"

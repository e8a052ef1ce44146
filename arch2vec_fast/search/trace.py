# SPDX-License-Identifier: Apache-2.0
"""The trace of a search: one row a query, one schema for every method, kept as Parquet.

| column | type | meaning |
|---|---|---|
| method, recipe, benchmark | dictionary of strings | the same in all rows of one file |
| seed | int64 | the search |
| query | int64 | 0, 1, ... within a search |
| row | int64 | the cell's row in the benchmark's pool |
| cell | list of int64 | the cell's packed code |
| fidelity | int64 | epochs it was trained for |
| seconds, elapsed | float64 | cost of this query and of all up to it; NaN without known times |
| validation | float64 | what the search was told, in [0, 1] |
| test | float64 | test accuracy of this cell, which no search sees; NaN if unknown |
| incumbent, incumbent_test | float64 | validation and test accuracy of the best cell so far |
| regret | float64 | the pool's best test accuracy less `incumbent_test` |

The incumbent has the largest validation accuracy among the cells trained longest so far; the first
wins ties. Rows are sorted by seed, then query. The file's metadata holds, under the key
`arch2vec_fast`, a JSON object: title (of the method), space, reward (in words), noise, pool (number
of cells), ceiling, budget, workers (queries out at a time, when the search began; rows are then in
the order in which they ended; null: asked in rounds), recipe_fields, embeddings (metadata and
sha-256 of the vectors; null where the method looks at none), version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast._files import atomic_file
from arch2vec_fast.benchmarks.base import Benchmark

__all__ = ["COLUMNS", "Trace"]

COLUMNS: Mapping[str, type[np.generic]] = {
    "seed": np.int64,
    "query": np.int64,
    "row": np.int64,
    "fidelity": np.int64,
    "seconds": np.float64,
    "elapsed": np.float64,
    "validation": np.float64,
    "test": np.float64,
    "incumbent": np.float64,
    "incumbent_test": np.float64,
    "regret": np.float64,
}
_LABELS = ("method", "recipe", "benchmark")
_METADATA_KEY = b"arch2vec_fast"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """All queries of S searches of one method on one benchmark; the module says what is in it.

    columns: arrays [n] by the names of `COLUMNS`. cells: packed codes int64 [n, W].

    Example:
        >>> trace = Trace.empty("random", "paper", "toy", words=1)
        >>> len(trace), trace["seed"].dtype.name
        (0, 'int64')
    """

    method: str
    recipe: str
    benchmark: str
    columns: Mapping[str, NDArray[Any]]
    cells: NDArray[np.int64]
    metadata: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column]

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Seeds of the searches in it, ascending."""
        return np.unique(self["seed"])

    def searches(self) -> Iterator[tuple[int, slice]]:
        """(seed, rows) of each search, in order of seeds."""
        seeds, starts = np.unique(self["seed"], return_index=True)
        for seed, start, stop in zip(seeds, starts, [*starts[1:], len(self)]):
            yield int(seed), slice(int(start), int(stop))

    @classmethod
    def empty(cls, method: str, recipe: str, benchmark: str, *, words: int) -> Trace:
        """A trace without queries of cells of `words` words."""
        columns = {name: np.empty(0, kind) for name, kind in COLUMNS.items()}
        cells = np.empty((0, words), np.int64)
        return cls(
            method=method,
            recipe=recipe,
            benchmark=benchmark,
            columns=columns,
            cells=cells,
            metadata={},
        )

    @classmethod
    def concat(cls, parts: Sequence[Trace]) -> Trace:
        """One trace of several runs of the same method, recipe and benchmark with other seeds."""
        first = parts[0]
        for part in parts[1:]:
            for label in _LABELS:
                if getattr(part, label) != getattr(first, label):
                    raise ValueError(
                        f"parts: are of {label} {getattr(first, label)!r} and "
                        f"{getattr(part, label)!r}; concatenate traces of one kind"
                    )
        columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
        order = np.lexsort((columns["query"], columns["seed"]))
        pairs = np.stack((columns["seed"][order], columns["query"][order]))
        if (pairs[:, 1:] == pairs[:, :-1]).all(0).any():
            raise ValueError("parts: hold the same seed twice; concatenate different seeds")
        return cls(
            method=first.method,
            recipe=first.recipe,
            benchmark=first.benchmark,
            columns={name: values[order] for name, values in columns.items()},
            cells=np.concatenate([part.cells for part in parts])[order],
            metadata=first.metadata,
        )

    # -- files -------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write one Parquet file, whole or not at all. Needs pyarrow."""
        import pyarrow as pa
        from pyarrow import parquet

        labels = {
            label: pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(len(self), np.int32)), pa.array([getattr(self, label)])
            )
            for label in _LABELS
        }
        words = self.cells.shape[1]
        cells = pa.FixedSizeListArray.from_arrays(pa.array(self.cells.ravel()), words)
        arrays = {**labels, **{name: pa.array(self[name]) for name in COLUMNS}, "cell": cells}
        # Where there are no rows the label columns are empty, so the labels stand here too.
        facts = {**self.metadata, **{label: getattr(self, label) for label in _LABELS}}
        table = pa.table(arrays).replace_schema_metadata(
            {_METADATA_KEY: json.dumps(facts).encode()}
        )
        with atomic_file(Path(path)) as file:
            parquet.write_table(table, file, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a file of `save`; a foreign or truncated one is a ValueError that names it."""
        import pyarrow as pa
        from pyarrow import parquet

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; give a trace that `search` wrote")
        try:
            table = parquet.read_table(path)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path}: not a whole Parquet file ({reason})") from None
        facts = (table.schema.metadata or {}).get(_METADATA_KEY)
        if facts is None or not {*COLUMNS, "cell"} <= set(table.column_names):
            raise ValueError(f"{path}: a Parquet file, but not the trace of a search")
        metadata = json.loads(facts)
        labels = {label: metadata.pop(label) for label in _LABELS}
        columns = {
            name: table[name].to_numpy().astype(kind, copy=False) for name, kind in COLUMNS.items()
        }
        cells = table["cell"].combine_chunks()
        flat = cells.flatten().to_numpy().reshape(len(table), cells.type.list_size)
        return cls(columns=columns, cells=flat, metadata=metadata, **labels)


def complete(
    benchmark: Benchmark,
    seed: NDArray[np.int64],
    query: NDArray[np.int64],
    row: NDArray[np.int64],
    fidelity: NDArray[np.int64],
    seconds: NDArray[np.float64],
    validation: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """All columns [n] from what was asked and answered, sorted by seed and query."""
    order = np.lexsort((query, seed))
    seed, query, row, fidelity = seed[order], query[order], row[order], fidelity[order]
    seconds, validation = seconds[order], validation[order]
    test = benchmark.test_accuracy[row]
    elapsed, best = np.empty(len(row)), np.empty(len(row), np.int64)
    starts = np.flatnonzero(np.diff(seed, prepend=seed[0] - 1)) if len(seed) else np.empty(0, int)
    for start, stop in zip(starts, [*starts[1:], len(seed)]):
        part = slice(start, stop)
        elapsed[part] = np.cumsum(seconds[part])
        best[part] = start + _incumbents(fidelity[part], validation[part])
    return {
        "seed": seed,
        "query": query,
        "row": row,
        "fidelity": fidelity,
        "seconds": seconds,
        "elapsed": elapsed,
        "validation": validation,
        "test": test,
        "incumbent": validation[best],
        "incumbent_test": test[best],
        "regret": benchmark.ceiling.test - test[best],
    }


def _incumbents(fidelity: NDArray[np.int64], validation: NDArray[np.float64]) -> NDArray[np.int64]:
    """Position of the incumbent after each query of one search: longest trained, then best."""
    # Ranks of (fidelity, validation), equal ones alike, so that the first of a tie stays.
    _, fidelity_rank = np.unique(fidelity, return_inverse=True)
    values, value_rank = np.unique(validation, return_inverse=True)
    rank = fidelity_rank * len(values) + value_rank
    record = rank > np.concatenate(([-1], np.maximum.accumulate(rank)[:-1]))
    best: NDArray[np.int64] = np.maximum.accumulate(np.where(record, np.arange(len(rank)), 0))
    return best

# SPDX-License-Identifier: Apache-2.0
"""Embeddings of spaces larger than memory: a folder of files, written by any number of processes.

part-000000.safetensors ...   `EmbeddingTable` files, each whole or absent
table.json                    cells of each part, sizes, metadata; written last, so where it is,
                              all parts are

    sharded = embed_shards(run, "embeddings", space.stream(1 << 20))
    for table in sharded: ...
    sharded.rows([7, 123_456_789]).vectors
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from arch2vec_fast._checks import check_device
from arch2vec_fast._files import read_json, write_json
from arch2vec_fast._processes import Processes
from arch2vec_fast._progress import Progress
from arch2vec_fast.embeddings import EmbeddingTable, embed_stream
from arch2vec_fast.pretrain.run import Run, open_run
from arch2vec_fast.spaces import CellBatch, CellLayout

__all__ = ["SHARD_CELLS", "ShardedEmbeddings", "embed_shards"]

SHARD_CELLS = 1 << 20  # 72 to 80 MB a file at D = 16

_FORMAT = "arch2vec-fast-shards-1"
_KEYS = {"format", "parts", "dim", "num_nodes", "num_op_types", "metadata"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardedEmbeddings:
    """A table in many files, of which few are in memory at any time. Open one with `load`.

    counts: cells of each part. dim: D. layout: of the cells. metadata: as `EmbeddingTable` has it.
    """

    folder: Path
    counts: tuple[int, ...]
    dim: int
    layout: CellLayout
    metadata: Mapping[str, str]

    @classmethod
    def load(cls, folder: str | Path) -> ShardedEmbeddings:
        """Open a folder of `embed_shards`; reads no vectors yet.

        Raises FileNotFoundError for a folder that was not finished or lacks a part, ValueError for
        one that holds something else.
        """
        folder = Path(folder)
        if not (folder / "table.json").is_file():
            raise FileNotFoundError(
                f"{folder}: has no table.json, so its embedding was not finished; embed again"
            )
        facts = read_json(folder / "table.json")
        if not isinstance(facts, dict) or facts.get("format") != _FORMAT or _KEYS - set(facts):
            raise ValueError(f"{folder / 'table.json'}: not of a folder of embeddings")
        sharded = cls(
            folder=folder,
            counts=tuple(facts["parts"]),
            dim=facts["dim"],
            layout=CellLayout(facts["num_nodes"], facts["num_op_types"]),
            metadata=facts["metadata"],
        )
        for part in range(len(sharded.counts)):
            if not sharded.path(part).is_file():
                raise FileNotFoundError(
                    f"{sharded.path(part)}: is missing, one of {len(sharded.counts)} parts; "
                    "copy it there, or embed again"
                )
        return sharded

    def __len__(self) -> int:
        """Q, over all parts."""
        return sum(self.counts)

    def __iter__(self) -> Iterator[EmbeddingTable]:
        """The parts in order, read one at a time."""
        return map(self.part, range(len(self.counts)))

    def path(self, part: int) -> Path:
        """The file of a part."""
        return _path(self.folder, part)

    def part(self, part: int) -> EmbeddingTable:
        """Read one part. Raises ValueError if its file is another table's."""
        table = EmbeddingTable.load(self.path(part))
        shape, wanted = table.vectors.shape, (self.counts[part], self.dim)
        if shape != wanted or table.cells.layout != self.layout:
            raise ValueError(
                f"{self.path(part)}: holds {list(shape)} numbers where table.json says "
                f"{list(wanted)}, so it is another table's; embed again"
            )
        return table

    def rows(self, indices: ArrayLike) -> EmbeddingTable:
        """Rows [M] of the whole table, in the order asked for; reads each part at most once."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"indices: outside 0 .. {len(self) - 1}, the rows of {self.folder}")
        first = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        parts = np.searchsorted(first, wanted, side="right") - 1
        vectors = np.empty((len(wanted), self.dim), np.float32)
        codes = np.empty((len(wanted), self.layout.words), np.int64)
        for part in np.unique(parts):
            here = parts == part
            table = self.part(int(part))
            vectors[here] = table.vectors[wanted[here] - first[part]]
            codes[here] = table.cells.codes[wanted[here] - first[part]]
        cells = CellBatch(codes, self.layout)
        return EmbeddingTable(vectors=vectors, cells=cells, metadata=self.metadata)

    def table(self) -> EmbeddingTable:
        """Everything in memory."""
        vectors: NDArray[np.float32] = np.empty((len(self), self.dim), np.float32)
        codes = np.empty((len(self), self.layout.words), np.int64)
        done = 0
        for table in self:
            vectors[done : done + len(table)] = table.vectors
            codes[done : done + len(table)] = table.cells.codes
            done += len(table)
        cells = CellBatch(codes, self.layout)
        return EmbeddingTable(vectors=vectors, cells=cells, metadata=self.metadata)


def embed_shards(
    run: Run | str | Path,
    folder: str | Path,
    cells: CellBatch | Iterable[CellBatch] | None = None,
    *,
    shard_cells: int = SHARD_CELLS,
    device: str | torch.device = "cpu",
    engine: str = "fused",
    precision: str = "fp32",
    chunk_size: int | None = None,
    progress: bool = False,
) -> ShardedEmbeddings:
    """Embed cells into a folder of files, one for each batch; memory holds one batch at a time.

    folder: new or empty. cells: any iterable of batches, e.g. `space.stream(1 << 20)`, a sequence
    of them, or one `CellBatch`, default the run's, which is split after every `shard_cells`. Other
    arguments as `embeddings.embed`.

    Where torch.distributed's default group is initialised, its processes share the work: the one of
    rank r embeds batches r, r + size, ... and writes their files. All must make the same call with
    equal batches. Of a sequence (`Darts.batches`) each takes its own; a stream all walk through.
    What the files hold does not depend on the number of processes. An error leaves a folder without
    table.json, which `ShardedEmbeddings` refuses.
    """
    folder, device = Path(folder), check_device(device)
    if shard_cells < 1:
        raise ValueError(f"shard_cells: {shard_cells} is below 1")
    run = open_run(run)
    processes = Processes.current(device)
    processes.on_first(lambda: _claim(folder))
    cells = run.cells if cells is None else cells
    total = len(cells) if isinstance(cells, CellBatch) else None
    parts = _Parts(_split(cells, shard_cells), processes)
    metadata: Mapping[str, str] = {}
    with Progress("embedding", "cells", total, enabled=progress and processes.first) as bar:
        for table in embed_stream(
            *(run, parts),
            device=device,
            engine=engine,
            precision=precision,
            chunk_size=chunk_size,
        ):
            table.save(_path(folder, parts.latest))
            metadata = table.metadata
            bar.update(min(processes.size * parts.own_cells, total or sys.maxsize))
    counts = parts.counts()  # once all processes have written theirs
    processes.on_first(lambda: _finish(folder, run, counts, metadata))
    return ShardedEmbeddings.load(folder)


class _Parts:
    """This process's batches, one after the other, with their numbers."""

    def __init__(self, batches: Iterable[CellBatch], processes: Processes) -> None:
        self._batches, self._processes = batches, processes
        self._own: dict[int, int] = {}  # cells by number
        self._number = 0
        self.latest = 0

    @property
    def own_cells(self) -> int:
        """Cells of this process so far."""
        return sum(self._own.values())

    def __iter__(self) -> Iterator[CellBatch]:
        rank, size = self._processes.rank, self._processes.size
        own: Iterator[tuple[int, CellBatch]]
        if isinstance(self._batches, Sequence):
            self._number = len(self._batches)
            own = ((i, self._batches[i]) for i in range(rank, self._number, size))
        else:
            own = self._walk(rank, size)
        for number, batch in own:
            self.latest, self._own[number] = number, len(batch)
            yield batch

    def _walk(self, rank: int, size: int) -> Iterator[tuple[int, CellBatch]]:
        for number, batch in enumerate(self._batches):
            self._number = number + 1
            if number % size == rank:
                yield number, batch

    def counts(self) -> list[int]:
        """Cells of every part; waits for all processes."""
        counts = torch.zeros(self._number, dtype=torch.int64, device=self._processes.device)
        for number, count in self._own.items():
            counts[number] = count
        return [int(count) for count in self._processes.sum_(counts)]


def _split(cells: CellBatch | Iterable[CellBatch], size: int) -> Iterable[CellBatch]:
    if not isinstance(cells, CellBatch):
        return cells
    return [cells[first : first + size] for first in range(0, len(cells), size)]


def _path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:06}.safetensors"


def _claim(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"out: {folder} is not an empty directory; choose another one")
    folder.mkdir(parents=True, exist_ok=True)


def _finish(folder: Path, run: Run, counts: list[int], metadata: Mapping[str, str]) -> None:
    facts = {
        "format": _FORMAT,
        "parts": counts,
        "dim": run.recipe.latent_dim,
        "num_nodes": run.space.layout.num_nodes,
        "num_op_types": run.space.layout.num_op_types,
        "metadata": dict(metadata),
    }
    write_json(folder / "table.json", facts)

# SPDX-License-Identifier: Apache-2.0
"""Embeddings: one vector a cell, computed in chunks, kept with the cells they belong to."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast._checks import check_device
from arch2vec_fast._files import read_tensors, read_torch, write_tensors, write_torch
from arch2vec_fast._memory import counted_memory
from arch2vec_fast._principal import check_components, principal_axes
from arch2vec_fast._progress import Progress
from arch2vec_fast.index import LatentIndex, build_index
from arch2vec_fast.models.gin_vae import AutoencoderBase, GinVae
from arch2vec_fast.models.inference import CellEncoder, encoder_bytes, readout_encoder
from arch2vec_fast.pretrain.run import Run, open_run
from arch2vec_fast.spaces import CellBatch, CellLayout

# Cells of a pass. Fused: equal ones are encoded once, so all of NAS-Bench-101 at once; a few
# seconds' work. Eager: the node states (4 MB for NAS-Bench-101) stay in cache.
_CHUNK = {"fused": 524_288, "eager": 1024}
_SHARDS = ", or embed_shards (--shard), which keeps one batch in memory"

READOUTS = ("latent", "hidden")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddingTable:
    """Vectors of cells, row by row.

    vectors: float32 [Q,D]. cells: the Q cells in the same order. metadata: strings: space,
    recipe, seed, readout, commit, and whatever else the maker wants to record.

    >>> cells = CellBatch(np.zeros((1, 1), np.int64), CellLayout(7, 5))
    >>> EmbeddingTable(vectors=np.zeros((1, 16), np.float32), cells=cells).vectors.shape
    (1, 16)
    """

    vectors: NDArray[np.float32]
    cells: CellBatch
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.vectors, np.ndarray):
            got = type(self.vectors).__name__
            raise TypeError(f"vectors: expected a NumPy array, got {got}; convert with np.asarray")
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.cells):
            raise ValueError(
                f"vectors: shape {self.vectors.shape} does not give one row to each of the "
                f"{len(self.cells)} cells; pass [Q,D]"
            )
        if self.vectors.dtype != np.float32:
            raise TypeError(f"vectors: dtype {self.vectors.dtype}; convert to float32")

    def __len__(self) -> int:
        return len(self.vectors)

    def index(self, *, engine: str = "auto", device: str | torch.device = "cpu") -> LatentIndex:
        """An exact nearest-neighbour index of the vectors; see `index.build_index`."""
        return build_index(self.vectors, engine=engine, device=device)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: `vectors`, `codes` and the metadata. Whole or not at all."""
        layout = self.cells.layout
        sizes = {"num_nodes": str(layout.num_nodes), "num_op_types": str(layout.num_op_types)}
        tensors = {
            "vectors": torch.from_numpy(np.ascontiguousarray(self.vectors)),
            "codes": self.cells.to_torch(),
        }
        write_tensors(Path(path), tensors, {**self.metadata, **sizes, "format": "arch2vec-fast-1"})

    @classmethod
    def load(cls, path: str | Path) -> EmbeddingTable:
        """Read a file of `save`, or a whole folder of `sharded.embed_shards`.

        Raises ValueError for a foreign or truncated file.
        """
        if Path(path).is_dir():
            from arch2vec_fast.sharded import ShardedEmbeddings

            return ShardedEmbeddings.load(path).table()
        tensors, metadata = read_tensors(Path(path))
        if metadata.pop("format", None) != "arch2vec-fast-1":
            raise ValueError(f"{path}: a safetensors file, but not an embedding table")
        try:
            layout = CellLayout(int(metadata.pop("num_nodes")), int(metadata.pop("num_op_types")))
            cells = CellBatch.from_torch(tensors["codes"], layout)
            return cls(vectors=tensors["vectors"].numpy(), cells=cells, metadata=metadata)
        except KeyError as error:
            raise ValueError(f"{path}: an embedding table without {error}; embed again") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: a damaged embedding table ({error}); embed again") from None

    # -- the released code's files ---------------------------------------------------------

    def export_released(self, path: str | Path, columns: Mapping[str, Any] | None = None) -> None:
        """Write the released code's embedding file: a dict of int -> {"feature", ...}.

        columns: further values of each cell, one per row, by the released names: for
        NAS-Bench-101 "valid_accuracy", "test_accuracy", "time"; NAS-Bench-201 also
        "valid_accuracy_avg" and "test_accuracy_avg", which go into "other_info" as there;
        DARTS "genotype". Features are views of one [Q,D] tensor, which keeps the file small.
        """
        columns = dict(columns or {})
        for name, values in columns.items():
            if len(values) != len(self):
                raise ValueError(f"columns[{name!r}]: {len(values)} values for {len(self)} cells")
        averages = {name: columns.pop(name) for name in list(columns) if name.endswith("_avg")}
        features = torch.from_numpy(np.ascontiguousarray(self.vectors))
        table: dict[int, dict[str, Any]] = {}
        for index, feature in enumerate(features):
            row = {name: _plain(values[index]) for name, values in columns.items()}
            table[index] = {"feature": feature, **row}
            if averages:
                info = {name: _plain(values[index]) for name, values in averages.items()}
                table[index]["other_info"] = info
        write_torch(Path(path), table)

    @classmethod
    def import_released(cls, path: str | Path, cells: CellBatch) -> EmbeddingTable:
        """Read a released embedding file for `cells`, which must be in the file's order.

        Only tensors and plain containers are loaded (`weights_only`). Other columns stay in the
        file; read them with `read_released_columns`.
        """
        table = _read_released(path)
        if len(table) != len(cells):
            raise ValueError(f"{path}: holds {len(table)} embeddings, but {len(cells)} cells given")
        features = [table[index]["feature"].detach().float().numpy() for index in range(len(table))]
        vectors = np.stack(features) if features else np.empty((0, 0), np.float32)
        return cls(vectors=vectors, cells=cells, metadata={"source": "released"})


def read_released_columns(path: str | Path) -> dict[str, list[Any]]:
    """Columns other than "feature" of a released embedding file; "other_info" is flattened."""
    table = _read_released(path)
    rows = []
    for index in range(len(table)):
        row = {name: value for name, value in table[index].items() if name != "feature"}
        row.update(row.pop("other_info", {}))
        rows.append(row)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def _read_released(path: str | Path) -> dict[int, dict[str, Any]]:
    table = read_torch(Path(path))
    if not isinstance(table, dict) or set(table) != set(range(len(table))):
        raise ValueError(f"{path}: not a released embedding file (a dict of int -> feature, ...)")
    length = None
    for index in range(len(table)):
        feature = table[index].get("feature") if isinstance(table[index], dict) else None
        if not isinstance(feature, Tensor) or feature.dim() != 1:
            raise ValueError(f"{path}: row {index} has no 'feature', a vector of numbers")
        length = length or len(feature)
        if len(feature) != length:
            raise ValueError(f"{path}: row {index} has {len(feature)} numbers, row 0 {length}")
    return table


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def embed(
    run: Run | str | Path,
    cells: CellBatch | None = None,
    *,
    readout: str = "latent",
    components: int | None = None,
    simplify: bool = False,
    device: str | torch.device = "cpu",
    engine: str = "fused",
    precision: str = "fp32",
    chunk_size: int | None = None,
    progress: bool = False,
) -> EmbeddingTable:
    """Embed cells with a run's trained model.

    Args:
        run: or its directory.
        cells: default all cells of the run.
        readout: "latent", the read-out of mu [Q,D] as in the paper, or "hidden", that of the node
            states of all GIN layers side by side [Q,L*H], which says more about a cell.
        components: keep the coordinates along this many principal axes of the vectors (exact, not
            whitened); default all numbers as they are.
        simplify: encode `run.space.simplify(cells)`: cells that compute the same get one vector.
            The table holds the codes of `cells` as they were.
        engine: "fused" kernels, or "eager" plain PyTorch for comparison.
        precision: of the fused products, "fp32", "tf32" or "bf16" (see `functional.gin_encode`).
        chunk_size: cells of a pass.

    Deterministic; memory beyond the result does not grow with Q. With `components`, cells are
    encoded twice, and vectors depend on the chunks and the other cells: within rounding on the
    former.
    """
    run = open_run(run)
    cells = run.cells if cells is None else cells
    _check_layout(cells, run)
    if readout not in READOUTS:
        raise ValueError(f"readout: unknown {readout!r}; choose one of {', '.join(READOUTS)}")
    encoded = run.space.simplify(cells) if simplify else cells
    model = _on_device(run.model, device)
    hidden = readout == "hidden"
    encoder = readout_encoder(
        model, cells.layout, hidden=hidden, engine=engine, precision=precision
    )
    each = encoder_bytes(model, cells.layout, engine=engine)
    how = (device, _chunk(model, engine, chunk_size), each)
    width = run.recipe.num_layers * run.recipe.hidden_dim if hidden else run.recipe.latent_dim
    axes = None
    if components is not None:
        check_components(components, width)
        axes = principal_axes(_encode(encoder, encoded, *how), components)
        width = components
    with counted_memory("cells", len(cells), 4 * width, "cpu", otherwise=_SHARDS):
        vectors = np.empty((len(cells), width), np.float32)
    done = 0
    with Progress("embedding", "cells", len(cells), enabled=progress) as bar:
        for chunk in _encode(encoder, encoded, *how):
            vectors[done : done + len(chunk)] = chunk if axes is None else axes.project(chunk)
            done += len(chunk)
            bar.update(done)
    metadata = _describe(run)
    if hidden:
        metadata["states"] = "hidden"
    if components is not None:
        metadata["components"] = str(components)
    if simplify:
        metadata["simplified"] = "yes"
    return EmbeddingTable(vectors=vectors, cells=cells, metadata=metadata)


def embed_stream(
    run: Run | str | Path,
    batches: Iterable[CellBatch],
    *,
    device: str | torch.device = "cpu",
    engine: str = "fused",
    precision: str = "fp32",
    chunk_size: int | None = None,
) -> Iterator[EmbeddingTable]:
    """Embed spaces that exceed memory: one table for each batch of cells, as batches arrive.

    batches: any iterable of `CellBatch`, e.g. `space.stream(1 << 18)`; large batches share more
    work. At any time one batch and its table are held. Other arguments as `embed`.

        for table in embed_stream(run, space.stream(1 << 18)):
            best.update(table.vectors, table.cells)

    `sharded.embed_shards` writes them to a folder, in several processes if there are.
    """
    run = open_run(run)
    chunk_size = _chunk(run.model, engine, chunk_size)
    model = _on_device(run.model, device)
    encoder = readout_encoder(model, run.space.layout, engine=engine, precision=precision)
    each = encoder_bytes(model, run.space.layout, engine=engine)
    metadata = _describe(run)
    for cells in batches:
        _check_layout(cells, run)
        chunks = list(_encode(encoder, cells, device, chunk_size, each))
        empty = np.empty((0, run.recipe.latent_dim), np.float32)
        vectors = np.concatenate(chunks or [empty])
        yield EmbeddingTable(vectors=vectors, cells=cells, metadata=metadata)


def embed_chunks(
    model: AutoencoderBase,
    cells: CellBatch,
    *,
    device: str | torch.device = "cpu",
    engine: str = "fused",
    precision: str = "fp32",
    chunk_size: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Stream embeddings float32 [<=chunk_size, D] of a model that belongs to no run."""
    chunk_size = _chunk(model, engine, chunk_size)
    model = _on_device(model, device)
    encoder = readout_encoder(model, cells.layout, engine=engine, precision=precision)
    each = encoder_bytes(model, cells.layout, engine=engine)
    yield from _encode(encoder, cells, device, chunk_size, each)


def _chunk(model: AutoencoderBase, engine: str, chunk_size: int | None) -> int:
    if chunk_size is None:
        fused = engine == "fused" and isinstance(model, GinVae)  # GCN models run eagerly
        return _CHUNK["fused" if fused else "eager"]
    if chunk_size < 1:
        raise ValueError(f"chunk_size: {chunk_size} is below 1")
    return chunk_size


def _encode(
    encoder: CellEncoder,
    cells: CellBatch,
    device: str | torch.device,
    chunk_size: int,
    each: int,
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(cells), chunk_size):
        chunk = cells[start : start + chunk_size]
        with counted_memory("chunk_size", len(chunk), each, device):
            vectors = encoder(chunk.to_torch(device)).cpu().numpy()
        yield vectors


def _on_device(model: AutoencoderBase, device: str | torch.device) -> AutoencoderBase:
    """The model itself, or a copy elsewhere: the caller's stays where it is."""
    device = check_device(device)
    if device == next(model.parameters()).device:
        return model
    return copy.deepcopy(model).to(device)


def _check_layout(cells: CellBatch, run: Run) -> None:
    if cells.layout != run.space.layout:
        raise ValueError(
            f"cells: are of {cells.layout.num_nodes} nodes and {cells.layout.num_op_types} "
            f"operation types, but the run is of the space {run.space.name!r}"
        )


def _describe(run: Run) -> dict[str, str]:
    return {
        "space": run.space.name,
        "recipe": run.recipe.name,
        "readout": run.recipe.readout,
        "seed": str(run.seed),
        "epochs": str(run.epochs_done),
        "commit": str(run.config["commit"]),
    }

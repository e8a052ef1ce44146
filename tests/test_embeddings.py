# SPDX-License-Identifier: Apache-2.0
"""Embeddings: independent of chunks, files that round trip, the released formats."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast._files import read_tensors, write_tensors
from arch2vec_fast.embeddings import EmbeddingTable, embed, embed_stream, read_released_columns
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.pretrain import Run, pretrain

SPACE = spaces.get("nasbench201")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "run"
    return pretrain(SPACE, "best", path, epochs=1, limit=400, batch_size=128)


@pytest.fixture(scope="module")
def table(run: Run) -> EmbeddingTable:
    return embed(run)


def test_is_the_readout_of_the_model(run: Run, table: EmbeddingTable) -> None:
    with torch.no_grad():
        adjacency, node_ops = unpack(run.cells.to_torch(), run.space.layout)
        mu, _ = run.model.encode(adjacency, node_ops)
        expected = run.model.readout(mu, node_ops)
    torch.testing.assert_close(torch.from_numpy(table.vectors), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 7, 399, 400, 1000])
def test_chunks_do_not_matter(run: Run, table: EmbeddingTable, chunk_size: int) -> None:
    other = embed(run, chunk_size=chunk_size).vectors
    np.testing.assert_array_equal(other, table.vectors)


def test_engines_agree(run: Run, table: EmbeddingTable) -> None:
    eager = embed(run, engine="eager").vectors
    np.testing.assert_allclose(eager, table.vectors, rtol=1e-4, atol=1e-5)


def test_streams_a_table_a_batch(run: Run) -> None:
    batches = list(SPACE.stream(6000))
    streamed = list(embed_stream(run, iter([*batches, batches[0][:0]])))
    assert [table.cells for table in streamed[:-1]] == batches
    assert streamed[-1].vectors.shape == (0, 16)
    assert streamed[0].metadata["recipe"] == "best"
    whole = embed(run, SPACE.enumerate())
    np.testing.assert_array_equal(np.concatenate([t.vectors for t in streamed]), whole.vectors)
    with pytest.raises(ValueError, match="cells: are of 11 nodes and 11 operation types"):
        next(embed_stream(run, [spaces.get("darts").sample(2, seed=0)]))
    with pytest.raises(ValueError, match="chunk_size: 0 is below 1"):
        next(embed_stream(run, batches, chunk_size=0))


def test_other_cells_and_none(run: Run) -> None:
    cells = SPACE.sample(3, seed=1)
    assert embed(run, cells).vectors.shape == (3, 16)
    assert embed(run, cells[:0]).vectors.shape == (0, 16)


def test_file_round_trip(table: EmbeddingTable, tmp_path: Path) -> None:
    table.save(tmp_path / "table.safetensors")
    again = EmbeddingTable.load(tmp_path / "table.safetensors")
    np.testing.assert_array_equal(again.vectors, table.vectors)
    assert again.cells == table.cells
    assert again.metadata == table.metadata
    assert again.metadata["space"] == "nasbench201"
    assert again.metadata["recipe"] == "best"


def test_released_file_round_trip(table: EmbeddingTable, tmp_path: Path) -> None:
    """The NAS-Bench-201 variant: averages go into "other_info", features are plain tensors."""
    path = tmp_path / "arch2vec.pt"
    columns = {
        "valid_accuracy": np.linspace(0, 100, len(table)),
        "test_accuracy": np.linspace(1, 99, len(table)),
        "time": np.ones(len(table), np.float32),
        "valid_accuracy_avg": np.linspace(2, 98, len(table)),
        "test_accuracy_avg": np.linspace(3, 97, len(table)),
    }
    table.export_released(path, columns)
    file = torch.load(path, weights_only=True)
    assert list(file) == list(range(len(table)))
    assert set(file[7]) == {"feature", "valid_accuracy", "test_accuracy", "time", "other_info"}
    assert set(file[7]["other_info"]) == {"valid_accuracy_avg", "test_accuracy_avg"}
    assert isinstance(file[7]["time"], float)
    assert not file[7]["feature"].requires_grad
    again = EmbeddingTable.import_released(path, table.cells)
    np.testing.assert_array_equal(again.vectors, table.vectors)
    assert read_released_columns(path)["test_accuracy_avg"] == pytest.approx(
        columns["test_accuracy_avg"]
    )


def test_reads_features_that_carry_gradients(table: EmbeddingTable, tmp_path: Path) -> None:
    """The released NAS-Bench-201 files were saved without no_grad."""
    features = {
        index: {"feature": torch.from_numpy(vector.copy()).requires_grad_()}
        for index, vector in enumerate(table.vectors[:5])
    }
    torch.save(features, tmp_path / "grad.pt")
    again = EmbeddingTable.import_released(tmp_path / "grad.pt", table.cells[:5])
    np.testing.assert_array_equal(again.vectors, table.vectors[:5])


def test_rejects_foreign_files(table: EmbeddingTable, tmp_path: Path) -> None:
    path = tmp_path / "table.safetensors"
    table.save(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        EmbeddingTable.load(path)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="not a released embedding file"):
        EmbeddingTable.import_released(tmp_path / "list.pt", table.cells)
    table.export_released(tmp_path / "ok.pt")
    with pytest.raises(ValueError, match="holds 400 embeddings, but 399 cells"):
        EmbeddingTable.import_released(tmp_path / "ok.pt", table.cells[1:])
    with pytest.raises(FileNotFoundError, match="no such file"):
        EmbeddingTable.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({0: {"feature": 5}}, "row 0 has no 'feature'"),
        ({0: {"feature": torch.ones(3)}, 1: {"feature": torch.ones(4)}}, "row 1 has 4 numbers"),
        ({0: {"feature": torch.ones(3)}, 1: 7}, "row 1 has no 'feature'"),
        ({0: {"feature": torch.ones(3)}, "1": {}}, "not a released embedding file"),
    ],
)
def test_a_malformed_released_file_names_its_row(
    table: EmbeddingTable, tmp_path: Path, rows: dict[Any, Any], message: str
) -> None:
    torch.save(rows, tmp_path / "rows.pt")
    with pytest.raises(ValueError, match=rf"rows\.pt: .*{message}"):
        EmbeddingTable.import_released(tmp_path / "rows.pt", table.cells[: len(rows)])


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({}, {"num_nodes": ""}, "damaged"),
        ({}, {"num_nodes": "99"}, "damaged"),
        ({"vectors": torch.zeros(1, 16)}, {}, "damaged"),
        ({"codes": torch.zeros(400, 1)}, {}, "damaged"),
    ],
)
def test_a_damaged_table_names_its_file(
    table: EmbeddingTable, tmp_path: Path, tensors: Any, metadata: Any, message: str
) -> None:
    path = tmp_path / "table.safetensors"
    table.save(path)
    whole, facts = read_tensors(path)
    write_tensors(path, {**whole, **tensors}, {**facts, **metadata})
    with pytest.raises(ValueError, match=rf"table\.safetensors: a {message} embedding table"):
        EmbeddingTable.load(path)
    del facts["num_nodes"]
    write_tensors(path, whole, facts)
    with pytest.raises(ValueError, match="an embedding table without 'num_nodes'"):
        EmbeddingTable.load(path)


def test_rejects_cells_of_another_space(run: Run) -> None:
    with pytest.raises(ValueError, match="cells: are of 11 nodes and 11 operation types"):
        embed(run, spaces.get("darts").sample(2, seed=0))
    with pytest.raises(ValueError, match="chunk_size: 0 is below 1"):
        embed(run, chunk_size=0)


def test_rejects_columns_of_another_length(table: EmbeddingTable, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"columns\['time'\]: 3 values for 400 cells"):
        table.export_released(tmp_path / "x.pt", {"time": [1, 2, 3]})
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize("engine", ["fused", "eager"])
def test_hidden_is_the_readout_of_every_layer(run: Run, engine: str) -> None:
    table = embed(run, readout="hidden", engine=engine)
    assert table.vectors.shape == (400, run.recipe.num_layers * run.recipe.hidden_dim)
    assert table.metadata["states"] == "hidden"
    with torch.no_grad():
        adjacency, node_ops = unpack(run.cells.to_torch(), run.space.layout)
        states = run.model.hidden_states(adjacency, node_ops)
        expected = torch.cat([run.model.readout(state, node_ops) for state in states], 1)
    torch.testing.assert_close(torch.from_numpy(table.vectors), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk_size", [7, 399, None])
def test_components_are_those_of_an_svd(run: Run, chunk_size: int | None) -> None:
    whole = embed(run, readout="hidden").vectors.astype(np.float64)
    table = embed(run, readout="hidden", components=5, chunk_size=chunk_size)
    assert table.metadata["components"] == "5"
    centred = whole - whole.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:5] * np.sign(axes[np.arange(5), np.abs(axes[:5]).argmax(1)])[:, None]
    scale = np.abs(centred @ axes.T).max()
    np.testing.assert_allclose(table.vectors, centred @ axes.T, atol=1e-4 * scale)


def test_simplified_cells_share_a_vector_and_keep_their_codes(run: Run) -> None:
    cells = SPACE.enumerate()[:500]
    table = embed(run, cells, simplify=True)
    assert table.cells == cells
    assert table.metadata["simplified"] == "yes"
    np.testing.assert_array_equal(table.vectors, embed(run, SPACE.simplify(cells)).vectors)
    _, _, group = SPACE.simplify(cells).unique()
    assert len(np.unique(table.vectors, axis=0)) <= group.max() + 1 < 500


def test_rejects_impossible_readouts(run: Run) -> None:
    with pytest.raises(ValueError, match="readout: unknown 'mean'; choose one of latent, hidden"):
        embed(run, readout="mean")
    with pytest.raises(ValueError, match=r"components: 17 is outside 1 .. 16, the dimensions"):
        embed(run, components=17)
    with pytest.raises(ValueError, match="components: there are no vectors"):
        embed(run, run.cells[:0], components=3)


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        ([[1.0]], TypeError, "vectors: expected a NumPy array, got list; convert"),
        (
            np.zeros((2, 1), np.float32),
            ValueError,
            r"vectors: shape \(2, 1\) does not give one row",
        ),
        (np.zeros((1, 1)), TypeError, "vectors: dtype float64; convert to float32"),
    ],
)
def test_a_table_rejects_vectors(vectors: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        EmbeddingTable(vectors=vectors, cells=spaces.get("nasbench201").sample(1, seed=0))

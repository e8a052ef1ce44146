# SPDX-License-Identifier: Apache-2.0
"""Folders of embeddings: the same rows as one table, whoever wrote them; nothing missing unseen."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from arch2vec_fast import spaces
from arch2vec_fast._processes import Processes
from arch2vec_fast.embeddings import EmbeddingTable, embed
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.sharded import ShardedEmbeddings, embed_shards
from arch2vec_fast.spaces import CellSpace
from several import run_torchrun

SPACE = spaces.get("nasbench201")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "run"
    return pretrain(SPACE, "best", path, epochs=1, limit=400, batch_size=128)


@pytest.fixture(scope="module")
def sharded(run: Run, tmp_path_factory: pytest.TempPathFactory) -> ShardedEmbeddings:
    return embed_shards(run, tmp_path_factory.mktemp("shards") / "a" / "b", shard_cells=151)


def test_holds_the_rows_of_one_table(run: Run, sharded: ShardedEmbeddings) -> None:
    whole = embed(run)
    assert sharded.counts == (151, 151, 98)
    assert len(sharded) == 400
    assert [len(table) for table in sharded] == [151, 151, 98]
    for again in (sharded.table(), EmbeddingTable.load(sharded.folder)):
        np.testing.assert_array_equal(again.vectors, whole.vectors)
        assert again.cells == whole.cells
        assert again.metadata == whole.metadata


def test_reads_rows_in_any_order(run: Run, sharded: ShardedEmbeddings) -> None:
    whole = embed(run)
    wanted = [399, 0, 150, 151, 302, 151]
    table = sharded.rows(wanted)
    np.testing.assert_array_equal(table.vectors, whole.vectors[wanted])
    assert table.cells == whole.cells[np.array(wanted)]
    assert sharded.rows([]).vectors.shape == (0, 16)
    for outside in (-1, 400):
        with pytest.raises(IndexError, match=r"indices: outside 0 \.\. 399"):
            sharded.rows([3, outside])


class Apart(Processes):
    """One of two processes, which gets from the other what that would have sent."""

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        full = torch.full_like(tensor, 3000)
        full[5:] = 625
        full[6:] = 0
        return tensor.copy_(full)


def test_two_processes_write_what_one_writes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream or a sequence, empty batches included; the first process finishes."""
    batches = [*SPACE.stream(3000), SPACE.enumerate()[:0]]
    alone = embed_shards(run, tmp_path / "alone", batches)
    assert alone.counts == (3000, 3000, 3000, 3000, 3000, 625, 0)
    folder = tmp_path / "both"
    folder.mkdir()
    monkeypatch.setattr("arch2vec_fast.sharded._claim", lambda folder: None)
    monkeypatch.setattr(Processes, "on_first", lambda self, call: call() if self.first else None)
    monkeypatch.setattr(Processes, "current", lambda device: Apart(1, 2))
    with pytest.raises(FileNotFoundError, match=r"table\.json, so its embedding was not finished"):
        embed_shards(run, folder, iter(batches))
    written = sorted(path.stem for path in folder.iterdir())
    assert written == ["part-000001", "part-000003", "part-000005"]
    monkeypatch.setattr(Processes, "current", lambda device: Apart(0, 2))
    both = embed_shards(run, folder, batches)
    assert both.counts == alone.counts
    for part, expected in zip(both, alone):
        assert part.cells == expected.cells
        np.testing.assert_array_equal(part.vectors, expected.vectors)


def test_notices_what_is_missing_or_foreign(sharded: ShardedEmbeddings, tmp_path: Path) -> None:
    for name in ("table.json", "part-000000", "part-000002"):
        for path in sharded.folder.iterdir():
            if not path.name.startswith(name):
                (tmp_path / name).mkdir(exist_ok=True)
                (tmp_path / name / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"has no table\.json"):
        EmbeddingTable.load(tmp_path / "table.json")
    with pytest.raises(FileNotFoundError, match=r"part-000002\S+: is missing, one of 3 parts"):
        ShardedEmbeddings.load(tmp_path / "part-000002")
    other = tmp_path / "part-000000"
    (other / "part-000000.safetensors").write_bytes(sharded.path(2).read_bytes())
    with pytest.raises(ValueError, match=r"holds \[98, 16\] numbers where table.json says \[151"):
        ShardedEmbeddings.load(other).table()
    (other / "table.json").write_text(json.dumps({"format": "mine"}))
    with pytest.raises(ValueError, match="not of a folder of embeddings"):
        ShardedEmbeddings.load(other)


def test_embeds_a_space_of_ones_own(tmp_path: Path) -> None:
    space = CellSpace(5, ("input", "conv", "pool", "output"), name="mine", max_edges=6)
    mine = pretrain(space, "best", tmp_path / "run", epochs=0)
    sharded = embed_shards(mine, tmp_path / "folder", space.stream(100))
    assert len(sharded) == len(space.enumerate())
    assert sharded.metadata["space"] == "mine"
    with pytest.raises(ValueError, match="cells: are of 8 nodes and 7 operation types"):
        embed_shards(mine, tmp_path / "other", SPACE.stream(100))


def test_rejects_an_occupied_folder_and_no_cells_a_shard(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not an empty directory"):
        embed_shards(run, tmp_path)
    with pytest.raises(ValueError, match="shard_cells: 0 is below 1"):
        embed_shards(run, tmp_path / "new", shard_cells=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_command_in_two_processes(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = ("embed", str(run.path), "--space", "--shard", "4000", "--out", str(out), "--json")
    finished = run_torchrun(2, *call)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["cells"] == 15_625
    table = EmbeddingTable.load(out)
    np.testing.assert_array_equal(table.vectors, embed(run, table.cells).vectors)

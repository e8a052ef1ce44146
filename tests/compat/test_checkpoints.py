# SPDX-License-Identifier: Apache-2.0
"""Released checkpoints: written, read back, resumed from, and refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from arch2vec_fast import compat
from arch2vec_fast.models import GinVae, Recipe
from arch2vec_fast.spaces import CellLayout
from released import batch, load_golden

CONFIG = compat.configs[4]


def make_model(num_op_types: int = 5, kind: type = compat.Model) -> Any:
    return kind(num_op_types, 32, 8, 5, 2, 0.3, **CONFIG["GAE"])


def adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def train(model: compat.Model, optimizer: torch.optim.Optimizer, steps: int) -> float:
    torch.manual_seed(0)
    data, loss = load_golden("nasbench101", "steps"), torch.zeros(())
    for step in range(steps):
        adjacency, node_ops, _ = batch(data, step)
        adj, ops, prep_reverse = compat.preprocessing(adjacency, node_ops, **CONFIG["prep"])
        ops_recon, adj_recon, mu, logvar = model(ops, adj)
        adj_recon, ops_recon = prep_reverse(adj_recon, ops_recon)
        criterion = compat.VAEReconstructed_Loss(**CONFIG["loss"])
        loss = criterion((ops_recon, adj_recon), (node_ops, adjacency), mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Path:
    optimizer = adam(model) if optimizer is None else optimizer
    return compat.save_checkpoint_vae(model, optimizer, 7, 0.25, 8, "x", 0.3, 1, f_path=path)


def test_released_paths_and_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_model()
    compat.save_checkpoint_vae(model, adam(model), 7, 0.25, 16, "nasbench101", 0.3, 1)
    compat.save_checkpoint(model, adam(model), 7, 0.25, 16, "nasbench101", 0.3, 1)
    folder = tmp_path / "pretrained" / "dim-16"
    assert sorted(path.name for path in folder.iterdir()) == [
        "model-ae-nasbench101.pt",
        "model-nasbench101.pt",
    ]
    checkpoint = torch.load(folder / "model-nasbench101.pt", weights_only=True)
    assert list(checkpoint) == ["epoch", "loss", "model_state", "optimizer_state"]
    assert list(checkpoint["model_state"]) == list(model.state_dict())


def test_round_trip_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    model = make_model()
    optimizer = adam(model)
    train(model, optimizer, 3)
    loaded = compat.load_checkpoint(save(tmp_path / "a.pt", model, optimizer), "nasbench101")
    assert (loaded.epoch, loaded.loss, loaded.space) == (7, 0.25, "nasbench101")
    assert not loaded.model.training
    resumed = adam(loaded.model.train())
    resumed.load_state_dict(loaded.optimizer_state)
    assert train(loaded.model, resumed, 3) == train(model, optimizer, 3)


@pytest.mark.parametrize("num_op_types", [5, 7, 11, 20])
def test_sizes_and_space_are_read_from_the_weights(tmp_path: Path, num_op_types: int) -> None:
    state = torch.get_rng_state()
    model = compat.Model(num_op_types, 24, 12, 4, 3, 0.3, **CONFIG["GAE"])
    path = save(tmp_path / "a.pt", model)
    torch.set_rng_state(state)
    loaded = compat.load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.space == {5: "nasbench101", 7: "nasbench201", 11: "darts"}.get(num_op_types)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value), key


@pytest.mark.parametrize("num_mlp_layers", [1, 2])
def test_deterministic_checkpoints_give_a_gin(tmp_path: Path, num_mlp_layers: int) -> None:
    model = compat.GIN(5, 16, 8, 3, num_mlp_layers, 0.3, **CONFIG["GAE"])
    loaded = compat.load_checkpoint(save(tmp_path / "a.pt", model))
    assert isinstance(loaded.model, compat.GIN)


def test_models_of_the_package_are_written_in_the_released_format(tmp_path: Path) -> None:
    model = GinVae(CellLayout(7, 5), Recipe.released())
    loaded = compat.load_checkpoint(save(tmp_path / "a.pt", model), "nasbench101")
    assert torch.equal(loaded.model.fc1.weight, model.fc1.weight)


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint["model_state"].pop(key)


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint["model_state"].update({key: value})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("fc2.bias"), r"misses fc2\.bias \(1 missing, 0 unknown\)"),
        (drop("eps"), "misses eps"),
        (put("gates.0", torch.ones(2)), r"has the unknown gates\.0 \(0 missing, 1 unknown\)"),
        (put("fc2.bias", torch.ones(9)), r"fc2\.bias is \(9,\), expected \(8,\)"),
        (put("fc2.bias", torch.full((8,), torch.nan)), "NaN or infinite"),
        (put("fc2.bias", "text"), r"fc2\.bias is str"),
        (put("encoder.gcs.0.weight", torch.ones(2)), "holds a GAE or GVAE"),
        (lambda checkpoint: checkpoint.pop("optimizer_state"), "misses 'optimizer_state'"),
        (lambda checkpoint: checkpoint.update(epoch="seven"), "'epoch' is a str"),
    ],
)
def test_rejects_damaged_checkpoints(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = save(tmp_path / "a.pt", make_model())
    checkpoint = torch.load(path, weights_only=True)
    damage(checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=message) as error:
        compat.load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_rejects_a_checkpoint_of_another_space(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", make_model(7))
    expected = r"reads 7 operation types \(nasbench201\), but nasbench101 has 5"
    with pytest.raises(ValueError, match=expected):
        compat.load_checkpoint(path, "nasbench101")


def test_rejects_foreign_truncated_and_unsafe_files(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", make_model())
    whole = path.read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pt"):
            compat.load_checkpoint(path)
    torch.save({0: {"feature": torch.ones(16)}}, path)
    with pytest.raises(ValueError, match="embedding file"):
        compat.load_checkpoint(path)
    torch.save({"model_state": Path}, path)  # a pickled class is code
    with pytest.raises(ValueError, match=r"a\.pt"):
        compat.load_checkpoint(path)
    with pytest.raises(OSError, match=r"missing\.pt"):
        compat.load_checkpoint(tmp_path / "missing.pt")

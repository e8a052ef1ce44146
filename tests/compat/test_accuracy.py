# SPDX-License-Identifier: Apache-2.0
"""The printed accuracies: golden values, their definition, and the eval mode they leave behind."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from arch2vec_fast import compat
from released import SPACES, load_golden

NUM_OPS = {"nasbench101": 5, "nasbench201": 7}
CONFIG = compat.configs[4]


def trained(space: str) -> tuple[compat.Model, Tensor, Tensor]:
    steps = load_golden(space, "steps")
    model = compat.Model(NUM_OPS[space], 128, 16, 5, 2, 0.0, **CONFIG["GAE"])
    model.load_state_dict(load_golden(space, "final"))
    return model, steps["adjacency"].float(), steps["node_ops"].float()


@pytest.mark.parametrize("space", SPACES)
def test_accuracies_of_the_golden_weights(space: str) -> None:
    model, adjacency, node_ops = trained(space)
    expected = load_golden(space, "steps")["accuracy4"]
    reconstruction = model.eval()(node_ops, adjacency + adjacency.mT)[:2]
    values = compat.get_accuracy(reconstruction, (node_ops, adjacency))
    assert_close(torch.tensor([float(v) for v in values]).double(), expected, rtol=0, atol=1e-5)
    values = compat.get_val_acc_vae(
        model, CONFIG, adjacency, node_ops, torch.arange(len(adjacency))
    )
    assert_close(torch.tensor([float(v) for v in values]).double(), expected, rtol=0, atol=1e-5)


def test_validation_leaves_eval_mode_and_no_graph() -> None:
    model, adjacency, node_ops = trained("nasbench101")
    model.train()
    values = compat.get_val_acc(model, CONFIG, adjacency, node_ops, torch.arange(len(adjacency)))
    assert not model.training
    assert not values[1].requires_grad


def test_validation_weighs_chunks_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, adjacency, node_ops = trained("nasbench101")
    indices = torch.arange(len(adjacency))
    whole = compat.get_val_acc_vae(model, CONFIG, adjacency, node_ops, indices)
    monkeypatch.setattr("arch2vec_fast.compat.accuracy._CHUNK", 100)
    chunked = compat.get_val_acc_vae(model, CONFIG, adjacency, node_ops, indices)
    assert chunked[0] == pytest.approx(whole[0])
    assert chunked[3] == pytest.approx(whole[3])


def test_perfect_and_inverted_reconstructions() -> None:
    adjacency = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    node_ops = torch.eye(3).unsqueeze(0)
    perfect = compat.get_accuracy((node_ops, adjacency), (node_ops, adjacency))
    assert [float(value) for value in perfect] == [1.0, 1.0, 0.0, 1.0]
    inverted = compat.get_accuracy((node_ops, 1 - adjacency), (node_ops, adjacency))
    assert [float(value) for value in inverted] == [1.0, 0.0, 1.0, 0.0]
    line = compat.get_train_acc((node_ops, adjacency), (node_ops, adjacency))
    assert line == (
        "training batch: acc_ops:1.0000, mean_corr_adj:1.0000, "
        "mean_fal_pos_adj:0.0000, acc_adj:1.0000"
    )


def test_rejects_lists_of_different_lengths() -> None:
    model, adjacency, node_ops = trained("nasbench101")
    with pytest.raises(ValueError, match="indices: 3 entries"):
        compat.get_val_acc_vae(model, CONFIG, adjacency, node_ops, torch.arange(3))

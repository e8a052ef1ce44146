# SPDX-License-Identifier: Apache-2.0
"""One flat Adam against torch's Adam over the parameters one by one: same bits, same files."""

import copy

import pytest
import torch
from torch import nn

from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.pretrain.flat import FlatAdam
from arch2vec_fast.spaces import CellLayout


def loss_of(model: nn.Module, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    adjacency = (torch.rand(8, 7, 7, generator=generator) < 0.4).float().triu(1)
    labels = torch.randint(0, 5, (8, 7), generator=generator)
    noise = torch.randn(8, 7, 16, generator=generator)
    result = model(adjacency, nn.functional.one_hot(labels, 5).float(), noise=noise)
    total = result.node_logits.square().mean() + result.edge_logits.square().mean()
    return 10 * total + result.log_sigma.square().mean()


@pytest.fixture
def models() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = build_model(Recipe.paper(), CellLayout(7, 5))
    return model, copy.deepcopy(model)


def torch_step(model: nn.Module, adam: torch.optim.Adam, seed: int) -> None:
    adam.zero_grad()
    loss_of(model, seed).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5)
    adam.step()


def flat_step(model: nn.Module, adam: FlatAdam, seed: int) -> None:
    adam.zero_grad()
    loss_of(model, seed).backward()
    adam.step(5)


def assert_same(first: nn.Module, second: nn.Module) -> None:
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values()):
        assert torch.equal(a, b), name


def test_same_bits_as_torch(models: tuple[nn.Module, nn.Module]) -> None:
    plain, flat = models
    theirs = torch.optim.Adam(plain.parameters(), lr=1e-3)
    ours = FlatAdam(flat.parameters(), 1e-3, fused=False)
    for seed in range(8):
        theirs.param_groups[0]["lr"] = ours.lr = 1e-3 / (seed + 1)
        torch_step(plain, theirs, seed)
        flat_step(flat, ours, seed)
        assert_same(plain, flat)


def test_files_go_both_ways(models: tuple[nn.Module, nn.Module]) -> None:
    plain, flat = models
    theirs = torch.optim.Adam(plain.parameters(), lr=1e-3)
    ours = FlatAdam(flat.parameters(), 1e-3, fused=False)
    assert ours.state_dict()["state"] == {}
    for seed in range(3):
        torch_step(plain, theirs, seed)
        flat_step(flat, ours, seed)
    for index, entry in theirs.state_dict()["state"].items():
        for name, value in entry.items():
            assert torch.equal(value, ours.state_dict()["state"][index][name]), (index, name)
    swapped = FlatAdam(plain.parameters(), 1e-3, fused=False)
    swapped.load_state_dict(theirs.state_dict())
    back = torch.optim.Adam(flat.parameters(), lr=1e-3)
    back.load_state_dict(ours.state_dict())
    flat_step(plain, swapped, 9)
    torch_step(flat, back, 9)
    assert_same(plain, flat)


def test_rejects_the_state_of_another_model(models: tuple[nn.Module, nn.Module]) -> None:
    ours = FlatAdam(models[0].parameters(), 1e-3, fused=False)
    other = FlatAdam(nn.Linear(2, 2).parameters(), 1e-3, fused=False)
    with pytest.raises(ValueError, match="optimizer_state: is of another model's parameters"):
        ours.load_state_dict(other.state_dict())

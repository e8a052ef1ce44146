# SPDX-License-Identifier: Apache-2.0
"""Side by side with a clone of the authors' code, where `ARCH2VEC_REFERENCE` names one.

Equality is to the bit: same seed, same weights, same random draws, same kernels. The golden files
cover most of it without the clone; this covers every size, class and helper.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arch2vec_fast import compat
from released import SPACES, load_golden

NUM_OPS = {"nasbench101": 5, "nasbench201": 7}
STEPS, BATCH = 30, 32


@pytest.fixture(scope="module")
def released() -> Iterator[SimpleNamespace]:
    """The modules of the clone, out of `sys.modules` again afterwards."""
    clone = os.environ.get("ARCH2VEC_REFERENCE")
    if not clone:
        pytest.skip("ARCH2VEC_REFERENCE is not set: no clone of the released code")
    before = set(sys.modules)
    sys.path.insert(0, clone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
        yield SimpleNamespace(
            models=importlib.import_module("models.model"),
            configs=importlib.import_module("models.configs").configs,
            utils=importlib.import_module("utils.utils"),
        )
    sys.path.remove(clone)
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("models", "utils", "gin"):
            del sys.modules[name]


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> str:
    return request.param


def cells_of(space: str, *, complete: bool = False) -> tuple[Tensor, Tensor]:
    """960 cells, the golden ones over again; `complete` leaves out those with absent nodes."""
    steps = load_golden(space, "steps")
    adjacency, node_ops = steps["adjacency"].float(), steps["node_ops"].float()
    if complete:
        whole = node_ops.sum((1, 2)) == node_ops.shape[1]
        adjacency, node_ops = adjacency[whole], node_ops[whole]
    order = torch.arange(STEPS * BATCH) % len(adjacency)
    return adjacency[order], node_ops[order]


def train(
    model: nn.Module, optimizer: Any, prepare: Any, criterion: Any, cells: tuple[Tensor, Tensor]
) -> list[float]:
    """30 steps as the released scripts do them, the second half in eval mode."""
    losses = []
    batches = list(zip(*(part.split(BATCH) for part in cells), strict=True))
    for step, (adj, ops) in enumerate(batches):
        model.train(step < STEPS // 2)
        adj, ops, prep_reverse = prepare(adj, ops, 4)
        ops_recon, adj_recon, *posterior = model(ops, adj)
        adj_recon, ops_recon = prep_reverse(adj_recon, ops_recon)
        adj, ops = prep_reverse(adj, ops)
        extra = posterior if len(posterior) == 2 else ()
        loss = criterion((ops_recon, adj_recon), (ops, adj), *extra)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        losses.append(loss.item())
    return losses


def seeded(kind: Any, seed: int, *arguments: Any, **kwargs: Any) -> tuple[nn.Module, Any]:
    torch.manual_seed(seed)
    model = kind(*arguments, **kwargs)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)


def assert_same_state(first: nn.Module, second: nn.Module) -> None:
    assert list(first.state_dict()) == list(second.state_dict())
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def train_both(released: SimpleNamespace, pairs: tuple[Any, Any], loss: str, cells: Any) -> None:
    """Train (theirs, ours), each a (model, optimizer), and require equality throughout."""
    (theirs, their_optimizer), (ours, our_optimizer) = pairs
    assert_same_state(theirs, ours)
    their_loss = getattr(released.models, loss)(**released.configs[4]["loss"])
    our_loss = getattr(compat, loss)(**compat.configs[4]["loss"])
    torch.manual_seed(1)
    expected = train(theirs, their_optimizer, released.utils.preprocessing, their_loss, cells)
    torch.manual_seed(1)
    assert train(ours, our_optimizer, compat.preprocessing, our_loss, cells) == expected
    assert_same_state(theirs, ours)


@pytest.mark.parametrize("sizes", [(128, 16, 5, 2), (32, 8, 3, 1), (48, 32, 4, 3)])
@pytest.mark.parametrize("name", ["Model", "GIN"])
def test_gin_models_train_alike(
    released: SimpleNamespace, space: str, name: str, sizes: tuple[int, ...]
) -> None:
    arguments = (NUM_OPS[space], *sizes, 0.3)
    cells = cells_of(space)
    loss = "VAEReconstructed_Loss" if name == "Model" else "Reconstructed_Loss"
    theirs = seeded(getattr(released.models, name), 7, *arguments, **released.configs[4]["GAE"])
    ours = seeded(getattr(compat, name), 7, *arguments, **compat.configs[4]["GAE"])
    train_both(released, (theirs, ours), loss, cells)

    # Weights and optimizer state go over in both directions, and training goes on alike.
    their_state, our_state = theirs[1].state_dict(), ours[1].state_dict()
    theirs[0].load_state_dict(ours[0].state_dict())
    ours[0].load_state_dict(theirs[0].state_dict())
    theirs[1].load_state_dict(our_state)
    ours[1].load_state_dict(their_state)
    train_both(released, (theirs, ours), loss, cells)

    validate = "get_val_acc_vae" if name == "Model" else "get_val_acc"
    data = (*cells, torch.arange(len(cells[0])))
    expected = getattr(released.utils, validate)(theirs[0], released.configs[4], *data)
    values = getattr(compat, validate)(ours[0], compat.configs[4], *data)
    assert values == expected
    assert list(map(type, values)) == list(map(type, expected))


def test_gvae_trains_alike(released: SimpleNamespace, space: str) -> None:
    arguments = ([NUM_OPS[space], 64, 64, 16], True, 0.3)
    theirs = seeded(released.models.GVAE, 7, *arguments, **released.configs[4]["GAE"])
    ours = seeded(compat.GVAE, 7, *arguments, **compat.configs[4]["GAE"])
    cells = cells_of(space, complete=True)
    train_both(released, (theirs, ours), "VAEReconstructed_Loss", cells)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("flags", [(False, False, False), (True, True, False), (True, False, True)])
def test_gae_returns_the_same(
    released: SimpleNamespace, space: str, normalize: bool, flags: tuple[bool, ...]
) -> None:
    arguments = ([NUM_OPS[space], 64, 64, 16], normalize, *flags, 0.3)
    theirs, _ = seeded(released.models.GAE, 7, *arguments, **released.configs[4]["GAE"])
    ours, _ = seeded(compat.GAE, 7, *arguments, **compat.configs[4]["GAE"])
    assert_same_state(theirs, ours)
    adjacency, node_ops = cells_of(space, complete=True)
    torch.manual_seed(1)
    expected = theirs(node_ops, adjacency + adjacency.mT)
    torch.manual_seed(1)
    for value, wanted in zip(ours(node_ops, adjacency + adjacency.mT), expected, strict=True):
        assert (value is None and wanted is None) or torch.equal(value, wanted)


@pytest.mark.parametrize(("method", "lbd"), [(0, None), (1, None), (2, 0.3), (3, 0.5), (4, None)])
def test_preprocessing_is_the_same_where_released_is_finite(
    released: SimpleNamespace, space: str, method: int, lbd: float | None
) -> None:
    cells = cells_of(space)
    theirs = released.utils.preprocessing(*cells, method, lbd)
    ours = compat.preprocessing(*cells, method, lbd)
    assert len(ours) == len(theirs)
    finite = torch.isfinite(theirs[0])
    assert torch.equal(ours[0][finite], theirs[0][finite])
    assert torch.isfinite(ours[0]).all()
    assert torch.equal(ours[1], theirs[1])
    if method in (3, 4):  # the released reverse of 2 is NaN throughout
        assert torch.equal(ours[2](*ours[:2])[0], theirs[2](*theirs[:2])[0])


def test_validity_checks_agree_on_random_cells(
    released: SimpleNamespace, generator: torch.Generator
) -> None:
    for _ in range(2000):
        labels = torch.randint(2, 10, (11,), generator=generator)
        labels[0], labels[1], labels[10] = 0, 1, 10
        if torch.rand((), generator=generator) < 0.2:
            labels[torch.randint(11, (), generator=generator)] = 10
        adjacency = (torch.rand(11, 11, generator=generator) < 0.6).int()
        if torch.rand((), generator=generator) < 0.8:
            adjacency = adjacency.triu(1)
        ops = released.utils.to_ops_darts(labels)
        assert compat.to_ops_darts(labels) == ops
        expected = released.utils.is_valid_darts(adjacency.tolist(), ops)
        assert compat.is_valid_darts(adjacency.tolist(), ops) == expected
        labels = torch.randint(7, (8,), generator=generator)
        labels[0], labels[7] = 0, 6
        ops = released.utils.to_ops_nasbench201(labels)
        assert compat.to_ops_nasbench201(labels) == ops
        expected = released.utils.is_valid_nasbench201(None, ops)
        assert compat.is_valid_nasbench201(None, ops) == expected

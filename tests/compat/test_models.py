# SPDX-License-Identifier: Apache-2.0
"""The released model classes: signatures, golden steps through them, structure of their weights."""

import copy
import pickle

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from arch2vec_fast import compat
from arch2vec_fast.models import GinVae, Recipe
from arch2vec_fast.spaces import CellLayout
from released import BATCH, NOISY_STEPS, SPACES, STEPS, ReleasedTwin, batch, load_golden

NUM_OPS = {"nasbench101": 5, "nasbench201": 7}
CONFIG = compat.configs[4]


def make_model(num_op_types: int, dropout: float = 0.3, **kwargs: object) -> compat.Model:
    return compat.Model(
        input_dim=num_op_types,
        hidden_dim=128,
        latent_dim=16,
        num_hops=5,
        num_mlp_layers=2,
        dropout=dropout,
        **kwargs,
        **CONFIG["GAE"],
    )


@pytest.fixture
def cells() -> tuple[Tensor, Tensor]:
    """(undirected adjacency, node_ops) of 32 NAS-Bench-101 cells."""
    adjacency, node_ops, _ = batch(load_golden("nasbench101", "steps"), 0)
    return adjacency + adjacency.mT, node_ops


@pytest.mark.parametrize("space", SPACES)
def test_released_training_loop_gives_the_golden_numbers(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, init = load_golden(space, "steps"), load_golden(space, "init")
    twin, model = ReleasedTwin(init), make_model(NUM_OPS[space], dropout=0.0)
    model.load_state_dict(init)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-08)
    twin_optimizer = torch.optim.Adam(list(twin.parameters.values()), lr=1e-3)
    for step in range(STEPS):
        if step < NOISY_STEPS:
            monkeypatch.setattr(torch, "randn_like", lambda _, step=step: steps["noise"][step])
        else:
            model.eval()
        cells = slice(step * BATCH, (step + 1) * BATCH)
        adj, ops = steps["adjacency"][cells].float(), steps["node_ops"][cells].float()

        # As the released scripts have it.
        optimizer.zero_grad()
        adj, ops, prep_reverse = compat.preprocessing(adj, ops, **CONFIG["prep"])
        ops_recon, adj_recon, mu, logvar = model(ops, adj.to(torch.long))
        adj_recon, ops_recon = prep_reverse(adj_recon, ops_recon)
        adj, ops = prep_reverse(adj, ops)
        criterion = compat.VAEReconstructed_Loss(**CONFIG["loss"])
        loss = criterion((ops_recon, adj_recon), (ops, adj), mu, logvar)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()

        twin_optimizer.zero_grad()
        expected, _, _ = twin.loss(*batch(steps, step))
        expected.backward()
        torch.nn.utils.clip_grad_norm_(list(twin.parameters.values()), 5)
        twin_optimizer.step()
        assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for key, parameter in model.named_parameters():
        assert_close(parameter, twin.parameters[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_mlp_layers", [1, 2, 3])
@pytest.mark.parametrize("num_op_types", [5, 20])
def test_all_widths_and_depths_are_free(num_mlp_layers: int, num_op_types: int) -> None:
    model = compat.Model(num_op_types, 24, 32, 4, num_mlp_layers, 0.3, **CONFIG["GAE"])
    ops = torch.eye(num_op_types)[torch.arange(9) % num_op_types].expand(3, -1, -1)
    adj = torch.ones(9, 9).triu(1).expand(3, -1, -1)
    shapes = [tuple(value.shape) for value in model(ops, adj + adj.mT)]
    assert shapes == [(3, 9, num_op_types), (3, 9, 9), (3, 9, 32), (3, 9, 32)]
    assert (model.input_dim, model.hidden_dim, model.latent_dim) == (num_op_types, 24, 32)
    assert model.num_layers == 4
    first = model.mlps[0]
    assert hasattr(first, "linear") == (num_mlp_layers == 1)
    assert num_mlp_layers == 1 or len(first.linears) == num_mlp_layers


def test_weights_interchange_with_the_packages_model(cells: tuple[Tensor, Tensor]) -> None:
    adj, ops = cells
    torch.manual_seed(0)
    model = make_model(5).eval()
    torch.manual_seed(0)
    ours = GinVae(CellLayout(7, 5), Recipe.released()).eval()
    for key, value in ours.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert list(model.state_dict()) == list(ours.state_dict())
    mu, logvar = model._encoder(ops, adj)
    assert torch.equal(mu, ours.encode(adj.triu(1), ops)[0])
    assert torch.equal(mu, model.encode(adj.triu(1), ops)[0])
    assert torch.equal(logvar, ours.encode(adj.triu(1), ops)[1])
    assert_close(model.decoder(mu)[1], ours.decode(mu).edge_logits.sigmoid())
    assert torch.equal(model.decode(mu).node_logits, ours.decode(mu).node_logits)


def test_construction_leaves_the_generator_where_the_released_code_does() -> None:
    torch.manual_seed(0)
    make_model(5)
    after = torch.rand(())
    torch.manual_seed(0)
    GinVae(CellLayout(7, 5), Recipe.released())
    assert torch.rand(()) == after


def test_noise_is_drawn_with_randn_like_and_only_in_training(
    cells: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    adj, ops = cells
    model = make_model(5, dropout=0.0, return_z=True).eval()
    _, _, mu, _, z = model(ops, adj)
    assert torch.equal(mu, z)
    model.train()
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    _, _, mu, logvar, z = model(ops, adj)
    assert torch.equal(z, logvar.exp() + mu)
    assert torch.equal(model.reparameterize(mu, logvar), z)


def test_integer_adjacency_and_single_cells_are_accepted(cells: tuple[Tensor, Tensor]) -> None:
    adj, ops = cells
    model = make_model(5).eval()
    for whole, single in zip(model(ops, adj), model(ops[:1], adj[:1].long()), strict=True):
        assert_close(single, whole[:1], rtol=1e-4, atol=1e-5)


def test_decoder_uses_the_adjacency_activation_for_both_heads() -> None:
    decoder = compat.Decoder(4, 3, 0.0, activation_adj=torch.tanh, activation_ops=torch.softmax)
    z = torch.randn(2, 5, 4)
    node_probabilities, edge_probabilities = decoder(z)
    assert torch.equal(node_probabilities, torch.tanh(decoder.weight(z)))
    assert_close(edge_probabilities, torch.tanh(z @ z.mT))
    assert (decoder.adj_hidden_dim, decoder.ops_hidden_dim) == (4, 4)


def test_gin_is_the_deterministic_model(cells: tuple[Tensor, Tensor]) -> None:
    adj, ops = cells
    model = compat.GIN(5, 32, 8, 5, 2, 0.3, **CONFIG["GAE"]).eval()
    assert [key for key in model.state_dict() if key.startswith("fc")] == ["fc.weight", "fc.bias"]
    ops_recon, adj_recon, z = model(ops, adj)
    assert (ops_recon.shape, adj_recon.shape, z.shape) == ((32, 7, 5), (32, 7, 7), (32, 7, 8))
    loss = compat.Reconstructed_Loss(**CONFIG["loss"])(
        (ops_recon, adj_recon.triu(1)), (ops, adj.triu(1))
    )
    assert loss.ndim == 0
    assert torch.isfinite(loss)


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True)])
def test_gae_returns_the_five_released_values(
    cells: tuple[Tensor, Tensor], flags: tuple[bool, bool]
) -> None:
    adj, ops = cells
    reg_dec_l2, reg_dec_gp = flags
    model = compat.GAE([5, 32, 8], True, True, reg_dec_l2, reg_dec_gp, 0.0, **CONFIG["GAE"]).eval()
    ops_recon, adj_recon, emb_loss, dec_loss, latent = model(ops, adj)
    x, _ = model.encoder(ops, adj)
    assert (ops_recon.shape, adj_recon.shape) == ((32, 7, 5), (32, 7, 7))
    assert_close(emb_loss, x.mean(1).norm(dim=1).mean())
    norms = sum(parameter.norm() for parameter in model.decoder.parameters())
    assert_close(dec_loss, norms if reg_dec_l2 else torch.zeros(1))
    assert latent is None if not reg_dec_gp else torch.equal(latent, x)
    assert torch.equal(model.encode(adj.triu(1), ops)[0], x)
    model(ops[:1], adj[:1])  # a batch of one crashed in the released code


def test_gvae_keeps_the_unused_layer_of_released_checkpoints(cells: tuple[Tensor, Tensor]) -> None:
    adj, ops = cells
    model = compat.GVAE([5, 32, 32, 8], True, 0.0, **CONFIG["GAE"])
    assert [key for key in model.state_dict() if key.endswith("weight")] == [
        "encoder.gcs.0.weight",
        "encoder.gcs.1.weight",
        "encoder.gcs.2.weight",
        "encoder.gc_mu.weight",
        "encoder.gc_logvar.weight",
        "decoder.weight.weight",
    ]
    outputs = model(ops, adj)
    assert [value.shape[-1] for value in outputs] == [5, 7, 8, 8]
    sum(value.sum() for value in outputs).backward()
    assert model.encoder.gcs[2].weight.grad is None
    assert model.encoder.gc_logvar.weight.grad is not None


def test_models_can_be_copied_and_pickled(cells: tuple[Tensor, Tensor]) -> None:
    adj, ops = cells
    model = make_model(5).eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(ops, adj)[0], model(ops, adj)[0])


def test_float64_is_supported(cells: tuple[Tensor, Tensor]) -> None:
    adj, ops = cells
    assert all(value.dtype == torch.float64 for value in make_model(5).double()(ops.double(), adj))


def test_info_nas_model_comes_with_its_optimizer(cells: tuple[Tensor, Tensor]) -> None:
    adj, ops = cells
    model, optimizer = compat.get_arch2vec_model(device="cpu")
    assert len(model(ops, adj)) == 5
    assert len(optimizer.param_groups[0]["params"]) == 39


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 8, 4, 1, 2, 0.0), "num_hops: 1"),
        ((5, 8, 4, 3, 0, 0.0), "num_mlp_layers: 0"),
        ((5, 8, 4, 3, 2, 1.5), "dropout"),
        ((0, 8, 4, 3, 2, 0.0), "num_op_types: 0"),
    ],
)
def test_rejects_impossible_sizes(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compat.Model(*arguments)


def test_rejects_an_mlp_without_layers_and_a_loss_without_terms() -> None:
    with pytest.raises(ValueError, match="num_layers: 0"):
        compat.MLP(0, 5, 8, 8)
    with pytest.raises(ValueError, match="loss_ops"):
        compat.Reconstructed_Loss()((torch.ones(1), torch.ones(1)), (torch.ones(1), torch.ones(1)))
    assert [layer.out_features for layer in compat.MLP(3, 5, 8, 2).linears] == [8, 8, 2]

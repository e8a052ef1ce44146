# SPDX-License-Identifier: Apache-2.0
"""The GCN baselines: layer formula, normalisation, sizes, the two recipes that use them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.models.gae import GcnEncoder, GcnVae, GraphConvolution, normalize_adjacency
from arch2vec_fast.pretrain.objective import objective
from arch2vec_fast.spaces import CellLayout

LAYOUT = CellLayout(7, 5)


@pytest.fixture
def cells(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Directed adjacency and node_ops of 13 cells; every other one lacks its last two nodes."""
    adjacency = (torch.rand(13, 7, 7, generator=generator) < 0.5).float().triu(1)
    labels = torch.randint(5, (13, 7), generator=generator)
    node_ops = torch.nn.functional.one_hot(labels, 5).float()
    adjacency[::2, :, 5:] = 0
    node_ops[::2, 5:] = 0
    return adjacency, node_ops


def test_normalisation_matches_the_matrix_product(cells: tuple[Tensor, Tensor]) -> None:
    matrix = cells[0] + torch.eye(7)
    left = torch.diag_embed(matrix.sum(1).rsqrt())
    right = torch.diag_embed(matrix.sum(2).rsqrt())
    assert_close(normalize_adjacency(matrix), left @ matrix @ right)


def test_nodes_without_edges_give_zeros_and_finite_gradients(cells: tuple[Tensor, Tensor]) -> None:
    undirected = (cells[0] + cells[0].mT).requires_grad_()
    normalized = normalize_adjacency(undirected)
    assert torch.isfinite(normalized).all()
    assert not normalized[0, 5:].any()
    assert not normalized[0, :, 5:].any()
    normalized.sum().backward()
    assert torch.isfinite(undirected.grad).all()


def test_layer_is_relu_before_bias(cells: tuple[Tensor, Tensor]) -> None:
    adjacency, node_ops = cells
    layer = GraphConvolution(5, 4)
    expected = torch.relu(torch.einsum("bij,bjf,hf->bih", adjacency, node_ops, layer.weight))
    assert_close(layer(node_ops, adjacency), expected + layer.bias)
    bare = GraphConvolution(5, 4, bias=False)
    assert [name for name, _ in bare.named_parameters()] == ["weight"]
    assert bare(node_ops, adjacency).min() >= 0


def test_heads_are_linear_unless_asked_otherwise(cells: tuple[Tensor, Tensor]) -> None:
    adjacency, node_ops = cells
    for linear_heads in (True, False):
        encoder = GcnEncoder([5, 6, 4], variational=True, linear_heads=linear_heads)
        for value, head in zip(
            encoder(node_ops, adjacency), (encoder.gc_mu, encoder.gc_logvar), strict=True
        ):
            assert ((value - head.bias).min() < 0) == linear_heads


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_acts_on_the_input_of_every_layer_in_training_only(dtype: torch.dtype) -> None:
    encoder = GcnEncoder([5, 6, 4], variational=False, normalize=False, dropout=0.5).to(dtype)
    node_ops, adjacency = torch.eye(5, dtype=dtype).unsqueeze(0), torch.ones(1, 5, 5, dtype=dtype)
    first, second = encoder(node_ops, adjacency)[0], encoder(node_ops, adjacency)[0]
    assert not torch.equal(first, second)
    encoder.eval()
    assert torch.equal(encoder(node_ops, adjacency)[0], encoder(node_ops, adjacency)[0])


# Five layers of widths 128, 128, 128, 128, 16; VGAE has a second head. Decoder: 16 -> F.
@pytest.mark.parametrize(
    ("name", "layout", "count"),
    [
        ("gae", CellLayout(7, 5), 52_453),
        ("vgae", CellLayout(7, 5), 54_517),
        ("gae", CellLayout(8, 7), 52_743),
        ("vgae", CellLayout(8, 7), 54_807),
    ],
)
def test_recipes_build_the_five_layer_baselines(name: str, layout: CellLayout, count: int) -> None:
    model = build_model(Recipe.get(name), layout)
    assert isinstance(model, GcnVae)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    weights = [key for key in model.state_dict() if key.endswith("weight")]
    heads = ["encoder.gc_mu.weight", "encoder.gc_logvar.weight"]
    hidden = [f"encoder.gcs.{layer}.weight" for layer in range(4)]
    last = heads if name == "vgae" else ["encoder.gcs.4.weight"]
    assert weights == [*hidden, *last, "decoder.weight.weight"]


@pytest.mark.parametrize("name", ["gae", "vgae"])
def test_a_step_reaches_every_parameter_with_finite_gradients(
    cells: tuple[Tensor, Tensor], name: str
) -> None:
    torch.manual_seed(0)
    recipe = replace(Recipe.get(name), dropout=0.0, hidden_dim=32)
    model = build_model(recipe, LAYOUT)
    reconstruction = model(*cells)
    assert (reconstruction.log_sigma is None) == (name == "gae")
    total, parts = objective(reconstruction, *cells, recipe)
    assert (parts["kl"] == 0) == (name == "gae")
    total.backward()
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", ["gae", "vgae"])
def test_encoder_is_permutation_equivariant_and_undirected(
    cells: tuple[Tensor, Tensor], name: str, generator: torch.Generator
) -> None:
    model = build_model(Recipe.get(name), LAYOUT).double().eval()
    adjacency, node_ops = (part.double() for part in cells)
    order = torch.randperm(7, generator=generator)
    mu, _ = model.encode(adjacency, node_ops)
    moved, _ = model.encode(adjacency[:, order][:, :, order], node_ops[:, order])
    assert_close(moved, mu[:, order])
    assert_close(model.encode(adjacency.mT, node_ops)[0], mu)
    assert_close(model.readout(mu, node_ops), mu.mean(1))


def test_rejects_an_encoder_without_layers() -> None:
    with pytest.raises(ValueError, match="dims: "):
        GcnEncoder([5], variational=False)

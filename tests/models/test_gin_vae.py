# SPDX-License-Identifier: Apache-2.0
"""The autoencoder: sizes, equivalence of its forms, what each recipe field changes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from arch2vec_fast import compat
from arch2vec_fast.models import GinVae, Recipe, build_model
from arch2vec_fast.spaces import CellLayout

LAYOUT = CellLayout(7, 5)


def random_cells(count: int, layout: CellLayout = LAYOUT) -> tuple[Tensor, Tensor]:
    adjacency = (torch.rand(count, layout.num_nodes, layout.num_nodes) < 0.4).float().triu(1)
    ops = torch.randint(0, layout.num_op_types, (count, layout.num_nodes))
    return adjacency, torch.nn.functional.one_hot(ops, layout.num_op_types).float()


@pytest.mark.parametrize(
    ("layout", "parameters"),
    [(CellLayout(7, 5), 122_617), (CellLayout(8, 7), 122_907), (CellLayout(11, 11), 123_487)],
)
def test_released_sizes(layout: CellLayout, parameters: int) -> None:
    model = GinVae(layout, Recipe.released())
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 63


def test_unit_gates_are_the_symmetric_encoder() -> None:
    gated = GinVae(LAYOUT, replace(Recipe.released(), direction="gated")).eval()
    symmetric = GinVae(LAYOUT, Recipe.released()).eval()
    symmetric.load_state_dict(gated.state_dict(), strict=False)
    assert gated.gates is not None
    for gate in gated.gates:
        torch.nn.init.ones_(gate)
    cells = random_cells(9)
    torch.testing.assert_close(gated.encode(*cells), symmetric.encode(*cells))


def test_gated_encoder_tells_directions_apart() -> None:
    """A chain of two different operations, and the same chain reversed."""
    adjacency = torch.zeros(2, 7, 7)
    adjacency[:, 0, 1] = adjacency[:, 1, 2] = adjacency[:, 2, 3] = 1
    ops = torch.zeros(2, 7, 5)
    for cell, labels in enumerate([(0, 1, 2, 0), (0, 2, 1, 0)]):
        for node, label in enumerate(labels):
            ops[cell, node, label] = 1
    for recipe, same in ((Recipe.released(), True), (Recipe.best(), False)):
        model = build_model(recipe, LAYOUT).eval()
        first, second = model.readout(model.encode(adjacency, ops)[0], ops)
        assert torch.allclose(first, second, atol=1e-5) == same, recipe.name


@pytest.mark.parametrize("name", Recipe.names())
def test_encoder_is_permutation_equivariant(name: str) -> None:
    model = build_model(Recipe.get(name), LAYOUT).double().eval()
    adjacency, node_ops = (part.double() for part in random_cells(5))
    order = torch.tensor([0, 2, 1, 4, 3, 6, 5])
    permuted = adjacency[:, order][:, :, order]
    mu, _ = model.encode(adjacency, node_ops)
    mu_permuted, _ = model.encode(permuted, node_ops[:, order])
    torch.testing.assert_close(mu[:, order], mu_permuted)


def test_mixing_decoder_starts_as_the_released_one() -> None:
    torch.manual_seed(3)
    best = build_model(Recipe.best(), LAYOUT).eval()
    plain = build_model(replace(Recipe.best(), node_mixing=0), LAYOUT).eval()
    plain.decoder.weight.load_state_dict(best.decoder.weight.state_dict())
    z = torch.randn(4, 7, 16)
    torch.testing.assert_close(tuple(best.decode(z)), tuple(plain.decode(z)))


@pytest.mark.parametrize("name", Recipe.names())
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(Recipe.get(name), LAYOUT, variable_size=True)
    with torch.no_grad():  # the mixer starts at zero, which stops gradients of its first layer
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    result = model(*random_cells(16))
    total = result.node_logits.square().sum() + result.edge_logits.triu(1).square().sum()
    total = total + result.mu.square().sum()
    if result.log_sigma is not None:
        total = total + result.log_sigma.square().sum()
    total.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_noise_is_injected_and_used_only_in_training() -> None:
    model = build_model(replace(Recipe.released(), dropout=0.0), LAYOUT)
    cells, noise = random_cells(6), torch.randn(6, 7, 16)
    first, second = model(*cells, noise=noise), model(*cells, noise=noise)
    torch.testing.assert_close(first.node_logits, second.node_logits, rtol=0, atol=0)
    assert not torch.equal(model(*cells, noise=-noise).node_logits, first.node_logits)
    model.eval()
    torch.testing.assert_close(
        model(*cells, noise=noise).node_logits, model(*cells, noise=-noise).node_logits
    )


def test_absent_class_only_where_cells_vary_in_size() -> None:
    def classes(variable_size: bool) -> int:
        model = build_model(Recipe.best(), LAYOUT, variable_size=variable_size)
        return model.decode(torch.zeros(1, 7, 16)).node_logits.shape[2]

    assert (classes(True), classes(False)) == (6, 5)


@pytest.mark.parametrize(
    ("adjacency", "node_ops", "message"),
    [
        (
            (2, 7, 7),
            (2, 7, 6),
            r"node_ops: expected shape \[B, N, 5\], got \[2, 7, 6\]; pass one-hot",
        ),
        ((2, 7, 7), (7, 5), r"node_ops: expected shape \[B, N, 5\], got \[7, 5\]"),
        ((2, 7, 6), (2, 7, 5), r"adjacency: expected shape \[2, 7, 7\] to go with node_ops"),
        ((1, 7, 7), (2, 7, 5), r"adjacency: expected shape \[2, 7, 7\].*got \[1, 7, 7\]"),
    ],
)
def test_rejects_other_shapes(
    adjacency: tuple[int, ...], node_ops: tuple[int, ...], message: str
) -> None:
    dense = torch.zeros(adjacency), torch.zeros(node_ops)
    with pytest.raises(ValueError, match=message):
        GinVae(LAYOUT, Recipe.best())(*dense)
    released = compat.Model(5, 128, 16, 5, 2, 0.3)
    with pytest.raises(ValueError, match=message):
        released(dense[1], dense[0])

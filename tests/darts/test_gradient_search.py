# SPDX-License-Identifier: Apache-2.0
"""DARTS gradient search: its gradients, its discretisation, its resumption."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from arch2vec_fast.darts.gradient_search import (
    GradientSearchRecipe,
    _Search,
    search_by_gradient,
)
from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.supernet import NUM_EDGES, Supernet, discretize
from arch2vec_fast.spaces.darts import DartsNetwork, Genotype
from arch2vec_fast.spaces.darts_genotype import OPERATIONS

TINY = replace(GradientSearchRecipe.small(), channels=2, epochs=2, batch_size=50)


def test_discretises_to_the_two_strongest_edges() -> None:
    params = torch.zeros(2, NUM_EDGES, len(OPERATIONS))
    params[..., 0] = 9  # `none` is strongest everywhere and never chosen
    # Edges 5..8 lead to node 4 from 0..3.
    params[0, 6, OPERATIONS.index("sep_conv_3x3")] = 3
    params[0, 8, OPERATIONS.index("skip_connect")] = 2
    genotype = discretize(params)
    assert genotype.normal[4:6] == (("sep_conv_3x3", 1), ("skip_connect", 3))
    assert genotype.normal[0] == ("max_pool_3x3", 0)
    assert genotype.reduce != genotype.normal
    assert Genotype.parse(str(genotype)) == genotype


def test_supernet_under_one_hot_weights_is_one_operation_an_edge() -> None:
    """`none` on an edge leaves it out; a huge parameter makes its operation the only one."""
    torch.manual_seed(0)
    supernet = Supernet(DartsNetwork(channels=2, layers=3, classes=3, stem="cifar")).eval()
    images = torch.randn(2, 3, 16, 16)
    nothing = torch.zeros(2, NUM_EDGES, len(OPERATIONS))
    nothing[..., 0] = 1e3  # exp(-1000) is 0
    with torch.no_grad():
        logits = supernet(images, nothing)
        torch.testing.assert_close(logits, supernet.classifier.bias.expand(2, 3))
        only = nothing.clone()
        only[0, 0, OPERATIONS.index("skip_connect")] = 2e3
        states = supernet.cells[0](*[supernet.stem(images)] * 2, only[0].softmax(-1))
        first = supernet.cells[0].preprocess0(supernet.stem(images))
    torch.testing.assert_close(states[:, :2], first)
    assert not states[:, 2:].any()


def test_second_order_is_the_gradient_through_the_virtual_step(
    stripes: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against automatic differentiation through w - xi grad L_train(w, alpha), in float64.

    The step of the finite difference is made small: a network of two channels is far from linear
    over DARTS's own.
    """
    monkeypatch.setattr("arch2vec_fast.darts.gradient_search._PERTURBATION", 1e-6)
    search = _Search(stripes, TINY, 0, torch.device("cpu"))
    search.supernet.double()
    search.arch_params = search.arch_params.detach().double().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(8)
    batches = [
        tuple(part.double() if part.is_floating_point() else part for part in batch)
        for batch in (
            search._batch(search.train_part, rows, generator),
            search._batch(search.validation_part, rows, generator),
        )
    ]
    rate = 0.05
    names, weights = zip(*search.supernet.named_parameters())
    gradients = torch.autograd.grad(search._loss(batches[0]), weights, create_graph=True)
    ahead = {
        name: weight - rate * (gradient + TINY.weight_decay * weight)
        for name, weight, gradient in zip(names, weights, gradients)
    }
    (expected,) = torch.autograd.grad(search._loss(batches[1], ahead), search.arch_params)
    found = search._second_order(batches[0], batches[1], rate)
    (first,) = torch.autograd.grad(search._loss(batches[1]), search.arch_params)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert (first - expected).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize("order", [1, 2])
def test_learns_and_resumes(order: int, stripes: ImageSet, tmp_path: Path) -> None:
    recipe = replace(TINY, order=order)
    whole = search_by_gradient(stripes, recipe, out=tmp_path / "whole")
    assert len(whole.validation) == 2

    def stop(epoch: int, line: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_by_gradient(stripes, recipe, out=tmp_path / "cut", on_epoch=stop)
    resumed = search_by_gradient(stripes, recipe, out=tmp_path / "cut")
    assert torch.equal(resumed.arch_params, whole.arch_params)
    assert resumed.genotype == whole.genotype
    assert resumed.validation == whole.validation
    assert (whole.arch_params.std((1, 2)) > 1e-3).all()  # both cells moved away from the start


def test_rejects(stripes: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="order: 3 is neither 1 nor 2"):
        GradientSearchRecipe(order=3)
    with pytest.raises(ValueError, match="channels: 3; give an even number"):
        GradientSearchRecipe(channels=3)
    with pytest.raises(ValueError, match="the supernet has the 'cifar' stem"):
        Supernet(DartsNetwork(channels=4, layers=3, classes=3, stem="imagenet"))
    for name in ("learning_rate", "arch_learning_rate"):
        wild = replace(TINY, **{name: 1e30})
        with pytest.raises(FloatingPointError, match=r"(nan|inf) in epoch 0; lower learning_rate"):
            search_by_gradient(stripes, wild, out=tmp_path / "wild" / "a")
        assert not (tmp_path / "wild").exists()
    search_by_gradient(stripes, replace(TINY, epochs=1, order=1), out=tmp_path)
    with pytest.raises(ValueError, match=r"holds another training \(its recipe differ\)"):
        search_by_gradient(stripes, replace(TINY, epochs=1), out=tmp_path)


def test_the_supernet_has_as_many_parameters_as_that_of_darts() -> None:
    supernet = Supernet(DartsNetwork(channels=16, layers=8, classes=10, stem="cifar"))
    assert sum(parameter.numel() for parameter in supernet.parameters()) == 1_930_618

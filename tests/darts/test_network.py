# SPDX-License-Identifier: Apache-2.0
"""Networks of genotypes: the released numbers, keys and sizes; drop path; the auxiliary head."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast.darts import Network, draw_paths, published
from arch2vec_fast.darts.operations import build_operation
from arch2vec_fast.spaces.darts import CIFAR10, IMAGENET, DartsNetwork, Genotype, network_cost
from arch2vec_fast.spaces.darts_genotype import OPERATIONS

GOLDEN = Path(__file__).parent.parent / "golden" / "darts_network_arch2vec_bo.npz"
BO = Genotype.from_items(
    "1:sep_conv_5x5|0:max_pool_3x3|0:skip_connect|1:dil_conv_3x3"
    "|1:sep_conv_5x5|0:sep_conv_3x3|2:dil_conv_5x5|0:sep_conv_3x3"
)
DARTS = Genotype.from_items(
    "0:sep_conv_3x3|1:sep_conv_3x3|0:sep_conv_3x3|1:sep_conv_3x3"
    "|1:sep_conv_3x3|0:skip_connect|0:skip_connect|2:dil_conv_3x3",
    "0:max_pool_3x3|1:max_pool_3x3|2:skip_connect|1:max_pool_3x3"
    "|0:max_pool_3x3|2:skip_connect|2:skip_connect|1:max_pool_3x3",
)
SMALL = DartsNetwork(channels=4, layers=5, classes=10, stem="cifar")


@pytest.fixture
def golden() -> tuple[Network, dict[str, Tensor]]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        genotype = Genotype.parse(str(file["genotype"]))
        numbers = {key: torch.from_numpy(file[key]) for key in file.files if key != "genotype"}
    assert genotype == BO
    network = Network(genotype, SMALL, auxiliary=True)
    state = {
        key.removeprefix("state/"): value
        for key, value in numbers.items()
        if key.startswith("state/")
    }
    assert list(state) == list(network.state_dict())  # in the released order too
    network.load_state_dict(state)
    return network, numbers


def test_equals_the_released_network(golden: tuple[Network, dict[str, Tensor]]) -> None:
    network, numbers = golden
    with torch.no_grad():
        logits = network.eval()(numbers["x"])
    assert logits.auxiliary is None
    torch.testing.assert_close(logits.main, numbers["logits_eval"], rtol=1e-5, atol=1e-6)

    logits = network.train()(numbers["x"])
    torch.testing.assert_close(logits.main, numbers["logits_train"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.auxiliary, numbers["logits_aux"], rtol=1e-5, atol=1e-5)
    target = numbers["target"]
    assert logits.auxiliary is not None
    loss = F.cross_entropy(logits.main, target) + 0.4 * F.cross_entropy(logits.auxiliary, target)
    torch.testing.assert_close(loss.double(), numbers["loss"], rtol=1e-5, atol=0)
    loss.backward()
    for name, grad in (
        ("grad_stem", network.stem[0].weight.grad),
        ("grad_classifier", network.classifier.weight.grad),
    ):
        torch.testing.assert_close(grad, numbers[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", [CIFAR10, IMAGENET, SMALL], ids=["cifar10", "imagenet", "small"])
@pytest.mark.parametrize("genotype", [BO, DARTS], ids=["bo", "darts"])
def test_parameters_are_those_counted_analytically(
    config: DartsNetwork, genotype: Genotype
) -> None:
    with torch.device("meta"):
        network = Network(genotype, config, auxiliary=True)
    head = sum(p.numel() for p in network.auxiliary_head.parameters())
    counted = sum(p.numel() for p in network.parameters()) - head
    assert counted == network_cost(genotype, config).parameters[0]


def test_the_size_of_the_cell_of_bananas() -> None:
    cell = published.genotype("BANANAS")
    sizes = [int(network_cost(cell, config).parameters[0]) for config in (CIFAR10, IMAGENET)]
    assert sizes == [3_583_054, 5_101_120]


def test_published_sizes() -> None:
    assert network_cost([BO, DARTS], CIFAR10).parameters.tolist() == [3_616_966, 3_349_342]
    assert network_cost([BO, DARTS], IMAGENET).parameters.tolist() == [5_180_128, 4_718_752]


def test_mult_adds_are_those_of_the_modules() -> None:
    network = Network(DARTS, SMALL).eval()
    total = 0

    def count(module: torch.nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, torch.nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.BatchNorm2d):
            total += 2 * output.numel()
        elif isinstance(module, torch.nn.AvgPool2d):
            total += output.numel()
        elif isinstance(module, torch.nn.Linear):
            total += module.weight.numel()

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    pooled = network.classifier.in_features * (8 * 8 + 1)
    assert total + pooled == network_cost(DARTS, SMALL).mult_adds[0]


def test_imagenet_network_runs() -> None:
    config = DartsNetwork(channels=4, layers=3, classes=7, stem="imagenet")
    network = Network(BO, config, auxiliary=True)
    logits = network(torch.randn(2, 3, 224, 224))
    assert logits.main.shape == logits.auxiliary.shape == (2, 7)


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_operations_keep_channels_and_halve_by_stride(op: str, stride: int) -> None:
    images = torch.randn(2, 6, 10, 10)
    result = build_operation(op, 6, stride)(images)
    assert result.shape == (2, 6, 10 // stride, 10 // stride)
    if op == "none":
        assert not result.any()


def test_a_dropped_path_is_not_there() -> None:
    """With every operation of an image dropped but the skips, only skips are left."""
    network = Network(BO, SMALL).train()
    assert network.num_paths == 5 * 8 - 3  # the unstrided skips of three normal cells
    images = torch.randn(3, 3, 32, 32)
    paths = torch.ones(network.num_paths, 3)
    with torch.no_grad():
        torch.testing.assert_close(network(images, paths).main, network(images).main)
        paths[:, 1] = 0
        state = network.cells[0](*[network.stem(images)] * 2, paths)
    node_two, node_three = state[1, :4], state[1, 4:8]
    assert not node_two.any()  # sep_conv and max_pool
    assert node_three.any()  # skip_connect stays


def test_drop_path_keeps_the_mean_and_follows_the_generator() -> None:
    network = Network(BO, SMALL)
    paths = draw_paths(network, 4096, 0.3, torch.Generator().manual_seed(1))
    assert paths.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert paths.mean().item() == pytest.approx(1, abs=0.01)
    again = draw_paths(network, 4096, 0.3, torch.Generator().manual_seed(1))
    assert torch.equal(paths, again)
    assert draw_paths(network, 8, 0.0, torch.Generator()) is None
    with pytest.raises(ValueError, match=r"drop_prob: 1.0 is outside \[0, 1\)"):
        draw_paths(network, 8, 1.0, torch.Generator())


def test_auxiliary_head_names_the_size_it_needs() -> None:
    with pytest.raises(ValueError, match="auxiliary: the head needs images of 32x32"):
        Network(BO, SMALL, auxiliary=True)(torch.zeros(2, 3, 28, 28))

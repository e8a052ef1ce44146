# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds and parameters of DARTS networks against published and directly counted numbers."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast.spaces.darts_cost import (
    CIFAR10,
    IMAGENET,
    DartsNetwork,
    cost_table,
    network_cost,
)
from arch2vec_fast.spaces.darts_genotype import Genotype

GENOTYPES = {
    "arch2vec_bo": Genotype.from_items(
        "1:sep_conv_5x5|0:max_pool_3x3|0:skip_connect|1:dil_conv_3x3"
        "|1:sep_conv_5x5|0:sep_conv_3x3|2:dil_conv_5x5|0:sep_conv_3x3"
    ),
    "arch2vec_rl": Genotype.from_items(
        "0:sep_conv_3x3|1:dil_conv_3x3|0:max_pool_3x3|1:dil_conv_3x3"
        "|0:skip_connect|1:sep_conv_3x3|1:dil_conv_5x5|0:sep_conv_3x3"
    ),
    "darts": Genotype.from_items(
        "0:sep_conv_3x3|1:sep_conv_3x3|0:sep_conv_3x3|1:sep_conv_3x3"
        "|1:sep_conv_3x3|0:skip_connect|0:skip_connect|2:dil_conv_3x3",
        "0:max_pool_3x3|1:max_pool_3x3|2:skip_connect|1:max_pool_3x3"
        "|0:max_pool_3x3|2:skip_connect|2:skip_connect|1:max_pool_3x3",
    ),
    "bananas": Genotype.from_items(
        "1:sep_conv_3x3|0:skip_connect|2:sep_conv_5x5|0:sep_conv_5x5"
        "|0:skip_connect|2:sep_conv_5x5|0:sep_conv_3x3|2:skip_connect",
        "1:sep_conv_3x3|0:max_pool_3x3|0:max_pool_3x3|1:none"
        "|2:dil_conv_3x3|3:sep_conv_5x5|4:sep_conv_5x5|1:sep_conv_3x3",
    ),
}

# CIFAR-10 and ImageNet parameters: the sizes the papers' code prints. Multiply-adds: counted by
# hooks on the layers of a network (convolution, linear, 2 a normalised, 1 an averaged element).
PUBLISHED = {
    "arch2vec_bo": (3_616_966, 5_180_128, 579_849_984),
    "arch2vec_rl": (3_298_150, 4_818_112, 532_687_680),
    "darts": (3_349_342, 4_718_752, 538_191_360),
    "bananas": (3_583_054, 5_101_120, 576_020_928),
}


@pytest.mark.parametrize("name", GENOTYPES)
def test_published_architectures(name: str) -> None:
    cifar, imagenet = (network_cost(GENOTYPES[name], network) for network in (CIFAR10, IMAGENET))
    found = (cifar.parameters[0], imagenet.parameters[0], imagenet.mult_adds[0])
    assert found == PUBLISHED[name]


def test_published_mult_adds_of_arch2vec_in_millions() -> None:
    cost = network_cost([GENOTYPES["arch2vec_rl"], GENOTYPES["arch2vec_bo"]])
    assert np.round(cost.mult_adds / 1e6).tolist() == [533, 580]


# Random genotypes with distinct cells, counted once by hooks on a network built from them:
# (normal, reduce, (channels, layers, multiply-adds, parameters, CIFAR-10 parameters at C = 36)).
COUNTED = [
    (
        "1:none|0:sep_conv_3x3|2:dil_conv_3x3|1:sep_conv_3x3"
        "|3:skip_connect|1:avg_pool_3x3|2:max_pool_3x3|1:sep_conv_3x3",
        "0:max_pool_3x3|1:max_pool_3x3|2:dil_conv_5x5|1:max_pool_3x3"
        "|2:sep_conv_5x5|1:skip_connect|4:dil_conv_5x5|3:sep_conv_3x3",
        (48, 14, 469_174_272, 4_246_048, 1_982_278),
    ),
    (
        "0:dil_conv_3x3|1:none|2:sep_conv_5x5|1:skip_connect"
        "|2:max_pool_3x3|3:skip_connect|4:skip_connect|1:avg_pool_3x3",
        "1:max_pool_3x3|0:sep_conv_5x5|2:max_pool_3x3|1:sep_conv_3x3"
        "|2:max_pool_3x3|3:sep_conv_5x5|4:sep_conv_3x3|1:dil_conv_5x5",
        (48, 14, 387_860_928, 3_561_472, 1_596_718),
    ),
    (
        "1:skip_connect|0:sep_conv_3x3|0:avg_pool_3x3|2:none"
        "|2:max_pool_3x3|1:max_pool_3x3|1:none|4:max_pool_3x3",
        "1:skip_connect|0:skip_connect|2:sep_conv_3x3|1:dil_conv_5x5"
        "|3:sep_conv_5x5|2:max_pool_3x3|2:dil_conv_5x5|0:sep_conv_5x5",
        (48, 14, 358_724_352, 3_358_816, 1_472_374),
    ),
    (
        "0:sep_conv_3x3|1:max_pool_3x3|2:sep_conv_5x5|0:avg_pool_3x3"
        "|2:none|1:max_pool_3x3|1:none|4:max_pool_3x3",
        "0:skip_connect|1:max_pool_3x3|1:sep_conv_5x5|0:max_pool_3x3"
        "|0:none|2:skip_connect|1:dil_conv_5x5|0:skip_connect",
        (32, 5, 83_491_072, 951_544, 551_134),
    ),
]


@pytest.mark.parametrize(("normal", "reduce", "counted"), COUNTED)
def test_equals_a_count_over_the_layers(
    normal: str, reduce: str, counted: tuple[int, int, int, int, int]
) -> None:
    channels, layers, mult_adds, parameters, cifar_parameters = counted
    genotype = Genotype.from_items(normal, reduce)
    imagenet = DartsNetwork(channels=channels, layers=layers, classes=1000, stem="imagenet")
    cost = network_cost(genotype, imagenet)
    assert (cost.mult_adds[0], cost.parameters[0]) == (mult_adds, parameters)
    cifar = DartsNetwork(channels=36, layers=layers, classes=10, stem="cifar")
    assert network_cost(genotype, cifar).parameters[0] == cifar_parameters


def test_empty_batch() -> None:
    cost = network_cost([])
    assert cost.mult_adds.shape == cost.parameters.shape == (0,)


def test_table_is_shared_and_read_only() -> None:
    table = cost_table(IMAGENET)
    assert table is cost_table(IMAGENET)
    with pytest.raises(ValueError, match="read-only"):
        table.base[0] = 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("channels", 15, "channels: 15; give an even number"),
        ("layers", 2, "layers: 2; give at least 3"),
        ("classes", 0, "classes: 0; give at least 1"),
        ("stem", "mnist", "stem: 'mnist'; give 'cifar' or 'imagenet'"),
    ],
)
def test_rejects_networks_that_cannot_be_built(field: str, value: object, message: str) -> None:
    fields = {"channels": 16, "layers": 8, "classes": 10, "stem": "cifar"} | {field: value}
    with pytest.raises(ValueError, match=message):
        DartsNetwork(**fields)  # type: ignore[arg-type]


@pytest.mark.data
def test_parameters_of_nasbench301_cells(data_dir: Path) -> None:
    """The table counts batch norms inside operations without scale and shift, in units of 1e6."""
    with gzip.open(data_dir / "darts_nb301_surrogate.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    network = DartsNetwork(channels=32, layers=8, classes=10, stem="cifar", affine=False)
    genotypes = [Genotype.from_items(row["normal"], row["reduce"]) for row in rows]
    parameters = network_cost(genotypes, network).parameters
    assert len(rows) == 1_218
    np.testing.assert_allclose(parameters / 1e6, [float(row["mparams"]) for row in rows], atol=1e-9)

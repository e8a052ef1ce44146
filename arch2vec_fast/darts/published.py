# SPDX-License-Identifier: Apache-2.0
"""What others published of the DARTS space: genotypes, and results to stand beside ours as quoted.

Only numbers that the named source prints stand here. Means over seeds of the two arch2vec cells
are in the paper but in no second source at hand, and are left out; so are all costs of search.
"""

from __future__ import annotations

from dataclasses import dataclass

from arch2vec_fast.spaces.darts import Genotype

__all__ = ["CIFAR10_RESULTS", "IMAGENET_RESULTS", "Quoted", "genotype", "genotypes"]

_GENOTYPES = {
    "arch2vec_bo": (
        "1:sep_conv_5x5|0:max_pool_3x3|0:skip_connect|1:dil_conv_3x3"
        "|1:sep_conv_5x5|0:sep_conv_3x3|2:dil_conv_5x5|0:sep_conv_3x3",
        None,
    ),
    "arch2vec_rl": (
        "0:sep_conv_3x3|1:dil_conv_3x3|0:max_pool_3x3|1:dil_conv_3x3"
        "|0:skip_connect|1:sep_conv_3x3|1:dil_conv_5x5|0:sep_conv_3x3",
        None,
    ),
    "BANANAS": (
        "1:sep_conv_3x3|0:skip_connect|2:sep_conv_5x5|0:sep_conv_5x5"
        "|0:skip_connect|2:sep_conv_5x5|0:sep_conv_3x3|2:skip_connect",
        "1:sep_conv_3x3|0:max_pool_3x3|0:max_pool_3x3|1:none"
        "|2:dil_conv_3x3|3:sep_conv_5x5|4:sep_conv_5x5|1:sep_conv_3x3",
    ),
    "DARTS": (
        "0:sep_conv_3x3|1:sep_conv_3x3|0:sep_conv_3x3|1:sep_conv_3x3"
        "|1:sep_conv_3x3|0:skip_connect|0:skip_connect|2:dil_conv_3x3",
        "0:max_pool_3x3|1:max_pool_3x3|2:skip_connect|1:max_pool_3x3"
        "|0:max_pool_3x3|2:skip_connect|2:skip_connect|1:max_pool_3x3",
    ),
}


def genotypes() -> tuple[str, ...]:
    """Names that `genotype` takes."""
    return tuple(_GENOTYPES)


def genotype(name: str) -> Genotype:
    """A published genotype by the name its code gives it (DARTS: that of the second order).

    Raises ValueError for another name.
    """
    if name not in _GENOTYPES:
        raise ValueError(f"genotype: {name!r:.60} is none of {', '.join(_GENOTYPES)}")
    return Genotype.from_items(*_GENOTYPES[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """A published result.

    error, std, top5: test error and its deviation over trainings, and the top-5 error, in [0, 1].
    parameters, mult_adds: as printed, rounded. None: not printed by the source.
    """

    method: str
    error: float
    std: float | None = None
    top5: float | None = None
    parameters: float | None = None
    mult_adds: float | None = None
    source: str


_DARTS_PAPER = "Liu et al. 2019"
_AUTHORS = "README of the released code, one training"

CIFAR10_RESULTS = (
    Quoted(
        method="Random search",
        error=0.0329,
        std=0.0015,
        parameters=3.2e6,
        source=f"{_DARTS_PAPER}, table 1",
    ),
    Quoted(
        method="DARTS, first order",
        error=0.0300,
        std=0.0014,
        parameters=3.3e6,
        source=f"{_DARTS_PAPER}, table 1",
    ),
    Quoted(
        method="DARTS, second order",
        error=0.0276,
        std=0.0009,
        parameters=3.3e6,
        source=f"{_DARTS_PAPER}, table 1",
    ),
    Quoted(method="BANANAS", error=0.0257, source="README of naszilla/bananas, best"),
    Quoted(method="arch2vec-RL", error=0.0260, parameters=3.3e6, source=_AUTHORS),
    Quoted(method="arch2vec-BO", error=0.0248, parameters=3.6e6, source=_AUTHORS),
)
"""Table 4 of arch2vec: CIFAR-10 with cutout, the network of `CIFAR10`."""

IMAGENET_RESULTS = {
    "DARTS": Quoted(
        method="DARTS, second order",
        error=0.267,
        top5=0.087,
        parameters=4.7e6,
        mult_adds=574e6,
        source=f"{_DARTS_PAPER}, table 3",
    ),
    "arch2vec_rl": Quoted(
        method="arch2vec-RL", error=0.258, parameters=4.8e6, mult_adds=533e6, source=_AUTHORS
    ),
    "arch2vec_bo": Quoted(
        method="arch2vec-BO", error=0.255, parameters=5.2e6, mult_adds=580e6, source=_AUTHORS
    ),
}
"""The ImageNet transfer, by the name of the genotype: mobile setting, the network of `IMAGENET`."""

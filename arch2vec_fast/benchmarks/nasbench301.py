# SPDX-License-Identifier: Apache-2.0
"""The DARTS space with a surrogate for training: NAS-Bench-301 as YAHPO Gym fitted it.

A wide and deep network (642,092 weights) predicts validation accuracy and training time of a
genotype after a number of epochs. Predictions are no measurements, and the surrogate has no noise
and no test set: the benchmark's test accuracy is the prediction itself and its label says so.

Sources: Siems et al., "NAS-Bench-301 and the case for surrogate benchmarks", ICLR 2022; Pfisterer
et al., "YAHPO Gym", AutoML 2022 (weights: slds-lmu/yahpo_data, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast.benchmarks.base import TableBenchmark
from arch2vec_fast.spaces import CellBatch
from arch2vec_fast.spaces.darts import Darts
from arch2vec_fast.spaces.darts_genotype import OPERATIONS

__all__ = [
    "CONSTANTS",
    "EPOCHS",
    "FILE",
    "Nasbench301Surrogate",
    "Predictions",
    "pool",
    "surrogate_benchmark",
]

EPOCHS = 98
"""The longest training the surrogate knows, and the one a query asks for."""
REWARD = f"validation accuracy after {EPOCHS} epochs as a surrogate predicts it"
FILE = "nb301_yahpo_surrogate.npz"
POOL_SIZE = 600_000

_CHUNK = 16_384
# Codes of the surrogate's operation categories; 0 is "no edge", which `none` is too.
_CATEGORIES = {
    "none": 0,
    "avg_pool_3x3": 1,
    "dil_conv_3x3": 2,
    "dil_conv_5x5": 3,
    "max_pool_3x3": 4,
    "sep_conv_3x3": 5,
    "sep_conv_5x5": 6,
    "skip_connect": 7,
}
_CODE = np.array([_CATEGORIES[op] for op in OPERATIONS])
_FIRST_EDGE = np.array([0, 2, 5, 9])  # of nodes 2, 3, 4, 5 among a cell's 14
_EPOCH_SCALE = 52.0
_SECONDS_SCALE, _SECONDS_SHIFT = 13132.0927734375, 30.557992935180664
CONSTANTS = (1 / _EPOCH_SCALE, 0.01, 0.01, _SECONDS_SCALE, _SECONDS_SHIFT)
"""Factors and shifts of the public file's graph, in its order."""
_DEEP = ("deep_0_1", "deep_1_1", "deep_2_0")
_DEEPER = ("deeper_0_1", "deeper_1_1", "deeper_2_1", "deeper_3_1", "deeper_4_0")
_NUM_FEATURES = 34
_NUM_CODES = (len(_CATEGORIES),) * 28 + (4, 7, 11) * 2  # of each feature


class Predictions(NamedTuple):
    """What the surrogate says of B cells."""

    validation: NDArray[np.float32]
    """Validation accuracy in [0, 1] on CIFAR-10, [B]."""
    seconds: NDArray[np.float32]
    """Training time, [B]."""


class Nasbench301Surrogate:
    """The surrogate network.

    Args:
        weights: arrays by the names of the public file, e.g. from `load`.

    Raises ValueError, one line, where an array is missing or its shape does not fit.

    Deterministic. About 1.3 MFLOP a cell: 600,000 cells take some ten seconds on two cores.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        names = [f"embds_fct_{feature}_weight" for feature in range(_NUM_FEATURES)]
        layers = ("wide_0", *_DEEP, *_DEEPER)
        needed = [*names, *(f"{layer}_{part}" for layer in layers for part in ("weight", "bias"))]
        if missing := [name for name in needed if name not in weights]:
            raise ValueError(f"weights: lack {missing[0]} and {len(missing) - 1} more arrays")
        tensors = {name: torch.from_numpy(np.array(weights[name], np.float32)) for name in needed}
        if odd := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise ValueError(f"weights: {odd[0]} holds numbers that are not finite")
        self._tables = [tensors[name] for name in names]
        for name, codes in zip(names, _NUM_CODES):
            if tensors[name].dim() != 2 or len(tensors[name]) != codes:
                raise ValueError(
                    f"weights: {name} has shape {_shape(tensors[name])}, not {codes}xD"
                )
        self._layers = {
            layer: (tensors[f"{layer}_weight"], tensors[f"{layer}_bias"]) for layer in layers
        }
        self._check_layers(sum(table.shape[1] for table in self._tables) + 1)

    def _check_layers(self, inputs: int) -> None:
        """Every tower takes `inputs` numbers, gives two, and each layer what the next one takes."""
        for tower in (("wide_0",), _DEEP, _DEEPER):
            width = inputs
            for layer in tower:
                weight, bias = self._layers[layer]
                outputs = 2 if layer == tower[-1] else bias.numel()
                if weight.shape != (outputs, width) or bias.shape != (outputs,):
                    raise ValueError(
                        f"weights: {layer}_weight and {layer}_bias have shapes {_shape(weight)} "
                        f"and {_shape(bias)}, not {outputs}x{width} and {outputs}"
                    )
                width = outputs

    @classmethod
    def load(cls, path: str | Path) -> Nasbench301Surrogate:
        """From a `.npz` file of the weights; a foreign or truncated one is a ValueError."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; give the surrogate's weights, {FILE}")
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                weights = {name: archive[name] for name in archive.files}
        except Exception as error:  # zipfile, zlib and NumPy, by where the file is cut
            raise ValueError(f"{path}: no whole .npz file ({error})") from None
        try:
            return cls(weights)
        except ValueError as error:
            raise ValueError(f"{path}: not the surrogate's weights ({error})") from None

    @torch.no_grad()
    def predict(
        self,
        normal: NDArray[np.uint8],
        reduce: NDArray[np.uint8] | None = None,
        *,
        epochs: int = EPOCHS,
    ) -> Predictions:
        """Predictions for cells as edges uint8 [B, 8, 2] = (input, operation), see `Darts.edges`.

        reduce: of the reduction cells; None: the same as the normal ones, as in arch2vec.
        """
        if not 1 <= epochs <= EPOCHS:
            raise ValueError(f"epochs: {epochs} is outside 1..{EPOCHS}, what the surrogate knows")
        codes = _encode(normal, normal if reduce is None else reduce)
        outputs = [
            self._forward(torch.from_numpy(part), epochs / _EPOCH_SCALE)
            for part in np.array_split(codes, max(1, len(codes) // _CHUNK))
        ]
        accuracy, time = torch.cat(outputs).numpy().T
        return Predictions(accuracy, (time - 0.01) * _SECONDS_SCALE + _SECONDS_SHIFT)

    def _forward(self, codes: Tensor, epoch: float) -> Tensor:
        """Sigmoids [B, 2] of accuracy and time."""
        parts = [table[codes[:, feature]] for feature, table in enumerate(self._tables)]
        inputs = torch.cat([*parts, torch.full((len(codes), 1), epoch)], dim=1)
        total = torch.nn.functional.linear(inputs, *self._layers["wide_0"])
        for tower in (_DEEP, _DEEPER):
            hidden = inputs
            for layer in tower[:-1]:
                hidden = torch.selu_(torch.nn.functional.linear(hidden, *self._layers[layer]))
            total += torch.nn.functional.linear(hidden, *self._layers[tower[-1]])
        return total.sigmoid_()


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "()"


def _encode(normal: NDArray[np.uint8], reduce: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The surrogate's 34 category codes: 14 edges of each cell, then the nodes' input pairs."""
    codes = np.zeros((len(normal), _NUM_FEATURES), np.int64)
    rows = np.arange(len(normal))[:, None]
    for kind, edges in enumerate((normal, reduce)):
        source, operation = edges[..., 0].astype(np.int64), edges[..., 1]
        slots = np.repeat(_FIRST_EDGE, 2) + source
        codes[rows, 14 * kind + slots] = _CODE[operation]
        low, high = np.sort(source.reshape(-1, 4, 2), axis=2).transpose(2, 0, 1)
        for node in (1, 2, 3):  # node 2 has one pair only and no category
            inputs = node + 2
            first, second = low[:, node], high[:, node]
            # Rank of the pair (first, second) in lexicographic order, from 1.
            rank = first * (2 * inputs - first - 1) // 2 + (second - first)
            codes[:, 28 + 3 * kind + node - 1] = rank
    return codes


def pool(size: int = POOL_SIZE, *, seed: int = 0) -> CellBatch:
    """The cells that a search in the DARTS space proposes from: the paper's kind of sample.

    `size` distinct cells below 600 M multiply-adds in the mobile ImageNet setting.
    """
    return Darts().sample(size, max_mult_adds=600e6, seed=seed)


def surrogate_benchmark(surrogate: Nasbench301Surrogate, cells: CellBatch) -> TableBenchmark:
    """The benchmark of a pool of DARTS cells, normal and reduction cell alike, answered at once."""
    space = Darts()
    validation, seconds = surrogate.predict(space.edges(cells))
    return TableBenchmark(
        name="darts-nb301",
        space=space,
        cells=cells,
        reward=REWARD,
        fidelities=(EPOCHS,),
        validation=validation[:, None, None],
        test=validation,
        times=seconds[:, None],
        metadata={
            "source": "NAS-Bench-301 surrogate of YAHPO Gym (slds-lmu/yahpo_data, Apache-2.0)",
            "test": "the surrogate's prediction; there is no test set",
        },
    )

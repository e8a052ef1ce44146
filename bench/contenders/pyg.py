# SPDX-License-Identifier: Apache-2.0
"""PyTorch Geometric's `DenseGINConv`: the layer that most people would build this encoder from.

It takes one dense adjacency, so both directions are added before, outside the timed turn.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from arch2vec_fast import spaces
from arch2vec_fast.functional import unpack_cells
from arch2vec_fast.models.gin_vae import GinVae
from bench.contenders.lean import LeanEncoder
from bench.harness import Absent, Contender

_MISSING = "torch_geometric is not installed (pip install 'arch2vec-fast[graph]')"


def aggregation() -> nn.Module | Absent:
    """(1 + eps) x + A x, the aggregation alone: the layer around an identity."""
    convolution = _convolution()
    if isinstance(convolution, Absent):
        return convolution
    layer: nn.Module = convolution(nn.Identity(), eps=0.1)
    return layer


def embedding(
    model: GinVae, cells: spaces.CellBatch, *, chunk_size: int = 1024
) -> Contender | Absent:
    """The folded encoder of `lean.LeanEncoder` as a stack of layers, batched; mean read-out."""
    convolution = _convolution()
    if isinstance(convolution, Absent):
        return convolution
    lean = LeanEncoder(model, cells.layout)
    layers = [_layer(convolution, *parts) for parts in lean.layers]
    weight, bias = lean.head

    @torch.no_grad()
    def encode(codes: Tensor) -> Tensor:
        adjacency, x = unpack_cells(codes, lean.shape.layout)
        both = adjacency + adjacency.transpose(1, 2)
        for layer in layers:
            x = layer(x, both)
        return nn.functional.linear(x.mean(1), weight, bias)

    def work() -> float:
        for codes in cells.to_torch().split(chunk_size):
            encode(codes)
        return len(cells)

    return work


def _layer(convolution: Any, scale: float, _gates: Tensor, *linears: Tensor) -> nn.Module:
    modules: list[nn.Module] = []
    for weight, bias in zip(linears[::2], linears[1::2], strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        modules += [linear, nn.ReLU()]
    layer: nn.Module = convolution(nn.Sequential(*modules), eps=scale - 1)
    return layer


def _convolution() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own, of torch.jit
            return importlib.import_module("torch_geometric.nn").DenseGINConv
    except ImportError:
        return Absent(_MISSING)

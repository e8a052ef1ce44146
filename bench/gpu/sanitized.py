# SPDX-License-Identifier: Apache-2.0
"""Every CUDA kernel once or twice on small, odd sizes: what compute-sanitizer is pointed at.

A kernel's case is a function here. Results are compared in tests; here memory and races matter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import torch

from arch2vec_fast import functional
from arch2vec_fast._gin_train import GinTrainBuffers, GinTrainConfig
from arch2vec_fast.functional import GinShape
from arch2vec_fast.spaces import CellLayout


def unpack_cells() -> None:
    """One word and two words a cell, one warp and several blocks."""
    for layout in (CellLayout(7, 5), CellLayout(11, 11)):
        for count in (1, 33, 523):
            codes = torch.zeros(count, layout.words, dtype=torch.int64, device="cuda")
            functional.unpack_cells(codes, layout)


def nearest_latent() -> None:
    """Every width of the query group, aligned rows and others, one neighbour and many."""
    for dim in (3, 16):
        points = torch.randn(1301, dim, device="cuda")
        for count in (1, 3, 17):
            queries = torch.randn(count, dim, device="cuda")
            visited = torch.rand(count, len(points), device="cuda") < 0.5
            for k in (1, 40):
                functional.nearest_latent(points, queries, k, visited)


def gin_encode() -> None:
    """Every precision and output, widths that fill no tile, more cells than a block takes."""
    layout = CellLayout(7, 5)
    codes = torch.zeros(133, 1, dtype=torch.int64, device="cuda")
    for hidden in (20, 128, 200):
        shape = GinShape(
            layout=layout, hidden_dim=hidden, latent_dim=5, num_layers=2, num_mlp_layers=2
        )
        weights = torch.randn(shape.num_weights, device="cuda")
        for precision in ("fp32", "tf32", "bf16"):
            for output in ("readout", "nodes", "hidden"):
                functional.gin_encode(codes, weights, shape, output=output, precision=precision)


def building_blocks() -> None:
    """Forward and backward, of dense and packed edges, with all parameters and with none."""
    layout = CellLayout(7, 5)
    for dtype in (torch.float32, torch.float64):
        x, gates, bilinear, bias = (
            torch.randn(*size, device="cuda", dtype=dtype, requires_grad=True)
            for size in ((41, 7, 19), (2, 19), (19, 19), (7, 7))
        )
        codes = torch.zeros(41, 1, dtype=torch.int64, device="cuda")
        dense = torch.rand(41, 7, 7, device="cuda", dtype=dtype)
        results = [
            functional.gin_aggregate(x, dense),
            functional.gin_aggregate(x, codes, 0.1, gates, layout=layout),
            functional.inner_product_decode(x),
            functional.inner_product_decode(x, bilinear, bias),
            functional.inner_product_loss(x, codes, bilinear, bias, layout=layout),
            functional.inner_product_loss(x, dense),
        ]
        torch.stack([result.sum() for result in results]).sum().backward()


def gin_train() -> None:
    """A tiny model with every option, one cell a block, in both modes."""
    config = GinTrainConfig(
        layout=CellLayout(3, 2),
        num_classes=3,
        hidden_dim=16,
        latent_dim=4,
        num_layers=2,
        num_mlp_layers=1,
        node_mixing=16,
        gated=True,
        bilinear=True,
        position_bias=True,
        softmax=True,
        logits=True,
        dropout=0.1,
    )
    codes = torch.zeros(4, 1, dtype=torch.int64, device="cuda")
    order = torch.randint(4, (1, 10), device="cuda")
    rate = torch.full((2,), 1e-3, dtype=torch.float64, device="cuda")
    seed = torch.zeros(1, dtype=torch.int64, device="cuda")
    for batch_mode in (True, False):
        buffers = GinTrainBuffers.zeros(config, device="cuda")
        buffers.parameters.normal_()
        functional.gin_train(
            *(buffers, codes, order, rate, seed, replace(config, batch_mode=batch_mode)),
            batch_size=6,
        )


def dngo() -> None:
    """A search step of two seeds; both widths of inputs and hidden units, one sort and two."""
    for inputs, hidden, count in ((3, 9, 33), (17, 70, 2100)):
        seed = torch.arange(2, device="cuda")
        x, y = torch.randn(2, 11, inputs, device="cuda"), torch.randn(2, 11, device="cuda")
        sizes = {"num_inputs": inputs, "num_hidden": hidden, "num_points": 11, "num_epochs": 2}
        parameters, order = functional.dngo_draw(seed, **sizes)
        functional.dngo_fit(parameters, x, y, order)
        terms = torch.rand(3, 2, 5, device="cuda", dtype=torch.float64)
        functional.dngo_evidence(terms[0], terms[1], terms[2, :, 0], num_points=11, num_hidden=9)
        weight = parameters[:, : hidden * inputs].unflatten(1, (hidden, inputs))
        unit = torch.ones(2, hidden, device="cuda")
        factor = torch.rand(2, hidden, hidden, device="cuda")
        candidates = torch.randn(count, inputs, device="cuda")
        functional.dngo_acquire(candidates, weight, unit, unit, factor, unit[:, 0], unit[:, 0])


CASES: tuple[Callable[[], None], ...] = (
    *(unpack_cells, nearest_latent, gin_encode, building_blocks, gin_train, dngo),
)


def main() -> int:
    """Runs the cases named on the command line, or all; one that fails does not stop the others."""
    wanted = sys.argv[1:]
    failed = 0
    for case in CASES:
        if wanted and case.__name__ not in wanted:
            continue
        try:
            case()
            torch.cuda.synchronize()
            print(f"{case.__name__}: ran", flush=True)
        except Exception as error:
            failed = 1
            print(f"{case.__name__}: {type(error).__name__}: {error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())

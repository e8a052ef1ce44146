# SPDX-License-Identifier: Apache-2.0
"""The released code's way of training and embedding.

With a clone of MSU-MLSys-Lab/arch2vec its own classes are used, else the drop-in ones of
`arch2vec_fast.compat`, which agree with them to the last bit and run the same operations.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from arch2vec_fast import spaces
from arch2vec_fast.models.dense import unpack
from bench.harness import Contender

_BATCH = 32
_SIZES = {"hidden_dim": 128, "latent_dim": 16, "num_hops": 5, "num_mlp_layers": 2}


def released_code(reference: Path | None) -> SimpleNamespace:
    """The released names: from a clone, or the drop-in ones."""
    if reference is None:
        module = importlib.import_module("arch2vec_fast.compat")
        return SimpleNamespace(**{name: getattr(module, name) for name in module.__all__})
    sys.path.insert(0, str(reference))
    model = importlib.import_module("models.model")
    return SimpleNamespace(
        Model=model.Model,
        VAEReconstructed_Loss=model.VAEReconstructed_Loss,
        preprocessing=importlib.import_module("utils.utils").preprocessing,
        configs=importlib.import_module("models.configs").configs,
    )


def training(
    code: SimpleNamespace, cells: spaces.CellBatch, *, frozen: bool, steps: int
) -> Contender:
    """The released loop body on the CPU, batches of 32 split from dense tensors.

    frozen: as from its second epoch on, where it has gone to evaluation mode for good.
    """
    adjacency, node_ops = unpack(cells.to_torch(), cells.layout)
    batches = itertools.cycle(zip(adjacency.split(_BATCH), node_ops.split(_BATCH), strict=True))
    model, config = _model(code, cells, dropout=0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-08)
    model.train(not frozen)

    def step(adj: Tensor, ops: Tensor) -> None:
        optimizer.zero_grad()
        adj, ops, reverse = code.preprocessing(adj, ops, **config["prep"])
        ops_recon, adj_recon, mu, logvar = model(ops, adj.to(torch.long))
        adj_recon, ops_recon = reverse(adj_recon, ops_recon)
        adj, ops = reverse(adj, ops)
        loss = code.VAEReconstructed_Loss(**config["loss"])(
            (ops_recon, adj_recon), (ops, adj), mu, logvar
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        loss.item()

    def work() -> float:
        for adj, ops in itertools.islice(batches, steps):
            step(adj, ops)
        return steps

    return work


def embedding(code: SimpleNamespace, cells: spaces.CellBatch, *, count: int) -> Contender:
    """Cells embedded one at a time, as the released extraction loop does."""
    model, config = _model(code, cells, dropout=0.0)
    model.eval()
    few = unpack(cells[:count].to_torch(), cells.layout)

    @torch.no_grad()
    def work() -> float:
        for adj, ops in zip(*few, strict=True):
            adj, ops, _ = code.preprocessing(adj[None], ops[None], **config["prep"])
            model._encoder(ops, adj)[0].squeeze(0).mean(dim=0)
        return len(few[0])

    return work


def _model(code: SimpleNamespace, cells: spaces.CellBatch, *, dropout: float) -> tuple[Any, Any]:
    torch.manual_seed(0)
    config = code.configs[4]
    sizes = {"input_dim": cells.layout.num_op_types, **_SIZES, **config["GAE"]}
    return code.Model(dropout=dropout, **sizes), config

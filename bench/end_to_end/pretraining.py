# SPDX-License-Identifier: Apache-2.0
"""Pretraining and embedding of NAS-Bench-101 against the released code's way of doing it.

Baseline: the released training step and the released one-cell-at-a-time embedding. With
`--reference PATH` (a clone of MSU-MLSys-Lab/arch2vec) its own classes are used, else the drop-in
ones of `arch2vec_fast.compat`, which agree with them to the last bit and run the same operations.

    python -m bench.end_to_end.pretraining --threads 1 2 --out FILE
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from arch2vec_fast import spaces
from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.inference import readout_encoder
from arch2vec_fast.pretrain import Run
from arch2vec_fast.pretrain.loop import Trainer
from bench.harness import paired, write

_CELLS_A_TURN = 32 * 100


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


def released_training(code: SimpleNamespace, cells: spaces.CellBatch) -> Callable[[], float]:
    """The released loop body on the CPU: dense tensors split into batches of 32."""
    adjacency, node_ops = unpack(cells.to_torch(), cells.layout)
    config = code.configs[4]
    sizes = {"hidden_dim": 128, "latent_dim": 16, "num_hops": 5, "num_mlp_layers": 2}
    model = code.Model(input_dim=cells.layout.num_op_types, dropout=0.3, **sizes, **config["GAE"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-08)
    batches = itertools.cycle(zip(adjacency.split(32), node_ops.split(32), strict=True))

    def work() -> float:
        for adj, ops in itertools.islice(batches, _CELLS_A_TURN // 32):
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
        return _CELLS_A_TURN

    return work


def our_training(
    space: spaces.CellSpace, cells: spaces.CellBatch, recipe: Recipe, folder: Path
) -> Callable[[], float]:
    """Steps of the loop of `arch2vec_fast.pretrain`, logging included."""
    run = Run.create(folder, space, replace(recipe, epochs=10_000), seed=0, cells=cells)
    trainer = Trainer(run, torch.device("cpu"), checkpoint_seconds=1e9)

    def forever() -> Iterator[float]:
        while True:
            yield from trainer.steps()
            trainer.epoch += 1

    steps = forever()

    def work() -> float:
        count = max(1, _CELLS_A_TURN // recipe.batch_size)
        for _ in itertools.islice(steps, count):
            pass
        return count * recipe.batch_size

    return work


def embedding(code: SimpleNamespace, cells: spaces.CellBatch) -> dict[str, Callable[[], float]]:
    """Cells embedded one at a time, as released, and in chunks."""
    torch.manual_seed(0)
    model = build_model(Recipe.released("nasbench101"), cells.layout).eval()
    config = code.configs[4]
    sizes = {"hidden_dim": 128, "latent_dim": 16, "num_hops": 5, "num_mlp_layers": 2}
    theirs = code.Model(input_dim=5, dropout=0, **sizes, **config["GAE"]).eval()
    theirs.load_state_dict(model.state_dict())
    few = unpack(cells[:500].to_torch(), cells.layout)

    @torch.no_grad()
    def one_by_one() -> float:
        for adj, ops in zip(*few, strict=True):
            adj, ops, _ = code.preprocessing(adj[None], ops[None], **config["prep"])
            theirs._encoder(ops, adj)[0].squeeze(0).mean(dim=0)
        return len(few[0])

    encoder = readout_encoder(model, cells.layout)

    def chunks() -> float:
        for codes in cells.to_torch().split(1 << 18):
            encoder(codes)
        return len(cells)

    return {"released": one_by_one, "chunks": chunks}


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows."""
    space = spaces.get("nasbench101")
    every = space.enumerate()
    cells = every[:: len(every) // 60_000]
    code = released_code(arguments.reference)
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as folder:
            contenders = {"released": released_training(code, cells)}
            for name, batch_size in itertools.product(("released", "best"), (32, 256, 1024)):
                recipe = replace(Recipe.get(name, space.name), batch_size=batch_size)
                label = f"{name}, batch {batch_size}"
                path = Path(folder) / label
                contenders[label] = our_training(space, cells, recipe, path)
            row = paired(contenders, baseline="released", repeats=arguments.repeats)
        rows.append({"work": "training, cells", "threads": threads, "contenders": row})
        row = paired(embedding(code, cells), baseline="released", repeats=arguments.repeats)
        rows.append({"work": "embedding, cells", "threads": threads, "contenders": row})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows.append({"work": "peak memory of this process, bytes", "value": peak})
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="clone of MSU-MLSys-Lab/arch2vec")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = measure(arguments)
    write(arguments.out, "pretraining", rows)
    json.dump(rows, sys.stdout, indent=2)


if __name__ == "__main__":
    main()

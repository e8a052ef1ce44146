# SPDX-License-Identifier: Apache-2.0
"""How good a run is: Table 1 of the paper, in the released code's sense and in a strict one.

The released numbers cannot be read alone. Its accuracies are averages over single labels and
pairs, padded rows included; its validity rule for NAS-Bench-201 and DARTS looks at the operations
and hardly at the edges; its uniqueness depends on how many cells a space has. So every result
holds, beside them: whole-cell exact reconstruction; validity by the strict rule; uniqueness by
isomorphism class beside what uniform draws from the space would reach; raw decoding beside legal;
and the same numbers of the untrained model, whose legal cells are all valid too.

Everything is decoded in one batch and canonicalised in C++: where the released code takes
minutes for 10,000 samples, this takes about a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import arch2vec_fast
from arch2vec_fast._checks import check_seed
from arch2vec_fast._progress import Progress
from arch2vec_fast.models.decoder import Decoded
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.gin_vae import AutoencoderBase
from arch2vec_fast.models.inference import posterior_encoder
from arch2vec_fast.models.prior import LatentPrior
from arch2vec_fast.pretrain.decoding import legal_cells, raw_cells
from arch2vec_fast.pretrain.run import Run, open_run
from arch2vec_fast.pretrain.validation import accuracies
from arch2vec_fast.spaces import CellBatch, CellSpace

RULES = ("released", "strict")
_RELEASED_CHUNK = 500  # the released accuracies are means over chunks of 500 cells
_UNTRAINED_CELLS = 2_000


def evaluate(
    run: Run | str | Path,
    *,
    samples: int = 10_000,
    seed: int = 0,
    prior: str | None = None,
    untrained: bool = True,
    progress: bool = False,
) -> dict[str, Any]:
    """Reconstruction, validity, uniqueness and novelty of a run, as plain JSON values.

    run: or its directory. samples: latents drawn from the prior. seed: of those draws. prior: a
    kind of `PRIORS` to fit instead of the recipe's. untrained: add the control. progress: show it
    on standard error.

    Returns a dict; all shares lie in [0, 1] and are None where they would divide by zero:
      space, recipe, engine, run_seed, seed, commit, version, prior   what was measured
      counts          train_cells, validation_cells, samples, parameters, epochs
      reconstruction  on the held-out cells, from mu:
        released      ops_accuracy (padded rows included), mean_edge_probability,
                      mean_non_edge_probability, edge_accuracy
        strict        exact, exact_legal (whole cells), node_accuracy (present nodes), edge_accuracy
      raw, legal      cells decoded from the prior, by each rule ("released", "strict"): valid,
                      unique (isomorphism classes / valid cells), unique_ceiling (of as many uniform
                      draws; None under "released", which lets cells outside the space pass), novel
                      (valid cells that are not in the training set)
      reasons         why raw cells fail the strict rule: {reason: share of samples}
      uniform         unique and novel of `samples` uniform draws from the space
      untrained       reconstruction, raw and legal of the model before training
      seconds         time of each part
    Deterministic for a given seed. Raises ValueError for a bad argument.
    """
    if samples < 1:
        raise ValueError(f"samples: {samples} is below 1")
    run = open_run(run)
    check_seed(seed)
    clock = _Clock()
    known = _Known(run.train_cells)
    held_out, count = run.validation_cells, len(run.train_cells)
    result: dict[str, Any] = {
        "space": run.space.name,
        "recipe": run.recipe.name,
        "engine": run.engine,
        "run_seed": run.seed,
        "seed": seed,
        "commit": run.config.get("commit"),
        "version": arch2vec_fast.__version__,
        "prior": prior or run.recipe.prior,
        "counts": {
            "train_cells": count,
            "validation_cells": len(held_out),
            "samples": samples,
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "epochs": run.epochs_done,
            "planned_epochs": run.recipe.epochs,
        },
    }
    fitted = run.prior if prior is None else run.fit_prior(prior)
    clock.lap("preparation")
    with Progress("reconstructing", "cells", len(held_out), enabled=progress) as bar:
        result["reconstruction"] = reconstruction_quality(
            run.model, held_out, run.space, on_progress=bar.update
        )
    clock.lap("reconstruction")
    decoded = sample_decoded(run.model, fitted, samples, seed)
    result.update(_judge(decoded, run.space, known))
    clock.lap("samples")
    result["uniform"] = {
        "unique": unique_ceiling(run.space, samples),
        "novel": None if run.space.num_cells is None else 1 - len(known) / run.space.num_cells,
    }
    if untrained:
        result["untrained"] = _untrained(run, result["prior"], samples, seed, known)
        clock.lap("untrained")
    result["seconds"] = clock.seconds
    return result


# -- reconstruction ------------------------------------------------------------------------


@torch.no_grad()
def reconstruction_quality(
    model: AutoencoderBase,
    cells: CellBatch,
    space: CellSpace,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, float | None]]:
    """Released and strict accuracies of cells decoded from their means; see `evaluate`."""
    if model.training:
        raise ValueError("model: is in training mode; call model.eval() first")
    released_sums, strict_sums = np.zeros(4), dict.fromkeys(_STRICT, 0.0)
    device = next(model.parameters()).device
    encode = posterior_encoder(model, cells.layout)
    for start in range(0, len(cells), _RELEASED_CHUNK):
        chunk = cells[start : start + _RELEASED_CHUNK]
        codes = chunk.to_torch(device)
        adjacency, node_ops = unpack(codes, cells.layout)
        decoded = model.decode(encode(codes)[0])
        released_sums += len(chunk) * np.array(released_accuracy(decoded, adjacency, node_ops))
        for name, value in accuracies(decoded, adjacency, node_ops).items():
            strict_sums[name] += len(chunk) * value.item()
        same = (legal_cells(decoded, space).codes == chunk.codes).all(1)
        strict_sums["exact_legal"] += float(same.sum())
        on_progress(start + len(chunk))
    return {
        "released": {
            name: _ratio(total, len(cells)) for name, total in zip(_RELEASED, released_sums)
        },
        "strict": {name: _ratio(total, len(cells)) for name, total in strict_sums.items()},
    }


_RELEASED = (
    "ops_accuracy",
    "mean_edge_probability",
    "mean_non_edge_probability",
    "edge_accuracy",
)
_STRICT = ("exact", "exact_legal", "node_accuracy", "edge_accuracy")


def released_accuracy(
    decoded: Decoded, adjacency: Tensor, node_ops: Tensor
) -> tuple[float, float, float, float]:
    """The four numbers the released code prints for a batch, absent nodes and all.

    decoded: logits; adjacency float [B,N,N] upper triangular; node_ops one-hot [B,N,F].
    Returns (share of right labels where an absent node counts as label 0, mean probability on
    edges, mean probability on non-edges, share of right pairs i < j). Source: `get_accuracy` of
    the released code.
    """
    num_nodes, num_op_types = node_ops.shape[1:]
    labels = decoded.node_logits.argmax(2)
    labels = torch.where(labels == num_op_types, 0, labels)
    right_labels = labels == node_ops.argmax(2)
    rows, columns = torch.triu_indices(num_nodes, num_nodes, 1, device=adjacency.device)
    edges = adjacency[:, rows, columns] > 0
    probability = torch.sigmoid(decoded.edge_logits[:, rows, columns])
    right_edges = (probability > 0.5) == edges
    values = (
        right_labels.double().mean(),
        probability[edges].double().mean(),
        probability[~edges].double().mean(),
        right_edges.double().mean(),
    )
    return tuple(float(value) for value in values)  # type: ignore[return-value]


# -- sampling ------------------------------------------------------------------------------


@torch.no_grad()
def sample_decoded(model: AutoencoderBase, prior: LatentPrior, count: int, seed: int) -> Decoded:
    """Logits of `count` latents drawn from `prior`, in one batch."""
    z = prior.sample(count, torch.Generator().manual_seed(seed))
    decoded = model.decode(z.to(next(model.parameters()).device))
    return Decoded(*decoded)


def sample_quality(
    cells: CellBatch, space: CellSpace, rule: str, novel: Callable[[CellBatch], int] | None = None
) -> dict[str, float | None]:
    """Validity by `rule`, uniqueness among the valid, its ceiling, and novelty; see `evaluate`.

    Classes are those of the cells as decoded: dead ends, which the released rule lets pass, tell
    cells apart. novel: counts the cells of a batch that the training set lacks.
    """
    valid = cells[space.is_valid(cells, rule=rule)]
    distinct = len(valid.unique()[0]) if len(valid) else 0
    bounded = rule == "strict" and len(valid) > 0
    return {
        "valid": _ratio(len(valid), len(cells)),
        "unique": _ratio(distinct, len(valid)),
        "unique_ceiling": unique_ceiling(space, len(valid)) if bounded else None,
        "novel": _ratio(novel(valid), len(valid)) if novel and len(valid) else None,
    }


def unique_ceiling(space: CellSpace, draws: int, *, seed: int = 0) -> float:
    """Expected share of distinct cells among `draws` uniform draws from the space.

    K (1 - (1 - 1/K)^n) / n for a space of K cells; measured on `draws` cells where K is unknown.
    """
    total = space.num_cells
    if total is None:
        return len(space.sample(draws, seed=seed).unique()[0]) / draws
    if total == 1:
        return 1 / draws
    return float(-total * math.expm1(draws * math.log1p(-1 / total)) / draws)


def _judge(decoded: Decoded, space: CellSpace, known: _Known) -> dict[str, Any]:
    raw, legal = raw_cells(decoded, space), legal_cells(decoded, space)
    codes, counts = np.unique(space.validity(raw, rule="strict"), return_counts=True)
    return {
        "raw": {rule: sample_quality(raw, space, rule, known.count_novel) for rule in RULES},
        "legal": {rule: sample_quality(legal, space, rule, known.count_novel) for rule in RULES},
        "reasons": {
            space.reasons[code]: count / len(raw)
            for code, count in zip(codes.tolist(), counts.tolist())
            if code
        },
    }


def _untrained(run: Run, kind: str, samples: int, seed: int, known: _Known) -> dict[str, Any]:
    """The same measurements before training, the prior fitted in the same way."""
    model = run.new_model().eval()
    cells = run.train_cells[:: max(1, len(run.train_cells) // _UNTRAINED_CELLS)]
    posterior = posterior_encoder(model, cells.layout)(cells.to_torch())
    decoded = sample_decoded(model, LatentPrior.fit(kind, [posterior]), samples, seed)
    judged = _judge(decoded, run.space, known)
    held_out = run.validation_cells[:_UNTRAINED_CELLS]
    quality = reconstruction_quality(model, held_out, run.space)
    return {"reconstruction": quality, "raw": judged["raw"], "legal": judged["legal"]}


class _Known:
    """The training set as a set of canonical codes."""

    def __init__(self, cells: CellBatch) -> None:
        self._codes = set(_keys(cells))

    def __len__(self) -> int:
        return len(self._codes)

    def count_novel(self, cells: CellBatch) -> int:
        """Cells whose isomorphism class the training set lacks."""
        return sum(key not in self._codes for key in _keys(cells))


def _keys(cells: CellBatch) -> list[Any]:
    codes: NDArray[np.int64] = np.ascontiguousarray(cells.canonical().codes)
    if codes.shape[1] == 1:
        return list(codes[:, 0].tolist())
    return list(codes.view(f"V{8 * codes.shape[1]}")[:, 0].tolist())


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now


def _ratio(part: float, whole: int) -> float | None:
    return float(part) / whole if whole else None

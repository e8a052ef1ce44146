# SPDX-License-Identifier: Apache-2.0
"""A pretraining run: a directory that holds everything needed to resume, embed and evaluate.

config.json          space, recipe, seed, where the cells come from, versions
metrics.jsonl        one line per logging window ("train") and per epoch ("epoch")
checkpoint.pt        model, optimiser and progress; the released format's entries and more
prior.safetensors    the recipe's latent prior, once training is complete
cells.npz            the cells, unless the whole space was enumerated
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arch2vec_fast import __version__, spaces
from arch2vec_fast._checks import check_seed
from arch2vec_fast._files import (
    read_cells,
    read_json,
    read_lines,
    read_tensors,
    read_torch,
    write_cells,
    write_json,
)
from arch2vec_fast.models.gin_vae import AutoencoderBase, build_model
from arch2vec_fast.models.inference import posterior_encoder
from arch2vec_fast.models.prior import LatentPrior
from arch2vec_fast.models.recipes import Recipe
from arch2vec_fast.pretrain.engine import choose_engine
from arch2vec_fast.spaces import CellBatch, CellSpace

_FORMAT = 2
# What config.json must hold. Format 1 lacks what has a value in the second dict, or may.
_CONFIG_TYPES: dict[str, type | tuple[type, ...]] = {
    "space": str,
    "num_nodes": int,
    "op_names": list,
    "max_edges": int,
    "variable_size": bool,
    "recipe": dict,
    "seed": int,
    "cells": dict,
    "commit": (str, type(None)),
    "engine": str,
    "processes": int,
}
_CELLS_TYPES = {"source": str, "order": str, "count": int, "sha256": str}
_FORMAT_1 = {"engine": "eager", "processes": 1}
LOSS_PARTS = ("loss", "node", "edge", "kl")
# Enough cells to estimate the 112..176 moments of a latent prior far below its own spread.
_PRIOR_CELLS = 50_000
_POSTERIOR_CHUNK = 8192


@dataclass(frozen=True)
class Run:
    """A run directory and the space it belongs to. Open one with `Run.load(path)`."""

    path: Path
    space: CellSpace
    config: dict[str, Any]

    # -- opening ---------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path,
        space: CellSpace,
        recipe: Recipe,
        *,
        seed: int,
        cells: CellBatch | None,
        engine: str = "auto",
        processes: int = 1,
    ) -> Run:
        """Start a run in an empty or new directory. cells: None for the whole space.

        processes: how many train it together.

        The directory appears whole or not at all. Raises ValueError for cells that are not of the
        space, too few cells, a bad seed, or a directory that holds anything.
        """
        check_seed(seed)
        engine = choose_engine(engine, recipe)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            hint = "pass resume to go on with it, or choose" if is_run(path) else "choose"
            raise ValueError(f"out: {path} is not an empty directory; {hint} another one")
        if cells is not None:
            check_cells(cells, space)
            if len(cells) < 2:
                raise ValueError(f"cells: {len(cells)} cannot be split; give at least 2")
        config = _describe(space, recipe, seed, cells)
        config |= {"engine": engine, "processes": processes}
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            draft = Path(folder) / "run"
            draft.mkdir()
            try:
                if cells is not None:
                    write_cells(draft / "cells.npz", cells)
                write_json(draft / "config.json", config)
                draft.replace(path)
            except OSError as error:  # names the draft, which the user has never heard of
                reason = getattr(error.__cause__ or error, "strerror", None) or error
                raise OSError(
                    f"out: {path} could not be written ({reason}); nothing was changed"
                ) from error
        return cls(path, space, config)

    @classmethod
    def load(cls, path: str | Path, space: CellSpace | None = None) -> Run:
        """Open a run directory. A run on a user-defined space needs that `space` again."""
        path = Path(path)
        if not is_run(path):
            raise FileNotFoundError(f"run: {path} is not a run directory (it has no config.json)")
        config = _read_config(path / "config.json")
        if space is None:
            if config["space"] not in spaces.names():
                raise ValueError(
                    f"run: {path} is of the user-defined space {config['space']!r}; "
                    "open it with Run.load(path, space)"
                )
            space = spaces.get(config["space"])
        run = cls(path, space, config)
        run.check_space()
        return run

    def check_space(self) -> None:
        """Raise if the run was made on another space than the one it is opened with."""
        other = [
            name
            for name, value in _describe_space(self.space).items()
            if self.config.get(name, value) != value
        ]
        if other:
            raise ValueError(
                f"run: {self.path} was made on the space {self.config['space']!r} with other "
                f"{', '.join(other)} than {self.space.name!r}; open it with its own space"
            )

    def check_processes(self, number: int) -> None:
        """Raise if the run is trained by another number of processes, which changes its course."""
        if number != self.processes:
            raise ValueError(
                f"resume: {self.path} is trained by {self.processes} processes, not by {number}; "
                f"start torchrun with {self.processes} in all"
            )

    # -- what it holds ---------------------------------------------------------------------

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, overrides included."""
        return Recipe.from_dict(self.config["recipe"])

    @property
    def seed(self) -> int:
        """Seed of initial weights, batches and noise."""
        return int(self.config["seed"])

    @property
    def engine(self) -> str:
        """The engine that trains it: "fused" or "eager"."""
        return str(self.config["engine"])

    @property
    def processes(self) -> int:
        """How many processes train it; each sees its own share of a batch in batch norm."""
        return int(self.config["processes"])

    @cached_property
    def cells(self) -> CellBatch:
        """All cells of the run, training and held out, in file order."""
        source = self.config["cells"]
        if source["source"] == "enumerated":
            cells = _enumerate(self.space, source["order"])
        else:
            cells = read_cells(self.path / "cells.npz", self.space)
        if _digest(cells) != source["sha256"]:
            raise ValueError(f"run: the cells of {self.path} differ from those it was trained on")
        return cells

    @cached_property
    def _held_out(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return held_out(self.cells, self.recipe)

    @cached_property
    def train_cells(self) -> CellBatch:
        """Cells that the model is trained on."""
        return self.cells[~self._held_out]

    @cached_property
    def validation_cells(self) -> CellBatch:
        """Held-out cells."""
        return self.cells[self._held_out]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl; a last line torn by a kill is left out, and so are others'."""
        path = self.path / "metrics.jsonl"
        lines = [line for _, line in read_lines(path)] if path.exists() else []
        return [line for line in lines if is_metric(line)]

    @property
    def epochs_done(self) -> int:
        """Whole epochs behind the stored checkpoint."""
        return int(self.checkpoint().get("epoch", 0))

    def new_model(self) -> AutoencoderBase:
        """The run's model with fresh weights, reproducible by the run's seed."""
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            return build_model(
                self.recipe, self.space.layout, variable_size=self.space.variable_size
            )

    @cached_property
    def model(self) -> AutoencoderBase:
        """The trained model, in evaluation mode, on the CPU."""
        model = self.new_model()
        load_weights(model, self.checkpoint(), self.path / "checkpoint.pt")
        return model.eval()

    def checkpoint(self) -> dict[str, Any]:
        """The content of checkpoint.pt."""
        path = self.path / "checkpoint.pt"
        if not path.exists():
            raise FileNotFoundError(f"run: {self.path} has no checkpoint yet; resume it first")
        checkpoint = read_torch(path)
        if not (
            isinstance(checkpoint, dict)
            and isinstance(weights := checkpoint.get("model_state"), dict)
            and all(isinstance(weight, Tensor) for weight in weights.values())
            and isinstance(checkpoint.get("epoch", 0), int)
        ):
            raise ValueError(f"{path}: not a checkpoint (it has no 'model_state' of tensors)")
        return checkpoint

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of the parameters and statistics of `model`, hexadecimal."""
        weights = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            weights.update(name.encode() + np.ascontiguousarray(value).tobytes())
        return weights.hexdigest()

    @cached_property
    def prior(self) -> LatentPrior:
        """The recipe's latent prior: as stored, else fitted to the model as it is."""
        path = self.path / "prior.safetensors"
        if not path.exists():
            return self.fit_prior(self.recipe.prior)
        tensors, metadata = read_tensors(path)
        try:
            return LatentPrior.from_state(
                metadata.get("kind", ""),
                tensors,
                (self.space.layout.num_nodes, self.recipe.latent_dim),
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}; remove it, and the prior is fitted anew") from None

    def fit_prior(self, kind: str) -> LatentPrior:
        """A latent prior of another kind, fitted to (at most 50,000 of) the training cells."""
        return LatentPrior.fit(kind, self._posteriors())

    def _posteriors(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        stride = max(1, len(self.train_cells) // _PRIOR_CELLS)
        encode = posterior_encoder(self.model, self.space.layout)
        yield from map(encode, self.train_cells[::stride].to_torch().split(_POSTERIOR_CHUNK))


def open_run(run: Run | str | Path) -> Run:
    """The run itself, or the one in a directory."""
    if isinstance(run, Run):
        return run
    if not isinstance(run, str | Path):
        raise TypeError(f"run: expected a Run or its directory, got {type(run).__name__}")
    return Run.load(run)


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory."""
    return (path / "config.json").is_file()


def is_metric(line: dict[str, Any]) -> bool:
    """Whether a line of metrics.jsonl is one that training writes."""
    return (
        line.get("event") in ("train", "epoch")
        and (line["event"] == "train" or isinstance(line.get("validation"), dict))
        and all(isinstance(line.get(name), int) for name in ("epoch", "step"))
        and all(isinstance(line.get(name), float) for name in LOSS_PARTS)
    )


def load_weights(model: AutoencoderBase, checkpoint: dict[str, Any], path: Path) -> None:
    """Load 'model_state' into `model`; another space or recipe, or NaN, is a one-line error."""
    have = {name: tuple(value.shape) for name, value in checkpoint["model_state"].items()}
    want = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in sorted({*have, *want}):
        if have.get(name) != want.get(name):
            found, needed = have.get(name, "missing"), want.get(name, "not used")
            raise ValueError(
                f"{path}: the weights are of another space or recipe: {name} is {found} there, "
                f"{needed} in recipe {model.recipe.name!r}; take the checkpoint of this run"
            )
    for name, value in checkpoint["model_state"].items():
        if not torch.isfinite(value).all():
            raise ValueError(
                f"{path}: {name} holds NaN or infinity; take an earlier copy, or train again"
            )
    model.load_state_dict(checkpoint["model_state"])


def held_out(cells: CellBatch, recipe: Recipe) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mask [B] of cells kept for validation: the tail, or a tenth by hash of canonical code."""
    if recipe.split == "in-order":
        return np.arange(len(cells)) >= int(len(cells) * (1 - recipe.validation_fraction))
    codes = cells.canonical().codes.view(np.uint64)
    key = np.zeros(len(codes), np.uint64)
    for word in codes.T:  # splitmix64 finaliser of each word, chained
        key = (key ^ word) + np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        key ^= key >> np.uint64(31)
    return np.asarray((key >> np.uint64(11)) < recipe.validation_fraction * 2**53)


def _read_config(path: Path) -> dict[str, Any]:
    config: Any = read_json(path)
    if not isinstance(config, dict) or config.get("format") not in (1, _FORMAT):
        raise ValueError(f"{path}: not of a run of this version (format {_FORMAT})")
    if config["format"] == 1:
        config = {**_FORMAT_1, **config}
    _check_types(path, config, _CONFIG_TYPES)
    _check_types(path, config["cells"], _CELLS_TYPES)
    try:
        Recipe.from_dict(config["recipe"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return dict(config)


def _check_types(path: Path, values: dict[str, Any], types: Mapping[str, Any]) -> None:
    for name, kind in types.items():
        if name not in values:
            raise ValueError(f"{path}: lacks {name!r}")
        if not isinstance(values[name], kind):
            raise ValueError(f"{path}: {name!r} cannot be {values[name]!r}; was it edited by hand?")


def _enumerate(space: CellSpace, order: str) -> CellBatch:
    return space.enumerate(order=order)


def _describe(
    space: CellSpace, recipe: Recipe, seed: int, cells: CellBatch | None
) -> dict[str, Any]:
    """config.json. The released split is by position, so it needs the official order."""
    official = recipe.split == "in-order" and "official" in space.orders
    order = "official" if official else "canonical"
    stored = cells if cells is not None else _enumerate(space, order)
    return {
        "format": _FORMAT,
        "space": space.name,
        **_describe_space(space),
        "recipe": recipe.to_dict(),
        "seed": seed,
        "cells": {
            "source": "enumerated" if cells is None else "stored",
            "order": order if cells is None else "as given",
            "count": len(stored),
            "sha256": _digest(stored),
        },
        "versions": {"arch2vec_fast": __version__, "torch": torch.__version__},
        "commit": _commit(),
    }


def _describe_space(space: CellSpace) -> dict[str, Any]:
    return {
        "num_nodes": space.layout.num_nodes,
        "op_names": list(space.op_names),
        "max_edges": space.max_edges,
        "variable_size": space.variable_size,
        "input_ops": list(space.input_ops),
        "output_op": space.output_op,
        "allow_dangling": space.allow_dangling,
        "rule": space.rule is not None,
    }


def check_cells(cells: CellBatch, space: CellSpace) -> None:
    """Accepts cells of the space; names the first that is none, and why."""
    if cells.layout != space.layout:
        raise ValueError(
            f"cells: are of {cells.layout.num_nodes} nodes and {cells.layout.num_op_types} "
            f"operation types, but {space.name} has {space.layout.num_nodes} and "
            f"{space.layout.num_op_types}; choose the matching space"
        )
    codes = space.validity(cells)
    if codes.any():
        first = int((codes > 0).argmax())
        raise ValueError(
            f"cells: cell {first} of {len(cells)} is not of {space.name}: "
            f"{space.reasons[codes[first]]}; keep space.is_valid(cells)"
        )


def _digest(cells: CellBatch) -> str:
    return hashlib.sha256(np.ascontiguousarray(cells.codes).tobytes()).hexdigest()


def _commit() -> str | None:
    """Commit of the source tree, None for an installed package."""
    try:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

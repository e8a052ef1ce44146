# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in the released format: {'epoch', 'loss', 'model_state', 'optimizer_state'}.

What: `save_checkpoint`, `save_checkpoint_vae`, `load_checkpoint`.
Why: published `model-*.pt` files load here, files written here load in the released code. A file
    found on the internet is not trusted: no pickled code runs, and keys, shapes and values are
    checked before a model is built from it.
Source: `utils/utils.py` of the released code (MSU-MLSys-Lab/arch2vec, commit ea01b0c).
"""

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arch2vec_fast import spaces
from arch2vec_fast._files import read_torch, write_torch
from arch2vec_fast.compat.models import GIN, Model
from arch2vec_fast.compat.objectives import configs

_ENTRIES: dict[str, Any] = {
    "epoch": int,
    "loss": (int, float, Tensor),
    "model_state": dict,
    "optimizer_state": dict,
}
_RELEASED_DROPOUT = 0.3
_FIRST_WEIGHT = "mlps.0.linears.0.weight"
_FIRST_MLP = re.compile(r"mlps\.0\.linears\.(\d+)\.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedCheckpoint:
    """A loaded checkpoint. `model` is in eval mode; `optimizer_state` fits Adam on its parameters.

    `space` is the name of the space whose operation types the model reads, None if none fits.
    """

    model: Model | GIN
    epoch: int
    loss: float
    optimizer_state: dict[str, Any]
    space: str | None


def save_checkpoint_vae(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    loss: float,
    dim: int,
    name: str,
    dropout: float,
    seed: int,
    f_path: str | PathLike[str] | None = None,
) -> Path:
    """Write `pretrained/dim-{dim}/model-{name}.pt` below the working directory, or `f_path`.

    `model` is a `Model`, or any model of this package under the released recipe: the keys are the
    same. `dropout` and `seed` are ignored, as released. Fixed: a crash or a full disk leaves the
    former file whole. Returns the path. Raises OSError.
    """
    path = Path("pretrained", f"dim-{dim}", f"model-{name}.pt") if f_path is None else Path(f_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = (epoch, loss, model.state_dict(), optimizer.state_dict())
    write_torch(path, dict(zip(_ENTRIES, entries, strict=True)))
    return path


def save_checkpoint(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    loss: float,
    dim: int,
    name: str,
    dropout: float,
    seed: int,
) -> Path:
    """`save_checkpoint_vae` for deterministic models: `model-ae-{name}.pt`."""
    return save_checkpoint_vae(model, optimizer, epoch, loss, dim, f"ae-{name}", dropout, seed)


def load_checkpoint(
    path: str | PathLike[str], space: str | None = None, *, dropout: float = _RELEASED_DROPOUT
) -> ReleasedCheckpoint:
    """Read a checkpoint of the released code, or one `save_checkpoint_vae` wrote.

    The widths, the number of layers and the class (`Model`, or `GIN` for a deterministic one) are
    those of the weights. `space` is the name of the space the model is meant for: a checkpoint that
    reads another number of operation types is refused. `dropout` is not in the file.

    Raises OSError where the file cannot be opened, and ValueError, in one line that names the
    difference, for a file that is no such checkpoint, misses weights, has others, has them in
    another shape, or holds non-finite ones. Tensors come to the CPU; no code of the file is run.
    """
    path = Path(path)
    checkpoint = _read(path)
    state = checkpoint["model_state"]
    model = _skeleton(path, state, dropout)
    found = _space_of(model.input_dim)
    wanted = model.input_dim if space is None else spaces.get(space).layout.num_op_types
    if wanted != model.input_dim:
        origin = f" ({found})" if found else ""
        raise ValueError(
            f"{path}: reads {model.input_dim} operation types{origin}, but {space} has {wanted}; "
            f"load a checkpoint of {space}"
        )
    _check_state(path, state, model.state_dict())
    model.to_empty(device="cpu").load_state_dict(state)
    return ReleasedCheckpoint(
        model=model.eval(),
        epoch=checkpoint["epoch"],
        loss=float(checkpoint["loss"]),
        optimizer_state=checkpoint["optimizer_state"],
        space=space or found,
    )


def _read(path: Path) -> dict[str, Any]:
    checkpoint = read_torch(path)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}; not a released checkpoint")
    for entry, kind in _ENTRIES.items():
        if entry not in checkpoint:
            raise ValueError(f"{path}: misses {entry!r}; is it an embedding file?")
        if not isinstance(checkpoint[entry], kind):
            found = type(checkpoint[entry]).__name__
            raise ValueError(f"{path}: {entry!r} is a {found}; not a released checkpoint")
    return checkpoint


def _skeleton(path: Path, state: dict[str, Any], dropout: float) -> Model | GIN:
    """A model without storage, of the widths the weights have; no random number is drawn."""
    if any(key.startswith("encoder.gcs.") for key in state):
        raise ValueError(f"{path}: holds a GAE or GVAE; build it and use load_state_dict")
    head = "fc1.weight" if "fc1.weight" in state else "fc.weight"
    first = "mlps.0.linear.weight" if "mlps.0.linear.weight" in state else _FIRST_WEIGHT
    for key, rank in ((first, 2), (head, 2), ("eps", 1)):
        if not isinstance(state.get(key), Tensor) or state[key].dim() != rank:
            raise ValueError(
                f"{path}: misses {key}, or has it in another form; not an arch2vec model"
            )
    hidden_dim, input_dim = state[first].shape
    depths = [int(layer[1]) for layer in map(_FIRST_MLP.match, state) if layer]
    kind = Model if head == "fc1.weight" else GIN
    try:
        with torch.device("meta"):
            return kind(
                input_dim,
                hidden_dim,
                latent_dim=len(state[head]),
                num_hops=len(state["eps"]) + 1,
                num_mlp_layers=max(depths, default=0) + 1,
                dropout=dropout,
                **configs[4]["GAE"],
            )
    except ValueError as error:
        raise ValueError(f"{path}: not an arch2vec model ({error})") from None


def _check_state(path: Path, state: dict[str, Any], expected: dict[str, Tensor]) -> None:
    missing, surplus = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or surplus:
        first = sorted(missing or surplus)[0]
        kind = "misses" if missing else "has the unknown"
        raise ValueError(f"{path}: {kind} {first} ({len(missing)} missing, {len(surplus)} unknown)")
    for key, wanted in expected.items():
        value = state[key]
        if not isinstance(value, Tensor) or value.shape != wanted.shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{path}: {key} is {shape}, expected {tuple(wanted.shape)}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: {key} has NaN or infinite entries; the run diverged")


def _space_of(num_op_types: int) -> str | None:
    matches = [
        name for name in spaces.names() if spaces.get(name).layout.num_op_types == num_op_types
    ]
    return matches[0] if len(matches) == 1 else None

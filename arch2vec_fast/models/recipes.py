# SPDX-License-Identifier: Apache-2.0
"""Recipes: every choice that changes a number of pretraining, as one frozen value.

The released code departs from the paper in ways that move every published number, so neither is
"the" arch2vec. A `Recipe` names each departure as a field; one code path reads the fields. The
presets are `released` (what the authors' code does), `paper` (what the paper's equations say),
`best` (the default: the measured winner), and the baselines of the paper's Table 1 (`gae`,
`vgae`, `without-kl`). `docs/semantics.md` gives the evidence for each field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

_PAPER_EPOCHS = {"nasbench101": 8, "nasbench201": 10, "darts": 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All choices of a pretraining run. Defaults are those of the released code.

    Model
        encoder: `gin` (arch2vec) or `gcn` (the GAE and VGAE baselines).
        num_layers: message-passing layers; the paper's "five-layer GIN" is four and the heads.
        num_mlp_layers: linear layers of each GIN layer's MLP.
        hidden_dim, latent_dim: H and D.
        direction: `symmetric` aggregates over A + A^T; `gated` over A and A^T with one learned
            gate per direction, layer and channel (gates of one are the symmetric encoder).
        variational: sample z ~ N(mu, sigma^2) while training; False gives an auto-encoder.
        node_mixing: hidden width of the decoder MLP that sees all nodes; 0 leaves it out.
        edge_form: `dot` scores an edge z_i . z_j, `bilinear` z_i^T W z_j (W starts at identity).
        position_bias: learn one bias per (node, class) and per node pair in the decoder.
        absent_class: predict "no such node" as a class of its own where cells vary in size.
        dropout: dropout of z before the decoder, in training mode only.
        readout: `mean` over all N rows, or `sum` over the nodes a cell has.
    Objective
        node_loss: `binary` (a sigmoid per operation) or `softmax` (cross-entropy).
        edge_loss: `probabilities` (sigmoid, then a loss that saturates in float32) or `logits`;
            `binary` node losses follow it.
        reduction: `released` averages over all N*N pairs and all N*F labels and divides the
            averaged KL term by B*N once more; `elbo` sums over nodes and pairs i < j of a cell.
        beta: factor of the KL term; 1 is the evidence lower bound.
    Optimisation
        train_mode: `first-epoch` freezes batch norm, noise and dropout after epoch one, as the
            released loop does (it never returns from `eval()`); `always` does not.
        learning_rate, batch_size, epochs, grad_clip, and schedule (`constant` or `cosine` to 0).
        shuffle: `once` (the same batches every epoch) or `every-epoch`.
        split: hold out the last tenth `in-order`, or a tenth chosen by `hash` of the canonical
            code, so that a cell is held out whatever the seed, order or subset.
    Sampling
        prior: where z comes from when new cells are sampled; see `models.prior.LatentPrior`.
    """

    name: str
    encoder: Literal["gin", "gcn"] = "gin"
    num_layers: int = 4
    num_mlp_layers: int = 2
    hidden_dim: int = 128
    latent_dim: int = 16
    direction: Literal["symmetric", "gated"] = "symmetric"
    variational: bool = True
    node_mixing: int = 0
    edge_form: Literal["dot", "bilinear"] = "dot"
    position_bias: bool = False
    absent_class: bool = False
    dropout: float = 0.3
    readout: Literal["mean", "sum"] = "mean"
    node_loss: Literal["binary", "softmax"] = "binary"
    edge_loss: Literal["probabilities", "logits"] = "probabilities"
    reduction: Literal["released", "elbo"] = "released"
    beta: float = 1.0
    train_mode: Literal["first-epoch", "always"] = "first-epoch"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    batch_size: int = 32
    epochs: int = 10
    grad_clip: float = 5.0
    shuffle: Literal["once", "every-epoch"] = "once"
    split: Literal["in-order", "hash"] = "in-order"
    validation_fraction: float = 0.1
    prior: Literal["standard", "per-node", "gaussian", "posterior"] = "per-node"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check_field(name, getattr(self, name), hint)
        if self.absent_class and self.node_loss == "binary":
            raise ValueError('recipe.absent_class: needs node_loss "softmax"')
        if self.encoder == "gcn" and self.direction == "gated":
            raise ValueError('recipe.direction: "gated" needs encoder "gin"')

    # -- presets ---------------------------------------------------------------------------

    @classmethod
    def released(cls, space: str | None = None) -> Recipe:
        """The authors' public code, quirks included (`docs/semantics.md` lists them)."""
        return cls(name="released", epochs=_PAPER_EPOCHS.get(space or "", 10))

    @classmethod
    def paper(cls, space: str | None = None) -> Recipe:
        """The equations of the paper, section 3: plain evidence lower bound, softmax, sum."""
        return replace(
            cls.released(space),
            name="paper",
            dropout=0.0,
            readout="sum",
            node_loss="softmax",
            edge_loss="logits",
            reduction="elbo",
            train_mode="always",
            shuffle="every-epoch",
            split="hash",
            prior="standard",
        )

    @classmethod
    def best(cls, space: str | None = None) -> Recipe:
        """The measured winner (`docs/results.md`): directed gates, node-mixing decoder."""
        recipe = replace(
            cls.paper(space),
            name="best",
            direction="gated",
            node_mixing=256,
            edge_form="bilinear",
            position_bias=True,
            absent_class=True,
            beta=0.02 if space == "darts" else 0.05,
            learning_rate=3e-3,
            schedule="cosine",
            batch_size=256,
            prior="gaussian",
        )
        return replace(recipe, epochs={"nasbench101": 2, "darts": 4}.get(space or "", 10))

    @classmethod
    def without_kl(cls, space: str | None = None) -> Recipe:
        """arch2vec without the KL term (paper, Table 1): a plain GIN auto-encoder."""
        return replace(cls.released(space), name="without-kl", variational=False, beta=0.0)

    @classmethod
    def vgae(cls, space: str | None = None) -> Recipe:
        """Variational graph auto-encoder of Kipf and Welling, a baseline of Table 1."""
        return replace(cls.released(space), name="vgae", encoder="gcn")

    @classmethod
    def gae(cls, space: str | None = None) -> Recipe:
        """Graph auto-encoder of Kipf and Welling, a baseline of Table 1."""
        return replace(cls.vgae(space), name="gae", variational=False, beta=0.0)

    @classmethod
    def get(cls, name: str, space: str | None = None) -> Recipe:
        """The preset called `name`, with the number of epochs meant for `space`.

        >>> Recipe.get("released", "nasbench101").epochs
        8
        """
        try:
            return _PRESETS[name](space)
        except KeyError:
            raise ValueError(
                f"recipe: no preset {name!r}; choose one of {', '.join(_PRESETS)}"
            ) from None

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names that `get` takes."""
        return tuple(_PRESETS)

    # -- files -----------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Inverse of `to_dict`; unknown or missing fields are an error, never a default."""
        known = {field.name for field in fields(cls)}
        if odd := sorted(known.symmetric_difference(values)):
            raise ValueError(f"recipe: unknown or missing fields {', '.join(odd)}")
        return cls(**values)


# Lowest and highest value of a number, and whether the lowest itself will do.
_RANGES: dict[str, tuple[float, float, bool]] = {
    **dict.fromkeys(("num_layers", "num_mlp_layers", "hidden_dim"), (1, math.inf, True)),
    **dict.fromkeys(("latent_dim", "batch_size"), (1, math.inf, True)),
    **dict.fromkeys(("epochs", "node_mixing", "beta"), (0, math.inf, True)),
    **dict.fromkeys(("learning_rate", "grad_clip"), (0, math.inf, False)),
    "dropout": (0, 1, True),
    "validation_fraction": (0, 1, False),
}


def _check_field(name: str, value: Any, hint: Any) -> None:
    """Accepts a value of the field's type and range; numbers are finite, bools no numbers."""
    if choices := get_args(hint):
        if value not in choices:
            known = ", ".join(map(repr, choices))
            raise ValueError(f"recipe.{name}: unknown value {value!r}; choose one of {known}")
        return
    kinds = (int, float) if hint is float else hint
    if not isinstance(value, kinds) or (hint is not bool and isinstance(value, bool)):
        raise TypeError(f"recipe.{name}: expected {hint.__name__}, got {value!r}")
    if name in _RANGES:
        low, high, closed = _RANGES[name]
        if value < low:
            raise ValueError(f"recipe.{name}: {value} is below {low}")
        if not low <= value < high or (value == low and not closed):
            raise ValueError(f"recipe.{name}: {value} is not a number between {low} and {high}")


_PRESETS: dict[str, Callable[[str | None], Recipe]] = {
    "released": Recipe.released,
    "paper": Recipe.paper,
    "best": Recipe.best,
    "without-kl": Recipe.without_kl,
    "vgae": Recipe.vgae,
    "gae": Recipe.gae,
}

# SPDX-License-Identifier: Apache-2.0
"""Encoding without training, straight from packed cells.

In evaluation mode batch norm is y = x s + t with s = weight / sqrt(var + tiny). A linear layer
W x + b before it becomes (s W) x + (s b + t), so a GIN encoder folds into one flat buffer for
`functional.gin_encode`. Results equal `model.readout(mu, node_ops)` up to rounding (about 1e-6
relative). The fold is done in float64.

Engines: "fused" runs the folded encoder; "eager" runs the model's own modules in plain PyTorch, for
comparison. Only GIN models have a fused form; others run eagerly under both names.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from arch2vec_fast.functional import GinShape, gin_encode
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.gin_vae import AutoencoderBase, GinVae, Mlp
from arch2vec_fast.spaces import CellLayout

ENGINES = ("fused", "eager")

CellEncoder = Callable[[Tensor], Tensor]
PosteriorEncoder = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def readout_encoder(
    model: AutoencoderBase,
    layout: CellLayout,
    *,
    hidden: bool = False,
    engine: str = "fused",
    precision: str = "fp32",
) -> CellEncoder:
    """A function codes [B,W] -> embedding [B,D] of `model` as it is now, on its device.

    Later changes of the weights do not reach a fused one. Not differentiable. hidden: read out the
    node states of every GIN layer side by side, [B,L*H], instead of mu. precision: see
    `gin_encode`; an eager engine has "fp32" alone. Raises ValueError for an unknown or impossible
    choice.
    """
    if hidden and not isinstance(model, GinVae):
        raise ValueError(f"readout: {model.recipe.name} has no GIN layers to read out; use latent")
    if (gin := _fusible(model, engine, precision)) is not None:
        folded = FoldedGin(gin, layout)
        output = "hidden" if hidden else "readout"
        return lambda codes: folded(codes, output=output, precision=precision)

    def encode(codes: Tensor) -> Tensor:
        adjacency, node_ops = unpack(codes, layout)
        if hidden and isinstance(model, GinVae):
            states = model.hidden_states(adjacency, node_ops)
            return torch.cat([model.readout(state, node_ops) for state in states], 1)
        return model.readout(model.encode(adjacency, node_ops)[0], node_ops)

    return torch.no_grad()(encode)


def encoder_bytes(model: AutoencoderBase, layout: CellLayout, *, engine: str = "fused") -> int:
    """About the memory that `readout_encoder` takes for one cell of a call, in bytes.

    A fused one takes codes, result and a few words a node; its tables do not grow with the call.
    An eager one holds about eight node states [N,H] at a time beside the dense cell.
    """
    nodes, ends = layout.num_nodes, 8 * layout.words + 4 * model.recipe.latent_dim
    if engine == "fused" and isinstance(model, GinVae):
        return ends + 64 * nodes
    state = 8 * model.recipe.hidden_dim + model.recipe.latent_dim
    return ends + 4 * nodes * (nodes + layout.num_op_types + state)


def posterior_encoder(
    model: AutoencoderBase, layout: CellLayout, *, engine: str = "fused"
) -> PosteriorEncoder:
    """A function codes [B,W] -> (mu [B,N,D], log_sigma [B,N,D] or None), as `model.encode`."""
    if (gin := _fusible(model, engine, "fp32")) is not None:
        folded = FoldedGin(gin, layout, posterior=True)

        def posterior(codes: Tensor) -> tuple[Tensor, Tensor | None]:
            both = folded(codes, output="nodes")
            mu, *log_sigma = both.split(model.recipe.latent_dim, 2)
            return mu, log_sigma[0] if log_sigma else None

        return posterior
    return torch.no_grad()(lambda codes: model.encode(*unpack(codes, layout)))


class FoldedGin:
    """A GIN encoder in evaluation mode as the flat buffer that `functional.gin_encode` takes.

    weights: float32 [shape.num_weights] on the model's device. posterior: the head gives mu and
    log sigma side by side, [B,N,2D], where the model has both; else mu alone.

    >>> from arch2vec_fast.models import Recipe, build_model
    >>> layout = CellLayout(7, 5)
    >>> folded = FoldedGin(build_model(Recipe.released(), layout).eval(), layout)
    >>> folded(torch.zeros(3, 1, dtype=torch.int64)).shape
    torch.Size([3, 16])
    """

    @torch.no_grad()
    def __init__(self, model: GinVae, layout: CellLayout, *, posterior: bool = False) -> None:
        recipe = model.recipe
        heads = [model.fc if model.fc1 is None else model.fc1]
        if posterior and model.fc2 is not None:
            heads.append(model.fc2)
        self.shape = GinShape(
            layout=layout,
            hidden_dim=recipe.hidden_dim,
            latent_dim=len(heads) * recipe.latent_dim,
            num_layers=recipe.num_layers,
            num_mlp_layers=recipe.num_mlp_layers,
            sum_readout=recipe.readout == "sum",
        )
        parts = []
        for layer, (mlp, norm) in enumerate(zip(model.mlps, model.batch_norms)):
            assert isinstance(mlp, Mlp)
            assert isinstance(norm, nn.BatchNorm1d)
            parts.append(1 + model.eps[layer].double())
            ones = model.eps.new_ones(2, self.shape.input_width(layer))
            parts.append(ones if model.gates is None else model.gates[layer])
            for linear, after in zip(mlp.linear_layers(), [*mlp.norm_layers(), norm]):
                parts.extend(_fold(linear, after))
        parts += [head.weight for head in heads] + [head.bias for head in heads]  # type: ignore[union-attr]
        self.weights = torch.cat([part.double().flatten() for part in parts]).float()

    def __call__(
        self, codes: Tensor, *, output: str = "readout", precision: str = "fp32"
    ) -> Tensor:
        """`functional.gin_encode` of codes [B,W]."""
        return gin_encode(codes, self.weights, self.shape, output=output, precision=precision)


def _fusible(model: AutoencoderBase, engine: str, precision: str) -> GinVae | None:
    """The model if the choice is to run it fused, None if eagerly."""
    if engine not in ENGINES:
        raise ValueError(f"engine: unknown {engine!r}; choose one of {', '.join(ENGINES)}")
    if model.training:
        raise ValueError("model: is in training mode; call model.eval() first")
    if engine == "fused" and isinstance(model, GinVae):
        return model
    if precision != "fp32":
        raise ValueError(
            f"precision: {precision} needs the fused engine and a GIN encoder; use fp32"
        )
    return None


def _fold(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Weight and bias of norm(linear(x)) in evaluation mode, float64."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return linear.weight.double() * scale[:, None], linear.bias.double() * scale + shift

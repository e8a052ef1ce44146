# SPDX-License-Identifier: Apache-2.0
"""What a call of `gin_train` is made of: its configuration, its buffers, and their checks.

The same arithmetic as csrc/gin_train/gin_train.h, for whoever fills or reads the flat buffers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from arch2vec_fast._checks import PackedLayout, check_codes

MAX_LAYERS, MAX_MLP_LAYERS = 8, 4
LOSS_PARTS = ("loss", "node", "edge", "kl", "grad_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class GinTrainConfig:
    """Every choice that changes a training step of the GIN autoencoder.

    layout: `spaces.CellLayout` of the cells: N nodes, F operation types. num_classes C: F, or F + 1
    where the last one means "absent" (softmax only). hidden_dim H, latent_dim D, num_layers L,
    num_mlp_layers K (linears of a layer), node_mixing M (0: no mixer). The flags are those of
    `models.Recipe`, in the words of csrc/gin_train/gin_train.h. batch_mode: batch statistics, noise
    and dropout; else running statistics and z = mu.
    """

    layout: PackedLayout
    num_classes: int
    hidden_dim: int
    latent_dim: int
    num_layers: int
    num_mlp_layers: int
    node_mixing: int = 0
    gated: bool = False
    variational: bool = True
    bilinear: bool = False
    position_bias: bool = False
    softmax: bool = False
    logits: bool = False
    elbo: bool = False
    batch_mode: bool = True
    beta: float = 1.0
    dropout: float = 0.0
    grad_clip: float = 5.0

    def __post_init__(self) -> None:
        for name in ("num_classes", "hidden_dim", "latent_dim", "num_layers", "num_mlp_layers"):
            _check_count(f"config.{name}", getattr(self, name), None)
        _check_count("config.node_mixing", self.node_mixing, 0)
        for name, most in (("num_layers", MAX_LAYERS), ("num_mlp_layers", MAX_MLP_LAYERS)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(
                    f"config.{name}: {getattr(self, name)} is outside 1..{most}, what the fused "
                    "step supports; use the eager engine"
                )
        for name in ("hidden_dim", "latent_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"config.{name}: {getattr(self, name)} is below 1")
        absent = self.num_classes - self.layout.num_op_types
        if absent not in (0, 1) or (absent and not self.softmax):
            raise ValueError(
                f"config.num_classes: {self.num_classes} does not go with "
                f"{self.layout.num_op_types} operation types; only a softmax knows one more"
            )
        if not 0 <= self.dropout < 1 or not self.grad_clip > 0 or not 0 <= self.beta < math.inf:
            raise ValueError(
                "config: dropout must lie in [0, 1), grad_clip be positive, beta not negative"
            )

    @property
    def sizes(self) -> list[int]:
        """The operator's `config`."""
        return [
            *(self.layout.num_nodes, self.layout.num_op_types, self.num_classes, self.hidden_dim),
            *(self.latent_dim, self.num_layers, self.num_mlp_layers, self.node_mixing),
            *(int(self.gated), int(self.variational), int(self.bilinear), int(self.position_bias)),
            *(int(self.softmax), int(self.logits), int(self.elbo), int(self.batch_mode)),
        ]

    @property
    def settings(self) -> list[float]:
        """The operator's `settings`."""
        return [self.beta, self.dropout, self.grad_clip]

    @property
    def num_norms(self) -> int:
        """Batch norms, L*K."""
        return self.num_layers * self.num_mlp_layers

    def parameter_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of the parameters, in the order of the flat buffer."""
        n, c, h, d = self.layout.num_nodes, self.num_classes, self.hidden_dim, self.latent_dim
        widths = [self.layout.num_op_types, *[h] * (self.num_layers - 1)]

        def linear(name: str, out: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
            yield f"{name}.weight", (out, width)
            yield f"{name}.bias", (out,)

        yield "eps", (self.num_layers,)
        for layer, width in enumerate(widths):
            for k in range(self.num_mlp_layers):
                yield from linear(f"linear.{layer}.{k}", h, width if k == 0 else h)
            for k in range(self.num_mlp_layers - 1):
                yield from ((f"norm.{layer}.{k}.{part}", (h,)) for part in ("weight", "bias"))
        for layer in range(self.num_layers):
            last = f"norm.{layer}.{self.num_mlp_layers - 1}"
            yield from ((f"{last}.{part}", (h,)) for part in ("weight", "bias"))
        for head in ("mu", "log_sigma") if self.variational else ("mu",):
            yield from linear(head, d, h)
        if self.bilinear:
            yield "bilinear", (d, d)
        if self.position_bias:
            yield "node_bias", (n, c)
            yield "edge_bias", (n, n)
        yield from linear("op_head", c, d)
        if self.node_mixing:
            yield from linear("mixer_in", self.node_mixing, n * d)
            yield from linear("mixer_out", n * d, self.node_mixing)
        if self.gated:
            yield from ((f"gates.{layer}", (2, width)) for layer, width in enumerate(widths))

    @property
    def num_parameters(self) -> int:
        """P, the length of a model's flat buffer."""
        return sum(torch.Size(shape).numel() for _, shape in self.parameter_shapes())

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat buffer [P] by name."""
        names, shapes = zip(*self.parameter_shapes())
        parts = flat.split([torch.Size(shape).numel() for shape in shapes])
        return {name: part.view(shape) for name, part, shape in zip(names, parts, shapes)}


class GinTrainBuffers(NamedTuple):
    """What training changes, G models side by side; float32, contiguous.

    parameters, exp_avg, exp_avg_sq: [G,P], Adam's moments beside the parameters. running:
    [G,L*K,2,H], mean and variance of each norm in order of execution.
    """

    parameters: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    running: Tensor

    @classmethod
    def zeros(
        cls,
        config: GinTrainConfig,
        num_models: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> GinTrainBuffers:
        """Fresh buffers: zeros, and ones for the running variance."""
        flat = torch.zeros(3, num_models, config.num_parameters, dtype=dtype, device=device)
        shape = (num_models, config.num_norms, 2, config.hidden_dim)
        running = torch.zeros(shape, dtype=dtype, device=device)
        running[:, :, 1] = 1
        return cls(flat[0], flat[1], flat[2], running)


def _check_count(name: str, value: int, least: int | None) -> None:
    if isinstance(value, bool | float | str | Tensor) or value is None:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if least is not None and value < least:
        raise ValueError(f"{name}: {value} is below {least}")


def _check_is_tensor(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")


def check_gin_train(
    buffers: GinTrainBuffers,
    codes: Tensor,
    order: Tensor,
    learning_rate: Tensor,
    seed: Tensor,
    config: GinTrainConfig,
    batch_size: int,
    first_step: int,
    noise: Tensor | None,
    keep: Tensor | None,
    *,
    dtypes: tuple[torch.dtype, ...] = (torch.float32,),
) -> None:
    """Accepts tensors of one device whose shapes and dtypes go together."""
    check_codes(codes, config.layout)
    for name, count, least in (("batch_size", batch_size, 1), ("first_step", first_step, 0)):
        _check_count(name, count, least)
    for name, given in (("order", order), ("learning_rate", learning_rate), ("seed", seed)):
        _check_is_tensor(name, given)
    if order.dim() != 2 or len(order) != len(buffers.parameters):
        raise ValueError(f"order: expected shape [G, T], got {list(order.shape)}")
    models, cells = order.shape
    if models < 1 or cells < 1:
        raise ValueError(f"order: [{models}, {cells}] has no cells to train on")
    latents = [models, cells, config.layout.num_nodes, config.latent_dim]
    flat = [models, config.num_parameters]
    floating = buffers.parameters.dtype
    expected: list[tuple[str, Tensor | None, torch.dtype, list[int]]] = [
        ("parameters", buffers.parameters, floating, flat),
        ("exp_avg", buffers.exp_avg, floating, flat),
        ("exp_avg_sq", buffers.exp_avg_sq, floating, flat),
        ("running", buffers.running, floating, [models, config.num_norms, 2, config.hidden_dim]),
        ("order", order, torch.int64, [models, cells]),
        ("learning_rate", learning_rate, torch.float64, [-(-cells // batch_size)]),
        ("seed", seed, torch.int64, [models]),
        ("noise", noise, torch.float32, latents),
        ("keep", keep, torch.uint8, latents),
    ]
    if floating not in dtypes:
        raise TypeError(f"parameters: expected {dtypes[0]}, got {floating}; convert them")
    for name, tensor, dtype, shape in expected:
        if tensor is None:
            continue
        _check_is_tensor(name, tensor)
        if tensor.dtype != dtype:
            raise TypeError(f"{name}: expected {dtype}, got {tensor.dtype}")
        if list(tensor.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {list(tensor.shape)}")
        if tensor.device != codes.device:
            raise ValueError(f"{name}: on {tensor.device}, but codes on {codes.device}; move one")
    for name, tensor in buffers._asdict().items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: is written in place and must be contiguous")
        if tensor.requires_grad:
            raise ValueError(f"{name}: requires a gradient, but is written in place; detach() it")

# SPDX-License-Identifier: Apache-2.0
"""Two ways to take the same training steps: fused kernels, and plain PyTorch.

Both change the model they are given in place, so its state dict is live, and both keep Adam's state
in the form of `torch.optim.Adam`. They draw different random numbers and round differently: a run
stays with the engine that it was started with. Where several processes share a run, `shared.py`
takes the place of the fused engine.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from arch2vec_fast._checks import check_kernels
from arch2vec_fast._processes import Processes
from arch2vec_fast.functional import GinTrainBuffers, GinTrainConfig, gin_train
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.gin_vae import AutoencoderBase, GinVae, Mlp
from arch2vec_fast.models.recipes import Recipe
from arch2vec_fast.pretrain.flat import FlatAdam, join_state, split_state
from arch2vec_fast.pretrain.objective import objective
from arch2vec_fast.spaces import CellLayout

ENGINES = ("auto", "fused", "eager")

# Cells of one call of the fused step: about a second on two cores, so that Ctrl-C is heard.
CELLS_A_CALL = 32_768
# Sets seeds of processes apart from seeds of steps.
_PROCESS_SEEDS = 0x5BF0_3635_1E6C_C10D


class StepSums(NamedTuple):
    """What some steps leave: sums over their cells, float64, on the engine's device.

    losses: [4], loss, node, edge and kl times the cells of each step; not finite if any step was
    lost. mu, mu2: [N*D], sums of the encoder's means and of their squares.
    """

    losses: Tensor
    mu: Tensor
    mu2: Tensor


class Engine(Protocol):
    """Takes training steps of one model on one device."""

    name: str

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""

    @property
    def steps_a_call(self) -> int:
        """How many steps `train` should be given at most."""

    def train(self, order: Tensor, step: int, rates: list[float], *, training: bool) -> StepSums:
        """Step on cells `order` [T] of the run, ceil(T / batch size) = len(rates) times.

        step: steps taken before. training: batch statistics, noise and dropout; else frozen.
        Raises FloatingPointError where it notices at once that numbers are lost.
        """

    def optimizer_state(self) -> dict[str, Any]:
        """The state dict of a `torch.optim.Adam` over the model's parameters one by one."""

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Inverse of `optimizer_state`; raises ValueError for the state of other parameters."""


def choose_engine(engine: str, recipe: Recipe) -> str:
    """What `engine` means for a recipe: "auto" is fused for GIN encoders, eager for GCN ones."""
    if engine not in ENGINES:
        raise ValueError(f"engine: unknown {engine!r}; choose one of {', '.join(ENGINES)}")
    if engine == "fused" and recipe.encoder != "gin":
        raise ValueError(
            f"engine: the fused step is for GIN encoders, recipe {recipe.name!r} has a "
            f"{recipe.encoder.upper()}; use eager"
        )
    if engine == "auto":
        return "fused" if recipe.encoder == "gin" else "eager"
    return engine


def step_bytes(name: str, recipe: Recipe, layout: CellLayout) -> int:
    """About the memory that a training step takes for one cell of its batch, in bytes.

    Fused: input and output of every linear, [N,H] each. Eager: four such states a linear.
    """
    linears = recipe.num_layers * recipe.num_mlp_layers
    states = 2 * linears + 2 if name == "fused" else 4 * linears
    dense = layout.num_nodes + layout.num_op_types
    return 4 * layout.num_nodes * (states * recipe.hidden_dim + dense + 8 * recipe.latent_dim)


def build_engine(
    name: str,
    model: AutoencoderBase,
    layout: CellLayout,
    codes: Tensor,
    seed: int,
    processes: Processes = Processes(),  # noqa: B008  (immutable)
) -> Engine:
    """The engine called `name` for a model and the packed cells `codes` on its device.

    processes: take each batch together, each process its share; they must hold equal models.
    """
    if name == "eager":
        return EagerEngine(model, layout, codes, seed, processes)
    assert isinstance(model, GinVae)
    if processes.size == 1:
        return FusedEngine(model, layout, codes, seed)
    from arch2vec_fast.pretrain.shared import SharedFusedEngine

    return SharedFusedEngine(model, layout, codes, seed, processes)


class FusedEngine:
    """`functional.gin_train` over flat buffers, whose views become the model's parameters."""

    name = "fused"

    def __init__(self, model: GinVae, layout: CellLayout, codes: Tensor, seed: int) -> None:
        check_kernels("device", codes, "gin_train")
        self.lr = model.recipe.learning_rate
        self._batch_size = model.recipe.batch_size
        self._config = {mode: train_config(model, layout, training=mode) for mode in (False, True)}
        self._codes = codes.contiguous()
        self._seed = torch.tensor([seed], device=codes.device)
        self._parameters = list(model.parameters())
        self._norms = norms_in_order(model)
        self._buffers = GinTrainBuffers.zeros(self._config[True], device=codes.device)
        self._taken = 0
        self._adopt()

    @property
    def steps_a_call(self) -> int:
        return max(1, CELLS_A_CALL // self._batch_size)

    @torch.no_grad()
    def _adopt(self) -> None:
        """Move the model's numbers into the buffers and make its tensors views of them."""
        sizes = [parameter.numel() for parameter in self._parameters]
        for parameter, view in zip(self._parameters, self._buffers.parameters[0].split(sizes)):
            view.copy_(parameter.flatten())
            parameter.data = view.view(parameter.shape)
        adopt_statistics(self._norms, self._buffers.running[0])

    def train(self, order: Tensor, step: int, rates: list[float], *, training: bool) -> StepSums:
        losses, moments = gin_train(
            *(self._buffers, self._codes, order.unsqueeze(0)),
            torch.tensor(rates, dtype=torch.float64, device=order.device),
            self._seed,
            self._config[training],
            batch_size=self._batch_size,
            first_step=step,
        )
        self._taken, self.lr = step + len(rates), rates[-1]
        # Their storage is the buffers', their version counters are not.
        torch.autograd.graph.increment_version(self._parameters)
        if training:
            count_batches(self._norms, len(rates))
        cells = torch.full((len(rates), 1), self._batch_size, device=order.device)
        cells[-1] -= len(rates) * self._batch_size - len(order)
        # A gradient that is lost shows in the sums, even where the loss itself is still finite.
        values = losses[0, :, :4].double() + 0.0 * losses[0, :, 4:]
        return StepSums((values * cells).sum(0), *moments[0])

    def optimizer_state(self) -> dict[str, Any]:
        state = {}
        if self._taken:
            step = torch.tensor(float(self._taken))
            flat = {"exp_avg": self._buffers.exp_avg[0], "exp_avg_sq": self._buffers.exp_avg_sq[0]}
            state = {"step": step, **flat}
        group = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=self.lr).state_dict()
        return split_state(state, group["param_groups"][0], self._parameters)

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        joined = join_state(state, self._parameters)
        self.lr = state["param_groups"][0]["lr"]
        if joined:
            self._taken = int(joined["step"])
            self._buffers.exp_avg[0] = joined["exp_avg"]
            self._buffers.exp_avg_sq[0] = joined["exp_avg_sq"]


class EagerEngine:
    """The model's own modules, autograd and `FlatAdam`; for any recipe, and for comparison."""

    name = "eager"

    def __init__(
        self,
        model: AutoencoderBase,
        layout: CellLayout,
        codes: Tensor,
        seed: int,
        processes: Processes = Processes(),  # noqa: B008  (immutable)
    ) -> None:
        self._model, self._layout, self._codes = model, layout, codes
        self._recipe, self._processes = model.recipe, processes
        self._seed = process_seed(seed, processes.rank)
        self._adam = FlatAdam(
            model.parameters(),
            model.recipe.learning_rate,
            fused=model.recipe.reduction != "released",
        )

    @property
    def steps_a_call(self) -> int:
        return 1

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self._adam.lr

    def train(self, order: Tensor, step: int, rates: list[float], *, training: bool) -> StepSums:
        self._model.train(training)
        sums = []
        for batch, rate in zip(order.split(self._recipe.batch_size), rates):
            self._adam.lr = rate
            self._adam.zero_grad()
            sums.append(self._share(batch, step))
            self._adam.step(self._recipe.grad_clip)
            step += 1
        return add_up(sums, self._processes)

    def _share(self, batch: Tensor, step: int) -> StepSums:
        """Leave the mean gradient of the batch, of which this process takes its share of cells."""
        share = self._codes[batch[self._processes.share(len(batch))]]
        if self._processes.size == 1:
            return self._differentiate(share, step)
        try:
            sums = self._differentiate(share, step) if len(share) else self._nothing()
        except FloatingPointError:  # the others must learn of it, not wait
            self._adam.gradient.fill_(torch.nan)
            sums = StepSums(*(torch.full_like(part, torch.nan) for part in self._nothing()))
        self._processes.sum_(self._adam.gradient.mul_(len(share) / len(batch)))
        return sums

    def _differentiate(self, codes: Tensor, step: int) -> StepSums:
        torch.manual_seed(_mix(self._seed, step))
        adjacency, node_ops = unpack(codes, self._layout)
        result = self._model(adjacency, node_ops)
        try:
            loss, parts = objective(result, adjacency, node_ops, self._recipe)
        except RuntimeError:  # the released loss refuses probabilities that are not numbers
            if torch.isfinite(result.edge_logits).all() and torch.isfinite(result.mu).all():
                raise
            raise FloatingPointError from None
        loss.backward()
        values = torch.stack([loss, *parts.values()]).detach().double()
        mu = result.mu.detach().double().flatten(1)
        return StepSums(values * len(codes), mu.sum(0), mu.pow(2).sum(0))

    def _nothing(self) -> StepSums:
        latents = self._layout.num_nodes * self._recipe.latent_dim
        return no_sums(latents, self._codes.device)

    def optimizer_state(self) -> dict[str, Any]:
        return self._adam.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        self._adam.load_state_dict(state)


def no_sums(latents: int, device: torch.device) -> StepSums:
    """The sums over no cells, N*D = latents."""
    zeros = torch.zeros(4 + 2 * latents, dtype=torch.float64, device=device)
    return StepSums(*zeros.split([4, latents, latents]))


def add_up(sums: list[StepSums], processes: Processes) -> StepSums:
    """The sums of some steps over the cells of all processes."""
    parts = [torch.stack(part).sum(0) for part in zip(*sums)]
    if processes.size > 1:
        together = processes.sum_(torch.cat(parts))
        parts = list(together.split([part.numel() for part in parts]))
    return StepSums(*parts)


def train_config(model: GinVae, layout: CellLayout, *, training: bool) -> GinTrainConfig:
    """What `functional.gin_train` needs to know of a model. Raises ValueError beyond its limits."""
    recipe = model.recipe
    return GinTrainConfig(
        layout=layout,
        num_classes=model.decoder.weight.out_features,
        hidden_dim=recipe.hidden_dim,
        latent_dim=recipe.latent_dim,
        num_layers=recipe.num_layers,
        num_mlp_layers=recipe.num_mlp_layers,
        node_mixing=recipe.node_mixing,
        gated=recipe.direction == "gated",
        variational=recipe.variational,
        bilinear=recipe.edge_form == "bilinear",
        position_bias=recipe.position_bias,
        softmax=recipe.node_loss == "softmax",
        logits=recipe.edge_loss == "logits",
        elbo=recipe.reduction == "elbo",
        batch_mode=training,
        beta=recipe.beta,
        dropout=recipe.dropout,
        grad_clip=recipe.grad_clip,
    )


def norms_in_order(model: GinVae) -> list[nn.BatchNorm1d]:
    """The batch norms in the order of execution."""
    norms: list[nn.BatchNorm1d] = []
    for mlp, outer in zip(model.mlps, model.batch_norms):
        assert isinstance(mlp, Mlp)
        assert isinstance(outer, nn.BatchNorm1d)
        norms += [*mlp.norm_layers(), outer]
    return norms


@torch.no_grad()
def adopt_statistics(norms: list[nn.BatchNorm1d], buffer: Tensor) -> None:
    """Move the norms' running statistics into `buffer` [L*K,2,H], of which they become views."""
    for norm, running in zip(norms, buffer):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        running[0].copy_(norm.running_mean)
        running[1].copy_(norm.running_var)
        norm.running_mean, norm.running_var = running[0], running[1]


def count_batches(norms: list[nn.BatchNorm1d], steps: int) -> None:
    """What `nn.BatchNorm1d` counts in training."""
    for norm in norms:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += steps


def process_seed(seed: int, rank: int) -> int:
    """Seed of a process's noise and dropout: the run's own for the first, others for the others."""
    return seed if rank == 0 else _mix(seed ^ _PROCESS_SEEDS, rank)


def _mix(seed: int, step: int) -> int:
    """A generator seed for one step (splitmix64 of both), so that steps are independent."""
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 1) & (2**64 - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (value ^ (value >> 31)) >> 1

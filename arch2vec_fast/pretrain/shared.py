# SPDX-License-Identifier: Apache-2.0
"""The fused engine where several processes share each batch.

`gin_train` takes whole steps, Adam included, and the processes must meet between the gradient and
Adam. They need no other kernel: from moments of zero, at a learning rate of zero and without
clipping, a step changes no parameter and leaves a tenth of its gradient in Adam's first moment.
The gradients are added up over the processes, and each takes the same step with `FlatAdam`.

Batch norm sees the process's own cells, as with torch's DistributedDataParallel. Its running
statistics count on the first process alone; the loop hands them to the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from arch2vec_fast._checks import check_kernels
from arch2vec_fast._processes import Processes
from arch2vec_fast.functional import GinTrainBuffers, gin_train
from arch2vec_fast.models.gin_vae import GinVae
from arch2vec_fast.pretrain.engine import (
    CELLS_A_CALL,
    StepSums,
    add_up,
    adopt_statistics,
    count_batches,
    no_sums,
    norms_in_order,
    process_seed,
    train_config,
)
from arch2vec_fast.pretrain.flat import FlatAdam
from arch2vec_fast.spaces import CellLayout

_GRADIENTS_A_MOMENT = 10.0  # 1 / (1 - Adam's first beta)


class SharedFusedEngine:
    """`functional.gin_train` for the gradients, one collective sum and `FlatAdam` a step.

    The gradient of a batch is the mean over its cells of the processes' gradients, so processes
    with more cells, where a batch does not divide, count for more.
    """

    name = "fused"

    def __init__(
        self, model: GinVae, layout: CellLayout, codes: Tensor, seed: int, processes: Processes
    ) -> None:
        check_kernels("device", codes, "gin_train")
        self._recipe, self._processes = model.recipe, processes
        self._codes = codes.contiguous()
        seed = process_seed(seed, processes.rank)
        self._seed = torch.tensor([seed], device=codes.device)
        self._config = {
            mode: replace(train_config(model, layout, training=mode), grad_clip=float("inf"))
            for mode in (False, True)
        }
        self._latents = layout.num_nodes * model.recipe.latent_dim
        self._adam = FlatAdam(model.parameters(), model.recipe.learning_rate, fused=True)
        self._parameters, self._norms = list(model.parameters()), norms_in_order(model)
        scratch = GinTrainBuffers.zeros(self._config[True], device=codes.device)
        self._buffers = scratch._replace(parameters=self._adam.values.unsqueeze(0))
        self._rate = torch.zeros(1, dtype=torch.float64, device=codes.device)
        adopt_statistics(self._norms, self._buffers.running[0])

    @property
    def steps_a_call(self) -> int:
        return max(1, CELLS_A_CALL // self._recipe.batch_size)

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self._adam.lr

    def train(self, order: Tensor, step: int, rates: list[float], *, training: bool) -> StepSums:
        sums = []
        for batch, rate in zip(order.split(self._recipe.batch_size), rates):
            share = batch[self._processes.share(len(batch))]
            if len(share):
                sums.append(self._differentiate(share, step, training=training))
            else:
                self._adam.zero_grad()
                sums.append(no_sums(self._latents, order.device))
            self._processes.sum_(self._adam.gradient.mul_(len(share) / len(batch)))
            self._adam.lr = rate
            self._adam.step(self._recipe.grad_clip)
            step += 1
        # Their storage is Adam's, their version counters are not.
        torch.autograd.graph.increment_version(self._parameters)
        if training:
            count_batches(self._norms, len(rates))
        return add_up(sums, self._processes)

    def _differentiate(self, cells: Tensor, step: int, *, training: bool) -> StepSums:
        """Leave the gradient of this process's cells in `FlatAdam`; sums over them."""
        self._buffers.exp_avg.zero_()
        self._buffers.exp_avg_sq.zero_()
        losses, moments = gin_train(
            *(self._buffers, self._codes, cells.unsqueeze(0), self._rate, self._seed),
            self._config[training],
            batch_size=len(cells),
            first_step=step,
        )
        torch.mul(self._buffers.exp_avg[0], _GRADIENTS_A_MOMENT, out=self._adam.gradient)
        # A gradient that is lost shows in the sums, even where the loss itself is still finite.
        values = losses[0, 0, :4].double() + 0.0 * losses[0, 0, 4]
        return StepSums(values * len(cells), *moments[0])

    def optimizer_state(self) -> dict[str, Any]:
        return self._adam.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        self._adam.load_state_dict(state)

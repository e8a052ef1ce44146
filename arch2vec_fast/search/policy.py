# SPDX-License-Identifier: Apache-2.0
"""The LSTM policy of REINFORCE: one search's parameters, its episode so far, Adam.

A study runs hundreds of these in lock-step, each small enough for a core's cache. One policy is
therefore stepped at a time: a matrix-vector product that stays in cache beats a batched product
over all seeds' weights, which has to stream them from memory (29 against 55 ms for 500 policies,
two cores), and what a seed computes cannot depend on its company. The backward pass is written out
for the same reason: sixteen steps of autograd cost ten times the arithmetic.

Source: Yan et al. 2020, section 3.3; Williams, "Simple statistical gradient-following algorithms",
1992; layout of gates and initial distribution as `torch.nn.LSTMCell` and `torch.nn.Linear`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Episode", "LstmPolicy"]


class Episode:
    """What an LSTM of H units saw and did in T steps; `LstmPolicy.begin` makes one."""

    def __init__(self, start: Tensor) -> None:
        """start: zeros [H]."""
        self.inputs: list[Tensor] = []  # [x_t; h_(t-1)]
        self.gates: list[Tensor] = []
        self.cells = [start]  # c_(t-1), c_t, ...
        self.outputs: list[Tensor] = []
        self.output = start


class LstmPolicy:
    """Maps the states [D] of an episode to means [D] of Gaussian actions, and learns.

        (i, f, g, o) = W [x_t; h_(t-1)] + b,   c_t = f c_(t-1) + i g,   h_t = o tanh(c_t)
        mean_t = V h_t + v

    with sigmoid gates and g = tanh, h_0 = c_0 = 0 at the start of each episode.

    Args:
        dim: D. hidden: H. learning_rate: of Adam.
        generator: draws the initial parameters, in the order and from the distributions of an
            `LSTMCell(D, H)` followed by a `Linear(H, D)`.
        zero_head: then set V and v to zero, so that means start at the origin.

    Parameters are views of one buffer, so one Adam step serves them all. Not thread-safe;
    deterministic; about 8 H (D + H) operations a step and three times that a step of `learn`.

    >>> policy = LstmPolicy(4, 8, learning_rate=0.01, generator=torch.Generator().manual_seed(0))
    >>> episode = policy.begin()
    >>> policy.forward(torch.zeros(4), episode).shape
    torch.Size([4])
    >>> policy.learn(torch.ones(1, 4), episode).shape
    torch.Size([1, 4])
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        learning_rate: float,
        generator: torch.Generator,
        zero_head: bool = False,
    ) -> None:
        self._dim, self._hidden = dim, hidden
        sizes = [4 * hidden * (dim + hidden), 4 * hidden, 4 * hidden, dim * hidden, dim]
        self._flat = nn.Parameter(torch.empty(sum(sizes), device=generator.device))
        self._flat.grad = torch.zeros_like(self._flat)
        self._parameters = self._views(self._flat.data, sizes)
        self._gradients = self._views(self._flat.grad, sizes)
        self._draw(generator)
        if zero_head:
            self._parameters[3].zero_()
            self._parameters[4].zero_()
        self._adam = torch.optim.Adam([self._flat], lr=learning_rate, foreach=False)

    def _views(self, flat: Tensor, sizes: list[int]) -> list[Tensor]:
        weight, input_bias, hidden_bias, head, head_bias = flat.split(sizes)
        return [
            weight.view(4 * self._hidden, self._dim + self._hidden),
            input_bias,
            hidden_bias,
            head.view(self._dim, self._hidden),
            head_bias,
        ]

    def _draw(self, generator: torch.Generator) -> None:
        weight, input_bias, hidden_bias, head, head_bias = self._parameters
        bound = 1 / math.sqrt(self._hidden)
        for part in (weight[:, : self._dim], weight[:, self._dim :], input_bias, hidden_bias):
            part.copy_(
                torch.empty_like(part).contiguous().uniform_(-bound, bound, generator=generator)
            )
        nn.init.kaiming_uniform_(head, a=math.sqrt(5), generator=generator)
        head_bias.uniform_(-bound, bound, generator=generator)

    def begin(self) -> Episode:
        """A new episode, without steps."""
        return Episode(self._flat.new_zeros(self._hidden))

    @torch.no_grad()
    def forward(self, state: Tensor, episode: Episode) -> Tensor:
        """Mean [D] of the action in a state [D], the next of an episode."""
        weight, input_bias, hidden_bias, head, head_bias = self._parameters
        joined = torch.cat([state, episode.output])
        gates = torch.addmv(input_bias, weight, joined).add_(hidden_bias)
        take, keep, update, give = gates.chunk(4)
        for gate in (take, keep, give):
            gate.sigmoid_()
        cell = torch.addcmul(keep * episode.cells[-1], take, update.tanh_())
        episode.output = give * cell.tanh()
        episode.inputs.append(joined)
        episode.gates.append(gates)
        episode.cells.append(cell)
        episode.outputs.append(episode.output)
        return torch.addmv(head_bias, head, episode.output)

    def retrace(self, episode: Episode) -> tuple[Episode, Tensor]:
        """The states of an episode under the parameters as they are now, and the means [T, D]."""
        again = self.begin()
        means = [self.forward(joined[: self._dim], again) for joined in episode.inputs]
        return again, torch.stack(means)

    @torch.no_grad()
    def learn(self, mean_gradients: Tensor, episode: Episode) -> Tensor:
        """One Adam step down the gradient of a loss, given that of each mean [T, D].

        episode: walked under the parameters as they are. Returns the loss's gradient in its states,
        [T, D].
        """
        weight, _, _, head, _ = self._parameters
        weight_gradient, input_bias, hidden_bias, head_gradient, head_bias = self._gradients
        gate_gradients = self._through_time(mean_gradients @ head, episode)
        inputs = torch.stack(episode.inputs)
        torch.mm(gate_gradients.T, inputs, out=weight_gradient)
        torch.sum(gate_gradients, 0, out=input_bias)
        hidden_bias.copy_(input_bias)
        torch.mm(mean_gradients.T, torch.stack(episode.outputs), out=head_gradient)
        torch.sum(mean_gradients, 0, out=head_bias)
        state_gradients = gate_gradients @ weight[:, : self._dim]
        self._adam.step()
        return state_gradients

    def _through_time(self, output_gradients: Tensor, episode: Episode) -> Tensor:
        """Gradients before the gates' nonlinearities, [T, 4H], from those of h_t, [T, H].

        With d = dL/dh_t and e = dL/dc_t, in all of which later steps are contained:

            e = d o (1 - tanh(c_t)^2) + f_(t+1) e_(t+1)
            (i, f, g, o)' = (e g i', e c_(t-1) f', e i g', d tanh(c_t) o')
        """
        steps, hidden = output_gradients.shape
        gates = torch.stack(episode.gates).view(steps, 4, hidden)
        take, keep, update, give = gates.unbind(1)
        cells = torch.stack(episode.cells)
        squashed = cells[1:].tanh()
        slopes = gates * (1 - gates)
        slopes[:, 2] = 1 - update * update
        factors = torch.stack([update, cells[:-1], take, squashed], 1).mul_(slopes)
        to_cell = give * (1 - squashed * squashed)
        recurrent = self._parameters[0][:, self._dim :].T
        gradients = torch.empty_like(gates)
        cell_gradient = later = cells.new_zeros(hidden)
        for t in reversed(range(steps)):
            output_gradient = output_gradients[t] + later
            cell_gradient = torch.addcmul(cell_gradient, output_gradient, to_cell[t])
            torch.mul(factors[t, :3], cell_gradient, out=gradients[t, :3])
            torch.mul(factors[t, 3], output_gradient, out=gradients[t, 3])
            later = torch.mv(recurrent, gradients[t].view(-1))
            cell_gradient = cell_gradient * keep[t]
        return gradients.view(steps, 4 * hidden)

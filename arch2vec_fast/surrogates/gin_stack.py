# SPDX-License-Identifier: Apache-2.0
"""S graph isomorphism networks side by side, trained on accuracies: the supervised encoders.

The encoder is arch2vec's without a decoder: what learns it is a linear read-out of the tanh of its
vector that must predict the reward. Parameters of all S networks are stacked, so that a step is a
dozen batched products, and carry the names of `models.GinVae`, so that one network can be taken out
and run on packed cells.

Source: Yan et al. 2020, section 4.2; the released pybnn/dngo_supervised.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast.models import Recipe
from arch2vec_fast.models.gin_vae import GinVae
from arch2vec_fast.spaces import CellLayout

__all__ = ["GinStack"]

_MOMENTUM, _TINY = 0.1, 1e-5  # of batch norm, torch's defaults

Linear = Callable[[int, int], tuple[Tensor, Tensor]]


class GinStack:
    """S encoders of cells of one layout, each with a read-out of the reward.

    Args:
        layout: of the cells.
        draws: one function a network, (outputs, inputs) -> weight and bias of a new linear layer.
        directed: aggregate over A, as the released baseline; else over A + A^T.
        device: where the parameters lie.
    """

    def __init__(
        self,
        layout: CellLayout,
        draws: Sequence[Linear],
        *,
        directed: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.recipe = replace(
            Recipe.without_kl(),
            direction="gated" if directed else "symmetric",
            readout="mean",
            dropout=0.0,
        )
        self.layout = layout
        self.directed = directed
        self.parameters: dict[str, Tensor] = {}
        self.statistics: dict[str, Tensor] = {}
        searches, hidden = len(draws), self.recipe.hidden_dim
        self._zeros = torch.zeros(searches, device=device)
        self._add("eps", self._zeros[:, None].expand(-1, self.recipe.num_layers).clone())
        for layer in range(self.recipe.num_layers):
            inputs = layout.num_op_types if layer == 0 else hidden
            self._add_linear(f"mlps.{layer}.linears.0", draws, hidden, inputs)
            self._add_linear(f"mlps.{layer}.linears.1", draws, hidden, hidden)
            self._add_norm(f"mlps.{layer}.batch_norms.0", hidden)
            self._add_norm(f"batch_norms.{layer}", hidden)
        self._add_linear("fc", draws, self.recipe.latent_dim, hidden)
        self._add_linear("out", draws, 1, self.recipe.latent_dim)

    def train(
        self,
        adjacency: Tensor,
        node_ops: Tensor,
        targets: Tensor,
        order: Tensor,
        *,
        batch_size: int = 10,
        learning_rate: float = 1e-2,
    ) -> None:
        """Adam on the mean squared error, network by network.

        adjacency: [S, M, N, N] as `unpack_cells` makes it. node_ops: [S, M, N, F]. targets: [S, M].
        order: int64 [S, E, M], rows of each epoch; the last M mod `batch_size` rest.
        """
        batch = min(batch_size, targets.shape[1])
        whole = targets.shape[1] // batch * batch
        search = torch.arange(len(targets), device=targets.device)[:, None]
        parameters = list(self.parameters.values())
        optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
        for epoch in order.unbind(1):
            for rows in epoch[:, :whole].split(batch, 1):
                vectors = self.encode(adjacency[search, rows], node_ops[search, rows])
                predicted = self._linear(torch.tanh(vectors), "out")[..., 0]
                errors = (predicted - targets[search, rows]).square().mean(1)
                optimizer.zero_grad()
                errors.sum().backward()
                optimizer.step()

    def encode(self, adjacency: Tensor, node_ops: Tensor) -> Tensor:
        """Vectors [S, B, D] of cells [S, B, ...], batch norm by the statistics of the B cells.

        The mean over all N rows, as the released code has it. Running statistics follow.
        """
        edges = adjacency if self.directed else adjacency + adjacency.mT
        cells, nodes = node_ops.shape[1:3]
        x = node_ops
        for layer in range(self.recipe.num_layers):
            weight = 1 + self.parameters["eps"][:, layer, None, None, None]
            x = (weight * x + edges @ x).flatten(1, 2)
            x = self._linear(x, f"mlps.{layer}.linears.0")
            x = F.relu(self._norm(x, f"mlps.{layer}.batch_norms.0"))
            x = self._linear(x, f"mlps.{layer}.linears.1")
            x = F.relu(self._norm(x, f"batch_norms.{layer}")).unflatten(1, (cells, nodes))
        vectors: Tensor = self._linear(x.flatten(1, 2), "fc").unflatten(1, (cells, nodes)).mean(2)
        return vectors

    def model(self, search: int) -> GinVae:
        """One encoder by its running statistics: an ordinary model in evaluation mode."""
        model = GinVae(self.layout, self.recipe)
        state = {
            name: stacked[search].detach()
            for name, stacked in {**self.parameters, **self.statistics}.items()
            if not name.startswith("out.")
        }
        if self.directed:  # successors count, predecessors do not
            gates = {name: v for name, v in model.state_dict().items() if name.startswith("gates")}
            for gate in gates.values():
                gate.copy_(torch.tensor([[1.0], [0.0]]))
            state |= gates
        model.load_state_dict(state, strict=False)
        return model.to(self._zeros.device).eval()

    def _add(self, name: str, value: Tensor) -> None:
        self.parameters[name] = value.to(self._zeros.device).requires_grad_()

    def _add_linear(self, name: str, draws: Sequence[Linear], outputs: int, inputs: int) -> None:
        weights, biases = zip(*(draw(outputs, inputs) for draw in draws))
        self._add(name + ".weight", torch.stack(weights))
        self._add(name + ".bias", torch.stack(biases))

    def _add_norm(self, name: str, width: int) -> None:
        ones = self._zeros.new_ones(len(self._zeros), width)
        self._add(name + ".weight", ones.clone())
        self._add(name + ".bias", torch.zeros_like(ones))
        self.statistics[name + ".running_mean"] = torch.zeros_like(ones)
        self.statistics[name + ".running_var"] = ones

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weight, bias = (self.parameters[name + part] for part in (".weight", ".bias"))
        return torch.baddbmm(bias[:, None], x, weight.mT)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = (self.parameters[name + part][:, None] for part in (".weight", ".bias"))
        # Twice through the data is several times as fast as `torch.var_mean` along this axis.
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        variance = centred.square().mean(1, keepdim=True)
        with torch.no_grad():
            rows = x.shape[1]
            unbiased = variance[:, 0] * (rows / max(1, rows - 1))
            self.statistics[name + ".running_mean"].lerp_(mean[:, 0], _MOMENTUM)
            self.statistics[name + ".running_var"].lerp_(unbiased, _MOMENTUM)
        return torch.addcmul(bias, centred, torch.rsqrt(variance + _TINY) * weight)

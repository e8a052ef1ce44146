# SPDX-License-Identifier: Apache-2.0
"""The released training step written out once more, and the golden files it made.

`ReleasedTwin` is the oracle of the model tests: the released arithmetic as a list of torch calls
over a state dict, without modules or options. The golden files (`tests/golden/README.md`) say what
the authors' code computed on one machine; the twin says what the same arithmetic gives on this one.
Both are needed: float32 training of this model is chaotic, and kernels that add in another order
move the loss of step 5 by up to 5e-2 (measured with ATEN_CPU_CAPABILITY=default against AVX2).
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
SPACES = ("nasbench101", "nasbench201")
BATCH, STEPS, NOISY_STEPS = 32, 12, 6


def load_golden(space: str, part: str) -> dict[str, Tensor]:
    """Arrays of one golden file; `init`, `final` and `grads` have parameter names as keys."""
    with np.load(GOLDEN / f"gin_vae_{space}_{part}.npz") as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file.files}
    if part in ("init", "final"):
        return {key.removeprefix(f"{part}/"): value for key, value in tensors.items()}
    return tensors


def batch(steps: dict[str, Tensor], step: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """(directed adjacency, node_ops, noise or None) float32 of a golden step."""
    cells = slice(step * BATCH, (step + 1) * BATCH)
    noise = steps["noise"][step] if step < NOISY_STEPS else None
    return steps["adjacency"][cells].float(), steps["node_ops"][cells].float(), noise


class ReleasedTwin:
    """Released model and loss over a state dict: dropout 0, z = mu + exp(log_sigma) * noise."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {key: value.clone() for key, value in state.items()}
        self.parameters = {
            key: value.requires_grad_()
            for key, value in self.state.items()
            if value.is_floating_point() and "running_" not in key
        }

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def _norm_relu(self, name: str, x: Tensor, training: bool) -> Tensor:
        entries = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (self.state[f"{name}.{entry}"] for entry in entries)
        return F.relu(F.batch_norm(x, mean, variance, weight, bias, training, 0.1, 1e-5))

    def encode(self, adjacency: Tensor, node_ops: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        undirected = adjacency + adjacency.mT
        x, rows = node_ops, node_ops.shape[0] * node_ops.shape[1]
        for layer in range(len(self.state["eps"])):
            around = torch.matmul(undirected, x).view(rows, -1)
            h = (1 + self.state["eps"][layer]) * x.reshape(rows, -1) + around
            h = self._linear(f"mlps.{layer}.linears.0", h)
            h = self._norm_relu(f"mlps.{layer}.batch_norms.0", h, training)
            h = self._linear(f"mlps.{layer}.linears.1", h)
            h = self._norm_relu(f"batch_norms.{layer}", h, training)
            x = h.view(*node_ops.shape[:2], -1)
        return self._linear("fc1", x), self._linear("fc2", x)

    def loss(
        self, adjacency: Tensor, node_ops: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, mu, log_sigma); training mode where there is noise, eval mode without."""
        mu, log_sigma = self.encode(adjacency, node_ops, training=noise is not None)
        z = mu if noise is None else noise * torch.exp(log_sigma) + mu
        nodes = torch.sigmoid(self._linear("decoder.weight", z))
        edges = torch.sigmoid(torch.matmul(z, z.mT)).triu(1)
        reconstruction = F.binary_cross_entropy(nodes, node_ops) + F.binary_cross_entropy(
            edges, adjacency
        )
        divergence = torch.sum(1 + 2 * log_sigma - mu**2 - torch.exp(log_sigma) ** 2, 2)
        kl = -0.5 / divergence.numel() * torch.mean(divergence)
        return reconstruction + kl, mu, log_sigma

# SPDX-License-Identifier: Apache-2.0
"""The variational graph isomorphism autoencoder of arch2vec, in plain PyTorch.

Encoder (paper, section 3.1, equation 2), layer l = 1..L over node states X [B,N,H]:

    X <- ReLU(BN(MLP((1 + eps_l) X + A (g1_l * X) + A^T (g2_l * X))))

with g1 = g2 = 1 for the symmetric encoder of the paper and the released code. Two linear heads give
mu and log sigma of every node. Operations come in the order the released code has them, so that
float32 results agree with it to the last bits; parameter names and shapes are those of its
checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch2vec_fast._checks import check_dense
from arch2vec_fast.models.decoder import Decoded, Decoder
from arch2vec_fast.models.recipes import Recipe
from arch2vec_fast.spaces import CellLayout


class Reconstruction(NamedTuple):
    """What a training step needs: `Decoded`, and the posterior that it was decoded from.

    node_logits [B,N,C], edge_logits [B,N,N], mu [B,N,D], log_sigma [B,N,D] or None.
    """

    node_logits: Tensor
    edge_logits: Tensor
    mu: Tensor
    log_sigma: Tensor | None


class Mlp(nn.Module):
    """Linear layers with batch norm and ReLU between them; names as in released checkpoints."""

    def __init__(
        self, num_layers: int, in_dim: int, hidden_dim: int, out_dim: int | None = None
    ) -> None:
        super().__init__()
        out_dim = hidden_dim if out_dim is None else out_dim
        self.num_layers = num_layers
        if num_layers == 1:
            self.linear = nn.Linear(in_dim, out_dim)
            return
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.batch_norms = nn.ModuleList(nn.BatchNorm1d(hidden_dim) for _ in widths[2:])

    def linear_layers(self) -> list[nn.Linear]:
        """The linear layers, in order."""
        return [self.linear] if self.num_layers == 1 else list(self.linears)  # type: ignore[arg-type]

    def norm_layers(self) -> list[nn.BatchNorm1d]:
        """The batch norms between them: one fewer."""
        return [] if self.num_layers == 1 else list(self.batch_norms)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        if self.num_layers == 1:
            return self.linear(x)  # type: ignore[no-any-return]
        for linear, norm in zip(self.linears, self.batch_norms):
            x = F.relu(norm(linear(x)))
        return self.linears[-1](x)  # type: ignore[no-any-return]


class AutoencoderBase(nn.Module):
    """What the GIN and the GCN autoencoders share: sampling, decoding, read-out."""

    decoder: Decoder

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def encode(self, adjacency: Tensor, node_ops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Posterior of each node: (mu [B,N,D], log_sigma [B,N,D]); log_sigma is None without one.

        adjacency: directed, upper triangular, float [B,N,N]. node_ops: one-hot float [B,N,F], a
        zero row for an absent node.
        """
        raise NotImplementedError

    def decode(self, z: Tensor) -> Decoded:
        """Logits of operations and edges of latents z [B,N,D]."""
        return self.decoder(z)  # type: ignore[no-any-return]

    def reparameterize(
        self, mu: Tensor, log_sigma: Tensor | None, noise: Tensor | None = None
    ) -> Tensor:
        """z = mu + sigma * noise in training mode, mu otherwise; noise is drawn if not given."""
        if log_sigma is None or not self.training:
            return mu
        sigma = torch.exp(log_sigma)
        return (torch.randn_like(sigma) if noise is None else noise).mul(sigma).add_(mu)

    def forward(
        self, adjacency: Tensor, node_ops: Tensor, noise: Tensor | None = None
    ) -> Reconstruction:
        """Encode, sample, decode. noise: standard normals [B,N,D], so that a step is testable."""
        mu, log_sigma = self.encode(adjacency, node_ops)
        decoded = self.decode(self.reparameterize(mu, log_sigma, noise))
        return Reconstruction(decoded.node_logits, decoded.edge_logits, mu, log_sigma)

    def readout(self, mu: Tensor, node_ops: Tensor) -> Tensor:
        """One vector a cell, [B,D], from node vectors [B,N,D] and one-hot node_ops [B,N,F].

        `sum` adds the nodes a cell has (paper, section 3.1); `mean` divides by N and counts the
        rows of absent nodes, which are not zero, as the released code does.
        """
        if self.recipe.readout == "mean":
            return mu.mean(1)
        return torch.einsum("bnd,bn->bd", mu, node_ops.sum(2))


class GinVae(AutoencoderBase):
    """arch2vec's autoencoder for cells of one layout.

    Parameters: 122,617 for NAS-Bench-101, 122,907 for NAS-Bench-201, 123,487 for DARTS under
    `Recipe.released()`.

    >>> from arch2vec_fast.spaces import CellLayout
    >>> model = GinVae(CellLayout(7, 5), Recipe.released())
    >>> sum(p.numel() for p in model.parameters())
    122617
    """

    def __init__(self, layout: CellLayout, recipe: Recipe, *, variable_size: bool = False) -> None:
        super().__init__(recipe)
        hidden_dim, latent_dim = recipe.hidden_dim, recipe.latent_dim
        self.num_op_types = layout.num_op_types
        widths = [layout.num_op_types] + [hidden_dim] * (recipe.num_layers - 1)
        self.eps = nn.Parameter(torch.zeros(recipe.num_layers))
        self.mlps = nn.ModuleList()
        self.batch_norms = nn.ModuleList()
        for width in widths:
            self.mlps.append(Mlp(recipe.num_mlp_layers, width, hidden_dim))
            self.batch_norms.append(nn.BatchNorm1d(hidden_dim))
        self.fc: nn.Linear | None = None
        self.fc1: nn.Linear | None = None
        self.fc2: nn.Linear | None = None
        if recipe.variational:
            self.fc1 = nn.Linear(hidden_dim, latent_dim)
            self.fc2 = nn.Linear(hidden_dim, latent_dim)
        else:
            self.fc = nn.Linear(hidden_dim, latent_dim)
        num_classes = layout.num_op_types + (recipe.absent_class and variable_size)
        self.decoder = Decoder(layout.num_nodes, num_classes, recipe)
        self.gates: nn.ParameterList | None = None
        if recipe.direction == "gated":
            # Row 0 weighs successors, row 1 predecessors. Unequal rows break the symmetry of
            # the two directions at the start; equal ones can stay stuck in it.
            self.gates = nn.ParameterList(
                torch.stack([torch.ones(width), 0.5 * torch.randn(width)]) for width in widths
            )

    def encode(self, adjacency: Tensor, node_ops: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.hidden_states(adjacency, node_ops)[-1]
        if self.fc1 is None or self.fc2 is None:
            assert self.fc is not None
            return self.fc(x), None
        return self.fc1(x), self.fc2(x)

    def hidden_states(self, adjacency: Tensor, node_ops: Tensor) -> list[Tensor]:
        """Node states [B,N,H] after each GIN layer. Raises ValueError for other shapes."""
        check_dense(adjacency, node_ops, self.num_op_types)
        reverse = adjacency.transpose(1, 2)
        if self.gates is None:
            return self.propagate(node_ops, adjacency + reverse)
        return self.propagate(node_ops, torch.cat([adjacency, reverse], 1))

    def propagate(self, node_ops: Tensor, matrix: Tensor) -> list[Tensor]:
        """`hidden_states` over a given aggregation matrix: [B,N,N], e.g. already undirected.

        A gated encoder needs both directions stacked, [B,2N,N].
        """
        batch, num_nodes, _ = node_ops.shape
        rows = batch * num_nodes
        x, states = node_ops, []
        for layer, (mlp, norm) in enumerate(zip(self.mlps, self.batch_norms)):
            neighbours = torch.matmul(matrix, x)
            x = (1 + self.eps[layer]) * x.reshape(rows, -1)
            if self.gates is None:
                x = x + neighbours.view(rows, -1)
            else:  # gates act on channels and A on nodes, so A (g * X) = g * (A X)
                for gate, part in zip(self.gates[layer], neighbours.split(num_nodes, 1)):
                    x = torch.addcmul(x, gate, part.reshape(rows, -1))
            x = F.relu(norm(mlp(x)).view(batch, num_nodes, -1))
            states.append(x)
        return states


def build_model(
    recipe: Recipe, layout: CellLayout, *, variable_size: bool = False
) -> AutoencoderBase:
    """The model of a recipe, with fresh weights from torch's global generator.

    variable_size: whether cells may have fewer than N nodes (`CellSpace.variable_size`); recipes
    with `absent_class` then predict absence.
    """
    if recipe.encoder == "gcn":
        from arch2vec_fast.models.gae import GcnVae

        return GcnVae(layout, recipe, variable_size=variable_size)
    return GinVae(layout, recipe, variable_size=variable_size)

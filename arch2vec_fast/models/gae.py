# SPDX-License-Identifier: Apache-2.0
"""Graph auto-encoders with a GCN encoder: the GAE and VGAE rows of the paper's Table 1.

Layer k over node states X [B,N,H_k], S the propagation matrix:

    X <- ReLU(S X W_k) + b_k,        S = D^(-1/2) (A + A^T) D^(-1/2)

and without the ReLU in the last layer. The bias sits outside the ReLU and S has no self loops, as
in the layers the released code ships. No released script runs these baselines and the paper gives
neither depth nor normalisation: `docs/semantics.md` says what was chosen, why, and how far from
the paper's row every reading stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch2vec_fast.models.decoder import Decoder
from arch2vec_fast.models.gin_vae import AutoencoderBase
from arch2vec_fast.models.recipes import Recipe
from arch2vec_fast.spaces import CellLayout


def normalize_adjacency(adjacency: Tensor) -> Tensor:
    """D_in^(-1/2) A D_out^(-1/2): column sums to the left, row sums to the right, as released.

    adjacency: [B,N,N], directed or symmetric (then it is the usual normalisation), non-negative. A
    node without edges gets a zero row and column; the released code divides by zero there and fills
    the rows with NaN, which befalls every NAS-Bench-101 cell of fewer than seven nodes.
    Differentiable where degrees are positive; deterministic.

    >>> edge = torch.zeros(1, 3, 3)
    >>> edge[0, 0, 1] = edge[0, 1, 0] = 1.0
    >>> normalize_adjacency(edge)[0].tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    into = _inverse_root(adjacency.sum(dim=1)).unsqueeze(2)
    out_of = _inverse_root(adjacency.sum(dim=2)).unsqueeze(1)
    return into * adjacency * out_of


def _inverse_root(degree: Tensor) -> Tensor:
    present = degree > 0
    # The inner where keeps the zero out of the square root, whose gradient there is infinite.
    return torch.where(present, 1.0 / torch.sqrt(torch.where(present, degree, 1.0)), 0.0)


class GraphConvolution(nn.Module):
    """x [B,N,in_features] -> ReLU(S dropout(x) W^T) + b, S = `adjacency` [B,N,N].

    `linear` leaves the ReLU out.

    The weight starts Kaiming-uniform, then the bias uniform in +-1/sqrt(in_features): the released
    order of draws.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.in_features = in_features
        self.out_features = out_features
        self.dropout = dropout
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights from torch's global generator."""
        nn.init.kaiming_uniform_(self.weight)
        if self.bias is not None:
            bound = 1.0 / math.sqrt(self.in_features)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = F.linear(F.dropout(x, self.dropout, self.training), self.weight)
        x = torch.matmul(adjacency, x)
        x = x if self.linear else F.relu(x)
        return x if self.bias is None else x + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, dropout={self.dropout}"


class GcnEncoder(nn.Module):
    """A stack of graph convolutions with one head (GAE) or two (VGAE).

    dims: widths from the operation types to the latent, at least two. normalize: propagate over the
    normalised adjacency. linear_heads: no ReLU in the last layer (Kipf and Welling); the released
    `Encoder` and `VAEncoder` have one there. Parameter names are those of the released classes.
    """

    def __init__(
        self,
        dims: Sequence[int],
        *,
        variational: bool,
        normalize: bool = True,
        dropout: float = 0.0,
        linear_heads: bool = True,
    ) -> None:
        super().__init__()
        if len(dims) < 2:
            raise ValueError(f"dims: {list(dims)} has no layer; give at least two widths")
        self.dims = tuple(dims)
        self.normalize = normalize
        self.dropout = dropout
        self.linear_heads = linear_heads
        self.gcs = nn.ModuleList(
            GraphConvolution(*size, dropout) for size in pairwise(self.dims[:-1])
        )
        self.gc_mu: GraphConvolution | None = None
        self.gc_logvar: GraphConvolution | None = None
        if variational:
            self.add_variational_heads()
        else:
            self.gcs.append(self._head())

    def _head(self) -> GraphConvolution:
        in_features, out_features = self.dims[-2:]
        return GraphConvolution(in_features, out_features, self.dropout, linear=self.linear_heads)

    def add_variational_heads(self) -> None:
        """Append the heads of mu and log sigma (released name: logvar), in the released order."""
        self.gc_mu, self.gc_logvar = self._head(), self._head()

    def forward(self, node_ops: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor | None]:
        """(mu [B,N,D], log_sigma [B,N,D] or None); `adjacency` is taken as it is."""
        if self.normalize:
            adjacency = normalize_adjacency(adjacency)
        x = node_ops
        num_hidden = len(self.dims) - 2
        for layer in self.gcs[:num_hidden]:
            x = layer(x, adjacency)
        if self.gc_mu is None or self.gc_logvar is None:
            return self.gcs[num_hidden](x, adjacency), None
        return self.gc_mu(x, adjacency), self.gc_logvar(x, adjacency)


class GcnVae(AutoencoderBase):
    """GAE (`Recipe.gae()`) or VGAE (`Recipe.vgae()`) for cells of one layout.

    `num_layers` hidden layers of width H, then the head(s) of width D. Parameters under those
    recipes, NAS-Bench-101: 52,453 and 54,517.

    >>> model = GcnVae(CellLayout(7, 5), Recipe.gae())
    >>> sum(parameter.numel() for parameter in model.parameters())
    52453
    """

    def __init__(self, layout: CellLayout, recipe: Recipe, *, variable_size: bool = False) -> None:
        super().__init__(recipe)
        hidden = [recipe.hidden_dim] * recipe.num_layers
        self.encoder = GcnEncoder(
            [layout.num_op_types, *hidden, recipe.latent_dim],
            variational=recipe.variational,
            dropout=recipe.dropout,
        )
        num_classes = layout.num_op_types + (recipe.absent_class and variable_size)
        self.decoder = Decoder(layout.num_nodes, num_classes, recipe)

    def encode(self, adjacency: Tensor, node_ops: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.encoder(node_ops, adjacency + adjacency.transpose(1, 2))  # type: ignore[no-any-return]

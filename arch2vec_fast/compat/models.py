# SPDX-License-Identifier: Apache-2.0
"""The released model classes on top of this package's models.

What: `Model`, `GIN`, `GAE`, `GVAE`, `Encoder`, `VAEncoder`, `GraphConvolution`, `Decoder`, `MLP`.
Why subclasses: one implementation of every layer; only the released signatures are added. Released
    state dicts load, a seed gives the released initial weights, and float32 results agree with the
    released code to the bit on one machine.
Source: `models/model.py`, `models/layers.py`, `gin/models/mlp.py` of the released code
    (MSU-MLSys-Lab/arch2vec, commit ea01b0c); `return_z` and `get_arch2vec_model` from info-NAS.

Two conventions meet here. The released `forward(ops, adj)` takes an adjacency that `preprocessing`
has already made undirected and propagates over it as it is; the inherited `encode(adjacency,
node_ops)` takes the directed one. Released "logvar" is the log of sigma, not of the variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from arch2vec_fast import models
from arch2vec_fast._checks import check_dense
from arch2vec_fast.compat.objectives import configs
from arch2vec_fast.models import Recipe
from arch2vec_fast.models.gae import GcnEncoder, GraphConvolution
from arch2vec_fast.models.gin_vae import Mlp
from arch2vec_fast.spaces import CellLayout

__all__ = [
    "GAE",
    "GIN",
    "GVAE",
    "MLP",
    "Decoder",
    "Encoder",
    "GraphConvolution",
    "Model",
    "VAEncoder",
    "get_arch2vec_model",
]

# The released models are not told N, and under the released recipe no weight depends on it.
_ANY_NUM_NODES = 2


class MLP(Mlp):
    """Linear layers of widths input, hidden, ..., output with batch norm and ReLU between them."""

    def __init__(self, num_layers: int, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        if num_layers < 1:
            raise ValueError(f"num_layers: {num_layers} is below 1")
        super().__init__(num_layers, input_dim, hidden_dim, output_dim)


class Decoder(models.Decoder):
    """z [B,N,D] -> (probabilities of operations [B,N,F], of edges [B,N,N]).

    Kept: `activation_adj` is applied to both, `activation_ops` and the two hidden sizes to nothing,
    as in the code that made the published numbers. Fixed: both sizes are always attributes.
    """

    def __init__(
        self,
        embedding_dim: int,
        input_dim: int,
        dropout: float,
        activation_adj: Callable[[Tensor], Tensor] = torch.sigmoid,
        activation_ops: Callable[..., Tensor] = torch.sigmoid,
        adj_hidden_dim: int | None = None,
        ops_hidden_dim: int | None = None,
    ) -> None:
        recipe = replace(Recipe.released(), latent_dim=embedding_dim, dropout=dropout)
        super().__init__(_ANY_NUM_NODES, input_dim, recipe)
        self.activation_adj = activation_adj
        self.activation_ops = activation_ops
        self.adj_hidden_dim = embedding_dim if adj_hidden_dim is None else adj_hidden_dim
        self.ops_hidden_dim = embedding_dim if ops_hidden_dim is None else ops_hidden_dim

    def logits(self, embedding: Tensor) -> models.Decoded:
        """The same before the activation."""
        return super().forward(embedding)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        decoded = self.logits(embedding)
        return self.activation_adj(decoded.node_logits), self.activation_adj(decoded.edge_logits)


class _ReleasedGin(models.GinVae):
    """What `Model` and `GIN` share: the released arguments, and `adj` taken as it is."""

    decoder: Decoder

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        latent_dim: int,
        num_hops: int,
        num_mlp_layers: int,
        dropout: float,
        *,
        variational: bool,
        **kwargs: Any,
    ) -> None:
        if num_hops < 2:
            raise ValueError(f"num_hops: {num_hops} leaves no layer (hops - 1); give at least 2")
        recipe = replace(
            Recipe.released(),
            hidden_dim=hidden_dim,
            latent_dim=latent_dim,
            num_layers=num_hops - 1,
            num_mlp_layers=num_mlp_layers,
            dropout=dropout,
            variational=variational,
        )
        super().__init__(CellLayout(_ANY_NUM_NODES, input_dim), recipe)
        with torch.device("meta"):  # no draw from the generator: the weights are those made above
            decoder = Decoder(latent_dim, input_dim, dropout, **kwargs)
        decoder.weight = self.decoder.weight
        self.decoder = decoder
        self.input_dim = input_dim
        self.hidden_dim = hidden_dim
        self.latent_dim = latent_dim
        self.num_layers = num_hops

    def decode(self, z: Tensor) -> models.Decoded:
        return self.decoder.logits(z)

    def _last_state(self, ops: Tensor, adj: Tensor) -> Tensor:
        check_dense(adj, ops, self.num_op_types)
        # The released NAS-Bench-101 script hands over an integer adjacency.
        return self.propagate(ops, adj.to(ops.dtype))[-1]


class Model(_ReleasedGin):
    """The variational autoencoder of arch2vec: 63 state-dict entries, 39 parameters, as released.

    `num_hops` counts the heads: 5 hops are 4 GIN layers. `**kwargs` go to `Decoder`
    (`configs[4]["GAE"]`). `return_z` appends z to what `forward` returns.

    >>> model = Model(5, 128, 16, 5, 2, 0.3, **configs[4]["GAE"])
    >>> sum(parameter.numel() for parameter in model.parameters())
    122617
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        latent_dim: int,
        num_hops: int,
        num_mlp_layers: int,
        dropout: float,
        return_z: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_dim,
            hidden_dim,
            latent_dim,
            num_hops,
            num_mlp_layers,
            dropout,
            variational=True,
            **kwargs,
        )
        self.return_z = return_z

    def _encoder(self, ops: Tensor, adj: Tensor) -> tuple[Tensor, Tensor]:
        """(mu, logvar) [B,N,D] of `ops` [B,N,F] over `adj` [B,N,N]."""
        x = self._last_state(ops, adj)
        return self.fc1(x), self.fc2(x)  # type: ignore[misc]

    def forward(self, ops: Tensor, adj: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """(ops_recon [B,N,F], adj_recon [B,N,N], mu, logvar [B,N,D]), with `return_z` also z."""
        mu, logvar = self._encoder(ops, adj)
        z = self.reparameterize(mu, logvar)
        ops_recon, adj_recon = self.decoder(z)
        if self.return_z:
            return ops_recon, adj_recon, mu, logvar, z
        return ops_recon, adj_recon, mu, logvar


class GIN(_ReleasedGin):
    """The deterministic autoencoder: one head `fc`; `forward` returns (ops_recon, adj_recon, z)."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        latent_dim: int,
        num_hops: int,
        num_mlp_layers: int,
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_dim,
            hidden_dim,
            latent_dim,
            num_hops,
            num_mlp_layers,
            dropout,
            variational=False,
            **kwargs,
        )

    def _encoder(self, ops: Tensor, adj: Tensor) -> Tensor:
        """Node vectors [B,N,D] of `ops` [B,N,F] over `adj` [B,N,N]."""
        return self.fc(self._last_state(ops, adj))  # type: ignore[misc, no-any-return]

    def forward(self, ops: Tensor, adj: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        x = self._encoder(ops, adj)
        ops_recon, adj_recon = self.decoder(x)
        return ops_recon, adj_recon, x


class Encoder(GcnEncoder):
    """GCN encoder of `GAE`: (node vectors [B,N,D], embedding penalty).

    With `reg_emb` the penalty is the mean over cells of the 2-norm of the mean node vector, else a
    zero [1]. Fixed: the zero is made where the input lives (the released one needs CUDA), and a
    batch of one cell works.
    """

    def __init__(self, dims: Sequence[int], normalize: bool, reg_emb: bool, dropout: float) -> None:
        super().__init__(
            dims, variational=False, normalize=normalize, dropout=dropout, linear_heads=False
        )
        self.reg_emb = reg_emb

    def forward(self, ops: Tensor, adj: Tensor) -> tuple[Tensor, Tensor]:
        x, _ = super().forward(ops, adj)
        if self.reg_emb:
            return x, torch.mean(torch.norm(x.mean(dim=1), p=2, dim=1))
        return x, x.new_zeros(1)


class VAEncoder(GcnEncoder):
    """GCN encoder of `GVAE`: (mu, logvar) [B,N,D].

    Kept: one more layer `gcs[-1]` that nothing uses; it is in released checkpoints and takes part
    in the draws of a seed.
    """

    def __init__(self, dims: Sequence[int], normalize: bool, dropout: float) -> None:
        super().__init__(
            dims, variational=False, normalize=normalize, dropout=dropout, linear_heads=False
        )
        self.add_variational_heads()

    def forward(self, ops: Tensor, adj: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = super().forward(ops, adj)
        assert logvar is not None  # the heads were added above
        return mu, logvar


class _ReleasedGcn(models.AutoencoderBase):
    """What `GAE` and `GVAE` share: the methods that this package's models have."""

    encoder: Encoder | VAEncoder
    decoder: Decoder

    def __init__(self, encoder: Encoder | VAEncoder, dims: Sequence[int], dropout: float) -> None:
        super().__init__(replace(Recipe.vgae(), latent_dim=dims[-1], dropout=dropout))
        self.encoder = encoder

    def encode(self, adjacency: Tensor, node_ops: Tensor) -> tuple[Tensor, Tensor | None]:
        undirected = adjacency + adjacency.transpose(1, 2)
        return GcnEncoder.forward(self.encoder, node_ops, undirected)

    def decode(self, z: Tensor) -> models.Decoded:
        return self.decoder.logits(z)


class GAE(_ReleasedGcn):
    """Graph autoencoder with a GCN encoder of widths `dims` (operation types first, latent last).

    `forward(ops, adj)` returns (ops_recon, adj_recon, embedding penalty, decoder penalty, latent or
    None): the fourth is the sum of the decoder's parameter norms under `reg_dec_l2`, else a zero
    [1]; the fifth is the latent under `reg_dec_gp` alone. Fixed: the zeros need no CUDA.
    """

    def __init__(
        self,
        dims: Sequence[int],
        normalize: bool,
        reg_emb: bool,
        reg_dec_l2: bool,
        reg_dec_gp: bool,
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(Encoder(dims, normalize, reg_emb, dropout), dims, dropout)
        self.decoder = Decoder(dims[-1], dims[0], dropout, **kwargs)
        self.reg_dec_l2 = reg_dec_l2
        self.reg_dec_gp = reg_dec_gp

    def forward(  # type: ignore[override]
        self, ops: Tensor, adj: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        x, emb_loss = self.encoder(ops, adj)
        ops_recon, adj_recon = self.decoder(x)
        if self.reg_dec_l2:
            norms = [torch.norm(parameter, 2) for parameter in self.decoder.parameters()]
            return ops_recon, adj_recon, emb_loss, torch.stack(norms).sum(), None
        return ops_recon, adj_recon, emb_loss, x.new_zeros(1), x if self.reg_dec_gp else None


class GVAE(_ReleasedGcn):
    """Variational graph autoencoder; `forward` returns (ops_recon, adj_recon, mu, logvar)."""

    def __init__(self, dims: Sequence[int], normalize: bool, dropout: float, **kwargs: Any) -> None:
        super().__init__(VAEncoder(dims, normalize, dropout), dims, dropout)
        self.decoder = Decoder(dims[-1], dims[0], dropout, **kwargs)

    def forward(self, ops: Tensor, adj: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # type: ignore[override]
        mu, logvar = self.encoder(ops, adj)
        ops_recon, adj_recon = self.decoder(self.reparameterize(mu, logvar))
        return ops_recon, adj_recon, mu, logvar


def get_arch2vec_model(
    device: torch.device | str | None = None,
    input_dim: int = 5,
    hidden_dim: int = 128,
    latent_dim: int = 16,
    num_layers: int = 5,
    num_mlps: int = 2,
    dropout: float = 0.3,
    config: int = 4,
) -> tuple[Model, torch.optim.Adam]:
    """info-NAS's pair of a `Model` that returns z and its Adam (1e-3), on `device`."""
    model = Model(
        input_dim,
        hidden_dim,
        latent_dim,
        num_layers,
        num_mlps,
        dropout,
        return_z=True,
        **configs[config]["GAE"],
    ).to(device)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)

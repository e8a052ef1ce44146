# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N801  (class names are the released ones)
"""The released configurations and loss objects.

What: `configs` (five dicts with the entries `GAE`, `loss`, `prep`), `Reconstructed_Loss`,
`VAEReconstructed_Loss`. Why: scripts index `configs[4]` and unpack its entries as keyword
arguments. The losses take any pair of callables, so they
    cannot share code with `pretrain.objective`, whose terms are recipe fields; both are tested
    against the same numbers.
Source: `models/configs.py` and `models/model.py` of the released code (MSU-MLSys-Lab/arch2vec,
commit ea01b0c).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

LossTerm = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _config(
    decoder: dict[str, Any], loss_ops: LossTerm, loss_adj: LossTerm, method: int, lbd: float
) -> dict[str, dict[str, Any]]:
    return {
        "GAE": decoder,
        "loss": {"loss_ops": loss_ops, "loss_adj": loss_adj},
        "prep": {"method": method, "lbd": lbd},
    }


configs: list[dict[str, dict[str, Any]]] = [
    _config({"activation_ops": torch.sigmoid}, F.mse_loss, F.mse_loss, 3, 0.5),
    _config({"activation_ops": torch.softmax}, nn.BCELoss(), nn.BCELoss(), 3, 0.5),
    _config({"activation_ops": torch.softmax}, F.mse_loss, nn.BCELoss(), 3, 0.5),
    _config({"activation_ops": torch.sigmoid}, F.mse_loss, F.mse_loss, 4, 1.0),
    _config(
        {
            "activation_adj": torch.sigmoid,
            "activation_ops": torch.softmax,
            "adj_hidden_dim": 128,
            "ops_hidden_dim": 128,
        },
        nn.BCELoss(),
        nn.BCELoss(),
        4,
        1.0,
    ),
]
"""The released configurations; number 4 made every published number. Each has the keyword arguments
of the model (`GAE`), of the loss object (`loss`) and of `preprocessing` (`prep`). The decoder
ignores `activation_ops` and the two
hidden sizes, as the released one does."""


class Reconstructed_Loss:
    """`w_ops * loss_ops(ops_recon, ops) + w_adj * loss_adj(adj_recon, adj)`.

    Call it with `((ops_recon, adj_recon), (ops, adj))`, operations first. A scalar; differentiable.
    Source: released `models/model.py`.
    """

    def __init__(
        self,
        w_ops: float = 1.0,
        w_adj: float = 1.0,
        loss_ops: LossTerm | None = None,
        loss_adj: LossTerm | None = None,
    ) -> None:
        self.w_ops = w_ops
        self.w_adj = w_adj
        self.loss_ops = loss_ops
        self.loss_adj = loss_adj

    def _reconstruction(
        self, inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        if self.loss_ops is None or self.loss_adj is None:
            raise ValueError("loss_ops, loss_adj: both are needed; pass **configs[4]['loss']")
        loss_ops = self.loss_ops(inputs[0], targets[0])
        loss_adj = self.loss_adj(inputs[1], targets[1])
        return self.w_ops * loss_ops + self.w_adj * loss_adj

    def __call__(
        self, inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        return self._reconstruction(inputs, targets)


class VAEReconstructed_Loss(Reconstructed_Loss):
    """The reconstruction loss plus the released Kullback-Leibler term.

    Call it with `((ops_recon, adj_recon), (ops, adj), mu, logvar)`; `logvar` is the LOG OF SIGMA,
    as everywhere in the released code. Kept: the term is divided by B*N twice (the mean divides
    once, the factor in front once more), so it weighs 1/(B*N) of the stated ELBO and more in a
    last, smaller batch; every published number has it. A scalar; differentiable. Source: released
    `models/model.py`.
    """

    def __call__(  # type: ignore[override]
        self,
        inputs: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor],
        mu: torch.Tensor,
        logvar: torch.Tensor,
    ) -> torch.Tensor:
        loss = self._reconstruction(inputs, targets)
        rows = targets[0].shape[0] * targets[0].shape[1]
        per_node = torch.sum(1 + 2 * logvar - mu.pow(2) - logvar.exp().pow(2), 2)
        return loss + -0.5 / rows * torch.mean(per_node)

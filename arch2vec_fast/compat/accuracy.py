# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803  (argument names are the released ones)
"""The reconstruction accuracies the released scripts print.

What: `get_accuracy` of one batch, `get_train_acc`, `get_val_acc`, `get_val_acc_vae`. Why: Table 1's
printed accuracy is this one: per node and per possible edge, absent nodes included, never per cell.
The
    whole-cell accuracy is `pretrain.metrics`.
Source: `utils/utils.py` of the released code (MSU-MLSys-Lab/arch2vec, commit ea01b0c).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from arch2vec_fast.compat.preparation import preprocessing

Accuracies = tuple[float, torch.Tensor, torch.Tensor, float]
_CHUNK = 500  # cells a forward pass; the released size, and the averages are weighted by it


def get_accuracy(inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> Accuracies:
    """(operation accuracy, mean probability on edges, mean probability on non-edges, edge accuracy
    at 0.5).

    `inputs` = (ops_recon [B,N,F], adj_recon [B,N,N]) probabilities, `targets` = (ops, adj); only
    the upper triangle of the adjacency counts. Kept: absent nodes count, their label being 0 (the
    argmax of a zero row); the second and third are mean probabilities rather than hit rates; they
    are 0-d tensors, the others floats. Synchronises with the device.
    """
    ops_recon, ops = inputs[0], targets[0]
    adj_recon, adj = inputs[1].triu(1), targets[1].triu(1)
    num_cells, num_nodes = ops_recon.shape[:2]
    pairs = num_cells * num_nodes * (num_nodes - 1) / 2.0
    edges = adj.bool()
    no_edges = (~edges).triu(1)
    correct_ops = ops_recon.argmax(dim=-1).eq(ops.argmax(dim=-1)).float().mean().item()
    mean_correct_adj = adj_recon[edges].sum().item() / adj.sum()
    mean_false_positive_adj = adj_recon[no_edges].sum().item() / (pairs - adj.sum())
    correct_adj = (adj_recon > 0.5).eq(edges).float().triu(1).sum().item() / pairs
    return correct_ops, mean_correct_adj, mean_false_positive_adj, correct_adj


def get_train_acc(inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> str:
    """The four values of `get_accuracy` as the line the released scripts print."""
    text = "acc_ops:{:.4f}, mean_corr_adj:{:.4f}, mean_fal_pos_adj:{:.4f}, acc_adj:{:.4f}"
    return "training batch: " + text.format(*get_accuracy(inputs, targets))


def get_val_acc_vae(
    model: nn.Module,
    cfg: dict[str, dict[str, Any]],
    X_adj: torch.Tensor,
    X_ops: torch.Tensor,
    indices: torch.Tensor,
) -> Accuracies:
    """Mean `get_accuracy` of `model` over the cells `X_adj` [M,N,N], `X_ops` [M,N,F], in chunks of
    500.

    `cfg` is one of `configs`; `indices` [M] only has to have the length of the data. Kept: the
    model is LEFT IN EVAL MODE; the released loop never switches back, so its later epochs train
    without noise, dropout and batch statistics, and every published number rests on that (call
    `model.train()` afterwards if you do not want it). Fixed: no autograd graph, and the data follow
    the model's device (the released code moved them to CUDA).
    """
    if not len(X_adj) == len(X_ops) == len(indices):
        raise ValueError(
            f"indices: {len(indices)} entries for {len(X_adj)} adjacencies and {len(X_ops)} "
            "operation matrices; pass as many of each"
        )
    model.eval()
    device = next(model.parameters()).device
    totals: list[Any] = [0, 0, 0, 0]
    with torch.no_grad():
        for adj, ops in zip(torch.split(X_adj, _CHUNK), torch.split(X_ops, _CHUNK), strict=True):
            adj, ops, prep_reverse = preprocessing(adj.to(device), ops.to(device), **cfg["prep"])
            ops_recon, adj_recon = model(ops, adj)[:2]
            adj_recon, ops_recon = prep_reverse(adj_recon, ops_recon)
            target_adj, target_ops = prep_reverse(adj, ops)
            values: list[Any] = [*get_accuracy((ops_recon, adj_recon), (target_ops, target_adj))]
            totals = [
                total + value * len(ops) / len(indices)
                for total, value in zip(totals, values, strict=True)
            ]
    return totals[0], totals[1], totals[2], totals[3]


def get_val_acc(
    model: nn.Module,
    cfg: dict[str, dict[str, Any]],
    X_adj: torch.Tensor,
    X_ops: torch.Tensor,
    indices: torch.Tensor,
) -> Accuracies:
    """`get_val_acc_vae`; either takes any model that returns (ops_recon, adj_recon, ...)."""
    return get_val_acc_vae(model, cfg, X_adj, X_ops, indices)

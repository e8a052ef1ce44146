# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806  (argument names are the released ones)
"""The released preprocessing of a batch, with its argument order and its names.

What: `preprocessing`, `normalize_adj`, `stacked_mm`, `stacked_spmm`.
Why: scripts written for the released code call these before every forward pass; the models of this
    package symmetrise on their own and need none of it.
Source: `utils/utils.py` of the released code (MSU-MLSys-Lab/arch2vec, commit ea01b0c).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from arch2vec_fast.models.gae import normalize_adjacency

PrepReverse = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _check_rank(name: str, value: Tensor) -> None:
    if value.dim() != 3:
        raise ValueError(
            f"{name}: expected 3 dimensions, got shape {tuple(value.shape)}; add a batch dimension"
        )


def stacked_mm(A: Tensor, B: Tensor) -> Tensor:
    """Batched matrix product [B,N,K] x [B,K,M] -> [B,N,M]. Raises ValueError on other ranks."""
    _check_rank("A", A)
    _check_rank("B", B)
    return torch.matmul(A, B)


def stacked_spmm(A: Tensor, B: Tensor) -> Tensor:
    """`stacked_mm`: the released name promises a sparse product, its code was dense as well."""
    return stacked_mm(A, B)


def normalize_adj(A: Tensor) -> Tensor:
    """`models.gae.normalize_adjacency`: D_in^(-1/2) A D_out^(-1/2) of `A` [B,N,N].

    Fixed: nodes without edges give zeros, where the released code gives NaN. All other values are
    the same to the bit. Raises ValueError unless `A` has 3 dimensions.
    """
    _check_rank("A", A)
    return normalize_adjacency(A)


def _with_global_node(A: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """Append one node that every other points to, with an operation type of its own."""
    A = F.pad(F.pad(A, (0, 1), value=1.0), (0, 0, 0, 1), value=0.0)
    H = F.pad(H, (0, 1, 0, 1), value=0.0)
    H[:, -1, -1] = 1.0
    return A, H


def _mixed(A: Tensor, lbd: float | None, method: int) -> tuple[Tensor, float]:
    if lbd is None:
        raise ValueError(f"lbd: method {method} needs a mixing weight; pass lbd, e.g. 0.5")
    return lbd * A + (1 - lbd) * A.transpose(-1, -2), lbd


def _undo_normalization(mixed: Tensor) -> PrepReverse:
    root_in, root_out = mixed.sum(dim=1).sqrt(), mixed.sum(dim=2).sqrt()

    def prep_reverse(A: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
        return (root_in.unsqueeze(2) * A * root_out.unsqueeze(1)).triu(1), H

    return prep_reverse


def preprocessing(A: Tensor, H: Tensor, method: int, lbd: float | None = None) -> tuple[Any, ...]:
    """What the released code does to a batch before its encoder sees it.

    `A` [B,N,N] upper triangular float, `H` [B,N,F] one-hot float. Mind the order: (adjacency,
    operations) here, (operations, adjacency) in the models.

    | method | adjacency returned | returns |
    |---|---|---|
    | 0 | `A` unchanged | `(A, H)` |
    | 1 | one global node and operation type more, transposed, normalised | `(A, H)` |
    | 2 | `lbd A + (1 - lbd) A^T`, normalised | `(A, H, prep_reverse)` |
    | 3 | `lbd A + (1 - lbd) A^T` | `(A, H, prep_reverse)` |
    | 4 | `A + A^T`, the published configuration | `(A, H, prep_reverse)` |

    `prep_reverse(A, H)` takes the upper triangle of a reconstruction (divided by `lbd` for 3). The
    zeros it leaves below the diagonal count in the released loss, which so weighs edges (N-1)/2N.

    Kept: two values, not three, for methods 0 and 1. Fixed: a node without edges gives zeros where
    the released code gives NaN (1, 2); the reverse of method 2, NaN for every input as released (it
    inverts the zeros off a diagonal), undoes the normalisation. Raises ValueError for another rank
    or method and for a missing `lbd`. Source: released `utils/utils.py`.
    """
    _check_rank("A", A)
    if method == 0:
        return A, H
    if method == 1:
        A, H = _with_global_node(A, H)
        return normalize_adjacency(A.transpose(-1, -2)), H
    if method == 2:
        mixed, _ = _mixed(A, lbd, method)
        return normalize_adjacency(mixed), H, _undo_normalization(mixed)
    if method == 3:
        mixed, weight = _mixed(A, lbd, method)
        return mixed, H, lambda A, H: (1.0 / weight * A.triu(1), H)
    if method == 4:
        return A + A.triu(1).transpose(-1, -2), H, lambda A, H: (A.triu(1), H)
    raise ValueError(f"method: {method!r} is unknown; use 0, 1, 2, 3 or 4")

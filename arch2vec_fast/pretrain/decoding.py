# SPDX-License-Identifier: Apache-2.0
"""From decoder logits to cells: as they come (`raw_cells`), or the best legal one (`legal_cells`).

The released code takes the most likely label of each node and every edge above one half; most of
what it gets from sampled latents is no cell of the space. The best *legal* cell under the same
likelihood costs little more and is a cell always: it maximises

    sum_v node_logits[v, label_v] + sum_{edges x<y} edge_logits[x, y]

over the cells of the space, which is the log-likelihood up to a constant, for a softmax and for
independent sigmoids alike. Where the raw cell is legal and the decoder can say "absent" (or cells
have one size), both agree. Being valid is no merit of the model here: an untrained decoder scores
100 % too, so reports print raw beside legal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arch2vec_fast.models.decoder import Decoded
from arch2vec_fast.pretrain.legal_paths import PathRule, best_path_cells
from arch2vec_fast.spaces import CellBatch

if TYPE_CHECKING:
    from arch2vec_fast.spaces import CellSpace

_DARTS_INPUTS = 2


def raw_cells(decoded: Decoded, space: CellSpace) -> CellBatch:
    """The most likely label of each node and the edges with a positive logit.

    decoded: logits [B,N,C] and [B,N,N]; C is F, or F+1 where the last class means absent.
    Returns B cells that need not be valid: `space.validity` judges them. Ties go to the lower
    label. Deterministic, no gradient.
    """
    node_logits, edge_logits = _checked(decoded, space)
    labels = node_logits.argmax(2)
    labels = torch.where(labels == space.layout.num_op_types, -1, labels)
    return _pack((edge_logits > 0).triu(1), labels, space)


def legal_cells(decoded: Decoded, space: CellSpace) -> CellBatch:
    """The most likely cell of the space, for each of B decoded latents; valid by construction.

    DARTS: for each block the best ordered pair of distinct sources and the best operations.
    NAS-Bench-201: the fixed template and the best operations. NAS-Bench-101 and other spaces with
    one input and one output: the best set of at most `max_edges` edges that puts every node on a
    path from input to output, over all sizes (`legal_paths`; cells with dangling nodes are left
    out even where the space allows them).
    Raises ValueError for a space whose rule needs more than that. Deterministic, no gradient.
    """
    node_logits, edge_logits = _checked(decoded, space)
    decode = _LEGAL.get(space.name, _legal_path_cells)
    adjacency, labels = decode(node_logits, edge_logits, space)
    cells = _pack(adjacency, labels, space)
    if space.name not in _LEGAL and not (valid := space.is_valid(cells)).all():
        raise ValueError(
            f"space: {space.name} rejects {int((~valid).sum())} of {len(cells)} decoded cells by a "
            "rule beyond paths and edge counts; use raw_cells and filter with space.is_valid"
        )
    return cells


def _checked(decoded: Decoded, space: CellSpace) -> tuple[Tensor, Tensor]:
    node_logits, edge_logits = decoded.node_logits.detach(), decoded.edge_logits.detach()
    nodes, ops = space.layout.num_nodes, space.layout.num_op_types
    if (
        node_logits.dim() != 3
        or node_logits.shape[1] != nodes
        or node_logits.shape[2] - ops not in (0, 1)
    ):
        raise ValueError(
            f"decoded.node_logits: expected shape [B,{nodes},{ops}] or [B,{nodes},{ops + 1}] for "
            f"{space.name}, got {list(node_logits.shape)}; decode with a model of this space"
        )
    if edge_logits.shape != (len(node_logits), nodes, nodes):
        raise ValueError(
            f"decoded.edge_logits: expected shape {[len(node_logits), nodes, nodes]}, "
            f"got {list(edge_logits.shape)}; decode with a model of this space"
        )
    return node_logits, edge_logits


def _pack(adjacency: Tensor, labels: Tensor, space: CellSpace) -> CellBatch:
    return CellBatch.from_dense(
        adjacency.to(torch.uint8).cpu().numpy(), labels.to(torch.int8).cpu().numpy(), space.layout
    )


def _best_labels(node_logits: Tensor, allowed: list[int]) -> Tensor:
    """The best of the allowed labels, [B,N]."""
    index = torch.tensor(allowed, device=node_logits.device)
    return index[node_logits[:, :, index].argmax(2)]


def _legal_nasbench201(
    node_logits: Tensor, edge_logits: Tensor, space: CellSpace
) -> tuple[Tensor, Tensor]:
    labels = _best_labels(node_logits, _inner_ops(space))
    labels[:, 0], labels[:, -1] = 0, space.layout.num_op_types - 1
    template = torch.from_numpy(space.enumerate()[:1].to_dense()[0])
    return template.expand(len(labels), -1, -1), labels


def _legal_darts(
    node_logits: Tensor, edge_logits: Tensor, space: CellSpace
) -> tuple[Tensor, Tensor]:
    """Blocks are independent given the logits, so the best pair of each is the best cell."""
    batch, num_nodes = node_logits.shape[:2]
    labels = _best_labels(node_logits, _inner_ops(space))
    labels[:, 0], labels[:, 1], labels[:, -1] = 0, 1, space.layout.num_op_types - 1
    adjacency = torch.zeros_like(edge_logits, dtype=torch.bool)
    adjacency[:, _DARTS_INPUTS:-1, -1] = True
    row = torch.arange(batch, device=edge_logits.device)
    for first in range(_DARTS_INPUTS, num_nodes - 1, 2):
        # nodes[s, x]: whether reading source s means an edge from node x. Blocks are two nodes.
        nodes = torch.zeros(_DARTS_INPUTS + (first - _DARTS_INPUTS) // 2, num_nodes)
        nodes[0, 0] = nodes[1, 1] = 1
        for source in range(_DARTS_INPUTS, len(nodes)):
            nodes[source, 2 * source - 2 : 2 * source] = 1
        nodes = nodes.to(edge_logits)
        scores = torch.einsum("sx,bxy->bsy", nodes, edge_logits[:, :, first : first + 2])
        pairs = scores[:, :, None, 0] + scores[:, None, :, 1]
        pairs.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        best = pairs.flatten(1).argmax(1)
        for offset, pick in enumerate((best // len(nodes), best % len(nodes))):
            adjacency[row, :, first + offset] = nodes[pick].bool()
    return adjacency, labels


def _inner_ops(space: CellSpace) -> list[int]:
    return list(range(len(space.input_ops), space.layout.num_op_types - 1))


def _legal_path_cells(
    node_logits: Tensor, edge_logits: Tensor, space: CellSpace
) -> tuple[Tensor, Tensor]:
    if len(space.input_ops) != 1 or space.output_op is None:
        raise ValueError(
            f"space: legal decoding needs one input and one output operation, {space.name} has "
            f"{len(space.input_ops)} and {int(space.output_op is not None)}; use raw_cells"
        )
    num_nodes, last = space.layout.num_nodes, space.layout.num_op_types - 1
    rule = PathRule(
        input_op=0,
        output_op=last,
        inner_ops=tuple(range(1, last)),
        max_edges=space.max_edges,
        sizes=tuple(range(2, num_nodes + 1)) if space.variable_size else (num_nodes,),
    )
    return best_path_cells(node_logits, edge_logits, rule)


_LEGAL: dict[str, Callable[[Tensor, Tensor, CellSpace], tuple[Tensor, Tensor]]] = {
    "nasbench201": _legal_nasbench201,
    "darts": _legal_darts,
}

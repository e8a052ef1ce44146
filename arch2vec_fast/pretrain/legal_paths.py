# SPDX-License-Identifier: Apache-2.0
"""The most likely cell whose every node lies on a path from input to output.

In a DAG whose node 0 is the input and whose last present node is the output, every node lies on
such a path exactly when every node but the output has a successor and every node but the input
has a predecessor. So the search splits by target node: process the edges target by target and
remember only (which sources already have a successor, how many edges are used, whether the current
target has a predecessor). One Viterbi pass over N(N-1)/2 edges then finds the exact maximum over
all cell sizes and all edge sets of at most `max_edges` edges; measured against brute force in the
tests. States grow as 2^N, so above `MAX_EXACT_NODES` nodes a greedy repair takes over.

Scores are log-likelihoods up to a constant of the cell: choosing label c at node v adds
node_logits[v, c] (the normaliser of a softmax or of independent sigmoids is the same for every
label, and an all-zero row of sigmoids scores 0), choosing an edge adds edge_logits[x, y].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

MAX_EXACT_NODES = 10
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRule:
    """What a cell must look like: one input, one output, inner labels, at most max_edges edges.

    sizes: the permitted numbers of present nodes, ascending.
    """

    input_op: int
    output_op: int
    inner_ops: tuple[int, ...]
    max_edges: int
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sizes or self.sizes[0] < 2:
            raise ValueError("sizes: a cell has at least two nodes, the input and the output")
        if not self.inner_ops and self.sizes[-1] > 2:
            raise ValueError("inner_ops: a cell of more than two nodes needs an inner operation")
        if self.max_edges < self.sizes[-1] - 1:
            raise ValueError(
                f"max_edges: {self.max_edges} edges cannot connect {self.sizes[-1]} nodes; "
                f"allow at least {self.sizes[-1] - 1}"
            )


def best_path_cells(
    node_logits: Tensor, edge_logits: Tensor, rule: PathRule
) -> tuple[Tensor, Tensor]:
    """Most likely cells under `rule`: (adjacency uint8 [B,N,N], node_ops int8 [B,N], -1 absent).

    node_logits [B,N,C], C = F or F+1 (last = absent); edge_logits [B,N,N], entries i < j.
    Exact up to `MAX_EXACT_NODES` nodes, else greedy. Deterministic. Cost O(B N 2^N max_edges).
    """
    batch, num_nodes, _ = node_logits.shape
    find = _exact_edges if num_nodes <= MAX_EXACT_NODES else _greedy_edges
    adjacency = torch.zeros(batch, num_nodes, num_nodes, dtype=torch.bool)
    sizes = torch.zeros(batch, dtype=torch.long)
    labels = torch.full((batch, num_nodes), -1, dtype=torch.int8)
    chunk = max(1, _CHUNK_BYTES // _bytes_per_cell(num_nodes, rule))
    for start in range(0, batch, chunk):
        part = slice(start, start + chunk)
        nodes = _NodeScores(node_logits[part].float(), rule)
        edges, size = find(edge_logits[part].float(), nodes, rule)
        adjacency[part], sizes[part] = edges.cpu(), size.cpu()
        labels[part] = nodes.labels(size).cpu()
    return adjacency.to(torch.uint8), labels


class _NodeScores:
    """Scores of the labels of each node in the three roles inner, output and absent."""

    def __init__(self, logits: Tensor, rule: PathRule) -> None:
        self.rule = rule
        inner = torch.tensor(rule.inner_ops, device=logits.device, dtype=torch.long)
        if len(inner):
            self.inner, choice = logits[:, :, inner].max(2)
            self.inner_op = inner[choice]
        else:
            self.inner, self.inner_op = logits[:, :, 0], torch.zeros_like(logits[:, :, 0]).long()
        self.output = logits[:, :, rule.output_op]
        num_ops = 1 + max(rule.output_op, rule.input_op, *rule.inner_ops)
        absent = (
            logits[:, :, num_ops] if logits.shape[2] > num_ops else torch.zeros_like(self.output)
        )
        self.absent = absent

    def of_size(self, size: int) -> Tensor:
        """Score [B] of all labels but the input's (a constant) when `size` nodes are present."""
        inner = self.inner[:, 1 : size - 1].sum(1)
        return inner + self.output[:, size - 1] + self.absent[:, size:].sum(1)

    def labels(self, sizes: Tensor) -> Tensor:
        """Labels int8 [B,N] of cells with sizes [B]."""
        position = torch.arange(self.inner.shape[1], device=sizes.device)
        last = (sizes - 1).unsqueeze(1)
        labels = torch.where(position < last, self.inner_op, -1)
        labels = torch.where(position == last, self.rule.output_op, labels)
        labels[:, 0] = self.rule.input_op
        return labels.to(torch.int8)


def _bytes_per_cell(num_nodes: int, rule: PathRule) -> int:
    if num_nodes > MAX_EXACT_NODES:
        return 8 * num_nodes * num_nodes
    return sum(
        target * (1 << target) * _count_states(target, rule) for target in range(1, num_nodes)
    )


def _count_states(target: int, rule: PathRule) -> int:
    """Possible edge counts while deciding the edges into `target`: from target - 1 upwards."""
    return min(rule.max_edges, target * (target + 1) // 2) - (target - 1) + 1


def _exact_edges(weights: Tensor, nodes: _NodeScores, rule: PathRule) -> tuple[Tensor, Tensor]:
    """Edges bool [B,N,N] and sizes [B] of the maximum: values backwards, then choices forwards.

    A value table is [2, 2^target, counts, B]: fed or not, set of sources that have a successor,
    edges used (row 0 means target - 1, as each earlier target took one at least), cell. The batch
    comes last so that every step works on contiguous rows.
    """
    batch, num_nodes, _ = weights.shape
    take: dict[tuple[int, int], Tensor] = {}  # (source, target) -> bool, like the value table
    stop: dict[int, Tensor] = {}  # target -> bool [2^target, counts, B]
    following: Tensor | None = None  # value of starting the next target
    for target in range(num_nodes - 1, 0, -1):
        counts = _count_states(target, rule)
        end = weights.new_full((1 << target, counts, batch), -torch.inf)
        if target + 1 in rule.sizes:
            end[-1] = nodes.of_size(target + 1)
        stop[target] = torch.ones_like(end, dtype=torch.bool)
        if following is not None:
            ahead = following[:, : counts - 1]
            stop[target][:, 1:] = end[:, 1:] >= ahead
            end[:, 1:] = torch.maximum(end[:, 1:], ahead)
        value = torch.stack([torch.full_like(end, -torch.inf), end])
        for source in range(target - 1, -1, -1):
            value, took = _edge_step(value, weights[:, source, target], source, 1 << (target - 1))
            take[source, target] = took
        following = value[0]
    return _follow(take, stop, weights)


def _edge_step(value: Tensor, weight: Tensor, source: int, sets: int) -> tuple[Tensor, Tensor]:
    """Value before deciding on one edge, from the value after: max(leave it out, take it).

    sets: number of source sets before the step; half of those after it at the last source of a
    target, which has no successor before.
    """
    subsets = torch.arange(sets, device=value.device) | (1 << source)
    taken = value[1][subsets, 1:] + weight
    before = value[:, :sets].clone()
    take = torch.zeros_like(before, dtype=torch.bool)
    take[:, :, :-1] = taken > before[:, :, :-1]
    before[:, :, :-1] = torch.maximum(before[:, :, :-1], taken)
    return before, take


def _follow(
    take: dict[tuple[int, int], Tensor], stop: dict[int, Tensor], weights: Tensor
) -> tuple[Tensor, Tensor]:
    batch, num_nodes, _ = weights.shape
    row = torch.arange(batch, device=weights.device)
    subset, count, sizes = (torch.zeros_like(row) for _ in range(3))
    edges = torch.zeros(weights.shape, dtype=torch.bool, device=weights.device)
    for target in range(1, num_nodes):
        running = sizes == 0
        count = torch.where(running, count, target - 1)  # finished cells: any index in range
        subset = torch.where(running, subset, 0)
        fed = torch.zeros_like(row)
        for source in range(target):
            chosen = take[source, target][fed, subset, count - (target - 1), row] & running
            edges[:, source, target] = chosen
            subset = torch.where(chosen, subset | (1 << source), subset)
            count = count + chosen
            fed = torch.where(chosen, 1, fed)
        done = running & stop[target][subset, count - (target - 1), row]
        sizes = torch.where(done, target + 1, sizes)
    return edges, sizes


def _greedy_edges(weights: Tensor, nodes: _NodeScores, rule: PathRule) -> tuple[Tensor, Tensor]:
    """Likely edges, then the best missing ones, then the least likely superfluous ones go."""
    num_nodes = weights.shape[1]
    upper = torch.ones(num_nodes, num_nodes, dtype=torch.bool, device=weights.device).triu(1)
    score = torch.stack(
        [
            nodes.of_size(size) + weights.clamp_min(0).triu(1)[:, :size, :size].sum((1, 2))
            for size in rule.sizes
        ],
        1,
    )
    sizes = torch.tensor(rule.sizes, device=weights.device)[score.argmax(1)]
    position = torch.arange(num_nodes, device=weights.device)
    present = position < sizes.unsqueeze(1)
    usable = upper & present.unsqueeze(1) & present.unsqueeze(2)
    ranked = weights.masked_fill(~usable, -torch.inf)
    edges = (weights > 0) & usable
    lacks = ~edges.any(1) & present & (position > 0)
    best = one_hot(ranked.argmax(1), num_nodes).transpose(1, 2).bool()
    edges |= best & lacks.unsqueeze(1)
    lacks = ~edges.any(2) & (position < sizes.unsqueeze(1) - 1)
    edges |= one_hot(ranked.argmax(2), num_nodes).bool() & lacks.unsqueeze(2)
    edges = _drop_superfluous(edges, weights, rule.max_edges)
    over = edges.sum((1, 2)) > rule.max_edges
    if over.any():  # nothing more can be dropped: the chain of all nodes has the fewest edges
        chain = upper & ~upper.triu(2)
        edges[over] = (chain & usable)[over]
    return edges, sizes


def _drop_superfluous(edges: Tensor, weights: Tensor, max_edges: int) -> Tensor:
    edges = edges.clone()
    num_nodes = edges.shape[1]
    while True:
        removable = edges & (edges.sum(2, keepdim=True) > 1) & (edges.sum(1, keepdim=True) > 1)
        over = (edges.sum((1, 2)) > max_edges) & removable.flatten(1).any(1)
        if not over.any():
            return edges
        ranked = weights.masked_fill(~removable, torch.inf).flatten(1)[over]
        worst = one_hot(ranked.argmin(1), num_nodes * num_nodes).bool()
        edges[over] &= ~worst.view(-1, num_nodes, num_nodes)

# SPDX-License-Identifier: Apache-2.0
"""Sizes of a folded GIN encoder and where its weights lie in one flat buffer.

The same arithmetic as csrc/gin_encode/gin_encode.h, for whoever fills or reads the buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from arch2vec_fast._checks import PackedLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class GinShape:
    """Sizes of an encoder for `gin_encode`.

    layout: `spaces.CellLayout` of the cells: N nodes, F operation types. hidden_dim H, latent_dim
    D, num_layers L, num_mlp_layers K (linears of a layer). sum_readout: the read-out adds the nodes
    a cell has; else it is the mean of all N rows, absent nodes included.

    The flat buffer holds, layer after layer: scale [1]; gates [2,W] (row 0 successors, 1
    predecessors; ones for a symmetric encoder), W being F in the first layer, else H; K times
    weight [H, W or H] and bias [H]. Last the head: weight [D,H], bias [D].

    >>> from arch2vec_fast.spaces import CellLayout
    >>> shape = GinShape(
    ...     layout=CellLayout(7, 5), hidden_dim=128, latent_dim=16, num_layers=4, num_mlp_layers=2
    ... )
    >>> shape.num_weights
    119198
    """

    layout: PackedLayout
    hidden_dim: int
    latent_dim: int
    num_layers: int
    num_mlp_layers: int
    sum_readout: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "latent_dim", "num_layers", "num_mlp_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"shape.{name}: {getattr(self, name)} is below 1")

    def input_width(self, layer: int) -> int:
        """Width of what layer `layer` aggregates: F for the first, else H."""
        return self.layout.num_op_types if layer == 0 else self.hidden_dim

    def part_shapes(self) -> Iterator[tuple[int, ...]]:
        """Shapes of the parts of the flat buffer, in order."""
        for layer in range(self.num_layers):
            width = self.input_width(layer)
            yield (1,)
            yield (2, width)
            for mlp in range(self.num_mlp_layers):
                yield (self.hidden_dim, width if mlp == 0 else self.hidden_dim)
                yield (self.hidden_dim,)
        yield (self.latent_dim, self.hidden_dim)
        yield (self.latent_dim,)

    @property
    def num_weights(self) -> int:
        """Length of the flat buffer."""
        total = 0
        for shape in self.part_shapes():
            total += shape[0] if len(shape) == 1 else shape[0] * shape[1]
        return total

    def split(self, weights: Tensor) -> list[Tensor]:
        """Views of the parts of a flat buffer, in the order of `part_shapes`."""
        parts, first = [], 0
        for shape in self.part_shapes():
            count = shape[0] if len(shape) == 1 else shape[0] * shape[1]
            parts.append(weights[first : first + count].view(shape))
            first += count
        return parts

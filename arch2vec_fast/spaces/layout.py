# SPDX-License-Identifier: Apache-2.0
"""Sizes of a cell space and the bit positions that follow from them.

A cell is stored as bits: the upper triangle of its adjacency, then one label field per node. This
file only does the arithmetic; ``csrc/cells/packed_cell.h`` is the same arithmetic in C++ and the
tests hold the two together.
"""

from dataclasses import dataclass

MAX_NODES = 16
MAX_OP_TYPES = 254


@dataclass(frozen=True, slots=True)
class CellLayout:
    """Shape of a packed cell: N nodes, F operation types.

    Bit ``x + y(y-1)/2`` is the edge ``x -> y`` (``x < y``); node ``v`` has ``op_bits`` bits
    starting at ``edge_bits + v * op_bits`` that hold ``operation + 1``, 0 meaning that the node is
    absent. Bits are counted from the low end of word 0.

    Raises
    ------
    ValueError
        N outside 2..16 or F outside 1..254.

    Examples
    --------
    >>> layout = CellLayout(7, 5)
    >>> layout.edge_bits, layout.op_bits, layout.num_bits, layout.words
    (21, 3, 42, 1)
    """

    num_nodes: int
    num_op_types: int

    def __post_init__(self) -> None:
        for name, high, low in (
            ("num_nodes", MAX_NODES, 2),
            ("num_op_types", MAX_OP_TYPES, 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
            if not low <= value <= high:
                raise ValueError(
                    f"{name}: {value} is outside {low}..{high}; choose a smaller space"
                )

    @property
    def edge_bits(self) -> int:
        """Bits of the adjacency, N(N-1)/2."""
        return self.num_nodes * (self.num_nodes - 1) // 2

    @property
    def op_bits(self) -> int:
        """Bits of one node label, ceil(log2(F + 1))."""
        return self.num_op_types.bit_length()

    @property
    def num_bits(self) -> int:
        """Bits of one cell."""
        return self.edge_bits + self.num_nodes * self.op_bits

    @property
    def words(self) -> int:
        """64-bit words of one cell (W)."""
        return -(-self.num_bits // 64)

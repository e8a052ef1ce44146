# SPDX-License-Identifier: Apache-2.0
"""Operators: agreement with the plain twins, and the properties every operator owes torch."""

import pytest
import torch
from torch import Tensor

from arch2vec_fast import functional, reference
from arch2vec_fast.spaces import CellLayout

# The three benchmarks, the smallest and the largest layout, and one whose fields straddle two
# words.
LAYOUTS = [
    CellLayout(7, 5),
    CellLayout(8, 7),
    CellLayout(11, 11),
    CellLayout(2, 1),
    CellLayout(13, 20),
    CellLayout(16, 254),
]


def random_codes(layout: CellLayout, count: int, generator: torch.Generator) -> Tensor:
    """Any well-formed cells, written bit by bit: independent of the package's own packing."""
    bits = torch.zeros(count, 64 * layout.words, dtype=torch.int64)
    bits[:, : layout.edge_bits] = torch.randint(2, (count, layout.edge_bits), generator=generator)
    fields = torch.randint(
        layout.num_op_types + 1, (count, layout.num_nodes, 1), generator=generator
    )
    digits = (fields >> torch.arange(layout.op_bits)) & 1
    bits[:, layout.edge_bits : layout.num_bits] = digits.flatten(1)
    return (bits.view(count, layout.words, 64) << torch.arange(64)).sum(-1)


def corrupt_field(layout: CellLayout) -> int:
    """Bit pattern of node 0 holding an operation that does not exist."""
    return (layout.num_op_types + 1) << layout.edge_bits


@pytest.mark.parametrize("count", [1, 3, 17, 2049])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_unpack_cells_matches_reference(
    layout: CellLayout, count: int, generator: torch.Generator
) -> None:
    codes = random_codes(layout, count, generator)
    for actual, expected in zip(
        functional.unpack_cells(codes, layout), reference.unpack_cells(codes, layout), strict=True
    ):
        assert actual.dtype == torch.float32
        assert torch.equal(actual, expected)


def test_unpack_cells_by_hand() -> None:
    # NAS-Bench-101 layout: edges 0->1 (bit 0) and 2->6 (bit 2 + 15); nodes 0, 1, 6 hold operations
    # 0, 2, 4.
    code = 1 | 1 << 17 | (0 + 1) << 21 | (2 + 1) << 24 | (4 + 1) << 39
    adjacency, node_ops = functional.unpack_cells(torch.tensor([[code]]), CellLayout(7, 5))
    assert adjacency[0].nonzero().tolist() == [[0, 1], [2, 6]]
    assert node_ops[0].nonzero().tolist() == [[0, 0], [1, 2], [6, 4]]


def test_unpack_cells_opcheck(generator: torch.Generator) -> None:
    for layout in (CellLayout(7, 5), CellLayout(11, 11)):
        codes = random_codes(layout, 5, generator)
        arguments = (codes, layout.num_nodes, layout.num_op_types)
        torch.library.opcheck(torch.ops.arch2vec_fast.unpack_cells.default, arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")  # of torch's own compiler stack
def test_unpack_cells_compile_fullgraph(generator: torch.Generator) -> None:
    layout = CellLayout(11, 11)

    def node_degrees(codes: Tensor) -> Tensor:
        adjacency, node_ops = functional.unpack_cells(codes, layout)
        return adjacency.sum(1) * node_ops.sum(2)

    compiled = torch.compile(node_degrees, fullgraph=True, backend="aot_eager")
    for count in (4, 9, 1):
        codes = random_codes(layout, count, generator)
        assert torch.equal(compiled(codes), node_degrees(codes))


def test_unpack_cells_on_meta_tensors() -> None:
    layout = CellLayout(7, 5)
    codes = torch.empty(9, layout.words, dtype=torch.int64, device="meta")
    adjacency, node_ops = functional.unpack_cells(codes, layout)
    assert (adjacency.shape, node_ops.shape) == ((9, 7, 7), (9, 7, 5))


def test_unpack_cells_noncontiguous(generator: torch.Generator) -> None:
    layout = CellLayout(11, 11)
    codes = random_codes(layout, 64, generator)
    for strided in (codes[::3], codes.t().contiguous().t(), codes[:1].expand(5, -1)):
        expected = functional.unpack_cells(strided.clone(), layout)
        for actual, wanted in zip(functional.unpack_cells(strided, layout), expected, strict=True):
            assert torch.equal(actual, wanted)


def test_unpack_cells_empty() -> None:
    layout = CellLayout(11, 11)
    adjacency, node_ops = functional.unpack_cells(torch.empty(0, 2, dtype=torch.int64), layout)
    assert (adjacency.shape, node_ops.shape) == ((0, 11, 11), (0, 11, 11))


def test_unpack_cells_deterministic_in_threads(generator: torch.Generator) -> None:
    layout = CellLayout(7, 5)
    codes = random_codes(layout, 5000, generator)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(functional.unpack_cells(codes, layout))
    for adjacency, node_ops in results[1:]:
        assert torch.equal(adjacency, results[0][0])
        assert torch.equal(node_ops, results[0][1])


@pytest.mark.parametrize("module", [functional, reference])
@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        ([[1]], TypeError, r"^codes: expected a tensor, got list; "),
        (torch.zeros(3, 1), TypeError, r"^codes: expected int64, got torch.float32; "),
        (torch.zeros(3, dtype=torch.int64), ValueError, r"^codes: expected shape \[B, 1\] .*\[3\]"),
        (torch.zeros(3, 2, dtype=torch.int64), ValueError, r"^codes: expected shape .*\[3, 2\]"),
    ],
)
def test_unpack_cells_rejects_wrong_tensors(
    module: object, codes: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        module.unpack_cells(codes, CellLayout(7, 5))  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", [functional, reference])
@pytest.mark.parametrize("bad", [corrupt_field(CellLayout(7, 5)), 1 << 42, -(1 << 63)])
def test_unpack_cells_rejects_corrupt_codes_and_names_the_first(module: object, bad: int) -> None:
    torch.set_num_threads(2)
    codes = torch.zeros(4000, 1, dtype=torch.int64)
    codes[[3333, 1234, 3999]] = bad
    with pytest.raises(ValueError, match=r"^codes: cell 1234 is not a cell of 7 nodes and 5 op"):
        module.unpack_cells(codes, CellLayout(7, 5))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1, 1, dtype=torch.int64), 17, 5), "num_nodes: 17 is outside"),
        ((torch.zeros(1, 1, dtype=torch.int64), 7, 255), "num_op_types: 255 is outside"),
        ((torch.zeros(1, 1), 7, 5), "codes: expected int64"),
        ((torch.zeros(1, 3, dtype=torch.int64), 7, 5), r"codes: expected shape \[B, 1\]"),
    ],
)
def test_unpack_cells_raw_operator_is_memory_safe(
    arguments: tuple[Tensor, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        torch.ops.arch2vec_fast.unpack_cells(*arguments)

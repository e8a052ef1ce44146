# SPDX-License-Identifier: Apache-2.0
"""Operators on the GPU: agreement with the CPU, streams, CUDA graphs. The kernels' own tests, which
need no GPU, are tests/cuda_on_cpu.
"""

import pytest
import torch

from arch2vec_fast import functional, reference
from arch2vec_fast.spaces import CellLayout
from test_functional import LAYOUTS, corrupt_field, random_codes

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("count", [0, 1, 33, 2049])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_unpack_cells_matches_reference(
    layout: CellLayout, count: int, generator: torch.Generator
) -> None:
    codes = random_codes(layout, count, generator)
    for actual, expected in zip(
        functional.unpack_cells(codes.cuda(), layout), reference.unpack_cells(codes, layout)
    ):
        assert actual.is_cuda
        assert torch.equal(actual.cpu(), expected)


def test_unpack_cells_corrupt_codes_are_nan() -> None:
    layout = CellLayout(7, 5)
    codes = torch.zeros(100, 1, dtype=torch.int64)
    codes[[7, 64]] = corrupt_field(layout)
    for output in functional.unpack_cells(codes.cuda(), layout):
        assert output.isnan().flatten(1).all(1).nonzero().flatten().tolist() == [7, 64]
        assert int(output.isnan().sum()) == 2 * output[0].numel()


def test_unpack_cells_noncontiguous(generator: torch.Generator) -> None:
    layout = CellLayout(11, 11)
    codes = random_codes(layout, 64, generator).cuda()
    for strided in (codes[::3], codes.t().contiguous().t(), codes[:1].expand(5, -1)):
        expected = functional.unpack_cells(strided.clone(), layout)
        for actual, wanted in zip(functional.unpack_cells(strided, layout), expected):
            assert torch.equal(actual, wanted)


def test_unpack_cells_opcheck(generator: torch.Generator) -> None:
    layout = CellLayout(11, 11)
    arguments = (random_codes(layout, 5, generator).cuda(), layout.num_nodes, layout.num_op_types)
    torch.library.opcheck(torch.ops.arch2vec_fast.unpack_cells.default, arguments)


def test_unpack_cells_follows_the_current_stream(generator: torch.Generator) -> None:
    """Codes are written on a side stream behind long products: another stream would not wait."""
    layout = CellLayout(7, 5)
    codes = random_codes(layout, 4096, generator)
    pinned, target = codes.pin_memory(), torch.zeros_like(codes, device="cuda")
    busy = torch.randn(4096, 4096, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(8):
            busy @ busy
        target.copy_(pinned, non_blocking=True)
        adjacency, _ = functional.unpack_cells(target, layout)
    side.synchronize()
    assert torch.equal(adjacency.cpu(), reference.unpack_cells(codes, layout)[0])


def test_unpack_cells_cuda_graph(generator: torch.Generator) -> None:
    layout = CellLayout(8, 7)
    static = random_codes(layout, 513, generator).cuda()
    functional.unpack_cells(static, layout)  # loads the kernel outside of the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = functional.unpack_cells(static, layout)
    fresh = random_codes(layout, 513, generator)
    static.copy_(fresh)
    graph.replay()
    for actual, expected in zip(outputs, reference.unpack_cells(fresh, layout)):
        assert torch.equal(actual.cpu(), expected)

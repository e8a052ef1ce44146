# SPDX-License-Identifier: Apache-2.0
"""gin_encode on the GPU: its float64 twin, the CPU, streams, CUDA graphs. The kernels' own tests,
which need no GPU, are tests/cuda_on_cpu/gin_encode_test.cpp.
"""

import pytest
import torch
from torch import Tensor

from arch2vec_fast import reference, spaces
from arch2vec_fast._checks import GIN_OUTPUTS
from arch2vec_fast.embeddings import embed_chunks
from arch2vec_fast.functional import GinShape, gin_encode
from arch2vec_fast.models import Recipe
from arch2vec_fast.spaces import CellLayout
from tests.test_gin_encode import codes_of, encoder, trained_model

pytestmark = pytest.mark.cuda

# Largest error of a precision relative to the largest entry.
TOLERANCES = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 4e-2}


def encoder_on_gpu(layout: CellLayout, *sizes: int, gated: bool = False) -> tuple[Tensor, GinShape]:
    weights, shape = encoder(layout, *sizes, gated=gated, sum_readout=gated)
    return weights.cuda(), shape


def error_of(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(
    "sizes", [(128, 16, 4, 2), (33, 17, 2, 3), (16, 16, 3, 1), (20, 3, 1, 1), (256, 40, 2, 2)]
)
@pytest.mark.parametrize("layout", [CellLayout(7, 5), CellLayout(11, 11), CellLayout(2, 1)])
def test_gin_encode_matches_reference(
    layout: CellLayout, sizes: tuple[int, ...], precision: str
) -> None:
    codes = codes_of(layout, 1237).cuda()
    for gated in (False, True):
        weights, shape = encoder_on_gpu(layout, *sizes, gated=gated)
        for output in GIN_OUTPUTS:
            expected = reference.gin_encode(codes, weights.double(), shape, output=output)
            actual = gin_encode(codes, weights, shape, output=output, precision=precision)
            assert actual.is_cuda
            assert actual.dtype == torch.float32
            assert error_of(actual, expected) < TOLERANCES[precision]


@pytest.mark.parametrize("name", ["released", "best"])
def test_embeddings_agree_with_the_cpu(name: str) -> None:
    space = spaces.get("nasbench101")
    model = trained_model(Recipe.get(name, space.name), space)
    cells = space.sample(5000, seed=3)
    (expected,) = embed_chunks(model, cells, chunk_size=5000)
    (actual,) = embed_chunks(model, cells, device="cuda", chunk_size=5000)
    assert error_of(torch.from_numpy(actual), torch.from_numpy(expected).double()) < 1e-5


def test_gin_encode_deterministic() -> None:
    weights, shape = encoder_on_gpu(CellLayout(7, 5), 128, 16, 4, 2)
    codes = codes_of(CellLayout(7, 5), 20_000).cuda()
    first = gin_encode(codes, weights, shape)
    assert all(torch.equal(gin_encode(codes, weights, shape), first) for _ in range(3))


def test_gin_encode_empty() -> None:
    weights, shape = encoder_on_gpu(CellLayout(7, 5), 16, 4, 2, 2)
    codes = torch.zeros(0, 1, dtype=torch.int64, device="cuda")
    assert gin_encode(codes, weights, shape).shape == (0, 4)


def test_gin_encode_noncontiguous() -> None:
    weights, shape = encoder_on_gpu(CellLayout(11, 11), 32, 4, 2, 2)
    codes = codes_of(CellLayout(11, 11), 64).cuda()
    for strided in (codes[::3], codes.t().contiguous().t(), codes[:1].expand(5, -1)):
        assert torch.equal(
            gin_encode(strided, weights, shape), gin_encode(strided.clone(), weights, shape)
        )


def test_gin_encode_corrupt_codes_are_nan() -> None:
    weights, shape = encoder_on_gpu(CellLayout(7, 5), 32, 4, 2, 2)
    codes = codes_of(CellLayout(7, 5), 100).cuda()
    codes[[7, 64]] = -1
    for output in GIN_OUTPUTS:
        nan = gin_encode(codes, weights, shape, output=output).isnan().flatten(1)
        assert nan.all(1).nonzero().flatten().tolist() == [7, 64]
        assert int(nan.sum()) == 2 * nan.shape[1]


def test_gin_encode_rejects_wide_encoders() -> None:
    weights, shape = encoder_on_gpu(CellLayout(7, 5), 257, 4, 1, 1)
    with pytest.raises(ValueError, match=r"shape\.hidden_dim: 257 is above 256"):
        gin_encode(codes_of(CellLayout(7, 5), 3).cuda(), weights, shape)


def test_gin_encode_opcheck() -> None:
    weights, _ = encoder_on_gpu(CellLayout(7, 5), 16, 4, 2, 2)
    codes = codes_of(CellLayout(7, 5), 5).cuda()
    for output in range(len(GIN_OUTPUTS)):
        arguments = (codes, weights, [7, 5, 16, 4, 2, 2, 0, -1], output, "fp32")
        torch.library.opcheck(torch.ops.arch2vec_fast.gin_encode.default, arguments)


def test_gin_encode_cuda_graph() -> None:
    weights, shape = encoder_on_gpu(CellLayout(7, 5), 128, 16, 4, 2)
    static = codes_of(CellLayout(7, 5), 513).cuda()
    gin_encode(static, weights, shape)  # loads the kernels outside of the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = gin_encode(static, weights, shape)
    fresh = codes_of(CellLayout(7, 5), 513, seed=1).cuda()
    static.copy_(fresh)
    graph.replay()
    assert torch.equal(result, gin_encode(fresh, weights, shape))

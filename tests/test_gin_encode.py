# SPDX-License-Identifier: Apache-2.0
"""gin_encode: agreement with its float64 twin and with models, and bits that nothing else moves."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from arch2vec_fast import functional, reference, spaces
from arch2vec_fast._checks import GIN_OUTPUTS
from arch2vec_fast._library import simd_level
from arch2vec_fast.functional import GinShape, gin_encode
from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.models.gin_vae import GinVae
from arch2vec_fast.models.inference import FoldedGin, posterior_encoder, readout_encoder
from arch2vec_fast.spaces import CellBatch, CellLayout
from tests.strategies import random_cells, topological_permutations

SPACES = ("nasbench101", "nasbench201", "darts")


def encoder(
    layout: CellLayout, *sizes: int, gated: bool = False, sum_readout: bool = False
) -> tuple[Tensor, GinShape]:
    """Random weights that keep states of order one; sizes: H, D, L, K."""
    names = ("hidden_dim", "latent_dim", "num_layers", "num_mlp_layers")
    shape = GinShape(layout=layout, sum_readout=sum_readout, **dict(zip(names, sizes, strict=True)))
    generator = torch.Generator().manual_seed(sum(sizes))
    parts = []
    for part in shape.part_shapes():
        values = torch.randn(part, generator=generator)
        if len(part) == 2 and part[0] == 2 and not gated:
            values = torch.ones(part)
        elif len(part) == 2 and part[0] > 2:
            values *= (2 / part[1]) ** 0.5
        parts.append(values.flatten())
    return torch.cat(parts), shape


def codes_of(layout: CellLayout, count: int, *, seed: int = 0) -> Tensor:
    """Cells with absent nodes anywhere, edges to them included."""
    return random_cells(layout, count, seed).to_torch()


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Rounding of float32 relative to the largest entry: dead units leave columns near zero."""
    assert actual.dtype == torch.float32
    scale = expected.abs().amax().clamp_min(1e-6)
    assert ((actual - expected) / scale).abs().max() < 5e-6


def trained_model(recipe: Recipe, space: spaces.CellSpace) -> GinVae:
    """A model whose running statistics are worth folding, in evaluation mode."""
    torch.manual_seed(0)
    model = build_model(recipe, space.layout, variable_size=space.variable_size)
    assert isinstance(model, GinVae)
    with torch.no_grad():
        for _ in range(3):
            model(*unpack(space.sample(64, seed=1).to_torch(), space.layout))
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("sizes", [(128, 16, 4, 2), (33, 17, 2, 3), (16, 16, 3, 1), (20, 3, 1, 1)])
@pytest.mark.parametrize(
    "layout", [CellLayout(7, 5), CellLayout(11, 11), CellLayout(2, 1), CellLayout(16, 254)]
)
def test_gin_encode_matches_reference(
    layout: CellLayout, sizes: tuple[int, ...], gated: bool
) -> None:
    codes = codes_of(layout, 61)
    for sum_readout in (False, True):
        weights, shape = encoder(layout, *sizes, gated=gated, sum_readout=sum_readout)
        for output in GIN_OUTPUTS:
            expected = reference.gin_encode(codes, weights.double(), shape, output=output)
            assert_close(gin_encode(codes, weights, shape, output=output), expected)


@pytest.mark.parametrize("name", ["released", "paper", "best", "without-kl"])
@pytest.mark.parametrize("space_name", SPACES)
def test_equals_the_model(space_name: str, name: str) -> None:
    space = spaces.get(space_name)
    model = trained_model(Recipe.get(name, space_name), space)
    codes = space.sample(200, seed=3).to_torch()
    with torch.no_grad():
        dense = unpack(codes, space.layout)
        mu, log_sigma = model.encode(*dense)
        expected = model.readout(mu, dense[1])
    assert_close(readout_encoder(model, space.layout)(codes), expected)
    eager = readout_encoder(model, space.layout, engine="eager")(codes)
    torch.testing.assert_close(eager, expected, rtol=0, atol=0)
    got_mu, got_log_sigma = posterior_encoder(model, space.layout)(codes)
    assert_close(got_mu, mu)
    assert (log_sigma is None) == (got_log_sigma is None)
    if log_sigma is not None and got_log_sigma is not None:
        assert_close(got_log_sigma, log_sigma)
    hidden = FoldedGin(model, space.layout)(codes, output="hidden")
    share = dense[1].sum(2) if model.recipe.readout == "sum" else torch.ones(1, 1).div(mu.shape[1])
    with torch.no_grad():
        states = model.hidden_states(*dense)
    wanted = torch.cat([(share[..., None] * state).sum(1) for state in states], 1)
    assert_close(hidden, wanted)


def test_a_weight_that_is_no_number_meets_every_zero() -> None:
    """0 * inf is no number: states of zero are left out of products only where that is exact."""
    layout = CellLayout(7, 5)
    for value in (float("inf"), float("nan")):
        weights, shape = encoder(layout, 32, 16, 2, 2)
        parts = shape.split(weights)
        next(part for part in parts if part.shape == (32, 32))[3, 5] = value
        codes = codes_of(layout, 61)
        expected = reference.gin_encode(codes, weights, shape, output="nodes")
        assert expected.isnan().any()
        torch.testing.assert_close(
            gin_encode(codes, weights, shape, output="nodes").isnan(), expected.isnan()
        )


@pytest.mark.parametrize("num_mlp_layers", [1, 2, 3])
def test_folding_is_exact(num_mlp_layers: int) -> None:
    space = spaces.get("nasbench101")
    recipe = replace(Recipe.best(), num_mlp_layers=num_mlp_layers)
    model = trained_model(recipe, space).double()
    codes = space.sample(33, seed=2).to_torch()
    dense = tuple(part.double() for part in unpack(codes, space.layout))
    with torch.no_grad():
        expected = model.readout(model.encode(*dense)[0], dense[1])
    folded = FoldedGin(model, space.layout)
    twin = reference.gin_encode(codes, folded.weights.double(), folded.shape)
    torch.testing.assert_close(twin, expected, rtol=1e-5, atol=1e-5)  # weights rounded to float32


@pytest.mark.parametrize("bias", [0.0, 0.8])
@pytest.mark.parametrize("gated", [False, True])
def test_sharing_chunks_and_threads_move_no_bit(gated: bool, bias: float) -> None:
    """Bias .8: about a fifth of the states is zero, so tiles differ in how they are multiplied."""
    layout = CellLayout(7, 5)
    weights, shape = encoder(layout, 32, 16, 4, 2, gated=gated)
    for part in shape.split(weights):
        if part.shape == (32,):
            part += bias
    codes = spaces.get("nasbench101").enumerate().to_torch()[::31]
    for output in GIN_OUTPUTS:
        torch.set_num_threads(1)
        whole = gin_encode(codes, weights, shape, output=output, share=True)
        pieces = [
            gin_encode(piece, weights, shape, output=output, share=share)
            for piece, share in zip(codes.split(4999), (False, True, None), strict=True)
        ]
        assert torch.equal(torch.cat(pieces), whole)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(gin_encode(codes, weights, shape, output=output), whole)


@pytest.mark.parametrize("output", ["readout", "hidden"])
@pytest.mark.parametrize("gated", [False, True])
def test_isomorphic_cells_get_the_same_bits(output: str, gated: bool) -> None:
    layout = CellLayout(9, 4)
    cells = random_cells(layout, 500, 0, density=0.4)
    other = cells.relabel(topological_permutations(cells, 1))
    weights, shape = encoder(layout, 48, 16, 3, 2, gated=gated)
    first, second = (
        gin_encode(batch.to_torch(), weights, shape, output=output) for batch in (cells, other)
    )
    assert not torch.equal(cells.to_torch(), other.to_torch())
    assert torch.equal(first, second)


def test_directions_differ_only_where_gates_do() -> None:
    """A cell and its reverse: the same to a symmetric encoder, not to a gated one."""
    layout = CellLayout(3, 2)
    adjacency = torch.tensor([[[0, 1, 1], [0, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 1], [0, 0, 0]]])
    cells = CellBatch.from_dense(adjacency.numpy(), [[0, 1, 1], [1, 1, 0]], layout)
    for gated in (False, True):
        weights, shape = encoder(layout, 16, 4, 2, 2, gated=gated)
        one, two = gin_encode(cells.to_torch(), weights, shape)
        assert torch.equal(one, two) != gated


@pytest.mark.slow
def test_gin_encode_simd_levels_agree(tmp_path: Path) -> None:
    layout = CellLayout(11, 11)
    codes = codes_of(layout, 37)
    weights, shape = encoder(layout, 37, 19, 3, 2, gated=True)
    torch.save((codes, weights), tmp_path / "in.pt")
    program = (
        "import sys, torch; from arch2vec_fast.functional import GinShape, gin_encode;"
        "from arch2vec_fast.spaces import CellLayout; codes, weights = torch.load(sys.argv[1]);"
        "shape = GinShape(layout=CellLayout(11, 11), hidden_dim=37, latent_dim=19, num_layers=3,"
        "num_mlp_layers=2); torch.save(gin_encode(codes, weights, shape), sys.argv[2])"
    )
    expected = gin_encode(codes, weights, shape)
    levels = ("scalar", "avx2", "avx512")
    for level in levels[: levels.index(simd_level())]:
        arguments = [str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]
        subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "A2V_SIMD": level},
            check=True,
        )
        assert_close(torch.load(tmp_path / "out.pt"), expected)


def test_gin_encode_opcheck() -> None:
    weights, shape = encoder(CellLayout(7, 5), 16, 4, 2, 2)
    codes = codes_of(shape.layout, 5)  # type: ignore[arg-type]
    config = [7, 5, 16, 4, 2, 2, 0, -1]
    for output in range(3):
        arguments = (codes, weights, config, output, "fp32")
        torch.library.opcheck(torch.ops.arch2vec_fast.gin_encode.default, arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")  # of torch's own compiler stack
def test_gin_encode_compile_fullgraph() -> None:
    layout = CellLayout(7, 5)
    weights, shape = encoder(layout, 16, 4, 2, 2)

    def distances(codes: Tensor) -> Tensor:
        return torch.cdist(*[gin_encode(codes, weights, shape)] * 2)

    compiled = torch.compile(distances, fullgraph=True, backend="aot_eager")
    for count in (4, 9, 1):
        codes = codes_of(layout, count)
        assert torch.equal(compiled(codes), distances(codes))


def test_gin_encode_noncontiguous() -> None:
    layout = CellLayout(11, 11)
    weights, shape = encoder(layout, 16, 4, 2, 2)
    codes = codes_of(layout, 64)
    strided = torch.empty(2 * len(weights))[::2].copy_(weights)
    for view in (codes[::3], codes.t().contiguous().t(), codes[:1].expand(5, -1)):
        expected = gin_encode(view.clone(), weights, shape)
        assert torch.equal(gin_encode(view, strided, shape), expected)


def test_gin_encode_empty() -> None:
    layout = CellLayout(11, 11)
    weights, shape = encoder(layout, 16, 4, 2, 2)
    none = torch.empty(0, 2, dtype=torch.int64)
    shapes = [
        tuple(gin_encode(none, weights, shape, output=output).shape) for output in GIN_OUTPUTS
    ]
    assert shapes == [(0, 4), (0, 11, 4), (0, 32)]


def test_gin_encode_deterministic() -> None:
    layout = CellLayout(8, 7)
    weights, shape = encoder(layout, 128, 16, 4, 2)
    codes = codes_of(layout, 700)
    torch.set_num_threads(2)
    assert torch.equal(gin_encode(codes, weights, shape), gin_encode(codes, weights, shape))


def test_gin_encode_on_meta_tensors() -> None:
    weights, shape = encoder(CellLayout(7, 5), 16, 4, 2, 2)
    codes = torch.empty(9, 1, dtype=torch.int64, device="meta")
    assert gin_encode(codes, weights.to("meta"), shape, output="nodes").shape == (9, 7, 4)


@pytest.mark.parametrize("module", [functional, reference])
def test_gin_encode_rejects_corrupt_codes_and_names_the_first(module: object) -> None:
    torch.set_num_threads(2)
    weights, shape = encoder(CellLayout(7, 5), 16, 4, 2, 2)
    codes = torch.zeros(40_000, 1, dtype=torch.int64)
    codes[[33_333, 12_345, 39_999]] = 1 << 42
    with pytest.raises(ValueError, match=r"^codes: cell 12345 is not a cell of 7 nodes and 5 op"):
        module.gin_encode(codes, weights, shape)  # type: ignore[attr-defined]


def bad_arguments() -> Iterator[tuple[dict[str, object], type[Exception], str]]:
    weights, _ = encoder(CellLayout(7, 5), 16, 4, 2, 2)
    yield {"codes": torch.zeros(1, 2, dtype=torch.int64)}, ValueError, r"^codes: expected shape"
    yield {"codes": torch.zeros(1, 1)}, TypeError, r"^codes: expected int64"
    yield {"weights": [1.0]}, TypeError, r"^weights: expected a tensor, got list"
    yield {"weights": weights[1:]}, ValueError, r"^weights: expected shape \[\d+\] for this enc"
    yield {"weights": weights.double()}, TypeError, r"^weights: expected float32, got"
    yield {"weights": weights.clone().requires_grad_()}, ValueError, r"^weights: require a gradient"
    yield {"weights": weights.to("meta")}, ValueError, r"^weights: on meta, but codes on cpu"
    yield {"output": "mean"}, ValueError, r"^output: unknown 'mean'; choose one of readout, nodes"
    yield {"precision": "fp16"}, ValueError, r"^precision: unknown 'fp16'; choose one of fp32"
    yield {"precision": "tf32"}, ValueError, r"^precision: tf32 is for CUDA; use fp32 or bf16"


@pytest.mark.parametrize(("change", "error", "message"), list(bad_arguments()))
def test_gin_encode_rejects(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    weights, shape = encoder(CellLayout(7, 5), 16, 4, 2, 2)
    codes = torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(error, match=message):
        gin_encode(**{"codes": codes, "weights": weights, "shape": shape, **change})  # type: ignore[arg-type]


def test_gin_encode_bf16_or_its_refusal() -> None:
    weights, shape = encoder(CellLayout(7, 5), 128, 16, 4, 2, gated=True)
    codes = codes_of(CellLayout(7, 5), 300)
    processor = Path("/proc/cpuinfo")
    flags = processor.read_text() if processor.exists() else ""
    if simd_level() != "avx512" or "avx512_bf16" not in flags:
        with pytest.raises(ValueError, match=r"^precision: bf16 needs a.* AVX-512 BF16.*use fp32"):
            gin_encode(codes, weights, shape, precision="bf16")
        return
    expected = reference.gin_encode(codes, weights.double(), shape)
    actual = gin_encode(codes, weights, shape, precision="bf16")
    error = (actual - expected).abs().max() / expected.abs().max()
    assert 1e-5 < error < 2e-2


@pytest.mark.parametrize(
    ("config", "output", "message"),
    [
        ([7, 5, 16, 4, 2, 2, 0], 0, "config: expected 8 entries"),
        ([7, 5, 0, 4, 2, 2, 0, 0], 0, "config: entry 2 is outside"),
        ([17, 5, 16, 4, 2, 2, 0, 0], 0, "config: no layout has 17 nodes"),
        ([7, 5, 16, 4, 2, 2, 0, 0], 3, "output: 3 is outside 0..2"),
        ([7, 5, 16, 4, 2, 1, 0, 0], 0, r"weights: expected shape \[\d+\]"),
    ],
)
def test_gin_encode_raw_operator_is_memory_safe(
    config: list[int], output: int, message: str
) -> None:
    weights, _ = encoder(CellLayout(7, 5), 16, 4, 2, 2)
    codes = torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        torch.ops.arch2vec_fast.gin_encode(codes, weights, config, output, "fp32")


def test_engines_and_their_limits() -> None:
    space = spaces.get("nasbench201")
    model = trained_model(Recipe.best(), space)
    with pytest.raises(ValueError, match="engine: unknown 'fast'; choose one of fused, eager"):
        readout_encoder(model, space.layout, engine="fast")
    with pytest.raises(ValueError, match="precision: bf16 needs the fused engine"):
        readout_encoder(model, space.layout, engine="eager", precision="bf16")
    gcn = build_model(Recipe.vgae(), space.layout).eval()
    codes = space.sample(5, seed=0).to_torch()
    fused, eager = (
        readout_encoder(gcn, space.layout, engine=engine)(codes) for engine in ("fused", "eager")
    )
    assert torch.equal(fused, eager)
    with pytest.raises(ValueError, match="model: is in training mode"):
        readout_encoder(model.train(), space.layout)

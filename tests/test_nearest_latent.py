# SPDX-License-Identifier: Apache-2.0
"""pack_latents, pack_visited and nearest_latent: exact to the bit against a full sort."""

import subprocess
import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from arch2vec_fast import _library, functional, reference
from arch2vec_fast._latents import PackedLatents

MODULES = [functional, reference]


def clustered(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Points in a few dims of spread, a third of them equal to an earlier one."""
    basis = torch.randn(min(dim, 4), dim, generator=generator)
    points = torch.randn(count, min(dim, 4), generator=generator) @ basis + 3
    copies = torch.arange(0, count, 3)
    originals = (torch.rand(len(copies), generator=generator) * (copies + 1)).long()
    points[copies] = points[originals]
    return points


def masks(count: int, rows: int, generator: torch.Generator) -> list[Tensor | None]:
    """No mask, one for all, one a query, none left."""
    one = torch.rand(count, generator=generator) < 0.5
    each = torch.rand(rows, count, generator=generator) < 0.7
    return [None, one, each, torch.ones(count, dtype=torch.bool)]


def assert_same(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for mine, wanted in zip(actual, expected, strict=True):
        assert mine.dtype == wanted.dtype
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize("k", [1, 2, 100])
@pytest.mark.parametrize("dim", [1, 3, 16, 100])
@pytest.mark.parametrize("count", [1, 15, 17, 257, 5003])
def test_nearest_latent_matches_reference(
    count: int, dim: int, k: int, generator: torch.Generator
) -> None:
    points = clustered(count, dim, generator)
    packed = functional.pack_latents(points)
    for rows in (1, 7):
        chosen = torch.randint(count, (rows,), generator=generator)
        noise = torch.randn(rows, dim, generator=generator)
        for scale in (0.0, 0.3, 30.0):
            queries = points[chosen] + scale * noise
            for visited in masks(count, rows, generator):
                expected = reference.nearest_latent(points, queries, k, visited)
                assert_same(functional.nearest_latent(packed, queries, k, visited), expected)


def test_nearest_latent_agrees_with_float64(generator: torch.Generator) -> None:
    """The float32 definition loses nothing that matters: relative errors of (D + 2) roundings."""
    points = torch.randn(4000, 16, generator=generator)
    queries = torch.randn(9, 16, generator=generator)
    distances, indices = functional.nearest_latent(points, queries, k=10)
    exact, order = reference.nearest_latent(points.double(), queries.double(), k=10)
    assert torch.equal(indices, order)  # no two of these distances are within rounding
    torch.testing.assert_close(distances.double(), exact, rtol=18 * 2**-24, atol=0)


def test_nearest_latent_ties_go_to_the_lowest_index() -> None:
    points = torch.ones(1000, 5)
    points[::7] = 0
    packed = functional.pack_latents(points)
    distances, indices = functional.nearest_latent(packed, torch.zeros(2, 5), k=150)
    zeros = torch.arange(0, 1000, 7)
    assert torch.equal(indices[0, :143], zeros)
    others = torch.tensor([i for i in range(1000) if i % 7])
    assert torch.equal(indices[1, 143:], others[:7])
    assert torch.equal(distances[0], torch.cat([torch.zeros(143), torch.full((7,), 5.0)]))


@pytest.mark.parametrize("module", MODULES)
def test_nearest_latent_where_fewer_are_left_than_asked(module: ModuleType) -> None:
    points = torch.arange(5.0)[:, None]
    visited = torch.tensor([0, 1, 0, 1, 1], dtype=torch.uint8)
    distances, indices = module.nearest_latent(points, torch.tensor([[3.0]]), 4, visited)
    assert indices.tolist() == [[2, 0, -1, -1]]
    assert distances.tolist() == [[1.0, 9.0, torch.inf, torch.inf]]
    everything = module.pack_visited(torch.ones(5, dtype=torch.bool))
    assert module.nearest_latent(points, torch.tensor([[3.0]]), 1, everything)[1].item() == -1


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-20, 1e18, 1e19, 3e38])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1e6])
def test_nearest_latent_is_exact_where_the_bound_is_useless(
    scale: float, offset: float, generator: torch.Generator
) -> None:
    """Underflow, overflow, ranges below the spacing of floats, queries far outside of them."""
    points = (torch.rand(300, 6, generator=generator) * scale + offset).clamp(max=3e38)
    points[250:] = points[:50]
    far = torch.tensor([[-3e38], [0.0], [3e38], [1e-30], [1e30]]).expand(5, 6)
    for queries in (points[[3, 299]], far):
        for k in (1, 60):
            expected = reference.nearest_latent(points, queries, k)
            assert_same(functional.nearest_latent(points, queries, k), expected)


def test_nearest_latent_ties_survive_the_rounding_of_scores(generator: torch.Generator) -> None:
    """Far from the lowest corner a score of codes is off by more than neighbours differ."""
    corner = torch.randint(230, 255, (40, 64), generator=generator).float()
    around = corner[:, None] + torch.cat([torch.eye(64), -torch.eye(64)])  # all at a distance of 1
    ends = torch.tensor([[0.0], [255.0]]).expand(2, 64)
    points = torch.cat([ends, around.flatten(0, 1)[torch.randperm(5120, generator=generator)]])
    packed = functional.pack_latents(points)
    for k in (1, 5):
        expected = reference.nearest_latent(points, corner, k)
        assert (expected[0] == 1).all()
        assert_same(functional.nearest_latent(packed, corner, k), expected)


@given(
    rows=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=90),
    query=st.tuples(st.floats(-4, 4, width=32), st.floats(-4, 4, width=32)),
    k=st.integers(1, 100),
    seed=st.integers(0, 2**20),
)
def test_nearest_latent_on_a_grid(
    rows: list[tuple[int, int]], query: tuple[float, float], k: int, seed: int
) -> None:
    """Few distinct points, many ties."""
    points, queries = torch.tensor(rows, dtype=torch.float32), torch.tensor([query])
    visited = torch.rand(len(rows), generator=torch.Generator().manual_seed(seed)) < 0.4
    assert_same(
        functional.nearest_latent(points, queries, k, visited),
        reference.nearest_latent(points, queries, k, visited),
    )


@pytest.mark.parametrize(
    ("count", "dim"), [(0, 3), (1, 1), (16, 4), (33, 7), (400, 16), (1024, 2), (8200, 5)]
)
def test_pack_latents_matches_reference(count: int, dim: int, generator: torch.Generator) -> None:
    points = torch.randn(count, dim, generator=generator)
    packed, expected = functional.pack_latents(points), reference.pack_latents(points)
    assert torch.equal(packed.codes, expected.codes)
    assert torch.equal(packed.norms, expected.norms)
    assert torch.equal(packed.order, expected.order)
    assert torch.equal(packed.boxes, expected.boxes)
    torch.testing.assert_close(packed.frame, expected.frame, rtol=1e-8, atol=0)
    assert packed.frame[dim + 1] >= expected.frame[dim + 1]  # the error is a bound


def test_pack_latents_boxes_hold_their_points(generator: torch.Generator) -> None:
    """What skipping rests on: every point lies in its group's box and in its tile's, to the bit."""
    points = clustered(9001, 3, generator)
    packed = functional.pack_latents(points)
    assert torch.equal(packed.order.sort().values.long(), torch.arange(9001))
    places = torch.arange(9001)
    for first, size in ((0, 32), (18, 512)):  # 18 tiles
        box = packed.boxes[first + places // size // 16, :, :, places // size % 16]
        stored = points[packed.order]
        assert ((box[..., 0] <= stored) & (stored <= box[..., 1])).all()


@pytest.mark.parametrize("dim", [1, 5, 16, 70])
def test_nearest_latent_skips_nothing_that_matters(dim: int, generator: torch.Generator) -> None:
    """Enough points for several regions; most visited, some queries on top of equal points."""
    points = clustered(20_011, dim, generator)
    packed = functional.pack_latents(points)
    noise = torch.randn(9, dim, generator=generator)
    visited = torch.rand(9, 20_011, generator=generator) < 0.98
    for scale in (0.0, 0.1, 5.0, 1e4):
        queries = points[::2222][:9] + scale * noise
        for k, mask in ((1, None), (40, None), (3, visited), (700, visited)):
            expected = reference.nearest_latent(points, queries, k, mask)
            assert_same(functional.nearest_latent(packed, queries, k, mask), expected)


def test_pack_latents_bounds_the_error(generator: torch.Generator) -> None:
    """What exactness rests on: no point is farther from its code than the frame says."""
    points = torch.randn(500, 6, generator=generator)
    packed = functional.pack_latents(points)
    codes, frame = packed.codes, packed.frame
    rows = codes.transpose(1, 2).reshape(-1, 8)[:500, :6].double()
    off = (points[packed.order].double() - (frame[:6] + frame[6] * rows)).square().sum(1).sqrt()
    assert off.max() <= frame[7]
    assert frame[7] <= 0.5 * frame[6] * 6**0.5 * 1.0001


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_pack_visited_matches_reference(count: int, generator: torch.Generator) -> None:
    mask = torch.rand(3, 2, count, generator=generator) < 0.5
    for visited in (mask, mask.byte() * 200, mask[0, 0], mask[:, ::2]):
        packed = functional.pack_visited(visited)
        assert torch.equal(packed, reference.pack_visited(visited))
        bits = packed[..., None] >> torch.arange(64) & 1
        assert torch.equal(bits.flatten(-2)[..., :count].bool(), visited != 0)


def test_nearest_latent_opcheck(generator: torch.Generator) -> None:
    packed = functional.pack_latents(torch.randn(70, 5, generator=generator))
    operators = torch.ops.arch2vec_fast
    torch.library.opcheck(operators.pack_latents.default, (packed.points,))
    for visited in (None, torch.zeros(1, 2, dtype=torch.int64)):
        arguments = (*packed, torch.randn(3, 5, generator=generator), visited, 4)
        torch.library.opcheck(operators.nearest_latent.default, arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")  # of torch's own compiler stack
def test_nearest_latent_compile_fullgraph(generator: torch.Generator) -> None:
    points = torch.randn(130, 8, generator=generator)

    def moved(points: Tensor, queries: Tensor, visited: Tensor) -> Tensor:
        _, indices = functional.nearest_latent(points, queries, 2, visited)
        return points[indices].mean(1)

    compiled = torch.compile(moved, fullgraph=True, backend="aot_eager")
    for rows in (4, 9, 1):
        queries = torch.randn(rows, 8, generator=generator)
        visited = torch.rand(rows, 130, generator=generator) < 0.5
        assert torch.equal(compiled(points, queries, visited), moved(points, queries, visited))


def test_nearest_latent_on_meta_tensors() -> None:
    packed = functional.pack_latents(torch.empty(33, 6, device="meta"))
    assert (packed.codes.shape, packed.norms.shape) == ((3, 2, 16, 4), (3, 16))
    distances, indices = functional.nearest_latent(packed, torch.empty(5, 6, device="meta"), 3)
    assert (distances.shape, indices.shape, indices.dtype) == ((5, 3), (5, 3), torch.int64)


def test_nearest_latent_noncontiguous(generator: torch.Generator) -> None:
    points = torch.randn(6, 900, generator=generator).t()[::3]
    queries = torch.randn(6, 8, generator=generator).t()
    visited = (torch.rand(300, 8, generator=generator) < 0.5).t()
    expected = reference.nearest_latent(points, queries, 5, visited)
    assert_same(functional.nearest_latent(points, queries, 5, visited), expected)
    packed = PackedLatents(
        *(part.flip(0).contiguous().flip(0) for part in functional.pack_latents(points))
    )
    strided = functional.pack_visited(visited).repeat_interleave(2, 1)[:, ::2]
    assert_same(functional.nearest_latent(packed, queries, 5, strided), expected)


def test_nearest_latent_empty() -> None:
    points, nothing = torch.randn(20, 4), torch.empty(0, 4)
    distances, indices = functional.nearest_latent(points, nothing, 3)
    assert (distances.shape, indices.shape) == ((0, 3), (0, 3))
    distances, indices = functional.nearest_latent(nothing, points[:2], 3)
    assert distances.isinf().all()
    assert (indices == -1).all()


def test_nearest_latent_deterministic_in_threads(generator: torch.Generator) -> None:
    """One query splits the points over the threads, many split the queries."""
    points = clustered(100_003, 5, generator)
    packed = functional.pack_latents(points)
    for rows in (1, 3, 40):
        queries = points[:rows] + 0.1
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(functional.nearest_latent(packed, queries, 20))
        for result in results[1:]:
            assert_same(result, results[0])


DIGEST = """
import hashlib, torch
from arch2vec_fast import functional
generator = torch.Generator().manual_seed(0)
digest = hashlib.sha256()
for count, dim in [(1, 1), (31, 3), (1001, 16), (777, 33), (100, 1024)]:
    points = torch.randn(count, dim, generator=generator)
    queries = torch.randn(6, dim, generator=generator)
    for part in functional.nearest_latent(points, queries, 9):
        digest.update(part.numpy().tobytes())
result = digest.hexdigest()
"""


def test_nearest_latent_simd_levels_agree() -> None:
    """Odd sizes, at this process's level and, in processes of their own, at all lower ones."""
    here: dict[str, str] = {}
    exec(DIGEST, here)
    levels = ["scalar", "avx2", "avx512"]
    for level in levels[: levels.index(_library.simd_level())]:
        process = subprocess.run(
            [sys.executable, "-c", DIGEST + "print(result)"],
            env={"A2V_SIMD": level, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert process.stdout.strip() == here["result"], level


POINTS = torch.zeros(70, 4)
QUERIES = torch.zeros(3, 4)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0]], QUERIES), TypeError, r"^points: expected a tensor, got list; "),
        ((torch.zeros(4), QUERIES), ValueError, r"^points: expected rows of vectors, got .*\[4\]"),
        ((torch.zeros(4, 0), torch.zeros(1, 0)), ValueError, r"^points: 0 dims are outside 1 .. "),
        ((torch.zeros(4, 1025), QUERIES), ValueError, r"^points: 1025 dims are outside 1 .. 1024"),
        ((POINTS, torch.zeros(3, 5)), ValueError, r"^queries: expected shape \[M, 4\] .*\[3, 5\]"),
        ((POINTS, QUERIES, 0), ValueError, r"^k: 0 is outside 1 .. 1024"),
        ((POINTS, QUERIES, 1025), ValueError, r"^k: 1025 is outside 1 .. 1024"),
        ((POINTS, QUERIES, 1.0), TypeError, r"^k: expected an int, got float"),
        ((POINTS, QUERIES, 1, torch.zeros(70)), TypeError, r"^visited: expected bool, uint8 or pa"),
        ((POINTS, QUERIES, 1, [False] * 70), TypeError, r"^visited: expected bool.* got list"),
        (
            (POINTS, QUERIES, 1, torch.zeros(2, 70, dtype=torch.bool)),
            ValueError,
            r"^visited: expected shape \[70\] or \[3, 70\] for torch.bool.* got \[2, 70\]",
        ),
        (
            (POINTS, QUERIES, 1, torch.zeros(70, dtype=torch.int64)),
            ValueError,
            r"^visited: expected shape \[2\] or \[3, 2\] for torch.int64.* got \[70\]",
        ),
    ],
)
def test_nearest_latent_rejects_wrong_arguments(
    module: ModuleType, arguments: tuple[object, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        module.nearest_latent(*arguments)


def test_nearest_latent_rejects_other_dtypes_and_gradients() -> None:
    with pytest.raises(TypeError, match=r"^points: expected float32, got torch.float64"):
        functional.nearest_latent(POINTS.double(), QUERIES)
    with pytest.raises(TypeError, match=r"^queries: expected float32, got torch.int64"):
        functional.nearest_latent(POINTS, QUERIES.long())
    with pytest.raises(ValueError, match=r"^queries: require a gradient.*detach"):
        functional.nearest_latent(POINTS, QUERIES.clone().requires_grad_())
    for module in MODULES:
        with pytest.raises(TypeError, match=r"^visited: expected bool or uint8, got torch.int64"):
            module.pack_visited(torch.zeros(3, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"^visited: expected shape \[..., Q\], got \[\]"):
            module.pack_visited(torch.tensor(True))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nearest_latent_rejects_what_is_not_finite_and_names_the_row(bad: float) -> None:
    points, queries = POINTS.clone(), QUERIES.clone()
    points[41, 3] = points[55, 0] = bad
    queries[2, 1] = bad
    for module in MODULES:
        with pytest.raises(ValueError, match=r"^points: row 41 holds a NaN or an infinity"):
            module.pack_latents(points)
        with pytest.raises(ValueError, match=r"^queries: row 2 holds a NaN or an infinity"):
            module.nearest_latent(POINTS, queries)


def test_nearest_latent_raw_operator_is_memory_safe() -> None:
    packed = functional.pack_latents(POINTS)
    operator = torch.ops.arch2vec_fast.nearest_latent
    for part, wrong, message in (
        (0, torch.zeros(90, 4), "codes, norms, frame, order, boxes: not of these points"),
        (0, POINTS.double(), "points: expected float32"),
        (1, packed.codes.int(), "codes, norms, frame, order, boxes: expected uint8"),
        (2, packed.norms[1:], "boxes: not of these points"),
        (3, packed.frame[:6], "boxes: not of these points"),
        (4, packed.order.long(), "boxes: expected uint8, float32, float64, int32"),
        (4, packed.order[1:], "boxes: not of these points"),
        (5, packed.boxes[1:], "boxes: not of these points"),
    ):
        parts = [*packed]
        parts[part] = wrong
        with pytest.raises(ValueError, match=message):
            operator(*parts, QUERIES, None, 1)
    wild = packed._replace(order=torch.full_like(packed.order, 2**31 - 1))
    assert operator(*wild, QUERIES, None, 1)[1].tolist() == [[-1]] * 3
    for queries, visited, k, message in (
        (torch.zeros(3, 5), None, 1, r"queries: expected shape \[M, 4\]"),
        (QUERIES.double(), None, 1, "queries: expected float32"),
        (QUERIES, torch.zeros(1, 1, dtype=torch.int64), 1, r"visited: expected shape \[1, 2\]"),
        (QUERIES, torch.zeros(1, 2), 1, "visited: expected int64"),
        (QUERIES, None, 1025, "k: 1025 is outside"),
    ):
        with pytest.raises(ValueError, match=message):
            operator(*packed, queries, visited, k)


@pytest.mark.cuda
@pytest.mark.parametrize("k", [1, 2, 100, 1024])
@pytest.mark.parametrize("dim", [1, 3, 16, 100])
def test_nearest_latent_cuda_matches_the_cpu(dim: int, k: int, generator: torch.Generator) -> None:
    """To the bit, ties and masks included; as many queries as make every width of a group."""
    points = clustered(20_003, dim, generator)
    here, there = functional.pack_latents(points), functional.pack_latents(points.cuda())
    for rows in (1, 3, 21):
        queries = points[:rows] + 0.2 * torch.randn(rows, dim, generator=generator)
        for visited in masks(len(points), rows, generator):
            expected = functional.nearest_latent(here, queries, k, visited)
            mask = None if visited is None else visited.cuda()
            found = functional.nearest_latent(there, queries.cuda(), k, mask)
            assert_same((found[0].cpu(), found[1].cpu()), expected)


@pytest.mark.cuda
def test_nearest_latent_cuda_where_rows_are_odd(generator: torch.Generator) -> None:
    """Misaligned rows, no points, no queries, more queries than a grid takes, NaN."""
    storage = torch.randn(1 + 500 * 16, generator=generator).cuda()
    points = storage[1:].view(500, 16)
    queries = torch.randn(70_000, 16, generator=generator).cuda()
    visited = torch.rand(70_000, 500, generator=generator).cuda() < 0.5
    for k in (1, 3):
        found = functional.nearest_latent(points, queries, k, visited)
        for part in (slice(0, 50), slice(65_500, 65_560), slice(69_990, 70_000)):
            # The twin on the CPU: on a GPU torch may fuse its products and sums.
            given = (points.cpu(), queries[part].cpu(), k, visited[part].cpu())
            assert_same(
                (found[0][part].cpu(), found[1][part].cpu()), reference.nearest_latent(*given)
            )
        assert functional.nearest_latent(points, queries[:0], k)[1].shape == (0, k)
        empty = functional.nearest_latent(points[:0], queries[:2], k)
        assert (empty[1] == -1).all()
        queries[1, 3] = torch.nan
        found = functional.nearest_latent(points, queries[:2], k)
        assert (found[1][0] >= 0).all()
        assert (found[1][1] == -1).all()
        queries[1, 3] = 0
    with pytest.raises(ValueError, match=r"^points: row 0 holds a NaN"):
        functional.pack_latents(torch.full((2, 2), torch.nan, device="cuda"))
    with pytest.raises(ValueError, match=r"^queries: on cpu, but points on cuda:0"):
        functional.nearest_latent(points, queries.cpu())


@pytest.mark.cuda
@pytest.mark.parametrize("k", [1, 5])
def test_nearest_latent_cuda_graph(k: int, generator: torch.Generator) -> None:
    """Capturable, hence free of synchronisation; a replay reads the new queries and mask."""
    points = torch.randn(5000, 16, generator=generator)
    packed = functional.pack_latents(points.cuda())
    queries = torch.zeros(8, 16, device="cuda")
    visited = torch.zeros(8, 79, dtype=torch.int64, device="cuda")
    functional.nearest_latent(packed, queries, k, visited)  # loads the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = functional.nearest_latent(packed, queries, k, visited)
    for _ in range(3):
        queries.copy_(torch.randn(8, 16, generator=generator))
        mask = torch.rand(8, 5000, generator=generator) < 0.5
        visited.copy_(functional.pack_visited(mask))
        graph.replay()
        expected = reference.nearest_latent(points, queries.cpu(), k, mask)
        assert_same((found[0].cpu(), found[1].cpu()), expected)


@pytest.mark.cuda
def test_nearest_latent_cuda_opcheck(generator: torch.Generator) -> None:
    packed = functional.pack_latents(torch.randn(70, 5, generator=generator).cuda())
    operators = torch.ops.arch2vec_fast
    torch.library.opcheck(operators.pack_latents.default, (packed.points,))
    queries = torch.randn(3, 5, generator=generator).cuda()
    visited = torch.zeros(1, 2, dtype=torch.int64, device="cuda")
    for k in (1, 4):
        torch.library.opcheck(operators.nearest_latent.default, (*packed, queries, visited, k))

# SPDX-License-Identifier: Apache-2.0
"""The `gp_*` operators: agreement with their twins, and what every operator owes torch."""

import subprocess
import sys
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from arch2vec_fast import _library, functional, reference
from arch2vec_fast._checks_gp import LANES, GpCandidates, gp_candidates
from arch2vec_fast._reference_gp import kernel_rows

MODULES = [functional, reference]
# Candidates, features, colours, points: odd ones, more than a pass and a chunk, no features.
SIZES = [(5000, 17, 40, 31), (33, 1, 3, 5), (1, 3, 2, 1), (100, 0, 9, 26), (47, 130, 0, 50)]


class Case(NamedTuple):
    candidates: GpCandidates
    rows: Tensor
    last: Tensor
    factor: Tensor
    kernel: Tensor
    coefficients: Tensor

    def to(self, dtype: torch.dtype) -> "Case":
        given = self.candidates
        candidates = given._replace(
            panels=given.panels.to(dtype),
            norms=given.norms.to(dtype),
            weights=given.weights.to(dtype),
        )
        numbers = (part.to(dtype) for part in self[3:])
        return Case(candidates, self.rows, self.last, *numbers)

    def room(self) -> tuple[Tensor, Tensor, Tensor]:
        """`solved`, `explained` and `mean`, full of what must not be read."""
        dtype, shape = self.factor.dtype, (len(self.rows), len(self.candidates.panels))
        solved = torch.full((*shape, self.rows.shape[1], LANES), torch.nan, dtype=dtype)
        explained, mean = torch.full((2, *shape, LANES), torch.nan, dtype=dtype)
        return solved, explained, mean


def case(candidates: int, features: int, colours: int, points: int, searches: int = 3) -> Case:
    """Random candidates with sparse histograms; searches observe different numbers of points."""
    generator = torch.Generator().manual_seed(candidates + features)
    values = 0.7 * torch.randn(candidates, features, generator=generator, dtype=torch.float64)
    counts = torch.randint(0, 4, (candidates, colours), generator=generator)
    counts[:, :1] += 1
    lengths = counts.double().norm(dim=1, keepdim=True)
    held = counts > 0
    starts = torch.nn.functional.pad(held.sum(1).cumsum(0), (1, 0))
    if colours:
        spread = 197 * held.nonzero()[:, 1].int()  # common colours, and beyond them
        histogram = (starts, spread, (counts / lengths)[held])
        laid = gp_candidates(values, *histogram, num_colours=197 * colours)
    else:
        laid = gp_candidates(values)
    last = torch.tensor([points, max(points - 2, 0), points // 2][:searches])
    rows = torch.randint(0, candidates, (searches, points), generator=generator)
    weight = 1.0 if not colours else 0.0 if not features else 0.4
    kernel = torch.tensor([[0.8, weight]] * searches, dtype=torch.float64)
    factor = torch.zeros(searches, points, points, dtype=torch.float64)
    for s, count in enumerate(last.tolist()):
        among = kernel_rows(laid, rows[s, :count], kernel[s])[:, rows[s, :count]]
        factor[s, :count, :count] = torch.linalg.cholesky(among + 0.03 * torch.eye(count))
        rows[s, count:] = -1
    coefficients = torch.randn(searches, points, generator=generator, dtype=torch.float64)
    return Case(laid, rows, last, factor, kernel, coefficients)


def extended(module: Any, given: Case, *steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """V, explained and mean after points 0 .. steps[0], .. steps[1], ..., all."""
    room = given.room()
    first = torch.zeros_like(given.last)
    for step in (*steps, given.rows.shape[1]):
        last = given.last.clamp(max=step)
        module.gp_extend(
            given.candidates,
            given.rows,
            first,
            last,
            *given[3:],
            *room,
        )
        first = last
    return room


def filled(given: Case, solved: Tensor) -> list[Tensor]:
    """What was written of V, by search."""
    return [solved[s, :, :count] for s, count in enumerate(given.last.tolist())]


@pytest.mark.parametrize("steps", [(), (1, 4), (25,)])
@pytest.mark.parametrize("size", SIZES)
def test_gp_extend_matches_reference(size: tuple[int, ...], steps: tuple[int, ...]) -> None:
    given = case(*size)
    expected, *expected_sums = extended(reference, given)
    actual, *sums = extended(functional, given.to(torch.float32), *steps)
    # Substitution in float32 multiplies a rounding by the condition of L, here about 30.
    for mine, wanted in zip(filled(given, actual), filled(given, expected), strict=True):
        torch.testing.assert_close(mine.double(), wanted, rtol=0, atol=1e-4)
    for mine, wanted in zip(sums, expected_sums, strict=True):
        torch.testing.assert_close(mine.double(), wanted, rtol=0, atol=4e-4)
    assert actual[1, :, int(given.last[1]) :].isnan().all()  # nothing beyond was touched


@pytest.mark.parametrize("size", SIZES)
def test_gp_extend_has_the_bits_of_any_company_and_any_steps(size: tuple[int, ...]) -> None:
    given = case(*size).to(torch.float32)
    solved, *sums = extended(functional, given)
    torch.set_num_threads(3)
    again, *same = extended(functional, given)
    assert all(map(torch.equal, same, sums))
    torch.set_num_threads(1)
    alone = Case(given.candidates, *(part[1:2] for part in given[1:]))
    mine, *same = extended(functional, alone)
    assert all(torch.equal(part[0], whole[1]) for part, whole in zip(same, sums))
    for part, wanted in zip(filled(alone, mine), filled(given, solved)[1:2], strict=True):
        assert torch.equal(part, wanted)
    assert all(map(torch.equal, filled(given, again), filled(given, solved)))


def posterior(given: Case, explained: Tensor, mean: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    scale, target = torch.randn(2, len(given.rows), generator=generator, dtype=torch.float64)
    numbers = {"scale": 0.5 + scale.abs(), "target": target}
    return {"mean": mean, "explained": explained} | {k: v.to(mean) for k, v in numbers.items()}


@pytest.mark.parametrize("size", SIZES)
def test_gp_acquire_matches_reference(size: tuple[int, ...]) -> None:
    given, count = case(*size), size[0]
    double = posterior(given, *extended(reference, given)[1:])
    single = {k: v.float() for k, v in double.items()}
    sizes = {"num_candidates": count, "num_results": 7, "predictions": True}
    visited = torch.rand(3, count, generator=torch.Generator().manual_seed(1)) < 0.3
    actual = functional.gp_acquire(**single, **sizes, visited=visited)
    expected = reference.gp_acquire(**double, **sizes, visited=visited)
    torch.testing.assert_close(actual.mean.double(), expected.mean, rtol=1e-4, atol=1e-4)
    # 1 - explained loses digits of an observed point's variance.
    torch.testing.assert_close(actual.variance.double(), expected.variance, rtol=1e-3, atol=1e-5)
    # Scores are of this mean and variance; their order is that of the twin on the same numbers.
    same = reference.gp_acquire(**single, **sizes, visited=visited)
    torch.testing.assert_close(actual.scores, same.scores, rtol=1e-3, atol=1e-3)
    left = (~visited).sum(1)
    for s in range(3):
        found = actual.indices[s]
        assert (found >= 0).sum() == left[s].clamp(max=7)
        assert not visited[s, found[found >= 0]].any()


@pytest.mark.parametrize("module", MODULES)
def test_gp_acquire_ties_go_to_the_lowest_index(module: Any) -> None:
    """Copies of one candidate on both sides of a chunk's border."""
    given = case(1, 3, 2, 1, searches=1).to(torch.float32)
    nothing = torch.zeros(1, 400, LANES)
    found = module.gp_acquire(
        **posterior(given, nothing, nothing), num_candidates=6400, num_results=6400 // 8
    )
    assert found.indices[0].tolist() == list(range(800))
    assert (found.scores == found.scores[0, 0]).all()


@pytest.mark.parametrize("module", MODULES)
def test_gp_empty(module: Any) -> None:
    given = case(33, 2, 3, 4).to(torch.float32)
    nothing = given._replace(last=torch.zeros_like(given.last))
    solved, explained, mean = extended(module, nothing)
    assert (explained == 0).all()
    assert (mean == 0).all()
    assert solved.isnan().all()
    values = posterior(nothing, explained, mean)
    found = module.gp_acquire(**values, num_candidates=33, num_results=2, predictions=True)
    assert (found.mean == 0).all()
    assert found.indices.tolist() == [[0, 1]] * 3
    none = module.gp_acquire(**values, num_candidates=33, num_results=0)
    assert none.indices.shape == (3, 0)
    assert none.mean.shape == (3, 0)
    everything = torch.ones(3, 33, dtype=torch.bool)
    gone = module.gp_acquire(**values, num_candidates=33, num_results=2, visited=everything)
    assert (gone.indices == -1).all()
    assert (gone.scores == -torch.inf).all()


def test_gp_noncontiguous() -> None:
    given = case(100, 5, 9, 26).to(torch.float32)
    *parts, num_colours = given.candidates
    strided = Case(
        GpCandidates(*(torch.stack([part, part], -1)[..., 0] for part in parts), num_colours),
        *(torch.stack([part, part], -1)[..., 0] for part in given[1:]),
    )
    solved, *sums = extended(functional, given)
    assert all(map(torch.equal, sums, extended(functional, strided)[1:]))
    apart = torch.stack([solved, solved], -1)[..., 0]
    with pytest.raises(ValueError, match="solved: not contiguous, and written in place"):
        functional.gp_extend(*given[:2], 0 * given.last, *given[2:], apart, *sums)


def test_gp_opcheck() -> None:
    given = case(33, 2, 3, 4).to(torch.float32)
    solved, *sums = extended(functional, given)
    operators = torch.ops.arch2vec_fast
    arguments = (*given.candidates, given.rows, 0 * given.last, *given[2:])
    torch.library.opcheck(operators.gp_extend, (*arguments, torch.zeros_like(solved), *sums))
    values = posterior(given, *sums)
    for visited in (None, torch.zeros(3, 33, dtype=torch.bool)):
        torch.library.opcheck(operators.gp_acquire, (*values.values(), visited, 33, 2, True))


LEVELS = """
import sys, torch
sys.path.insert(0, "tests")
from test_gp_ops import SIZES, case, extended, filled, posterior
from arch2vec_fast import functional
torch.set_num_threads(1)
results = []
for size in SIZES:
    given = case(*size).to(torch.float32)
    solved, *sums = extended(functional, given, 2)
    found = functional.gp_acquire(
        **posterior(given, *sums), num_candidates=size[0], predictions=True
    )
    results += [*filled(given, solved), *sums, found.mean, found.variance]
"""


def test_gp_simd_levels_agree(tmp_path: Any) -> None:
    """Odd sizes, at this process's level and, in processes of their own, at all lower ones."""
    here: dict[str, Any] = {}
    exec(LEVELS, here)
    levels = ["scalar", "avx2", "avx512"]
    for level in levels[: levels.index(_library.simd_level())]:
        path = tmp_path / f"{level}.pt"
        subprocess.run(
            [sys.executable, "-c", f"{LEVELS}\ntorch.save(results, {str(path)!r})"],
            env={"A2V_SIMD": level, "PYTHONPATH": ":".join(sys.path)},
            check=True,
        )
        for mine, other in zip(here["results"], torch.load(path), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_gp_tells_autograd() -> None:
    given = case(33, 2, 3, 4).to(torch.float32)
    room = given.room()
    before = [part._version for part in room]
    functional.gp_extend(*given[:2], 0 * given.last, *given[2:], *room)
    assert all(part._version > old for part, old in zip(room, before, strict=True))


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.zeros(3, 4)}, "rows: expected int64, got float32"),
        ({"factor": torch.zeros(3, 4, 5)}, r"factor: expected shape \[3, 4, 4\]"),
        ({"kernel": torch.zeros(3, 3)}, r"kernel: expected shape \[3, 2\]"),
        ({"coefficients": torch.zeros(3, 5)}, r"coefficients: expected shape \[3, 4\]"),
        ({"solved": torch.zeros(3, 3, 3, 16)}, "rows: number of points: 4 is outside 0 .. 3"),
        ({"explained": torch.zeros(3, 2, 16)}, r"explained: expected shape \[3, 3, 16\]"),
        ({"mean": torch.zeros(3, 2, 16)}, r"mean: expected shape \[3, 3, 16\]"),
    ],
)
def test_gp_extend_rejects(module: Any, change: dict[str, Tensor], message: str) -> None:
    given = case(33, 2, 3, 4).to(torch.float32)
    room = dict(zip(("solved", "explained", "mean"), given.room(), strict=True))
    values = {**given._asdict(), "first": 0 * given.last, **room}
    with pytest.raises((TypeError, ValueError), match=message):
        module.gp_extend(**{**values, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.full((3, 4), 33)}, r"rows: 33 is outside 0\.\.32"),
        ({"first": torch.full((3,), 5)}, "first: 5 of 4 rows in search 0"),
    ],
)
def test_gp_extend_rejects_what_only_values_tell(change: dict[str, Tensor], message: str) -> None:
    given = case(33, 2, 3, 4).to(torch.float32)
    room = dict(zip(("solved", "explained", "mean"), given.room(), strict=True))
    values = {**given._asdict(), "first": 0 * given.last, **room}
    with pytest.raises(ValueError, match=message):
        functional.gp_extend(**{**values, **change})


@pytest.mark.parametrize("module", MODULES)
def test_gp_acquire_rejects(module: Any) -> None:
    given = case(33, 2, 3, 4).to(torch.float32)
    values = posterior(given, *extended(module, given)[1:])
    with pytest.raises(ValueError, match=r"num_candidates: 49 is outside 32 .. 48"):
        module.gp_acquire(**values, num_candidates=49)
    with pytest.raises(ValueError, match=r"visited: expected shape \[3, 33\]"):
        module.gp_acquire(
            **values, num_candidates=33, visited=torch.zeros(33, dtype=torch.bool)[None]
        )
    with pytest.raises(ValueError, match=r"num_results: 1025 is outside 0 .. 1024"):
        module.gp_acquire(**values, num_candidates=33, num_results=1025)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3),), r"features: expected shape \[Q, D\]"),
        (
            (torch.zeros(2, 1), torch.tensor([0, 2, 1]), torch.zeros(1).int(), torch.zeros(1)),
            "starts: do not ascend from 0 to E = 1",
        ),
        (
            (torch.zeros(2, 1), torch.tensor([0, 1, 1]), torch.ones(1).int(), torch.zeros(1)),
            "colours: outside 0 .. C - 1 = 0",
        ),
    ],
)
def test_gp_candidates_rejects(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gp_candidates(*arguments, num_colours=1)

# SPDX-License-Identifier: Apache-2.0
"""The `dngo_*` operators: agreement with their twins, and what every operator owes torch."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from arch2vec_fast import _library, functional, reference
from tolerances import REORDERED

MODULES = [functional, reference]
# Inputs, hidden units, points: the paper's, odd ones, a single one, more than a tile of each.
SIZES = [(16, 128, 40), (3, 33, 17), (1, 1, 1), (5, 50, 9), (17, 130, 31)]

SEEDS = torch.tensor([0, 5, -7, 2**62 + 12345])


def observations(inputs: int, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(len(SEEDS), points, inputs, generator=generator)
    return x, torch.randn(len(SEEDS), points, generator=generator)


def posterior(
    inputs: int, hidden: int, generator: torch.Generator, seeds: int = 3
) -> dict[str, Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(seeds, *shape, generator=generator)

    return {
        "weight": 0.3 * normal(hidden, inputs),
        "bias": 0.3 * normal(hidden),
        "coefficients": 0.1 * normal(hidden),
        "factor": 0.05 * normal(hidden, hidden),
        "noise": 1e-3 + 1e-2 * normal().abs(),
        "target": 0.3 * normal(),
    }


def double(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in values.items()}


@pytest.mark.parametrize(("inputs", "hidden", "points"), SIZES)
def test_dngo_draw_matches_reference(inputs: int, hidden: int, points: int) -> None:
    sizes = {"num_inputs": inputs, "num_points": points, "num_hidden": hidden, "num_epochs": 3}
    for actual, expected in zip(
        functional.dngo_draw(SEEDS, **sizes), reference.dngo_draw(SEEDS, **sizes)
    ):
        assert torch.equal(actual, expected)


def test_dngo_draw_is_uniform_and_shuffles_evenly() -> None:
    parameters, order = functional.dngo_draw(torch.arange(200), num_inputs=16, num_points=7)
    weight, readout = parameters[:, : 128 * 17], parameters[:, 128 * 17 : 128 * 18]
    for values, bound in ((weight, 0.25), (readout, 128**-0.5)):
        assert -bound <= values.min() < -0.999 * bound
        assert 0.999 * bound < values.max() <= bound
        # Of n uniform numbers: mean within five of its standard errors, variance within 1 %.
        assert abs(values.mean()) < 5 * bound / (3 * values.numel()) ** 0.5
        assert values.var() == pytest.approx(bound**2 / 3, rel=0.01)
    assert torch.equal(order.sort(2).values, torch.arange(7).int().expand(200, 100, 7))
    # 20,000 shuffles put each point first with probability 1/7, within five standard deviations.
    counts = order[..., 0].flatten().bincount(minlength=7)
    assert (counts - 20_000 / 7).abs().max() < 5 * (20_000 * 6 / 49) ** 0.5


@pytest.mark.parametrize("batch_size", [1, 7, 10, 16])
@pytest.mark.parametrize(("inputs", "hidden", "points"), SIZES)
def test_dngo_fit_matches_reference(
    inputs: int, hidden: int, points: int, batch_size: int, generator: torch.Generator
) -> None:
    """A few epochs: Adam divides by gradients, so float32 leaves float64 later."""
    x, y = observations(inputs, points, generator)
    sizes = {"num_inputs": inputs, "num_points": points, "num_hidden": hidden, "num_epochs": 2}
    initial, order = functional.dngo_draw(SEEDS, **sizes)
    trained, wanted = initial.clone(), initial.double()
    losses = functional.dngo_fit(trained, x, y, order, batch_size=batch_size)
    expected = reference.dngo_fit(wanted, x.double(), y.double(), order, batch_size=batch_size)
    # A step moves a parameter by up to 1e-2; its direction loses digits where gradients are small.
    assert (trained - wanted).abs().max() < 2e-4
    assert ((trained - wanted).abs() < 2e-6).double().mean() > 0.99
    torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-6)


def test_dngo_fit_learns(generator: torch.Generator) -> None:
    x, _ = observations(16, 100, generator)
    y = x[..., 0] * x[..., 1].tanh()
    parameters, order = functional.dngo_draw(SEEDS, num_inputs=16, num_points=100)
    losses = functional.dngo_fit(parameters, x, y, order)
    assert (losses[:, -1] < 0.2 * losses[:, 0]).all()


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("rank", "points", "hidden"), [(5, 5, 9), (33, 200, 33), (0, 3, 4)])
def test_dngo_evidence_matches_reference(
    rank: int, points: int, hidden: int, released: bool, generator: torch.Generator
) -> None:
    def normal(*shape: int) -> Tensor:
        return torch.randn(4, *shape, generator=generator, dtype=torch.float64)

    terms = ((3 * normal(rank)).exp(), normal(rank) ** 2, normal() ** 2 + 0.1)
    start = normal(2) - torch.tensor([0, 3])
    sizes = {"num_points": points, "num_hidden": hidden, "released": released}
    actual = functional.dngo_evidence(*terms, start, **sizes)
    expected = reference.dngo_evidence(*terms, start, **sizes)
    evidence = [
        reference_evidence(terms, [part.log() for part in found], **sizes)
        for found in (actual, expected)
    ]
    # Ours may find a better maximum than a search from one start, never a worse one.
    assert (evidence[0] >= evidence[1] - 1e-6).all()
    if released and rank:  # the same search, step by step; without data its path is rounding
        for found, wanted in zip(actual, expected):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


def reference_evidence(
    terms: tuple[Tensor, ...], logs: list[Tensor], *, num_points: int, num_hidden: int, **kind: bool
) -> Tensor:
    from arch2vec_fast._reference_dngo import log_evidence

    sizes = {"num_points": num_points, "num_hidden": num_hidden}
    return log_evidence(*terms, logs[0], -logs[1], **sizes, **kind)


@given(
    lambdas=st.lists(st.floats(0, 1e5), min_size=1, max_size=12),
    scale=st.floats(1e-6, 1e3) | st.just(1e7),  # so large that the noise meets its limit
    residual=st.floats(0, 10),
)
def test_dngo_evidence_is_a_maximum(lambdas: list[float], scale: float, residual: float) -> None:
    """Within the box, and no point of a grid over it is better, whatever the spectrum."""
    rank = len(lambdas)
    eigenvalue = torch.tensor([lambdas], dtype=torch.float64)
    terms = (eigenvalue, scale * torch.ones_like(eigenvalue), eigenvalue.new_tensor([residual]))
    sizes = {"num_points": rank + 3, "num_hidden": rank + 1}
    found = functional.dngo_evidence(*terms, **sizes)
    assert all(part.log().abs().max() < 10 + 1e-9 for part in found)
    best = reference_evidence(terms, [part.log() for part in found], **sizes)
    line = torch.linspace(-10, 10, 41, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    wide = tuple(part.expand(len(grid), *part.shape[1:]) for part in terms)
    others = reference_evidence(wide, [grid[:, 0], grid[:, 1]], **sizes)
    # The last grid is 2e-5 wide, and where a limit binds the evidence is not flat at its maximum.
    assert best >= others.max() - 1e-4 * rank


@pytest.mark.parametrize("score", ["log_improvement", "released"])
@pytest.mark.parametrize("count", [1, 15, 100, 2049])
@pytest.mark.parametrize(("inputs", "hidden"), [size[:2] for size in SIZES])
def test_dngo_acquire_matches_reference(
    inputs: int, hidden: int, count: int, score: str, generator: torch.Generator
) -> None:
    values = posterior(inputs, hidden, generator)
    x = torch.randn(count, inputs, generator=generator)
    visited = torch.rand(3, count, generator=generator) < 0.3
    options = {"visited": visited, "num_results": 9, "score": score, "predictions": True}
    actual = functional.dngo_acquire(x, **values, **options)
    expected = reference.dngo_acquire(x.double(), **double(values), **options)
    # tanh is good to 4e-7 and enters sums of up to 130 terms.
    torch.testing.assert_close(actual.mean.double(), expected.mean, rtol=1e-5, atol=3e-6)
    torch.testing.assert_close(actual.variance.double(), expected.variance, rtol=2e-5, atol=0)
    tolerance = {"rtol": 2e-4, "atol": 2e-4 if score == "log_improvement" else 1e-6}
    torch.testing.assert_close(actual.scores.double(), expected.scores, **tolerance)
    # The same candidates, except where scores are closer than the arithmetic tells apart.
    for s in range(3):
        for mine, wanted in zip(actual.indices[s].tolist(), expected.indices[s].tolist()):
            assert (mine < 0) == (wanted < 0)
            assert mine < 0 or not visited[s, mine]
        assert len({i for i in actual.indices[s].tolist() if i >= 0}) == min(
            9, count - int(visited[s].sum())
        )


def test_dngo_acquire_ranks_far_below_the_target(generator: torch.Generator) -> None:
    """Where the expected improvement is 0 in float32 its logarithm still orders candidates."""
    values = posterior(4, 20, generator, seeds=1)
    values["target"] = torch.tensor([50.0])
    x = torch.randn(500, 4, generator=generator)
    actual = functional.dngo_acquire(x, **values, num_results=20)
    expected = reference.dngo_acquire(x.double(), **double(values), num_results=20)
    assert actual.scores.max() < -200
    assert torch.equal(actual.indices, expected.indices)
    torch.testing.assert_close(actual.scores.double(), expected.scores, rtol=1e-4, atol=0)


@pytest.mark.parametrize("module", MODULES)
def test_dngo_acquire_ties_go_to_the_lowest_index(module: Any, generator: torch.Generator) -> None:
    values = posterior(4, 20, generator)
    x = torch.randn(700, 4, generator=generator).repeat(5, 1)
    visited = torch.zeros(3, len(x), dtype=torch.bool)
    visited[:, :700] = True  # the first copies
    best = module.dngo_acquire(x, **values, num_results=8, visited=visited)
    assert (best.scores[:, ::4] == best.scores[:, 3::4]).all()
    assert torch.equal(best.indices.view(3, 2, 4).diff(dim=2), torch.full((3, 2, 3), 700))
    assert (best.indices[:, ::4] // 700 == 1).all()


@pytest.mark.parametrize("module", MODULES)
def test_dngo_acquire_when_few_are_left(module: Any, generator: torch.Generator) -> None:
    values = posterior(4, 20, generator)
    visited = torch.ones(3, 30, dtype=torch.bool)
    visited[0, 3] = visited[1, 7] = visited[1, 20] = False
    best = module.dngo_acquire(torch.randn(30, 4), **values, num_results=3, visited=visited)
    assert best.indices[0].tolist() == [3, -1, -1]
    assert sorted(best.indices[1, :2].tolist()) == [7, 20]
    assert best.indices[2].tolist() == [-1, -1, -1]
    assert best.scores[2].isneginf().all()


@pytest.mark.parametrize("module", MODULES)
def test_dngo_acquire_puts_nan_last(module: Any, generator: torch.Generator) -> None:
    values = posterior(2, 20, generator, seeds=1)
    x = torch.randn(40, 2, generator=generator)
    x[::2] = float("nan")
    best = module.dngo_acquire(x, **values, num_results=21)
    assert (best.indices[0, :20] % 2 == 1).all()
    assert best.indices[0, 20] == 0
    assert best.scores[0, 20].isnan()


def calls() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """The raw operators with arguments they accept."""
    ops, generator = torch.ops.arch2vec_fast, torch.Generator().manual_seed(1)
    parameters, order = functional.dngo_draw(SEEDS, num_inputs=3, num_points=12, num_epochs=2)
    x, y = observations(3, 12, generator)
    rank = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    values = posterior(3, 9, generator).values()
    visited = torch.zeros(3, 12, dtype=torch.bool)
    return {
        "draw": (ops.dngo_draw.default, (SEEDS, 3, 9, 2, 7)),
        "fit": (ops.dngo_fit.default, (parameters, x, y, order, 128, 10, 1e-2)),
        "evidence": (
            ops.dngo_evidence.default,
            (rank, rank, rank[:, 0].clone(), rank[:, :2].clone(), 9, 7, True),
        ),
        "acquire": (ops.dngo_acquire.default, (x[0], *values, visited, 4, 0, True)),
    }


@pytest.mark.parametrize("name", ["draw", "fit", "evidence", "acquire"])
def test_dngo_opcheck(name: str) -> None:
    operator, arguments = calls()[name]
    torch.library.opcheck(operator, arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")  # of torch's own compiler stack
def test_dngo_compile_fullgraph(generator: torch.Generator) -> None:
    x, y = observations(3, 12, generator)
    values = posterior(3, 128, generator, seeds=4)

    def search_step(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
        parameters, order = functional.dngo_draw(seed, num_inputs=3, num_points=12, num_epochs=2)
        losses = functional.dngo_fit(parameters, x, y, order)
        best = functional.dngo_acquire(x[0], **values, num_results=2)
        return losses.sum() + parameters.sum() + best.scores.sum() + best.indices.sum()

    compiled = torch.compile(search_step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, y, SEEDS), search_step(x, y, SEEDS))


def test_dngo_noncontiguous(generator: torch.Generator) -> None:
    x, y = observations(4, 12, generator)
    parameters, order = functional.dngo_draw(SEEDS, num_inputs=4, num_points=12, num_epochs=2)
    plain, strided = parameters.clone(), parameters.clone()
    functional.dngo_fit(plain, x, y, order)
    turned = x.mT.contiguous().mT
    functional.dngo_fit(strided, turned, y.t().contiguous().t(), order.mT.contiguous().mT)
    assert torch.equal(plain, strided)
    values = posterior(4, 20, generator)
    twisted = {name: value.mT.contiguous().mT for name, value in values.items() if value.dim() > 1}
    found = functional.dngo_acquire(x[0], **values)
    again = functional.dngo_acquire(turned[0], **{**values, **twisted})
    assert torch.equal(found.scores, again.scores)
    assert torch.equal(found.indices, again.indices)


@pytest.mark.parametrize("module", MODULES)
def test_dngo_empty(module: Any) -> None:
    none = torch.empty(0, dtype=torch.int64)
    parameters, order = module.dngo_draw(none, num_inputs=3, num_points=5)
    assert (parameters.shape, order.shape) == ((0, 641), (0, 100, 5))
    losses = module.dngo_fit(parameters, torch.empty(0, 5, 3), torch.empty(0, 5), order)
    assert losses.shape == (0, 100)
    terms = (torch.empty(0, 4).double(), torch.empty(0, 4).double(), torch.empty(0).double())
    assert module.dngo_evidence(*terms, num_points=9, num_hidden=4)[0].shape == (0,)
    values = posterior(3, 20, torch.Generator())
    found = module.dngo_acquire(torch.empty(0, 3), **values, num_results=2, predictions=True)
    assert found.indices.tolist() == [[-1, -1]] * 3
    assert found.mean.shape == found.variance.shape == (3, 0)
    found = module.dngo_acquire(torch.zeros(4, 3), **values, num_results=0)
    assert found.scores.shape == (3, 0)


def test_dngo_deterministic_in_threads_and_seeds(generator: torch.Generator) -> None:
    """Each seed gets the bits it gets alone, for any number of threads."""
    x, y = observations(16, 30, generator)
    values = posterior(16, 128, generator, seeds=4)
    candidates = torch.randn(5000, 16, generator=generator)

    def run(rows: slice) -> list[Tensor]:
        parameters, order = functional.dngo_draw(
            SEEDS[rows], num_inputs=16, num_points=30, num_epochs=5
        )
        losses = functional.dngo_fit(parameters, x[rows], y[rows], order)
        mine = {name: value[rows] for name, value in values.items()}
        found = functional.dngo_acquire(candidates, **mine, num_results=7, predictions=True)
        return [parameters, order, losses, *found]

    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(slice(0, 4)))
    alone = [run(slice(s, s + 1)) for s in range(4)]
    results.append([torch.cat(parts) for parts in zip(*alone)])
    for other in results[1:]:
        for mine, wanted in zip(other, results[0]):
            assert torch.equal(mine, wanted)


def test_dngo_acquire_does_not_depend_on_the_other_candidates(generator: torch.Generator) -> None:
    values = posterior(16, 128, generator)
    x = torch.randn(77, 16, generator=generator)
    whole = functional.dngo_acquire(x, **values, num_results=0, predictions=True)
    for first in (1, 16, 33):
        part = functional.dngo_acquire(x[first:], **values, num_results=0, predictions=True)
        assert torch.equal(part.mean, whole.mean[:, first:])
        assert torch.equal(part.variance, whole.variance[:, first:])


LEVELS = """
import torch
from arch2vec_fast import functional
generator = torch.Generator().manual_seed(0)
results = []
for inputs, hidden, points in [(16, 128, 40), (3, 33, 17), (1, 1, 1), (17, 130, 31)]:
    x = torch.randn(2, points, inputs, generator=generator)
    y = torch.randn(2, points, generator=generator)
    parameters, order = functional.dngo_draw(
        torch.tensor([1, 2]), num_inputs=inputs, num_points=points, num_hidden=hidden, num_epochs=2)
    results += [functional.dngo_fit(parameters, x, y, order), parameters]
    found = functional.dngo_acquire(
        torch.randn(333, inputs, generator=generator),
        torch.randn(2, hidden, inputs, generator=generator),
        *torch.randn(2, 2, hidden, generator=generator),
        0.1 * torch.randn(2, hidden, hidden, generator=generator),
        torch.rand(2, generator=generator) + 0.01, torch.zeros(2), num_results=0, predictions=True)
    results += [found.mean, found.variance]
"""


def test_dngo_simd_levels_agree(tmp_path: Any) -> None:
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
            # As in the comparison with the twin, of which both are as far away.
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=2e-4)
            close = torch.isclose(mine, other, **REORDERED[torch.float32]._asdict())
            assert close.double().mean() > 0.98


def changed(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**values, **changes}


FIT = {
    "parameters": torch.zeros(2, 41),  # D = 3, H = 8
    "points": torch.zeros(2, 5, 3),
    "targets": torch.zeros(2, 5),
    "order": torch.zeros(2, 1, 5, dtype=torch.int32),
}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"points": [[1.0]]}, TypeError, r"^points: expected a tensor, got list"),
        ({"points": torch.zeros(2, 5, 3).half()}, TypeError, r"^points: expected float32.*float16"),
        ({"points": torch.zeros(5, 3)}, ValueError, r"^points: expected shape \[S, M, D\], got"),
        (
            {"parameters": torch.zeros(2, 42)},
            ValueError,
            r"^parameters: expected shape .*dngo_draw",
        ),
        ({"parameters": torch.zeros(41, 2).t()}, ValueError, r"^parameters: not contiguous"),
        ({"parameters": FIT["parameters"].clone().requires_grad_()}, ValueError, "requires grad"),
        ({"targets": torch.zeros(2, 4)}, ValueError, r"^targets: expected shape \[2, 5\], got"),
        ({"order": FIT["order"].long()}, TypeError, r"^order: expected int32, got int64"),
        ({"batch_size": 17}, ValueError, r"^batch_size: 17 is outside 1 .. 16"),
        ({"batch_size": 1.5}, TypeError, r"^batch_size: expected an int, got float"),
        ({"learning_rate": torch.nan}, ValueError, r"^learning_rate: nan is no positive number"),
        ({"learning_rate": "fast"}, TypeError, r"^learning_rate: expected a float, got str"),
    ],
)
def test_dngo_fit_rejects(
    module: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        module.dngo_fit(**changed(FIT, **changes))


def test_dngo_fit_rejects_rows_that_are_none() -> None:
    for row in (-1, 5):
        with pytest.raises(ValueError, match=r"^order: holds a row outside 0..4"):
            functional.dngo_fit(**changed(FIT, order=torch.full((2, 1, 5), row, dtype=torch.int32)))


def test_dngo_fit_tells_autograd() -> None:
    """What was saved for a gradient and then trained must not be used by it."""
    factor = torch.ones(2, 41, requires_grad=True)
    values = changed(FIT, parameters=torch.zeros(2, 41))
    product = (factor * values["parameters"]).sum()
    functional.dngo_fit(**values)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"candidates": torch.zeros(4, 2).double()}, TypeError, "expected float"),
        ({"candidates": torch.zeros(4, 2)}, ValueError, r"^weight: expected shape \[S, H, 2\]"),
        ({"bias": torch.zeros(3, 21)}, ValueError, r"^bias: expected shape \[3, 20\], got"),
        ({"factor": torch.zeros(3, 20)}, ValueError, r"^factor: expected shape \[3, 20, 20\]"),
        ({"noise": torch.zeros(2)}, ValueError, r"^noise: expected shape \[3\], got \[2\]"),
        ({"visited": torch.zeros(3, 4)}, TypeError, r"^visited: expected bool, got float32"),
        ({"num_results": 1025}, ValueError, r"^num_results: 1025 is outside 0 .. 1024"),
        ({"score": "ei"}, ValueError, r"^score: 'ei' is not a score; use log_improvement or"),
    ],
)
def test_dngo_acquire_rejects(
    module: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    values = {"candidates": torch.zeros(4, 3), **posterior(3, 20, torch.Generator())}
    with pytest.raises(error, match=message):
        module.dngo_acquire(**changed(values, **changes))


@pytest.mark.parametrize("module", MODULES)
def test_dngo_evidence_and_draw_reject(module: Any) -> None:
    one = torch.ones(1, 2, dtype=torch.float64)
    sizes = {"num_points": 3, "num_hidden": 4}
    with pytest.raises(TypeError, match=r"^energy: expected float64, got float32"):
        module.dngo_evidence(one, one.float(), one[:, 0], **sizes)
    with pytest.raises(ValueError, match=r"^start: the released search needs one"):
        module.dngo_evidence(one, one, one[:, 0], **sizes, released=True)
    with pytest.raises(TypeError, match=r"^seed: expected int64, got int32"):
        module.dngo_draw(torch.zeros(1, dtype=torch.int32), num_inputs=1, num_points=1)
    with pytest.raises(ValueError, match=r"^num_hidden: 0 is outside 1 .. 4096"):
        module.dngo_draw(torch.zeros(1).long(), num_inputs=1, num_points=1, num_hidden=0)


def test_dngo_raw_operators_are_memory_safe() -> None:
    draw, fit, evidence, acquire = (
        calls()[name] for name in ("draw", "fit", "evidence", "acquire")
    )
    bad = [
        (draw[0], (SEEDS, 0, 9, 2, 7), "num_inputs: 0 is outside"),
        (fit[0], (fit[1][0][:, 1:], *fit[1][1:]), "parameters: expected size"),
        (fit[0], (*fit[1][:5], 13, 1e-2), "batch_size: 13 is outside"),
        (evidence[0], (*evidence[1][:4], 3, 7, True), "eigenvalue: 5 is outside"),
        (acquire[0], (acquire[1][0][:, 1:], *acquire[1][1:]), "candidates: expected size"),
        (acquire[0], (*acquire[1][:8], 4, 2, True), "score: 2 is outside"),
    ]
    for operator, arguments, message in bad:
        with pytest.raises(ValueError, match=message):
            operator(*arguments)

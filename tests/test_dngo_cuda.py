# SPDX-License-Identifier: Apache-2.0
"""The `dngo_*` operators and the surrogate on the GPU: agreement with the CPU, CUDA graphs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from arch2vec_fast import functional, reference
from arch2vec_fast.surrogates import DNGO, DngoRecipe
from test_dngo import SEEDS, SIZES, calls, observations, posterior

pytestmark = pytest.mark.cuda

# The GPU's kernels take up to 128 hidden units.
GPU_SIZES = [(inputs, min(hidden, 128), points) for inputs, hidden, points in SIZES]


def on_gpu(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.cuda() if isinstance(v, Tensor) else v for k, v in values.items()}


@pytest.mark.parametrize(("inputs", "hidden", "points"), GPU_SIZES)
def test_dngo_draw_has_the_bits_of_the_cpu(inputs: int, hidden: int, points: int) -> None:
    sizes = {"num_inputs": inputs, "num_points": points, "num_hidden": hidden, "num_epochs": 3}
    for actual, expected in zip(
        functional.dngo_draw(SEEDS.cuda(), **sizes), functional.dngo_draw(SEEDS, **sizes)
    ):
        assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("batch_size", [1, 10, 16])
@pytest.mark.parametrize(("inputs", "hidden", "points"), GPU_SIZES)
def test_dngo_fit_matches_reference(
    inputs: int, hidden: int, points: int, batch_size: int, generator: torch.Generator
) -> None:
    x, y = observations(inputs, points, generator)
    sizes = {"num_inputs": inputs, "num_points": points, "num_hidden": hidden, "num_epochs": 2}
    initial, order = functional.dngo_draw(SEEDS, **sizes)
    trained, wanted = initial.cuda(), initial.double()
    losses = functional.dngo_fit(trained, x.cuda(), y.cuda(), order.cuda(), batch_size=batch_size)
    expected = reference.dngo_fit(wanted, x.double(), y.double(), order, batch_size=batch_size)
    # As on the CPU: Adam divides by gradients, small ones have few digits.
    assert (trained.cpu() - wanted).abs().max() < 2e-4
    torch.testing.assert_close(losses.cpu().double(), expected, rtol=1e-4, atol=1e-6)


def test_dngo_fit_spoils_a_seed_with_rows_that_are_none(generator: torch.Generator) -> None:
    x, y = observations(3, 12, generator)
    parameters, order = functional.dngo_draw(SEEDS, num_inputs=3, num_points=12, num_epochs=2)
    order[1, 0, 4] = 12
    trained = parameters.cuda()
    functional.dngo_fit(trained, x.cuda(), y.cuda(), order.cuda())
    assert trained.isnan().all(1).tolist() == [False, True, False, False]
    assert not trained[[0, 2, 3]].isnan().any()


@pytest.mark.parametrize("released", [False, True])
def test_dngo_evidence_matches_the_cpu(released: bool, generator: torch.Generator) -> None:
    def normal(*shape: int) -> Tensor:
        return torch.randn(9, *shape, generator=generator, dtype=torch.float64)

    terms = ((3 * normal(40)).exp(), normal(40) ** 2, normal() ** 2, normal(2))
    sizes = {"num_points": 60, "num_hidden": 41, "released": released}
    expected = functional.dngo_evidence(*terms, **sizes)
    actual = functional.dngo_evidence(*(part.cuda() for part in terms), **sizes)
    for found, wanted in zip(actual, expected):
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize("score", ["log_improvement", "released"])
@pytest.mark.parametrize("count", [1, 15, 2049, 40_001])
@pytest.mark.parametrize(("inputs", "hidden", "points"), GPU_SIZES)
def test_dngo_acquire_matches_reference(
    inputs: int, hidden: int, points: int, count: int, score: str, generator: torch.Generator
) -> None:
    values = posterior(inputs, hidden, generator)
    x = torch.randn(count, inputs, generator=generator)
    visited = torch.rand(3, count, generator=generator) < 0.3
    options = {"num_results": 9, "score": score, "predictions": True}
    actual = functional.dngo_acquire(x.cuda(), **on_gpu(values), visited=visited.cuda(), **options)
    double = {name: value.double() for name, value in values.items()}
    expected = reference.dngo_acquire(x.double(), **double, visited=visited, **options)
    mean, variance = actual.mean.cpu().double(), actual.variance.cpu().double()
    torch.testing.assert_close(mean, expected.mean, rtol=1e-5, atol=3e-6)
    torch.testing.assert_close(variance, expected.variance, rtol=2e-5, atol=0)
    tolerance = {"rtol": 2e-4, "atol": 2e-4 if score == "log_improvement" else 1e-6}
    torch.testing.assert_close(actual.scores.cpu().double(), expected.scores, **tolerance)
    indices = actual.indices.cpu()
    assert not (visited.gather(1, indices.clamp(min=0)) & (indices >= 0)).any()


def test_dngo_acquire_ties_go_to_the_lowest_index(generator: torch.Generator) -> None:
    values = on_gpu(posterior(4, 20, generator))
    x = torch.randn(700, 4, generator=generator).repeat(5, 1).cuda()
    best = functional.dngo_acquire(x, **values, num_results=10)
    assert (best.scores[:, ::5] == best.scores[:, 4::5]).all()
    assert (best.indices.view(3, 2, 5).diff(dim=2) == 700).all()


@pytest.mark.parametrize("name", ["draw", "fit", "evidence", "acquire"])
def test_dngo_opcheck(name: str) -> None:
    operator, arguments = calls()[name]
    moved = tuple(part.cuda() if isinstance(part, Tensor) else part for part in arguments)
    torch.library.opcheck(operator, moved)


def test_dngo_cuda_graph(generator: torch.Generator) -> None:
    """Draw, fit and acquire in one captured graph, replayed on other data."""
    x, y = (part.cuda() for part in observations(16, 40, generator))
    values = on_gpu(posterior(16, 128, generator, seeds=4))
    seed, candidates = SEEDS.cuda(), torch.randn(5000, 16, generator=generator).cuda()

    def work() -> tuple[Tensor, ...]:
        parameters, order = functional.dngo_draw(seed, num_inputs=16, num_points=40, num_epochs=3)
        losses = functional.dngo_fit(parameters, x, y, order)
        return losses, parameters, *functional.dngo_acquire(candidates, **values)[:2]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    x.copy_(x.flip(0))
    candidates.copy_(candidates.flip(0))
    graph.replay()
    for found, wanted in zip(captured, work()):
        assert torch.equal(found, wanted)


def test_dngo_deterministic(generator: torch.Generator) -> None:
    """Each seed gets the bits it gets alone."""
    x, y = (part.cuda() for part in observations(16, 40, generator))
    values = on_gpu(posterior(16, 128, generator, seeds=4))
    candidates = torch.randn(5000, 16, generator=generator).cuda()

    def run(rows: slice) -> list[Tensor]:
        drawn = functional.dngo_draw(SEEDS[rows].cuda(), num_inputs=16, num_points=40)
        losses = functional.dngo_fit(drawn[0], x[rows], y[rows], drawn[1])
        mine = {name: value[rows] for name, value in values.items()}
        found = functional.dngo_acquire(candidates, **mine, predictions=True)
        return [losses, drawn[0], *found]

    together = run(slice(0, 4))
    alone = [run(slice(s, s + 1)) for s in range(4)]
    for part, wanted in zip(zip(*alone), together):
        assert torch.equal(torch.cat(part), wanted)


@pytest.mark.parametrize("recipe", [DngoRecipe.corrected(), DngoRecipe.released()])
def test_surrogate_agrees_with_the_cpu(recipe: DngoRecipe, generator: torch.Generator) -> None:
    candidates = torch.randn(3000, 16, generator=generator)
    points = candidates[:80].view(2, 40, 16)
    rewards = 0.9 + 0.03 * points[..., 0].tanh()
    options: dict[str, Any] = {"seeds": [3, 4], "num_epochs": 2}
    here = DNGO(recipe, **options).fit(points, rewards)
    there = DNGO(recipe, **options, device="cuda").fit(points, rewards)
    for mine, wanted in zip(there.predict(candidates), here.predict(candidates)):
        torch.testing.assert_close(mine.cpu(), wanted, rtol=5e-3, atol=1e-4)


def test_dngo_rejects_what_the_gpu_does_not_hold(generator: torch.Generator) -> None:
    values = on_gpu(posterior(4, 129, generator))
    with pytest.raises(ValueError, match="the GPU kernel takes 128 and 64"):
        functional.dngo_acquire(torch.zeros(3, 4, device="cuda"), **values)
    order = torch.zeros(1, 1, 5000, dtype=torch.int32, device="cuda")
    parameters = torch.zeros(1, 2305, device="cuda")
    x, y = torch.zeros(1, 5000, 16, device="cuda"), torch.zeros(1, 5000, device="cuda")
    with pytest.raises(ValueError, match="points: network and points of a seed take"):
        functional.dngo_fit(parameters, x, y, order)
    mixed = {**on_gpu(posterior(4, 20, generator)), "noise": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"^noise: on cpu, but candidates is on cuda"):
        functional.dngo_acquire(torch.zeros(3, 4, device="cuda"), **mixed)

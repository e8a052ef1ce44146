# SPDX-License-Identifier: Apache-2.0
"""`Recipe.released()` against the authors' code: golden files, and the twin of `tests/released.py`.

The model must equal the twin to 1e-6 over all twelve steps on any machine. The golden file is
reproduced as far where the twin reproduces it, that is where torch's kernels add in the order they
did on the machine that made it; elsewhere its first step is compared, with a wider tolerance.
"""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from arch2vec_fast.models import GinVae, Recipe
from arch2vec_fast.pretrain.objective import objective
from arch2vec_fast.spaces import CellLayout
from released import NOISY_STEPS, SPACES, STEPS, ReleasedTwin, batch, load_golden

LAYOUTS = {
    "nasbench101": CellLayout(7, 5),
    "nasbench201": CellLayout(8, 7),
    "darts": CellLayout(11, 11),
}
RECIPE = replace(Recipe.released(), dropout=0.0)

# Same operations in the same order: exact on one machine; 1e-6 is what is promised.
SAME = {"rtol": 1e-6, "atol": 1e-6}
# One step from equal states in another order of summation (cells permuted, or other kernels).
# Measured on a Zen 3 core (AVX2), 20 permutations of each of the 12 batches, states along the run:
# loss 4e-7 relative, gradient norm 2e-6 relative, single gradients 4e-6 absolute - except where
# float32 rounds the sigmoid of a large z.z to one: then an edge has a gradient in one order and
# none in the other (one of 24 batches: norm 3.5e-5, single gradients 9.4e-4).
# Other kernels (ATEN_CPU_CAPABILITY=default): mu 3e-6, gradients 1.4e-6 at step 0.
REORDERED_LOSS = {"rtol": 2e-6, "atol": 0.0}
REORDERED_NORM = {"rtol": 1e-4, "atol": 0.0}
REORDERED_GRAD = {"rtol": 0.0, "atol": 2e-3}
OTHER_KERNELS = {"rtol": 1e-5, "atol": 1e-5}


class Trace(NamedTuple):
    """What a run of the twelve golden steps leaves; gradients are those before clipping."""

    loss: Tensor
    grad_norm: Tensor
    grads: dict[str, Tensor]
    posteriors: dict[str, Tensor]
    state: dict[str, Tensor]


def _run(space: str, parameters: dict[str, Tensor], state: dict[str, Tensor], forward) -> Trace:
    """Twelve steps; `forward(step)` gives (loss, mu, log_sigma)."""
    optimizer = torch.optim.Adam(list(parameters.values()), lr=1e-3)
    losses, norms, grads, posteriors = [], [], {}, {}
    for step in range(STEPS):
        optimizer.zero_grad()
        loss, mu, log_sigma = forward(step)
        loss.backward()
        if step in (0, NOISY_STEPS):
            posteriors |= {f"mu{step}": mu.detach(), f"logsigma{step}": log_sigma.detach()}
            grads |= {f"grad{step}/{key}": p.grad.clone() for key, p in parameters.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(list(parameters.values()), 5.0).item())
        optimizer.step()
        losses.append(loss.item())
    final = {key: value.detach() for key, value in state.items()}
    as_tensor = [torch.tensor(values, dtype=torch.float64) for values in (losses, norms)]
    return Trace(*as_tensor, grads, posteriors, final)


def released_model(space: str, part: str) -> GinVae:
    model = GinVae(LAYOUTS[space], RECIPE)
    model.load_state_dict(load_golden(space, part))
    return model


@pytest.fixture(scope="module", params=SPACES)
def space(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def golden(space: str) -> Trace:
    steps = load_golden(space, "steps")
    posteriors = {key: steps[key] for key in ("mu0", "logsigma0", "mu6", "logsigma6")}
    grads, final = load_golden(space, "grads"), load_golden(space, "final")
    return Trace(steps["loss"], steps["grad_norm"], grads, posteriors, final)


@pytest.fixture(scope="module")
def twin(space: str) -> Trace:
    steps, model = load_golden(space, "steps"), ReleasedTwin(load_golden(space, "init"))
    return _run(space, model.parameters, model.state, lambda step: model.loss(*batch(steps, step)))


@pytest.fixture(scope="module")
def ours(space: str) -> Trace:
    steps, model = load_golden(space, "steps"), released_model(space, "init")

    def forward(step: int) -> tuple[Tensor, Tensor, Tensor]:
        adjacency, node_ops, noise = batch(steps, step)
        model.train(step < NOISY_STEPS)
        reconstruction = model(adjacency, node_ops, noise=noise)
        total, _ = objective(reconstruction, adjacency, node_ops, RECIPE)
        return total, reconstruction.mu, reconstruction.log_sigma

    return _run(space, dict(model.named_parameters()), model.state_dict(), forward)


def assert_same(actual: Trace, expected: Trace) -> None:
    assert_close(actual.loss, expected.loss, **SAME)
    assert_close(actual.grad_norm, expected.grad_norm, **SAME)
    for name in ("grads", "posteriors"):
        wanted = getattr(expected, name)
        for key, value in getattr(actual, name).items():
            assert_close(value, wanted[key], **SAME, msg=lambda text, key=key: f"{key}: {text}")


def test_twelve_steps_match_the_twin(ours: Trace, twin: Trace) -> None:
    assert_same(ours, twin)
    for key, value in twin.state.items():
        if not key.endswith("num_batches_tracked"):
            assert_close(ours.state[key], value, **SAME)


def test_twelve_steps_match_the_golden_file(ours: Trace, twin: Trace, golden: Trace) -> None:
    departure = (twin.loss - golden.loss).abs().max().item()
    if departure > SAME["atol"]:
        pytest.skip(f"torch adds in another order here: the twin is {departure:.0e} off by step 11")
    assert_same(ours, golden)
    for key, value in golden.state.items():
        assert_close(ours.state[key], value, **SAME)


def test_first_step_matches_the_golden_file_on_any_cpu(ours: Trace, golden: Trace) -> None:
    assert_close(ours.loss[:2], golden.loss[:2], **OTHER_KERNELS)
    assert_close(ours.grad_norm[0], golden.grad_norm[0], **REORDERED_NORM)
    for key in ("mu0", "logsigma0"):
        assert_close(ours.posteriors[key], golden.posteriors[key], **OTHER_KERNELS)
    for key, value in golden.grads.items():
        if key.startswith("grad0/"):
            assert_close(ours.grads[key], value, **REORDERED_GRAD)


def test_batch_statistics_count_only_training_steps(ours: Trace) -> None:
    counts = [v.item() for key, v in ours.state.items() if key.endswith("num_batches_tracked")]
    assert counts == [NOISY_STEPS] * 8


def test_final_weights_embed_and_decode_as_released(space: str) -> None:
    steps, model = load_golden(space, "steps"), released_model(space, "final").eval()
    adjacency, node_ops = steps["adjacency"].float(), steps["node_ops"].float()
    with torch.no_grad():
        mu, _ = model.encode(adjacency, node_ops)
        decoded = model.decode(mu[:64])
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    assert_close(model.readout(mu, node_ops), steps["embed_mean_pool"], **tolerance)
    assert_close(mu[:64], steps["mu_final"], **tolerance)
    assert_close(decoded.node_logits.sigmoid(), steps["node_prob"], **tolerance)
    assert_close(decoded.edge_logits.sigmoid().triu(1), steps["adj_prob_upper"], **tolerance)


def _step(
    model: GinVae, cells: tuple[Tensor, Tensor, Tensor | None]
) -> tuple[Tensor, list[Tensor]]:
    adjacency, node_ops, noise = cells
    model.train(noise is not None)
    model.zero_grad()
    reconstruction = model(adjacency, node_ops, noise=noise)
    loss, _ = objective(reconstruction, adjacency, node_ops, RECIPE)
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize(("part", "step"), [("init", 0), ("final", NOISY_STEPS)])
def test_order_of_cells_in_a_batch_hardly_matters_for_one_step(
    space: str, part: str, step: int, generator: torch.Generator
) -> None:
    model, cells = released_model(space, part), batch(load_golden(space, "steps"), step)
    loss, grads = _step(model, cells)
    norm = torch.stack([grad.norm() for grad in grads]).norm()
    for _ in range(5):
        order = torch.randperm(len(cells[0]), generator=generator)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        permuted = tuple(None if value is None else value[order] for value in cells)
        other_loss, other_grads = _step(model, permuted)
        model.load_state_dict(state)
        assert_close(other_loss, loss, **REORDERED_LOSS)
        other_norm = torch.stack([grad.norm() for grad in other_grads]).norm()
        assert_close(other_norm, norm, **REORDERED_NORM)
        for other, grad in zip(other_grads, grads, strict=True):
            assert_close(other, grad, **REORDERED_GRAD)


@pytest.mark.parametrize(
    ("name", "count"), [("nasbench101", 122_617), ("nasbench201", 122_907), ("darts", 123_487)]
)
def test_parameter_counts_and_state_dict_keys_are_the_released_ones(name: str, count: int) -> None:
    model = GinVae(LAYOUTS[name], RECIPE)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert len(list(model.parameters())) == 39
    keys = list(model.state_dict())
    assert len(keys) == 63
    assert keys == list(load_golden("nasbench101", "init"))
    order = [key for key in keys if "running_" not in key and "num_batches" not in key]
    assert [key for key, _ in model.named_parameters()] == order


def test_encoder_is_permutation_equivariant(space: str, generator: torch.Generator) -> None:
    model = released_model(space, "final").double().eval()
    adjacency, node_ops, _ = batch(load_golden(space, "steps"), 0)
    adjacency, node_ops = adjacency.double(), node_ops.double()
    order = torch.randperm(adjacency.shape[1], generator=generator)
    mu, log_sigma = model.encode(adjacency, node_ops)
    moved = model.encode(adjacency[:, order][:, :, order], node_ops[:, order])
    assert_close(moved[0], mu[:, order], rtol=1e-10, atol=1e-12)
    assert_close(moved[1], log_sigma[:, order], rtol=1e-10, atol=1e-12)
    pooled = model.readout(moved[0], node_ops[:, order])
    assert_close(pooled, model.readout(mu, node_ops), rtol=1e-10, atol=1e-12)


def test_gradient_reaches_every_parameter(space: str) -> None:
    model = released_model(space, "init")
    _step(model, batch(load_golden(space, "steps"), 0))
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        # A bias in front of batch norm has no effect in training mode.
        if not key.endswith(("linears.0.bias", "linears.1.bias")):
            assert parameter.grad.abs().max() > 0, key


def test_float64_runs_and_agrees_with_float32_where_sigmoids_do_not_saturate(space: str) -> None:
    model = released_model(space, "final")
    cells = batch(load_golden(space, "steps"), NOISY_STEPS)
    loss, _ = _step(model, cells)
    exact, grads = _step(model.double(), (cells[0].double(), cells[1].double(), None))
    assert all(grad.dtype == torch.float64 for grad in grads)
    assert_close(exact, loss.double(), rtol=1e-5, atol=1e-6)

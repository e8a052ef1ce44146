# SPDX-License-Identifier: Apache-2.0
"""The fused training step against its plain twin, over the options that change it."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from arch2vec_fast import _library, _philox, functional, reference
from arch2vec_fast._gin_train import GinTrainBuffers, GinTrainConfig
from arch2vec_fast.spaces import CellLayout

LAYOUT = CellLayout(5, 3)
PLAIN = GinTrainConfig(
    layout=LAYOUT,
    num_classes=3,
    hidden_dim=24,
    latent_dim=6,
    num_layers=2,
    num_mlp_layers=2,
    logits=True,
    dropout=0.3,
)
# Every option at least once on and once off, in both modes, with sizes that fill no panel evenly.
CONFIGS = {
    "plain": PLAIN,
    "frozen": replace(PLAIN, batch_mode=False),
    "no-dropout": replace(PLAIN, dropout=0.0),
    "autoencoder": replace(PLAIN, variational=False, num_mlp_layers=1),
    "autoencoder-frozen": replace(PLAIN, variational=False, batch_mode=False, gated=True),
    "gated": replace(PLAIN, gated=True, num_layers=3, hidden_dim=16),
    "elbo": replace(PLAIN, elbo=True, beta=0.05, bilinear=True),
    "softmax": replace(PLAIN, softmax=True, position_bias=True),
    "absent": replace(PLAIN, softmax=True, num_classes=4, latent_dim=16, batch_mode=False),
    "mixer": replace(PLAIN, node_mixing=21, latent_dim=19, num_layers=1, num_mlp_layers=4),
    "best": replace(
        *(PLAIN,),
        gated=True,
        node_mixing=32,
        bilinear=True,
        position_bias=True,
        softmax=True,
        num_classes=4,
        elbo=True,
        beta=0.05,
        dropout=0.0,
        latent_dim=16,
        hidden_dim=32,
    ),
    "many-types": replace(
        *(PLAIN,), layout=CellLayout(16, 40), num_classes=41, softmax=True, num_layers=2
    ),
    "deep": replace(PLAIN, num_layers=8, hidden_dim=17, num_mlp_layers=3, batch_mode=False),
    # More than four panels of states, more than one of latents and of classes, a clipped gradient.
    "wide": replace(
        *(PLAIN,),
        layout=CellLayout(6, 20),
        gated=True,
        node_mixing=33,
        bilinear=True,
        position_bias=True,
        softmax=True,
        num_classes=21,
        elbo=True,
        beta=0.05,
        latent_dim=19,
        hidden_dim=72,
        grad_clip=0.5,
    ),
}
# Float32 against float64 over a few steps from equal states, measured 2e-7 of the largest entry;
# the gradients of biases before a batch norm are rounding noise, which Adam blows up to a step.
CLOSE = 2e-5
REPEATABLE = ("parameters", "exp_avg", "exp_avg_sq", "running")


class Call:
    """Arguments of a call on random cells; `run` leaves the originals alone."""

    def __init__(
        self, config: GinTrainConfig, cells: int = 17, batch: int = 7, models: int = 1
    ) -> None:
        generator = torch.Generator().manual_seed(1)
        self.config, self.batch = config, batch
        self.codes = random_codes(config.layout, 30, generator)
        self.order = torch.randint(30, (models, cells), generator=generator)
        steps = -(-cells // batch)
        self.rate = torch.linspace(1e-3, 2e-3, steps, dtype=torch.float64)
        self.seed = torch.arange(models) + 2**40
        self.buffers = GinTrainBuffers.zeros(config, models)
        self.buffers.parameters.uniform_(-0.3, 0.3, generator=generator)
        self.buffers.exp_avg.normal_(generator=generator).mul_(1e-3)
        self.buffers.exp_avg_sq.uniform_(1e-6, 1e-4, generator=generator)
        self.buffers.running.uniform_(0.5, 2, generator=generator)

    def run(self, module=functional, dtype=torch.float32, **given) -> dict[str, Tensor]:
        buffers = GinTrainBuffers(*(buffer.to(dtype, copy=True) for buffer in self.buffers))
        arguments = (buffers, self.codes, self.order, self.rate, self.seed, self.config)
        losses, moments = module.gin_train(
            *arguments, **{"batch_size": self.batch, "first_step": 3, **given}
        )
        return {"losses": losses, "moments": moments, **buffers._asdict()}


def random_codes(layout: CellLayout, count: int, generator: torch.Generator) -> Tensor:
    """Cells with any edges and any labels, absent ones among them, most of them no valid cells."""
    bits = torch.randint(2, (count, 64 * layout.words), generator=generator)
    labels = torch.randint(layout.num_op_types + 1, (count, layout.num_nodes), generator=generator)
    fields = (labels[..., None] >> torch.arange(layout.op_bits)) & 1
    bits[:, layout.edge_bits : layout.num_bits] = fields.flatten(1)
    bits[:, layout.num_bits :] = 0
    return (bits.view(count, layout.words, 64) << torch.arange(64)).sum(2)


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        scale = float(value.abs().max())
        error = float((actual[name].double() - value.double()).abs().max())
        assert error <= CLOSE * scale, f"{name}: differs by {error:.3g} at a scale of {scale:.3g}"


@pytest.mark.parametrize("name", CONFIGS)
def test_matches_reference(name: str) -> None:
    call = Call(CONFIGS[name])
    assert_near(call.run(), call.run(reference, torch.float64))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_mode", [True, False])
def test_matches_reference_over_many_tiles(batch_mode: bool, threads: int) -> None:
    """More cells a thread than the mixer takes at once (48), and a short last step."""
    call = Call(replace(CONFIGS["wide"], batch_mode=batch_mode), cells=190, batch=160)
    expected = call.run(reference, torch.float64)
    torch.set_num_threads(threads)
    assert_near(call.run(), expected)


@pytest.mark.parametrize("batch_mode", [True, False])
def test_saturates_as_the_float32_twin(batch_mode: bool) -> None:
    """Logits on both sides of where a float32 sigmoid reaches one (SEMANTICS: probabilities)."""
    config = replace(PLAIN, logits=False, batch_mode=batch_mode, num_layers=1)
    call = Call(config, cells=7)
    call.buffers.parameters.mul_(3)
    fused, twin = call.run(), call.run(reference)
    assert float(fused["losses"][0, 0, 2]) > 3  # some edge sits at the clamp
    assert_near(fused, twin)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("models", [1, 2, 4])
@pytest.mark.parametrize("name", ["best", "frozen"])
def test_threads_and_models(name: str, models: int, threads: int) -> None:
    """Any number of threads, more than cells in a step included, and bitwise repeatable."""
    call = Call(CONFIGS[name], cells=10, batch=8, models=models)
    expected = call.run(reference, torch.float64)
    torch.set_num_threads(threads)
    first, second = call.run(), call.run()
    assert_near(first, expected)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_steps_in_one_call_are_steps_one_by_one() -> None:
    call = Call(CONFIGS["best"], cells=20, batch=8)
    whole = call.run()
    buffers = GinTrainBuffers(*(buffer.clone() for buffer in call.buffers))
    losses = []
    for step, order in enumerate(call.order.split(call.batch, 1)):
        values, _ = functional.gin_train(
            *(buffers, call.codes, order.contiguous(), call.rate[step : step + 1], call.seed),
            *(call.config,),
            batch_size=call.batch,
            first_step=3 + step,
        )
        losses.append(values)
    assert torch.equal(torch.cat(losses, 1), whole["losses"])
    for name, buffer in buffers._asdict().items():
        assert torch.equal(buffer, whole[name])


def test_given_noise_and_mask_equal_drawn_ones() -> None:
    """Philox of the kernels against Philox in torch's integers, to the bit."""
    call = Call(PLAIN, cells=17, batch=7)
    size = LAYOUT.num_nodes * PLAIN.latent_dim
    noise, keep = [], []
    for step, batch in enumerate((7, 7, 3)):
        seed = int(call.seed[0])
        noise.append(_philox.normals(seed, 3 + step, batch * size))
        keep.append(_philox.keep_mask(seed, 3 + step, batch * size, PLAIN.dropout))
    shape = (1, 17, LAYOUT.num_nodes, PLAIN.latent_dim)
    given = {"noise": torch.cat(noise).view(shape), "keep": torch.cat(keep).byte().view(shape)}
    drawn, injected = call.run(), call.run(**given)
    for name, value in drawn.items():
        assert torch.equal(value, injected[name]), name
    assert 0.6 < float(given["keep"].float().mean()) < 0.8
    assert abs(float(given["noise"].mean())) < 0.2


def digest() -> str:
    """Losses of some calls, rounded to what levels may differ by."""
    values = [Call(CONFIGS[name], cells=11).run()["losses"] for name in ("best", "wide", "deep")]
    return " ".join(f"{float(value.double().sum()):.4f}" for value in values)


def test_simd_levels_agree() -> None:
    """This process's level against all lower ones, each in a process of its own."""
    levels = ["scalar", "avx2", "avx512"]
    code = "import test_gin_train; print(test_gin_train.digest())"
    for level in levels[: levels.index(_library.simd_level())]:
        process = subprocess.run(
            [sys.executable, "-c", code],
            env={"A2V_SIMD": level, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        there = [float(word) for word in process.stdout.split()]
        here = [float(word) for word in digest().split()]
        assert there == pytest.approx(here, rel=1e-4), level


def test_changes_views_and_bumps_versions() -> None:
    call = Call(PLAIN)
    weight = call.config.split(call.buffers.parameters[0])["mu.weight"]
    before, version = weight.clone(), weight._version
    functional.gin_train(
        *(call.buffers, call.codes, call.order, call.rate, call.seed, call.config),
        batch_size=call.batch,
    )
    assert not torch.equal(weight, before)
    assert weight._version > version


def test_opcheck() -> None:
    call = Call(CONFIGS["best"], cells=9)
    torch.library.opcheck(
        torch.ops.arch2vec_fast.gin_train.default,
        (
            *(*call.buffers, call.codes, call.order, call.rate, call.seed, None, None),
            *(call.batch, 0, call.config.sizes, call.config.settings),
        ),
    )


def test_compile_fullgraph() -> None:
    call = Call(PLAIN)

    def train(buffers: GinTrainBuffers) -> Tensor:
        losses, _ = functional.gin_train(
            *(buffers, call.codes, call.order, call.rate, call.seed, call.config),
            batch_size=call.batch,
            first_step=3,
        )
        return losses * 2

    buffers = GinTrainBuffers(*(buffer.clone() for buffer in call.buffers))
    compiled = torch.compile(train, fullgraph=True, backend="aot_eager")
    eager = call.run()
    assert torch.equal(compiled(buffers), eager["losses"] * 2)
    assert torch.equal(buffers.parameters, eager["parameters"])


@pytest.mark.parametrize("module", [functional, reference])
def test_rejects_arguments_that_do_not_fit(module) -> None:
    call = Call(PLAIN)
    good = dict(
        zip(("codes", "order", "rate", "seed"), (call.codes, call.order, call.rate, call.seed))
    )

    def run(buffers: GinTrainBuffers = call.buffers, **changed) -> None:
        values = {**good, **changed}
        module.gin_train(buffers, *values.values(), call.config, batch_size=call.batch)

    for message, error, changed in [
        ("order: expected shape", ValueError, {"order": call.order[0]}),
        ("has no cells to train on", ValueError, {"order": call.order[:, :0]}),
        ("order: expected torch.int64", TypeError, {"order": call.order.int()}),
        ("learning_rate: expected shape", ValueError, {"rate": call.rate[:1]}),
        ("seed: expected shape", ValueError, {"seed": call.seed.repeat(2)}),
        ("codes: expected shape", ValueError, {"codes": call.codes.repeat(1, 2)}),
        ("parameters: expected shape", ValueError, {"buffers": replaced(call, [1, 7])}),
    ]:
        with pytest.raises(error, match=message):
            run(**changed)
    for message, error, changed in [
        ("order: 30 is not a row of the 30 codes", ValueError, {"order": call.order * 0 + 30}),
        ("order: -1 is not a row of the 30 codes", ValueError, {"order": call.order * 0 - 1}),
        ("order: expected a tensor, got list", TypeError, {"order": [[0]]}),
        ("learning_rate: expected a tensor, got float", TypeError, {"rate": 1e-3}),
    ]:
        with pytest.raises(error, match=message):
            run(**changed)
    for name, value, error, message in [
        ("batch_size", 7.0, TypeError, "batch_size: expected an int, got float"),
        ("batch_size", 0, ValueError, "batch_size: 0 is below 1"),
        ("first_step", -1, ValueError, "first_step: -1 is below 0"),
        ("keep", [1], TypeError, "keep: expected a tensor, got list"),
    ]:
        with pytest.raises(error, match=message):
            call.run(module, **{name: value})
    live = GinTrainBuffers(call.buffers.parameters.clone().requires_grad_(), *call.buffers[1:])
    with pytest.raises(ValueError, match="parameters: requires a gradient"):
        run(live)


def replaced(call: Call, shape: list[int]) -> GinTrainBuffers:
    return call.buffers._replace(parameters=torch.zeros(shape))


def test_rejects_cells_before_anything_changes() -> None:
    call = Call(PLAIN)
    before = [buffer.clone() for buffer in call.buffers]
    call.order[0, -1] = 30
    arguments = (call.buffers, call.codes, call.order, call.rate, call.seed, call.config)
    with pytest.raises(ValueError, match="order: 30 is not a row of the 30 codes"):
        functional.gin_train(*arguments, batch_size=call.batch)
    call.order[0, -1] = 5
    call.codes[5] = -1
    with pytest.raises(ValueError, match="codes: cell 5 is not a cell of 5 nodes and 3 operation"):
        functional.gin_train(*arguments, batch_size=call.batch)
    assert all(torch.equal(*pair) for pair in zip(before, call.buffers))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_layers", 9, "num_layers: 9 is outside 1..8"),
        ("num_mlp_layers", 5, "num_mlp_layers: 5 is outside 1..4"),
        ("num_classes", 4, "only a softmax knows one more"),
        ("hidden_dim", 0, "hidden_dim: 0 is below 1"),
        ("node_mixing", -1, "node_mixing: -1 is below 0"),
        ("latent_dim", 1.5, "latent_dim: expected an int, got float"),
        ("dropout", 1.0, "dropout must lie in"),
        ("beta", torch.nan, "beta not negative"),
    ],
)
def test_rejects_configurations(field: str, value: float, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        replace(PLAIN, **{field: value})


def test_losses_that_are_lost_are_handed_on() -> None:
    call = Call(PLAIN, cells=7)
    call.buffers.parameters[0, 40] = torch.nan
    assert torch.isnan(call.run()["losses"]).any()


def test_random_numbers() -> None:
    """Known-answer tests of Random123 (Salmon et al.) for philox4x32-10."""
    blocks = torch.tensor([0])
    words = _philox.philox(0, 0, 0, blocks)[0].tolist()
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    # All counter and key bits set; our stream is the counter's last word.
    ones = 2**64 - 1
    words = _philox.philox(ones, ones, 2**32 - 1, torch.tensor([2**32 - 1]))[0].tolist()
    assert words == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    values = _philox.normals(3, 5, 40_001)
    assert abs(float(values.mean())) < 0.02
    assert abs(float(values.std()) - 1) < 0.02

# SPDX-License-Identifier: Apache-2.0
"""The training kernel on the GPU against the plain twin. Its schedules, sizes and bounds are tested
without a GPU in tests/cuda_on_cpu/gin_train_test.cpp.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from arch2vec_fast import functional, reference
from arch2vec_fast._gin_train import GinTrainBuffers, GinTrainConfig
from arch2vec_fast.spaces import CellLayout
from test_gin_train import PLAIN, Call, assert_near

pytestmark = pytest.mark.cuda

SMALL = replace(PLAIN, hidden_dim=32)
RELEASED = GinTrainConfig(
    layout=CellLayout(7, 5),
    num_classes=5,
    hidden_dim=128,
    latent_dim=16,
    num_layers=4,
    num_mlp_layers=2,
    logits=True,
    dropout=0.3,
)
BEST = replace(
    *(RELEASED,),
    num_classes=6,
    node_mixing=256,
    gated=True,
    bilinear=True,
    position_bias=True,
    softmax=True,
    elbo=True,
    beta=0.05,
    dropout=0.0,
)
CONFIGS = {
    "small": SMALL,
    "frozen": replace(SMALL, batch_mode=False),
    "autoencoder": replace(SMALL, variational=False, num_mlp_layers=1),
    "wide": replace(SMALL, hidden_dim=256, node_mixing=21, latent_dim=19, num_layers=1),
    "many-types": replace(SMALL, layout=CellLayout(16, 40), num_classes=41, softmax=True),
    "released": RELEASED,
    "released-frozen": replace(RELEASED, batch_mode=False),
    "best": BEST,
    "nasbench201": replace(BEST, layout=CellLayout(8, 7), num_classes=8),
    "darts": replace(BEST, layout=CellLayout(11, 11), num_classes=12),
}


class CudaCall(Call):
    """The same call with its tensors on the GPU; results come back to the CPU."""

    def run(self, module=functional, dtype=torch.float32, **given) -> dict[str, Tensor]:
        if module is not functional:
            return super().run(module, dtype, **given)
        moved = Call.__new__(Call)
        vars(moved).update(
            {
                name: value.cuda() if isinstance(value, Tensor) else value
                for name, value in vars(self).items()
            }
        )
        moved.buffers = GinTrainBuffers(*(buffer.cuda() for buffer in self.buffers))
        given = {
            name: value.cuda() if isinstance(value, Tensor) else value
            for name, value in given.items()
        }
        result = moved.run(module, dtype, **given)
        return {name: value.cpu() for name, value in result.items()}


# Not 7: with these numbers one input of a ReLU is 1.5e-7, rounding decides its sign, and the
# gradient jumps by half a per cent.
@pytest.mark.parametrize("batch", [1, 9, 32, 300, 1024])
@pytest.mark.parametrize("name", CONFIGS)
def test_matches_reference(name: str, batch: int) -> None:
    """From one cell a block to several chunks of cells a block, and a smaller last batch."""
    if batch == 1 and CONFIGS[name].batch_mode:
        pytest.skip("five rows make no batch statistics to speak of")
    call = CudaCall(CONFIGS[name], cells=2 * batch + batch // 2, batch=batch)
    assert_near(call.run(), call.run(reference, torch.float64))


@pytest.mark.parametrize("batch_mode", [True, False])
def test_models_side_by_side(batch_mode: bool) -> None:
    """Each as if it trained alone, up to the order of summation; more models than multiprocessors
    take turns."""
    config = replace(SMALL, batch_mode=batch_mode)
    for models in (3, 150):
        call = CudaCall(config, cells=17, batch=7, models=models)
        assert_near(call.run(), call.run(reference, torch.float64))


@pytest.mark.parametrize("name", ["released", "best"])
def test_deterministic(name: str) -> None:
    call = CudaCall(CONFIGS[name], cells=640, batch=32)
    first = call.run()
    for _ in range(3):
        for part, value in call.run().items():
            assert torch.equal(value, first[part]), part


def test_takes_injected_numbers() -> None:
    call = CudaCall(SMALL)
    generator = torch.Generator().manual_seed(2)
    shape = (*call.order.shape, SMALL.layout.num_nodes, SMALL.latent_dim)
    given = {
        "noise": torch.randn(shape, generator=generator),
        "keep": torch.randint(2, shape, generator=generator, dtype=torch.uint8),
    }
    assert_near(call.run(**given), call.run(reference, torch.float64, **given))


def test_calls_of_any_length_agree() -> None:
    """The state between two calls is all there is: forty steps at once are forty single ones."""
    call = CudaCall(RELEASED, cells=40 * 32, batch=32)
    whole = call.run()
    parts = CudaCall(RELEASED, cells=40 * 32, batch=32)
    order, rate = parts.order, parts.rate
    for step in range(40):
        parts.order, parts.rate = order[:, 32 * step : 32 * step + 32], rate[step : step + 1]
        result = parts.run(first_step=3 + step)
        parts.buffers = GinTrainBuffers(*(result[name] for name in GinTrainBuffers._fields))
    for name in GinTrainBuffers._fields:
        assert torch.equal(result[name], whole[name]), name


def test_corrupt_cells_make_the_loss_nan() -> None:
    for config in (SMALL, replace(SMALL, softmax=True, num_classes=4)):
        call = CudaCall(config, cells=21, batch=7)
        call.order[0, 9] = len(call.codes)
        losses = call.run()["losses"]
        assert losses[0, :, 0].isnan().tolist() == [False, True, False]


def test_refuses_what_it_does_not_do() -> None:
    with pytest.raises(ValueError, match="hidden_dim: 24 is no multiple of 16"):
        CudaCall(PLAIN).run()


def test_cuda_graph() -> None:
    call = CudaCall(SMALL)
    expected = call.run()
    buffers = GinTrainBuffers(*(buffer.cuda() for buffer in call.buffers))
    arguments = [tensor.cuda() for tensor in (call.codes, call.order, call.rate, call.seed)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses, _ = functional.gin_train(
            buffers, *arguments, SMALL, batch_size=call.batch, first_step=3
        )
    graph.replay()
    assert torch.equal(losses.cpu(), expected["losses"])
    assert torch.equal(buffers.parameters.cpu(), expected["parameters"])

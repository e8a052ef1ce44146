# SPDX-License-Identifier: Apache-2.0
"""Devices that cannot serve, tensors of several devices, awkward memory: refused or right."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from arch2vec_fast import _checks, _library, functional, spaces
from arch2vec_fast.functional import GinShape, GinTrainBuffers, GinTrainConfig

LAYOUT = spaces.get("nasbench101").layout


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs of these compute capabilities, as far as torch can tell."""
    capability = {None: (8, 0), 0: (8, 0), 1: (7, 5)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capability[device.index]
    )
    _checks._capability.cache_clear()
    yield
    _checks._capability.cache_clear()


def test_a_torch_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        ValueError, match=r"here: torch \S+ is built without CUDA; choose from cpu$"
    ):
        _checks.check_device("cuda")


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check your GPU.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(ValueError, match="available here: Found no NVIDIA driver on") as caught:
        _checks.check_device("cuda:0")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    with pytest.raises(ValueError, match="torch sees no GPU"):
        _checks.check_device("cuda")


@pytest.mark.usefixtures("gpus")
def test_gpus_that_do_not_exist_or_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _checks.check_device("cuda:0") == torch.device("cuda:0")
    assert _checks.check_device("cuda") == torch.device("cuda")
    with pytest.raises(
        ValueError, match=r"cuda:2 is not available here; choose from cpu, cuda \(x2\)"
    ):
        _checks.check_device("cuda:2")
    with pytest.raises(ValueError, match="mps is not available here; choose from cpu, cuda"):
        _checks.check_device("mps")
    old = r": on cuda:1, a GPU of compute capability 7\.5, but the kernels need 8\.0; use the cpu$"
    with pytest.raises(ValueError, match=f"^device{old}"):
        _checks.check_device("cuda:1")
    name = f"{_library.NAMESPACE}gin_encode"
    monkeypatch.setattr(_library, "_cuda_operators", frozenset({name}))
    _checks.check_kernels("codes", tensor_on("cuda:0"), "gin_encode")
    with pytest.raises(ValueError, match=f"^codes{old}"):
        _checks.check_kernels("codes", tensor_on("cuda:1"), "gin_encode")


def tensor_on(device: str) -> Any:
    return SimpleNamespace(device=torch.device(device))


def encode(codes: torch.Tensor, elsewhere: str) -> None:
    shape = GinShape(layout=LAYOUT, hidden_dim=8, latent_dim=4, num_layers=2, num_mlp_layers=1)
    functional.gin_encode(codes, torch.zeros(shape.num_weights, device=elsewhere), shape)


def train(codes: torch.Tensor, elsewhere: str) -> None:
    config = GinTrainConfig(
        layout=LAYOUT, num_classes=5, hidden_dim=8, latent_dim=4, num_layers=1, num_mlp_layers=1
    )
    functional.gin_train(
        *(GinTrainBuffers.zeros(config), codes, torch.zeros(1, 3, dtype=torch.int64)),
        *(torch.zeros(1, dtype=torch.float64, device=elsewhere), torch.tensor([0]), config),
        batch_size=3,
    )


CALLS = {
    "gin_encode": lambda codes, d: encode(codes, d),
    "gin_train": lambda codes, d: train(codes, d),
    "nearest_latent": lambda codes, d: functional.nearest_latent(
        functional.pack_latents(torch.zeros(5, 2)), torch.zeros(3, 2, device=d), 1
    ),
    "gin_aggregate": lambda codes, d: functional.gin_aggregate(
        torch.zeros(3, 7, 2), torch.zeros(3, 7, 7, device=d)
    ),
    "inner_product_decode": lambda codes, d: functional.inner_product_decode(
        torch.zeros(3, 7, 2), bilinear=torch.zeros(2, 2, device=d)
    ),
    "inner_product_loss": lambda codes, d: functional.inner_product_loss(
        torch.zeros(3, 7, 2), torch.zeros(3, 7, 7, device=d)
    ),
    "dngo_fit": lambda codes, d: functional.dngo_fit(
        torch.zeros(1, 13), torch.zeros(1, 5, 1), torch.zeros(1, 5, device=d),
        torch.zeros(1, 2, 5, dtype=torch.int32),
    ),
    "dngo_evidence": lambda codes, d: functional.dngo_evidence(
        *(torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64)),
        torch.zeros(1, dtype=torch.float64, device=d),
        num_points=5,
        num_hidden=4,
    ),
    "dngo_acquire": lambda codes, d: functional.dngo_acquire(
        *(torch.zeros(9, 2), torch.zeros(1, 4, 2), torch.zeros(1, 4), torch.zeros(1, 4)),
        *(torch.zeros(1, 4, 4), torch.zeros(1), torch.zeros(1, device=d)),
        num_results=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_refuses_tensors_of_several_devices(name: str) -> None:
    codes = torch.zeros(3, LAYOUT.words, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"on meta.*(on|is on|are \S+ on) cpu.*(move|convert) one"):
        CALLS[name](codes, "meta")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_memory_that_is_not_aligned_or_not_contiguous_gives_the_same(
    device: str, generator: torch.Generator
) -> None:
    """A view that begins 4 bytes into its memory, where kernels read 16 at a time; a transpose."""
    points, queries = torch.randn(2, 40, 16, generator=generator).to(device)
    shape = GinShape(layout=LAYOUT, hidden_dim=32, latent_dim=16, num_layers=2, num_mlp_layers=1)
    weights = torch.randn(shape.num_weights, generator=generator).to(device)
    codes = spaces.get("nasbench101").enumerate()[:40].to_torch(device)
    edges = torch.rand(40, 4, 4, generator=generator).to(device)

    def results(change: Any) -> list[torch.Tensor]:
        packed = functional.pack_latents(change(points))
        nodes = change(points).reshape(40, 4, 4)
        return [
            *functional.nearest_latent(packed, change(queries), 3),
            functional.gin_encode(codes, change(weights), shape),
            functional.gin_aggregate(change(nodes), change(edges)),
            functional.inner_product_decode(change(nodes)),
        ]

    def shifted(tensor: torch.Tensor) -> torch.Tensor:
        moved = torch.empty(tensor.numel() + 1, device=device)[1:].view(tensor.shape)
        return moved.copy_(tensor)

    def transposed(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.movedim(0, -1).contiguous().movedim(-1, 0)

    expected = results(lambda tensor: tensor)
    for change in (shifted, transposed):
        for actual, wanted in zip(results(change), expected):
            assert torch.equal(actual, wanted)

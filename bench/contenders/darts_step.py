# SPDX-License-Identifier: Apache-2.0
"""One training step of a DARTS network on images at hand: ours, and the authors' loop body.

Both start from the same weights and see the same batch. A step is forward, loss, backward, clipping
and SGD, and what each loop says of it: ours keeps loss and hits on the device, theirs reads three
numbers. On the CPU the authors' `criterion.cuda()` is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch2vec_fast.darts import Network, draw_paths
from arch2vec_fast.darts.train import Speed
from arch2vec_fast.spaces.darts import DartsNetwork, Genotype

Step = Callable[[], object]

# The genotype that arch2vec-BO found, of both cells.
GENOTYPE = Genotype.from_items(
    "1:sep_conv_5x5|0:max_pool_3x3|0:skip_connect|1:dil_conv_3x3"
    "|1:sep_conv_5x5|0:sep_conv_3x3|2:dil_conv_5x5|0:sep_conv_3x3"
)
_CLASSES = 10
_GRAD_CLIP = 5


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained: a network's size, how many images of 32x32, and the CIFAR-10 extras."""

    channels: int
    layers: int
    batch: int
    auxiliary: bool = False
    drop_path: float = 0.0
    device: str = "cpu"

    def images(self) -> tuple[Tensor, Tensor]:
        """Normalised images float32 and their labels."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 3, 32, 32, generator=generator)
        labels = torch.randint(_CLASSES, (self.batch,), generator=generator)
        return images.to(self.device), labels.to(self.device)

    def network(self) -> Network:
        """With the same weights every time."""
        torch.manual_seed(0)
        size = DartsNetwork(
            channels=self.channels, layers=self.layers, classes=_CLASSES, stem="cifar"
        )
        return Network(GENOTYPE, size, auxiliary=self.auxiliary).to(self.device)


def our_step(task: Task, speed: Speed | None = None) -> Step:
    """As `darts.train` does it; the step returns loss, hits and top-5 hits on the device.

    A compiled one is compiled here, by one step.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inductor's own, from its import on
        return _our_step(task, speed)


def _our_step(task: Task, speed: Speed | None) -> Step:
    device = torch.device(task.device)
    speed = (speed or Speed()).resolve(device, task.channels)
    network, (images, labels) = task.network(), task.images()
    if speed.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    forward = torch.compile(network) if speed.compile else network
    optimizer = _sgd(network)
    generator = torch.Generator(device).manual_seed(0)

    def step() -> Tensor:
        paths = draw_paths(network, task.batch, task.drop_path, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=speed.bf16):
            logits, auxiliary = forward(images, paths)
            loss = F.cross_entropy(logits, labels)
            total = loss
            if auxiliary is not None:
                total = loss + 0.4 * F.cross_entropy(auxiliary, labels)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _GRAD_CLIP, foreach=True)
        optimizer.step()
        with torch.no_grad():
            hits = logits.topk(5).indices == labels[:, None]
            return torch.stack((loss, hits[:, 0].float().sum(), hits.float().sum()))

    if speed.compile:
        step()
    return step


def released_step(task: Task, reference: Path) -> Step:
    """The body of `train` in the clone's darts/cnn/train.py, on the clone's network.

    Its accuracy is written anew: `view` of what it views is an error in today's torch.
    """
    network = _released_network(task, reference)
    images, labels = task.images()
    criterion, optimizer = nn.CrossEntropyLoss(), _sgd(network)

    def step() -> tuple[float, float, float]:
        optimizer.zero_grad()
        logits, auxiliary = network(images)
        loss = criterion(logits, labels)
        if task.auxiliary:
            loss += 0.4 * criterion(auxiliary, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _GRAD_CLIP)
        optimizer.step()
        correct = logits.topk(5, 1, True, True)[1].t().eq(labels.view(1, -1))
        shares = [correct[:k].float().sum() * (100.0 / task.batch) for k in (1, 5)]
        return loss.item(), shares[0].item(), shares[1].item()

    return step


def _released_network(task: Task, reference: Path) -> Any:
    model = _import(reference, "darts.cnn.model")
    normal, reduce = GENOTYPE.normal, GENOTYPE.reduce
    genotype = mock.NonCallableMock(
        normal=normal, reduce=reduce, normal_concat=range(2, 6), reduce_concat=range(2, 6)
    )
    network = model.NetworkCIFAR(task.channels, _CLASSES, task.layers, task.auxiliary, genotype)
    network.load_state_dict(task.network().state_dict())
    network.drop_path_prob = task.drop_path
    return network.to(task.device).train()


def _import(reference: Path, name: str) -> ModuleType:
    """A module of the clone, which is forgotten again: its packages have everyday names."""
    if not (reference / (name.replace(".", "/") + ".py")).is_file():
        raise ValueError(f"reference: {reference} is no clone of MSU-MLSys-Lab/arch2vec")
    stubs = {}
    if importlib.util.find_spec("torchvision") is None:  # of its transforms nothing is used here
        stubs = {part: ModuleType(part) for part in ("torchvision", "torchvision.transforms")}
        stubs["torchvision"].transforms = stubs["torchvision.transforms"]  # type: ignore[attr-defined]
    else:
        importlib.import_module("torchvision.transforms")
    with (
        mock.patch.dict(sys.modules, stubs),
        mock.patch.object(sys, "path", [str(reference), *sys.path]),
    ):
        return importlib.import_module(name)


def _sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)

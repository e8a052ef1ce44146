# SPDX-License-Identifier: Apache-2.0
"""The processes that share one piece of work: which of them this one is, and what they exchange.

`torchrun` starts them and torch.distributed connects them. One process is the ordinary case, in
which nothing is exchanged, so the code above asks no questions. Sums are the same bits on every
process, which keeps what is computed from them the same too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from arch2vec_fast._checks import check_device

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's place: rank 0 .. size - 1, and the device that it exchanges tensors on.

    Every method but `share` is collective: all processes must call it, in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (immutable)

    @classmethod
    def current(cls, device: str | torch.device = "cpu") -> Processes:
        """Those of torch.distributed's default group, where one is initialised; else this alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), torch.device(device))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks to people."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` things in a row; none is longer than the first's."""
        return slice(*(-(-count * rank // self.size) for rank in (self.rank, self.rank + 1)))

    def sum_(self, tensor: Tensor) -> Tensor:
        """Adds up a contiguous tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Overwrites a contiguous tensor by that of the first process, in place."""
        if self.size > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.size == 1:
            return flag
        return bool(self.sum_(torch.tensor([int(flag)], device=self.device)).item())

    def wait(self) -> None:
        """Returns once all processes have come here."""
        self.any(False)

    def on_first(self, call: Callable[[], Result]) -> Result:
        """The result of `call()`, which runs on the first process only; its error is all's."""
        if self.size == 1:
            return call()
        answer: list[Result | Exception | None] = [None]
        if self.first:
            try:
                answer[0] = call()
            except Exception as error:
                answer[0] = error
        dist.broadcast_object_list(answer, 0, device=self.device)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]  # type: ignore[return-value]


def launched() -> int:
    """How many processes torchrun has started, this one included; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextmanager
def joined(device: str | torch.device) -> Iterator[Processes]:
    """Connects the processes that torchrun has started, for the length of the block.

    device: "cpu" (gloo), or "cuda", of which the process with local rank r takes GPU r (NCCL).
    Raises ValueError for a GPU by number, and for more processes on a machine than GPUs.
    """
    device = check_device(device)
    if launched() == 1:
        yield Processes()
        return
    if device.type == "cuda":
        _take_gpu(device)
    gpu = device.type == "cuda" and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    try:
        yield Processes.current(device)
    finally:
        dist.destroy_process_group()


def _take_gpu(device: torch.device) -> None:
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.index is not None:
        raise ValueError(f"device: {device} would be every process's; give cuda, one GPU is each's")
    if int(os.environ["LOCAL_WORLD_SIZE"]) > count:
        raise ValueError(
            f"device: {os.environ['LOCAL_WORLD_SIZE']} processes share {count} GPUs here; "
            f"start torchrun with --nproc-per-node {count}"
        )
    torch.cuda.set_device(local)

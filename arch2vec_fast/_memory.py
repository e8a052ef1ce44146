# SPDX-License-Identifier: Apache-2.0
"""Running out of memory, told in one line: which argument to lower, and how far.

What a call needs is not checked beforehand, because asking a GPU for its free memory waits for the
device. Where an allocation has failed there is time to count.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# Texts of torch, of the C++ library, and of torch's stable interface, which keeps the reason to
# itself: what fails there behind our own checks is memory.
_SIGNS = (
    *("out of memory", "can't allocate memory", "not enough memory", "bad_alloc"),
    *('"aten::new_empty"', "torch_parallel_for("),
)
_USABLE = 0.9  # of what is free: the rest goes to fragments


@contextmanager
def counted_memory(
    argument: str,
    count: int,
    each: float,
    device: str | torch.device,
    *,
    otherwise: str = "",
) -> Iterator[None]:
    """Turns a failed allocation in the block into a MemoryError that says what would fit.

    argument: what the caller may lower, now `count`, of which every one takes about `each` bytes
    on `device`. otherwise: another way out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free = free_bytes(torch.device(device))
        # Where the count says it should have fitted, less is still the way.
        fits = min(int(_USABLE * free / each), count // 2)
        fix = f"use at most {_rounded_down(fits)}" if fits else "not even one fits: free memory"
        raise MemoryError(
            f"{argument}: {count} need about {_readable(count * each)} on {device}, "
            f"{_readable(free)} are free; {fix}{otherwise}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, whoever says so in whatever words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had there; on a GPU, what torch holds and does not use included."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    table = Path("/proc/meminfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _rounded_down(count: int) -> int:
    """Two digits, which is what an estimate is worth."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit


def _readable(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"

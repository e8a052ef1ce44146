# SPDX-License-Identifier: Apache-2.0
"""Two processes connected by gloo, for tests of what they do together."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

from arch2vec_fast._processes import Processes

Tensors = dict[str, torch.Tensor]
Work = Callable[[Processes], Tensors]
ROOT = Path(__file__).resolve().parent.parent


def on_two_processes(works: dict[str, Work]) -> dict[str, list[Tensors]]:
    """Each `work(processes)` in two processes, one after the other; what each process returned.

    All in one go, because two processes take seconds to import torch.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (works, folder), nprocs=2)
        first, second = (torch.load(Path(folder) / f"{rank}.pt") for rank in range(2))
        return {name: [first[name], second[name]] for name in works}


def _process(rank: int, works: dict[str, Work], folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        processes = Processes.current()
        results = {name: work(processes) for name, work in works.items()}
        torch.save(results, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def start_torchrun(count: int, *arguments: str) -> subprocess.Popen[str]:
    """The command `arch2vec-fast` in `count` processes."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "arch2vec_fast.cli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_torchrun(count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`start_torchrun`, waited for."""
    with start_torchrun(count, *arguments) as process:
        output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

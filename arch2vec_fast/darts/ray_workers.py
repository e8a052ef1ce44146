# SPDX-License-Identifier: Apache-2.0
"""Trainings side by side on the processes of a Ray cluster: one GPU each, or one CPU core."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import Any

import torch

from arch2vec_fast._machine import usable_cores
from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.train import TrainResult
from arch2vec_fast.darts.trained import Diverged, Job, Outcome, Workers, train_job

__all__ = ["ray_workers"]

_SECONDS = 5.0  # to wait for a cluster's answer
_TICK_SECONDS = 1.0  # between looks at what other processes did


def ray_workers(
    num_workers: int, *, address: str | None = None, device: str | torch.device = "cpu"
) -> Workers:
    """Workers of `TrainedBenchmark`: at most `num_workers` trainings at once.

    address: of a running cluster, HOST:PORT, ray://HOST:PORT or auto; None starts Ray on this
    machine. device: "cuda" gives each training a GPU of its own, "cpu" one core; of a cluster, its
    GPUs and cores count, and this machine needs none. Trainings that are kept in directories need a
    disk that the machines of a cluster share.

    A worker that dies fails its training, which is tried again; what a training raises is raised
    here. Answers do not depend on the number of workers or on the order in which they end. Raises
    ImportError where Ray is not installed, ValueError for more workers than there are GPUs or
    cores, OSError within seconds where no Ray answers at `address`.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise ImportError("workers: need Ray; install arch2vec-fast[ray]") from None
    if num_workers < 1:
        raise ValueError(f"workers: {num_workers} is below 1")
    if str(device) not in ("cpu", "cuda"):
        raise ValueError(
            f"device: {device} is neither cpu nor cuda, which gives each worker a GPU of its own"
        )
    resource = "GPU" if str(device) == "cuda" else "CPU"
    if not ray.is_initialized():
        if address is None:
            here = torch.cuda.device_count() if resource == "GPU" else usable_cores()
            _check_number(num_workers, here, resource, "this machine")
        _start(ray, address, num_workers)
    available = int(ray.cluster_resources().get(resource, 0))
    _check_number(num_workers, available, resource, "the cluster")
    needs = {"num_gpus": 1} if resource == "GPU" else {"num_cpus": 1}
    return _RayWorkers(ray, needs, num_workers, str(device))


def _check_number(num_workers: int, available: int, resource: str, where: str) -> None:
    if num_workers > available:
        fix = f"ask for at most {available}" if available else "use the cpu"
        raise ValueError(
            f"workers: {num_workers} trainings at once, but {where} has {available} {resource}s; "
            f"{fix}"
        )


def _start(ray: Any, address: str | None, num_cpus: int) -> None:
    """Start Ray here, or connect to a cluster; what goes wrong is one line."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address not in (None, "auto", "local"):
        _check_answers(str(address))
    options = {"num_cpus": num_cpus} if address is None else {}
    try:
        # Not None, which is $RAY_ADDRESS where that is set.
        ray.init(
            address=address or "local", include_dashboard=False, log_to_driver=False, **options
        )
    except Exception as error:  # of a dozen kinds
        reason = " ".join(str(error).split())[:300]
        what = "Ray does not start here" if address is None else f"no Ray cluster at {address}"
        raise OSError(f"ray-address: {what} ({reason})") from None


# What opens an HTTP/2 connection: the preface and an empty frame of settings.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def _check_answers(address: str) -> None:
    """OSError within seconds where nothing at `address` speaks Ray's protocol (gRPC).

    Ray itself waits for minutes, then ends the process.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(
            f"ray-address: {address!r} is none; give HOST:PORT, ray://HOST:PORT or auto"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            connection.settimeout(_SECONDS)
            connection.sendall(_GREETING)
            answer = connection.recv(4, socket.MSG_WAITALL)
    except (OSError, OverflowError) as error:
        raise OSError(
            f"ray-address: nothing answers at {address} ({error}); is the cluster up?"
        ) from None
    if answer[3:] != b"\4":  # the type of a frame of settings
        raise OSError(f"ray-address: what answers at {address} is not Ray; check the port")


@dataclass(frozen=True, slots=True)
class _RayWorkers:
    """Workers of `TrainedBenchmark` on a cluster that runs."""

    ray: Any  # the module
    needs: Mapping[str, int]  # of one training
    at_once: int
    device: str

    def __call__(
        self, jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome | None]:
        ray, jobs = self.ray, iter(jobs)
        remote = ray.remote(**self.needs, max_retries=0)(_train_remote)
        shared = ray.put(images)
        running: dict[Any, Job] = {}
        try:
            while True:
                for job in islice(jobs, self.at_once - len(running)):
                    if job.out is not None:
                        job.out.parent.mkdir(parents=True, exist_ok=True)
                    running[remote.remote(job, shared, recipe, seed, self.device)] = job
                if not running:
                    return
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_TICK_SECONDS)
                if not ready:
                    yield None
                    continue
                job = running.pop(ready[0])
                yield job, self._outcome(ready[0])
        finally:  # interrupted: nobody waits for these any more
            if ray.is_initialized():
                for reference in running:
                    ray.cancel(reference, force=True)

    def _outcome(self, reference: Any) -> TrainResult | Diverged | str:
        """Of a training that ended; what it raised is raised here, a lost worker is a reason."""
        try:
            outcome: TrainResult | Diverged | str = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            return " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return outcome


def _train_remote(
    job: Job, images: ImageSet, recipe: TrainRecipe, seed: int, device: str
) -> object:
    if job.out is not None and not job.out.parent.is_dir():
        raise ValueError(
            f"out: {job.out.parent} is not on the disk of {socket.gethostname()}; the machines of "
            "a cluster must share it"
        )
    torch.set_num_threads(1)  # the core that Ray counts
    return train_job(job, images, recipe, seed, device)

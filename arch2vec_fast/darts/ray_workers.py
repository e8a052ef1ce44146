# SPDX-License-Identifier: Apache-2.0
"""Trainings side by side on the processes of a Ray cluster: one GPU each, or one CPU core."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import Any

import torch

from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.trained import Job, Outcome, Workers, train_job

__all__ = ["ray_workers"]


def ray_workers(
    num_workers: int, *, address: str | None = None, device: str | torch.device = "cpu"
) -> Workers:
    """Workers of `TrainedBenchmark`: at most `num_workers` trainings at once.

    address: of a running cluster; None starts Ray on this machine. device: "cuda" gives each
    training a GPU of its own, "cpu" one core.

    A worker that dies fails its training, which is tried again; what a training raises is raised
    here. Answers do not depend on the number of workers or on the order in which they end. Raises
    ImportError where Ray is not installed, ValueError for more workers than there are GPUs, or than
    a running cluster has cores; on this machine as many share its cores as are asked for.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise ImportError("workers: need Ray; install arch2vec-fast[ray]") from None
    if num_workers < 1:
        raise ValueError(f"workers: {num_workers} is below 1")
    if not ray.is_initialized():
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            **({"num_cpus": num_workers} if address is None else {}),
        )
    resource = "GPU" if torch.device(device).type == "cuda" else "CPU"
    available = int(ray.cluster_resources().get(resource, 0))
    if num_workers > available:
        raise ValueError(
            f"workers: {num_workers} trainings at once, but the cluster has {available} "
            f"{resource}s; ask for at most {available}"
        )
    needs = {"num_gpus": 1} if resource == "GPU" else {"num_cpus": 1}
    return _RayWorkers(ray, needs, num_workers, str(device))


@dataclass(frozen=True, slots=True)
class _RayWorkers:
    """Workers of `TrainedBenchmark` on a cluster that runs."""

    ray: Any  # the module
    needs: Mapping[str, int]  # of one training
    at_once: int
    device: str

    def __call__(
        self, jobs: Iterable[Job], images: ImageSet, recipe: TrainRecipe, seed: int
    ) -> Iterator[Outcome]:
        ray, jobs = self.ray, iter(jobs)
        remote = ray.remote(**self.needs, max_retries=0)(_train_remote)
        shared = ray.put(images)
        running: dict[Any, Job] = {}
        while True:
            for job in islice(jobs, self.at_once - len(running)):
                running[remote.remote(job, shared, recipe, seed, self.device)] = job
            if not running:
                return
            ready, _ = ray.wait(list(running), num_returns=1)
            job = running.pop(ready[0])
            try:
                outcome = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:  # what the training raised: a mistake
                raise error.cause from error
            except ray.exceptions.RayError as error:
                outcome = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            yield job, outcome


def _train_remote(
    job: Job, images: ImageSet, recipe: TrainRecipe, seed: int, device: str
) -> object:
    torch.set_num_threads(1)  # the core that Ray counts
    return train_job(job, images, recipe, seed, device)

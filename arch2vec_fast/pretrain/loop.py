# SPDX-License-Identifier: Apache-2.0
"""The pretraining loop.

Every random number of step t is a function of (seed, t), and the order of batches one of
(seed, epoch). A run resumed from any checkpoint therefore follows the trajectory of
an uninterrupted one bit for bit (same device, same number of threads and of processes).

Several processes share a run as torch's DistributedDataParallel has it: each takes its share of
every batch, gradients are averaged, so all hold the same model. The first one writes the directory.
"""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arch2vec_fast import spaces
from arch2vec_fast._checks import check_device, check_seed
from arch2vec_fast._files import (
    append_line,
    keep_lines,
    remove_leftovers,
    write_tensors,
    write_torch,
)
from arch2vec_fast._memory import counted_memory
from arch2vec_fast._processes import Processes
from arch2vec_fast._progress import Progress
from arch2vec_fast.models.gin_vae import AutoencoderBase
from arch2vec_fast.models.prior import LatentMoments
from arch2vec_fast.models.recipes import Recipe
from arch2vec_fast.pretrain.engine import build_engine, step_bytes
from arch2vec_fast.pretrain.run import LOSS_PARTS, Run, is_metric, is_run, load_weights
from arch2vec_fast.pretrain.validation import reconstruction
from arch2vec_fast.spaces import CellBatch, CellSpace
from arch2vec_fast.spaces.darts import Darts

_WINDOWS_PER_EPOCH = 20
_VALIDATION_CELLS = 10_000
_DARTS_CELLS, _DARTS_MULT_ADDS = 600_000, 600e6


class Interrupted(KeyboardInterrupt):
    """Raised after Ctrl-C once the state is saved; the message says how to go on."""


def pretrain(
    space: str | CellSpace,
    recipe: str | Recipe = "best",
    out: str | Path = "run",
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    engine: str = "auto",
    cells: CellBatch | None = None,
    limit: int | None = None,
    resume: bool = False,
    progress: bool = False,
    checkpoint_seconds: float = 60.0,
) -> Run:
    """Train an autoencoder on a space's cells and leave a run directory.

    space: name or `CellSpace`. recipe: preset name or `Recipe`; epochs, batch_size and
    learning_rate override its fields. Another batch_size B keeps the recipe's rate; from 512 on,
    scale it by the square root, 3e-3 * sqrt(B / 256) for `best`, as is usual for Adam.
    engine: "fused" kernels (`functional.gin_train`), "eager" plain PyTorch, or "auto": fused for
    GIN encoders, eager for GCN ones. config.json names it, and a resumed run keeps it.
    cells: train on these instead of the whole space (DARTS: instead of 600,000 sampled below
    600 M mult-adds). limit: take that many different cells. seed: of weights, batches, noise
    and choice of cells.
    resume: go on with the run in `out`, which must have the same settings: a finished run cannot
    be extended, since its schedule has ended; train anew with more epochs.
    checkpoint_seconds: how much time a kill may cost.

    Where torch.distributed's default group is initialised, its processes train one model together;
    all must make the same call. batch_size stays the size of the whole batch, of which each takes
    its share. The gradient is the mean over the batch's cells and is clipped after that. Batch norm
    sees the cells of its own process, and the running statistics of the first one are kept. Noise
    differs between processes. `out` must be a directory that all of them see; device "cuda" is each
    one's current GPU.

    Returns the finished `Run`. Raises ValueError on bad arguments, FloatingPointError if the loss
    stops being finite, `Interrupted` after Ctrl-C. Deterministic for a given device and thread
    count and engine. Costs about 5.1 MFLOP a NAS-Bench-101 cell and epoch.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = pretrain("nasbench201", "best", folder, epochs=1, limit=512)
    ...     len(run.train_cells) + len(run.validation_cells)
    512
    """
    space = spaces.get(space) if isinstance(space, str) else space
    recipe = Recipe.get(recipe, space.name) if isinstance(recipe, str) else recipe
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    overrides: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    recipe = replace(recipe, **overrides)
    device, out = check_device(device), Path(out)
    check_seed(seed)
    processes = Processes.current(device)
    if resume:
        if not is_run(out):
            raise ValueError(f"resume: {out} holds no run; check out, or leave resume away")
        run = Run.load(out, space)
        _check_same(run, space, recipe, seed, engine, cells, limit)
    else:

        def create() -> None:
            Run.create(
                *(out, space, recipe),
                seed=seed,
                cells=_choose_cells(space, limit, seed) if cells is None else cells,
                engine=engine,
                processes=processes.size,
            )

        processes.on_first(create)
        run = Run.load(out, space)
    try:
        return train(run, device=device, progress=progress, checkpoint_seconds=checkpoint_seconds)
    except BaseException:
        if not resume and processes.first and not (out / "checkpoint.pt").exists():
            shutil.rmtree(out)  # the run that this call has made: it has come to nothing
        raise


def train(
    run: Run,
    *,
    device: str | torch.device = "cpu",
    progress: bool = False,
    checkpoint_seconds: float = 60.0,
) -> Run:
    """Bring a run to its last epoch from wherever it stands. See `pretrain`."""
    device = check_device(device)
    processes = Processes.current(device)
    trainer = Trainer(run, device, checkpoint_seconds, processes)
    recipe, progress = run.recipe, progress and processes.first
    with (
        _stop_on_interrupt(once=processes.size == 1) as stop,
        Progress("pretraining", "cells", trainer.total_cells, enabled=progress) as bar,
        torch.random.fork_rng(range(torch.cuda.device_count())),  # named, or several GPUs warn
    ):
        bar.update(trainer.cells_done)
        if not (run.path / "checkpoint.pt").exists():
            trainer.save()  # so that zero epochs leave an untrained model, a control
        while trainer.epoch < recipe.epochs:
            for losses in trainer.steps():
                bar.update(trainer.cells_done, loss=losses)
                if processes.any(stop()):
                    trainer.save()
                    processes.wait()
                    raise Interrupted(
                        f"stopped at step {trainer.step}; everything is saved. Go on with "
                        f"--resume --out {run.path}"
                    )
            trainer.end_epoch()
        trainer.finish()
        processes.wait()
    return Run.load(run.path, run.space)


@dataclass(slots=True)
class _Window:
    """Sums of loss parts since the last line of metrics.jsonl."""

    sums: Tensor = field(default_factory=lambda: torch.zeros(len(LOSS_PARTS), dtype=torch.float64))
    cells: int = 0

    def means(self) -> dict[str, float]:
        values = (self.sums / max(self.cells, 1)).tolist()
        return dict(zip(LOSS_PARTS, values))


class Trainer:
    """State of a run between two steps: model, optimiser, counters. Reads the checkpoint if any."""

    def __init__(
        self,
        run: Run,
        device: torch.device,
        checkpoint_seconds: float,
        processes: Processes = Processes(),  # noqa: B008  (immutable)
    ) -> None:
        run.check_processes(processes.size)
        self.run, self.recipe, self.device, self.processes = run, run.recipe, device, processes
        self.codes = run.train_cells.to_torch(device)
        self.steps_per_epoch = math.ceil(len(self.codes) / self.recipe.batch_size)
        self.model: AutoencoderBase = run.new_model().to(device)
        self.engine = build_engine(
            run.engine, self.model, run.space.layout, self.codes, run.seed, processes
        )
        self.epoch = self.step = 0
        self.window, self.whole = _Window(), _Window()
        self.moments = LatentMoments(covariance=False)
        self.checkpoint_seconds = checkpoint_seconds
        self._last_loss = math.nan
        if (run.path / "checkpoint.pt").exists():
            self._restore(run.checkpoint())
        self._follow_first(self.model.state_dict().values())  # waits: the first will write there
        if processes.first:
            remove_leftovers(run.path)
            self._truncate_metrics()
        self._saved_at = self._window_began = time.monotonic()

    @property
    def cells_done(self) -> int:
        """Training cells seen so far, over all epochs."""
        within = (self.step - self.epoch * self.steps_per_epoch) * self.recipe.batch_size
        return self.epoch * len(self.codes) + min(within, len(self.codes))

    @property
    def total_cells(self) -> int:
        """Training cells that the whole run sees."""
        return self.recipe.epochs * len(self.codes)

    # -- training --------------------------------------------------------------------------

    def steps(self) -> Iterator[float]:
        """Run the remaining steps of this epoch; yields the latest windowed loss now and then."""
        order = self._order()
        window_steps = max(1, self.steps_per_epoch // _WINDOWS_PER_EPOCH)
        index = self.step - self.epoch * self.steps_per_epoch
        while index < self.steps_per_epoch:
            # Calls end where an uninterrupted run's do, whatever step this one began at.
            ends = (self.engine.steps_a_call, window_steps)
            end = min(self.steps_per_epoch, *((index // every + 1) * every for every in ends))
            self._train(order, index, end)
            if end % window_steps == 0 or end == self.steps_per_epoch:
                self._end_window()
            index = end
            yield self._last_loss

    def _train(self, order: Tensor, first: int, last: int) -> None:
        """Steps first .. last - 1 of this epoch."""
        recipe = self.recipe
        batch = order[first * recipe.batch_size : last * recipe.batch_size]
        rates = [self._learning_rate(self.step + i) for i in range(last - first)]
        training = recipe.train_mode == "always" or self.epoch == 0
        each = step_bytes(self.run.engine, recipe, self.run.space.layout) / self.processes.size
        with counted_memory("batch_size", recipe.batch_size, each, self.device):
            try:
                sums = self.engine.train(batch, self.step, rates, training=training)
            except FloatingPointError:
                raise self._diverged() from None
        self.step += last - first
        self.window.sums = self.window.sums.to(batch.device) + sums.losses
        self.window.cells += len(batch)
        if recipe.prior == "per-node" and self.epoch == recipe.epochs - 1:
            shape = (self.run.space.layout.num_nodes, recipe.latent_dim)
            self.moments.add_sums(sums.mu, sums.mu2, len(batch), shape)

    def _learning_rate(self, step: int) -> float:
        if self.recipe.schedule == "constant":
            return self.recipe.learning_rate
        done = step / (self.steps_per_epoch * self.recipe.epochs)
        return 0.5 * self.recipe.learning_rate * (1 + math.cos(math.pi * done))

    def _end_window(self) -> None:
        means = self.window.means()
        if not all(math.isfinite(value) for value in means.values()):
            raise self._diverged()
        self._last_loss = means["loss"]
        now = time.monotonic()
        rate = self.window.cells / (now - self._window_began)
        self._log(event="train", **means, cells_per_second=round(rate, 1))
        self.whole.sums += self.window.sums.cpu()
        self.whole.cells += self.window.cells
        self.window, self._window_began = _Window(), now
        if now - self._saved_at > self.checkpoint_seconds:
            self.save()

    def _diverged(self) -> FloatingPointError:
        return FloatingPointError(
            f"loss: is no finite number by step {self.step}; lower learning_rate "
            f"(now {self.recipe.learning_rate}); the last checkpoint is from an earlier step"
        )

    def end_epoch(self) -> None:
        """Validate, log and save at the end of an epoch."""
        self.epoch += 1
        self._follow_first(self.model.buffers())
        if self.processes.first:
            cells = self.run.validation_cells
            cells = cells[:: max(1, len(cells) // _VALIDATION_CELLS)]
            self.model.eval()
            validation = reconstruction(self.model, cells) if len(cells) else {}
            self._log(event="epoch", **self.whole.means(), validation=validation)
        self.whole = _Window()
        self.save()
        self._window_began = time.monotonic()

    def finish(self) -> None:
        """Fit and store the recipe's latent prior."""
        if not self.processes.first:
            return
        recipe = self.recipe
        if recipe.prior == "per-node" and self.moments.count > 1:
            prior = self.moments.per_node()
        else:
            prior = Run.load(self.run.path, self.run.space).fit_prior(recipe.prior)
        write_tensors(self.run.path / "prior.safetensors", prior.state(), {"kind": prior.kind})

    def _follow_first(self, tensors: Iterable[Tensor]) -> None:
        """Take over the first process's numbers."""
        for tensor in tensors:
            self.processes.broadcast_(tensor)

    def _order(self) -> Tensor:
        epoch = 0 if self.recipe.shuffle == "once" else self.epoch
        generator = np.random.default_rng([self.run.seed, epoch])
        return torch.from_numpy(generator.permutation(len(self.codes))).to(self.device)

    # -- state on disk ---------------------------------------------------------------------

    def save(self) -> None:
        """Write checkpoint.pt: the released code's four entries, and what a resume needs.

        Raises FloatingPointError instead of replacing a good checkpoint by one that is lost.
        """
        tensors = [self.window.sums, *self.model.parameters()]
        if not all(torch.isfinite(tensor).all() for tensor in tensors):
            raise self._diverged()
        if not self.processes.first:
            return
        moments = {"count": self.moments.count, "shape": self.moments.shape}
        state = {
            "epoch": self.epoch,
            "loss": self._last_loss,
            "model_state": self.model.state_dict(),
            "optimizer_state": self.engine.optimizer_state(),
            "step": self.step,
            "window": {"sums": self.window.sums.cpu(), "cells": self.window.cells},
            "whole": {"sums": self.whole.sums, "cells": self.whole.cells},
            "moments": {**moments, "sums": self.moments.sums},
        }
        write_torch(self.run.path / "checkpoint.pt", state)
        self._saved_at = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        path = self.run.path / "checkpoint.pt"
        load_weights(self.model, state, path)
        try:
            self.engine.load_optimizer_state(state["optimizer_state"])
            self.epoch, self.step = int(state["epoch"]), int(state["step"])
            self._last_loss = float(state["loss"])
            self.window, self.whole = _Window(**state["window"]), _Window(**state["whole"])
            moments = state["moments"]
            self.moments.count, self.moments.sums = int(moments["count"]), dict(moments["sums"])
            self.moments.shape = tuple(moments["shape"])
            if not 0 <= self.step - self.epoch * self.steps_per_epoch <= self.steps_per_epoch:
                raise ValueError(f"step {self.step} is not of epoch {self.epoch}")
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: has no progress to resume from ({type(error).__name__}: {error}); "
                "take a whole copy, or start again in another directory"
            ) from error

    def _log(self, **values: Any) -> None:
        if not self.processes.first:
            return
        line = {"epoch": self.epoch, "step": self.step, **values}
        line["learning_rate"] = self.engine.lr
        append_line(self.run.path / "metrics.jsonl", line)

    def _truncate_metrics(self) -> None:
        """Drop lines written after the checkpoint: their steps will be run again."""

        def before(line: dict[str, Any]) -> bool:
            """An epoch's line is written with its last step, but before its checkpoint."""
            ahead = line["event"] == "epoch" and line["epoch"] > self.epoch
            return line["step"] <= self.step and not ahead

        keep_lines(self.run.path / "metrics.jsonl", lambda line: is_metric(line) and before(line))


def _choose_cells(space: CellSpace, limit: int | None, seed: int) -> CellBatch | None:
    """Cells to train on where the caller gave none; None stands for the whole space."""
    if limit is not None and limit < 2:
        raise ValueError(f"limit: {limit} cells cannot be split; give at least 2")
    if isinstance(space, Darts):
        count = _DARTS_CELLS if limit is None else limit
        return space.sample(count, seed=seed, max_mult_adds=_DARTS_MULT_ADDS)
    if limit is None:
        return None
    cells = space.enumerate()
    if limit > len(cells):
        raise ValueError(f"limit: {limit} cells asked of {space.name}, which has {len(cells)}")
    return cells[np.random.default_rng(seed).permutation(len(cells))[:limit]]


def _check_same(
    run: Run,
    space: CellSpace,
    recipe: Recipe,
    seed: int,
    engine: str,
    cells: CellBatch | None,
    limit: int | None,
) -> None:
    before, now = run.recipe.to_dict(), recipe.to_dict()
    changed = [name for name in now if now[name] != before[name]]
    changed += ["space"] * (run.config["space"] != space.name) + ["seed"] * (run.seed != seed)
    changed += ["engine"] * (engine not in ("auto", run.engine))
    changed += ["cells"] * (cells is not None and cells != run.cells)
    changed += ["limit"] * (limit is not None and limit != run.config["cells"]["count"])
    if changed:
        raise ValueError(
            f"resume: {run.path} was started with another {', '.join(changed)}; "
            "use its settings, or another directory"
        )


@contextmanager
def _stop_on_interrupt(*, once: bool) -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a flag, read between steps; with `once`, a second one interrupts at once.

    Not so under torchrun, whose processes may be told twice and must stop at the same step; it
    kills those that are not gone after half a minute.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    previous = signal.getsignal(signal.SIGINT)

    def on_interrupt(*_: object) -> None:
        asked.set()
        if once:
            signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous)

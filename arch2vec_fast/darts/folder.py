# SPDX-License-Identifier: Apache-2.0
"""The directory of a training: its settings, a line an epoch, and one checkpoint, all atomic.

config.json is written first and never changes; the same directory under other settings is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from arch2vec_fast._files import (
    append_line,
    keep_lines,
    read_json,
    read_lines,
    read_torch,
    remove_leftovers,
    write_json,
    write_torch,
)
from arch2vec_fast.darts.source import ImageSource

__all__ = ["TrainingFolder", "describe_images", "epoch_seed"]


class TrainingFolder:
    """See above. Raises ValueError, one line, where `path` holds something else."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self._metrics, self._checkpoint = path / "metrics.jsonl", path / "checkpoint.pt"
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        if not (path / "config.json").exists():
            if any(path.iterdir()):
                raise ValueError(f"out: {path} is not empty and holds no training; choose another")
            write_json(path / "config.json", config)
        kept = read_json(path / "config.json")
        # Through JSON, so that tuples and lists are the same.
        wanted = json.loads(json.dumps(config))
        if "sha256" not in kept.get("images", {}):  # from before there was one
            wanted.get("images", {}).pop("sha256", None)
        if odd := sorted(key for key in {*kept, *wanted} if kept.get(key) != wanted.get(key)):
            raise ValueError(
                f"out: {path} holds another training (its {', '.join(odd)} differ); "
                "choose another directory"
            )
        remove_leftovers(path)

    @contextmanager
    def undone_if_empty(self) -> Iterator[None]:
        """An error of the block before an epoch is kept leaves nothing behind."""
        try:
            yield
        except Exception:
            if self._made and {entry.name for entry in self.path.iterdir()} == {"config.json"}:
                (self.path / "config.json").unlink()
                with suppress(OSError):  # what others have put there meanwhile stays
                    for folder in self._made:
                        folder.rmdir()
            raise

    def restore(self, load: Callable[[dict[str, Any]], None]) -> None:
        """Hand the checkpoint, if there is one, to `load`; lines of later, lost epochs go."""
        epoch = 0
        if self._checkpoint.exists():
            state = read_torch(self._checkpoint)
            try:
                load(state)
                epoch = int(state["epoch"])
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"{self._checkpoint}: not of this training ({reason})") from None
        keep_lines(
            self._metrics,
            lambda line: line.get("event") != "epoch" or line["epoch"] < epoch,
        )

    def keep(self, state: dict[str, Any], line: dict[str, Any]) -> None:
        """The epoch's line, then the checkpoint: a kill between them costs one epoch.

        state: has "epoch", the number of epochs done.
        """
        self.add("epoch", {"epoch": state["epoch"] - 1, **line})
        write_torch(self._checkpoint, state)

    def add(self, event: str, line: dict[str, Any]) -> None:
        """One more line of metrics."""
        append_line(self._metrics, {"event": event, **line})

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of one kind, in order."""
        if not self._metrics.exists():
            return []
        return [line for _, line in read_lines(self._metrics) if line.get("event") == event]


def describe_images(images: ImageSource) -> dict[str, Any]:
    """What tells one image set from another, as plain values."""
    return {
        "name": images.name,
        "train": len(images.train_labels),
        "test": len(images.test_labels),
        "size": list(images.image_size),
        "classes": images.classes,
        "mean": [round(value, 9) for value in images.mean],
        "sha256": images.sha256,
    }


def epoch_seed(seed: int, epoch: int) -> int:
    """One 63-bit seed for each (seed, epoch)."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))

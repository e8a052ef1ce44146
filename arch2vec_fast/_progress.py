# SPDX-License-Identifier: Apache-2.0
"""A progress line with rate and time left, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

_PLAIN_SECONDS = 10.0


class Progress:
    """Progress of `total` units, None if nobody knows how many there are.

    A live bar on a terminal, a line every 10 s in a pipe.
    """

    def __init__(self, label: str, unit: str, total: int | None, *, enabled: bool = True) -> None:
        self._label, self._unit, self._total = label, unit, total
        self._enabled = enabled
        self._live: RichProgress | None = None
        self._task = None
        self._began = self._shown = time.monotonic()
        self._first: int | None = None
        if enabled and sys.stderr.isatty():
            self._live = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._task = self._live.add_task(label, total=total, rate="", note="")

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, done: int, *, loss: float | None = None) -> None:
        """Report that `done` units in all are finished."""
        if not self._enabled:
            return
        if self._first is None:  # a resumed run: its rate counts from here
            self._first = done
        now = time.monotonic()
        rate = (done - self._first) / max(now - self._began, 1e-9)
        note = "" if loss is None or loss != loss else f"loss {loss:.4f}"
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        speed = f"{speed} {self._unit}/s"
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done, rate=speed, note=note)
        elif now - self._shown > _PLAIN_SECONDS:
            self._shown = now
            of, left = "", ""
            if self._total is not None:
                of = f"/{self._total:,}"
                if rate:
                    left = f", {(self._total - done) / rate:,.0f} s left"
            line = f"{self._label}: {done:,}{of} {speed}{left} {note}"
            print(line.rstrip(), file=sys.stderr, flush=True)

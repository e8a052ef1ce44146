# SPDX-License-Identifier: Apache-2.0
"""What commands write: one JSON document, or tables for people, on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def write_document(value: Any) -> None:
    """Print one JSON document and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def people(*, stderr: bool = False) -> Console:
    """A console for people; wide enough in a pipe that tables keep one line a row."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=120)
    return console


def titled_table(title: str) -> Table:
    """An empty table for people under a title, which may carry markup."""
    return Table(
        title=title,
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def percent(share: float | None, digits: int = 2) -> str:
    """A share in [0, 1] as per cent; a dash for none."""
    return "-" if share is None else f"{100 * share:.{digits}f}"

# SPDX-License-Identifier: Apache-2.0
"""Result files: one JSON a machine, one row a measurement, rows replaced when measured again."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from bench.environment import cpu_name

RESULTS = Path(__file__).resolve().parent / "results"
_MACHINE_FACTS = ("cpu", "cores", "gpu")


def default_machine() -> str:
    """Folder name of this machine: "amd-epyc-7763-2core"."""
    name = re.sub(r"\(.*?\)|processor|cpu|@.*", " ", cpu_name().lower())
    return "-".join([*re.findall(r"[a-z0-9]+", name), f"{os.cpu_count()}core"])


def load(path: Path) -> dict[str, Any]:
    """A result file; raises ValueError with one line if it is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["rows"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no result file ({error}); make one with make bench") from None
    return content


def update(path: Path, facts: dict[str, Any], limits: dict[str, Any], rows: list[Any]) -> None:
    """Write `rows`, keeping those of the same machine's earlier runs that were not measured now.

    A row carries the commit, date and versions that it was measured with, because rows of one file
    may come from different runs.
    """
    kept: dict[str, Any] = {}
    if path.exists():
        before = load(path)
        if all(before.get(key) == facts.get(key) for key in _MACHINE_FACTS):
            kept = {row["id"]: row for row in before["rows"]}
            limits = {**before.get("limits", {}), **limits}
    machine = {key: facts[key] for key in _MACHINE_FACTS if key in facts}
    run = {key: value for key, value in facts.items() if key not in machine}
    kept.update({row["id"]: {**row, "run": run} for row in rows})
    content = {**machine, "limits": limits, "rows": list(kept.values())}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")

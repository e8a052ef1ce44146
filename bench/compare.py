# SPDX-License-Identifier: Apache-2.0
"""Did anything get slower? `python -m bench.compare BEFORE.json AFTER.json [--slower 1.1]`.

Compares our time of every row that both result files hold. A row has changed where the ranges of
its repeats do not overlap; the exit status is 1 where one became slower than `--slower` times.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.harness import OURS
from bench.results_file import load


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[float, bool]]:
    """For each common row: time after over time before, and whether the ranges are apart."""
    old = {row["id"]: _ours(row) for row in before["rows"] if OURS in row["contenders"]}
    result = {}
    for row in after["rows"]:
        if row["id"] in old and OURS in row["contenders"]:
            a, b = old[row["id"]], _ours(row)
            apart = a["max"] < b["min"] or b["max"] < a["min"]
            result[row["id"]] = b["median"] / a["median"], apart
    return result


def _ours(row: dict[str, Any]) -> dict[str, float]:
    spread: dict[str, float] = row["contenders"][OURS]["seconds_per_unit"]
    return spread


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--slower", type=float, default=1.1, help="factor that fails, default 1.1")
    arguments = parser.parse_args()
    found = changes(load(arguments.before), load(arguments.after))
    for row, (factor, apart) in found.items():
        print(f"{factor:6.2f}x {'changed' if apart else 'same   '} {row}")
    sys.exit(any(apart and factor > arguments.slower for factor, apart in found.values()))


if __name__ == "__main__":
    main()

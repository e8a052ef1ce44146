# SPDX-License-Identifier: Apache-2.0
"""A Markdown table of a result file: `python -m bench.table bench/results/MACHINE/suite.json`.

`--into docs/results.md` writes it into a document, between lines that name the file.

One line a row and number of threads: our time, how many times faster than each rival (median and
range of the turns' ratios), the share of the machine's limit, and whether the row's goals are met.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.harness import OURS
from bench.results_file import load

_HEAD = (
    "| work | threads | time | times faster than | share of limit | goals |\n"
    "|---|---|---|---|---|---|"
)


BEGIN, END = "<!-- bench.table: {} -->\n", "<!-- end -->"


def render(content: dict[str, Any], *, goals: bool = False) -> str:
    """The table as text; with `goals` only the rows that have any."""
    rows = [row for row in content["rows"] if not goals or row["goals"] or row["goal_seconds"]]
    return "\n".join([_HEAD, *map(_line, rows)]) + "\n"


def insert(document: str, source: str, text: str) -> str:
    """The document with `text` between the markers that name `source`."""
    begin = BEGIN.format(source)
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"document: lacks the lines {begin.strip()!r} and {END!r}; add them")
    return before + begin + text + END + after


def _line(row: dict[str, Any]) -> str:
    absent = dict(row.get("absent", {}))
    if OURS in absent:
        cells = [row["work"], row["threads"], "absent", absent[OURS], "", ""]
        return "| " + " | ".join(map(str, cells)) + " |"
    seconds = row["contenders"][OURS]["seconds_per_unit"]["median"] * row["amount"]
    rivals = {name: v["ours_times_faster"] for name, v in row["contenders"].items() if name != OURS}
    faster = ", ".join(
        [
            f"{name} {ratio['median']:.1f} ({ratio['min']:.1f}-{ratio['max']:.1f})"
            for name, ratio in rivals.items()
        ]
        + [f"{name} absent: {reason}" for name, reason in absent.items()]
    )
    limit = row["limit"]
    share = f"{100 * limit['share']:.0f} % of {limit['bound']}" if limit else ""
    goals = [
        f"{name} {goal:g}x {'met' if rivals[name]['median'] >= goal else 'missed'}"
        for name, goal in row["goals"].items()
        if name in rivals
    ]
    if row["goal_seconds"] is not None:
        met = "met" if seconds <= row["goal_seconds"] else "missed"
        goals.append(f"{row['goal_seconds']:g} s {met}")
    cells = [row["work"], row["threads"], _time(seconds), faster, share, ", ".join(goals)]
    return "| " + " | ".join(map(str, cells)) + " |"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--goals", action="store_true", help="only rows that have goals")
    parser.add_argument("--into", type=Path, help="write between the markers of this document")
    arguments = parser.parse_args()
    text = render(load(arguments.file), goals=arguments.goals)
    if arguments.into is None:
        print(text, end="")
    else:
        document = insert(arguments.into.read_text(), arguments.file.as_posix(), text)
        arguments.into.write_text(document)


if __name__ == "__main__":
    main()

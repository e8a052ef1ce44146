# SPDX-License-Identifier: Apache-2.0
"""Where each kernel stands below the machine's roofs:

    python -m bench.roofline bench/results/MACHINE/suite.json --out docs/roofline.svg

A point is a row that knows its arithmetic and the bytes it must move at least: its intensity (the
one by the other) and its rate. Roofs are what the same file measured: products of matrices and
copies. Sharing equal work counts as rate, so a kernel that shares can stand above the roof.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from bench.harness import OURS
from bench.results_file import load

_COLOURS = {1: "#1f6fb4", 2: "#c1440e"}
_MARKERS = "osD^vP*Xh<>dp8"


class Point(NamedTuple):
    """One row: operations a byte, and operations a second."""

    kernel: str
    threads: int
    intensity: float
    rate: float


def points(content: dict[str, Any]) -> list[Point]:
    """Rows on the CPU that know both, in the file's order."""
    found = []
    for row in content["rows"]:
        flops, moved = row.get("flops_per_unit"), row.get("bytes_per_unit")
        if flops and moved and OURS in row["contenders"] and row["device"] == "cpu":
            seconds = row["contenders"][OURS]["seconds_per_unit"]["median"]
            found.append(Point(row["work"], row["threads"], flops / moved, flops / seconds))
    return found


def roofs(content: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """For each number of threads: operations a second, bytes a second."""
    return {
        int(name.removeprefix("cpu, ").partition(" ")[0]): (
            limit["gflops"] * 1e9,
            limit["gbytes_per_second"] * 1e9,
        )
        for name, limit in content["limits"].items()
        if name.startswith("cpu, ")
    }


def draw(content: dict[str, Any], out: Path) -> None:
    """Write the plot as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "roofline"})
    mpl.rcParams.update({"font.sans-serif": ["DejaVu Sans"], "font.size": 8})
    from matplotlib import pyplot as plt

    shown = points(content)
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    low = min([point.intensity for point in shown] + [0.1]) / 2
    high = max([point.intensity for point in shown] + [100.0]) * 2
    for threads, (compute, memory) in sorted(roofs(content).items()):
        corner = compute / memory
        label = (
            f"{threads} thread{'s' * (threads > 1)}: "
            f"{compute / 1e9:.0f} GFLOP/s, {memory / 1e9:.1f} GB/s"
        )
        heights = [low * memory, compute, compute]
        colour = _COLOURS.get(threads, "#555555")
        axes.plot([low, corner, max(high, corner)], heights, color=colour, label=label)
    kernels = list(dict.fromkeys(point.kernel for point in shown))
    for index, kernel in enumerate(kernels):
        label = kernel
        for point in (point for point in shown if point.kernel == kernel):
            axes.plot(
                *([point.intensity], [point.rate]),
                marker=_MARKERS[index % len(_MARKERS)],
                color=_COLOURS.get(point.threads, "#555555"),
                fillstyle=("full", "none")[index // len(_MARKERS) % 2],
                linestyle="none",
                markersize=5,
                label=label,
            )
            label = "_"  # one line of the legend a kernel
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.minorticks_off()
    axes.set(xlabel="operations a byte that must move", ylabel="operations a second")
    axes.set_title(f"{content['cpu']}, {content['cores']} cores")
    axes.grid(which="major", linewidth=0.3)
    figure.legend(loc="outside right upper", fontsize=6, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="svg", metadata={"Date": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    arguments = parser.parse_args()
    draw(load(arguments.file), arguments.out)


if __name__ == "__main__":
    main()

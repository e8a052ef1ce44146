# SPDX-License-Identifier: Apache-2.0
"""Cells as SVG: a layered drawing, input above, output below, one colour an operation.

Layers are longest-path depths; an edge that skips layers is bent around the nodes between by
dummy points, and a few barycentre sweeps untangle each layer (Sugiyama's method, at the size of
cells). Lines take the colour of the surrounding text, so drawings fit light and dark pages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.spaces import CellBatch, CellSpace

_BOX_HEIGHT, _LAYER_GAP, _COLUMN_GAP, _MARGIN = 23, 22, 9, 4
_DUMMY_WIDTH = 14
_SWEEPS = 6
_SIZE = re.compile(r'width="([\d.]+)" height="([\d.]+)"')

# Fill colours carry white text at a contrast of at least 4.5 : 1. Names are those of the three
# benchmark spaces; others take `_SPARE` in order of their operation number.
_STYLE: dict[str, tuple[str, str]] = {
    "input": ("input", "#5b6472"),
    "output": ("output", "#5b6472"),
    "c_k-2": ("c k-2", "#5b6472"),
    "c_k-1": ("c k-1", "#5b6472"),
    "conv1x1-bn-relu": ("conv 1x1", "#2563eb"),
    "nor_conv_1x1": ("conv 1x1", "#2563eb"),
    "conv3x3-bn-relu": ("conv 3x3", "#7c3aed"),
    "nor_conv_3x3": ("conv 3x3", "#7c3aed"),
    "sep_conv_3x3": ("sep 3x3", "#7c3aed"),
    "sep_conv_5x5": ("sep 5x5", "#a21caf"),
    "dil_conv_3x3": ("dil 3x3", "#2563eb"),
    "dil_conv_5x5": ("dil 5x5", "#0369a1"),
    "maxpool3x3": ("max 3x3", "#c2410c"),
    "max_pool_3x3": ("max 3x3", "#c2410c"),
    "avg_pool_3x3": ("avg 3x3", "#a16207"),
    "skip_connect": ("skip", "#0f766e"),
    "none": ("none", "#857b74"),
}
_SPARE = ("#2563eb", "#7c3aed", "#c2410c", "#0f766e", "#a16207", "#a21caf", "#0369a1", "#be123c")


def draw_cell(cell: CellBatch, space: CellSpace, *, label: str = "") -> str:
    """The first cell of a batch as an `<svg>` element.

    label: text for screen readers instead of `space.describe(cell)`. Nodes that are on no path
    from an input to the output are faint. Any cell can be drawn, valid or not.
    """
    adjacency, node_ops = cell[:1].to_dense()
    nodes = np.flatnonzero((node_ops[0] >= 0) | adjacency[0].any(0) | adjacency[0].any(1))
    if len(nodes) == 0:
        return '<svg role="img" aria-label="empty cell" width="10" height="10"></svg>'
    matrix = adjacency[0][np.ix_(nodes, nodes)].astype(bool)
    styles = [op_style(space, int(op)) for op in node_ops[0][nodes]]
    layout = _Layout(matrix, [_box_width(name) for name, _ in styles])
    alive = _on_path(matrix, max(1, len(space.input_ops)))
    parts = [_edge(layout, path, alive) for path in layout.paths]
    parts += [_box(layout, v, *styles[v], faint=not alive[v]) for v in range(len(nodes))]
    width, height = round(layout.width, 1), round(layout.height, 1)
    text = escape(label or space.describe(cell[:1]), quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cell" role="img" aria-label="{text}" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<title>{text}</title>{''.join(parts)}</svg>"
    )


def legend(space: CellSpace) -> list[tuple[str, str]]:
    """(short name, colour) of every operation but inputs and output."""
    pairs = (op_style(space, op) for op in range(space.layout.num_op_types))
    return [pair for pair in dict.fromkeys(pairs) if pair[1] != _STYLE["input"][1]]


def op_style(space: CellSpace, op: int) -> tuple[str, str]:
    """(short name, fill colour) of an operation; -1 is an absent node that has edges."""
    if op < 0:
        return "absent", "#9f1239"
    name = space.op_names[op]
    return _STYLE.get(name, (name, _SPARE[op % len(_SPARE)]))


def _box_width(name: str) -> float:
    return 14 + 6.0 * len(name)


def _on_path(matrix: NDArray[np.bool_], num_inputs: int) -> list[bool]:
    """Nodes on a path from one of the first num_inputs nodes to the last."""
    size = len(matrix)
    forward, backward = np.zeros(size, bool), np.zeros(size, bool)
    forward[:num_inputs] = True
    backward[-1] = True
    for v in range(size):
        forward[v] |= bool((forward & matrix[:, v]).any())
    for v in reversed(range(size)):
        backward[v] |= bool((backward & matrix[v]).any())
    return [bool(x) for x in forward & backward]


@dataclass
class _Point:
    """A node of the drawing (`node` >= 0) or a bend of an edge (-1)."""

    node: int
    width: float
    layer: int
    x: float = 0.0
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)


class _Layout:
    """Positions of nodes and bends. `paths` lists each edge as indices into `points`."""

    def __init__(self, matrix: NDArray[np.bool_], widths: Sequence[float]) -> None:
        size = len(matrix)
        depth = [0] * size
        for v in range(size):
            depth[v] = max((depth[u] + 1 for u in np.flatnonzero(matrix[:, v])), default=0)
        self.points = [_Point(v, widths[v], depth[v]) for v in range(size)]
        self.paths = [self._route(int(u), int(v)) for u, v in zip(*np.nonzero(matrix))]
        self.layers: list[list[int]] = [[] for _ in range(max(depth) + 1)]
        for index, point in enumerate(self.points):
            self.layers[point.layer].append(index)
        self._untangle()
        self._place()

    def _route(self, source: int, target: int) -> list[int]:
        path = [source]
        for layer in range(self.points[source].layer + 1, self.points[target].layer):
            self.points.append(_Point(-1, _DUMMY_WIDTH, layer))
            path.append(len(self.points) - 1)
        path.append(target)
        for above, below in zip(path, path[1:]):
            self.points[above].below.append(below)
            self.points[below].above.append(above)
        return path

    def _untangle(self) -> None:
        """Order each layer by the mean position of its neighbours; keep the best order seen."""
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                rank = {i: r for row in self.layers for r, i in enumerate(row)}
                layer.sort(key=lambda i: _mean(rank, self._neighbours(i, down), rank[i]))
            if (crossings := self._crossings()) < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def _neighbours(self, index: int, down: bool) -> list[int]:
        return self.points[index].above if down else self.points[index].below

    def _crossings(self) -> int:
        total = 0
        for upper in self.layers:
            rank = {i: r for row in self.layers for r, i in enumerate(row)}
            ends = [(rank[i], rank[j]) for i in upper for j in self.points[i].below]
            total += sum(
                (a - c) * (b - d) < 0 for k, (a, b) in enumerate(ends) for c, d in ends[:k]
            )
        return total

    def _place(self) -> None:
        spans = [
            sum(self.points[i].width for i in layer) + _COLUMN_GAP * (len(layer) - 1)
            for layer in self.layers
        ]
        self.width = max(spans) + 2 * _MARGIN
        step = _BOX_HEIGHT + _LAYER_GAP
        self.height = len(self.layers) * step - _LAYER_GAP + 2 * _MARGIN
        for layer, span in zip(self.layers, spans):
            x = (self.width - span) / 2
            for index in layer:
                point = self.points[index]
                point.x = x + point.width / 2
                x += point.width + _COLUMN_GAP
        for sweep in range(_SWEEPS):
            for layer in self.layers if sweep % 2 == 0 else reversed(self.layers):
                self._straighten(layer)
        points = self.points
        left = min(point.x - point.width / 2 for point in points) - _MARGIN
        for point in points:
            point.x -= left
        self.width = max(point.x + point.width / 2 for point in points) + _MARGIN

    def _straighten(self, layer: list[int]) -> None:
        """Move a layer's points to the mean of their neighbours, in order and without overlap.

        Without the gaps that neighbours must keep this is isotonic regression: runs that would
        change order share their mean.
        """
        offset, runs = 0.0, list[list[float]]()  # a run: sum of wishes, members
        offsets = []
        for position, index in enumerate(layer):
            point = self.points[index]
            if position:
                before = self.points[layer[position - 1]].width
                offset += (before + point.width) / 2 + _COLUMN_GAP
            offsets.append(offset)
            near = [self.points[i].x for i in point.above + point.below]
            runs.append([(sum(near) / len(near) if near else point.x) - offset, 1])
            while len(runs) > 1 and runs[-2][0] / runs[-2][1] > runs[-1][0] / runs[-1][1]:
                total, members = runs.pop()
                runs[-1] = [runs[-1][0] + total, runs[-1][1] + members]
        means = [total / members for total, members in runs for _ in range(int(members))]
        for index, mean, shift in zip(layer, means, offsets):
            self.points[index].x = mean + shift

    def y(self, index: int) -> float:
        """Middle of a point's layer."""
        return _MARGIN + _BOX_HEIGHT / 2 + self.points[index].layer * (_BOX_HEIGHT + _LAYER_GAP)


def _mean(rank: dict[int, int], neighbours: Sequence[int], fallback: float) -> float:
    return sum(rank[i] for i in neighbours) / len(neighbours) if neighbours else fallback


def _edge(layout: _Layout, path: list[int], alive: list[bool]) -> str:
    faint = not (alive[path[0]] and alive[path[-1]])
    half = _BOX_HEIGHT / 2
    x, y = layout.points[path[0]].x, layout.y(path[0]) + half
    commands = [f"M{x:.1f} {y:.1f}"]
    for index in path[1:]:
        to_x, middle = layout.points[index].x, layout.y(index)
        to_y = middle - half - (3 if index == path[-1] else 0)
        bend = (y + to_y) / 2
        commands.append(f"C{x:.1f} {bend:.1f} {to_x:.1f} {bend:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
        if index != path[-1]:
            y = middle + half
            commands.append(f"L{x:.1f} {y:.1f}")
    tip = f'<path d="M{x - 3.5:.1f} {y - 4:.1f}L{x:.1f} {y + 2.5:.1f}L{x + 3.5:.1f} {y - 4:.1f}Z"'
    style = ' opacity=".3"' if faint else ' opacity=".75"'
    line = f'<path d="{"".join(commands)}" fill="none" stroke="currentColor" stroke-width="1.3"'
    return f'{line}{style}/>{tip} fill="currentColor"{style}/>'


def _box(layout: _Layout, index: int, name: str, colour: str, *, faint: bool) -> str:
    point, y = layout.points[index], layout.y(index)
    left, top = point.x - point.width / 2, y - _BOX_HEIGHT / 2
    return (
        f"<g{' opacity=' + chr(34) + '.4' + chr(34) if faint else ''}>"
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{point.width:.1f}" height="{_BOX_HEIGHT}" '
        f'rx="6" fill="{colour}"/>'
        f'<text x="{point.x:.1f}" y="{y + 4:.1f}" text-anchor="middle" fill="#fff" '
        f'font-family="system-ui,sans-serif" font-size="11">{escape(name)}</text></g>'
    )


def side_by_side(drawings: Sequence[str]) -> str:
    """One `<svg>` of several drawings of `draw_cell`, left to right."""
    sizes = [tuple(map(float, _SIZE.search(drawing).groups())) for drawing in drawings]  # type: ignore[union-attr]
    parts, left = [], 0.0
    for drawing, (width, _) in zip(drawings, sizes):
        parts.append(drawing.replace("<svg ", f'<svg x="{left:g}" ', 1))
        left += width + _COLUMN_GAP
    width, height = left - _COLUMN_GAP, max(height for _, height in sizes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">{"".join(parts)}</svg>'
    )

# SPDX-License-Identifier: Apache-2.0
"""Drawings are well-formed SVG, complete and accessible, for any cell."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arch2vec_fast import spaces
from arch2vec_fast.analysis.draw import draw_cell, legend
from arch2vec_fast.spaces import CellBatch

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("nasbench101", "nasbench201", "darts")


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize("name", NAMES)
def test_one_box_a_node_and_one_line_an_edge(name: str) -> None:
    space = spaces.get(name)
    cells = space.sample(25, seed=0)
    for cell, nodes, edges in zip(cells, cells.num_present(), cells.num_edges(), strict=True):
        root = parse(draw_cell(cell, space))
        assert len(root.findall(f".//{SVG}rect")) == nodes
        assert len(root.findall(f"{SVG}path")) == 2 * edges  # a line and its tip
        assert root.get("aria-label") == space.describe(cell)


@pytest.mark.parametrize("name", NAMES)
def test_boxes_do_not_overlap_and_stay_inside(name: str) -> None:
    space = spaces.get(name)
    for cell in space.sample(25, seed=1):
        root = parse(draw_cell(cell, space))
        width, height = (float(root.get(side) or 0) for side in ("width", "height"))
        boxes = [
            tuple(float(rect.get(key) or 0) for key in ("x", "y", "width", "height"))
            for rect in root.findall(f".//{SVG}rect")
        ]
        for index, (x, y, w, h) in enumerate(boxes):
            assert min(x, y) >= 0
            assert (x + w <= width, y + h <= height) == (True, True)
            for x2, y2, w2, h2 in boxes[:index]:
                assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


@given(seed=st.integers(0, 10_000), density=st.sampled_from([0.0, 0.2, 0.9]))
@pytest.mark.parametrize("name", NAMES)
def test_junk_can_be_drawn(name: str, seed: int, density: float) -> None:
    space = spaces.get(name)
    rng = np.random.default_rng(seed)
    nodes = space.layout.num_nodes
    adjacency = np.triu(rng.random((1, nodes, nodes)) < density, 1).astype(np.uint8)
    labels = rng.integers(-1, space.layout.num_op_types, (1, nodes))
    parse(draw_cell(CellBatch.from_dense(adjacency, labels, space.layout), space))


def test_dead_nodes_are_faint() -> None:
    space = spaces.get("nasbench101")
    adjacency = np.zeros((1, 7, 7), np.uint8)
    adjacency[0, 0, 1] = adjacency[0, 1, 3] = adjacency[0, 0, 2] = 1
    labels = np.array([[0, 1, 2, 4, -1, -1, -1]])
    root = parse(draw_cell(CellBatch.from_dense(adjacency, labels, space.layout), space))
    faint = [group for group in root.findall(f"{SVG}g") if group.get("opacity")]
    assert ["".join(group.itertext()) for group in faint] == ["conv 3x3"]


def test_labels_are_escaped() -> None:
    space = spaces.get("nasbench201")
    svg = draw_cell(space.enumerate()[0], space, label='<b> & "quotes"')
    assert parse(svg).get("aria-label") == '<b> & "quotes"'


def test_legend_names_every_inner_operation_once() -> None:
    assert [name for name, _ in legend(spaces.get("nasbench101"))] == [
        "conv 1x1",
        "conv 3x3",
        "max 3x3",
    ]
    assert len(legend(spaces.get("darts"))) == 8

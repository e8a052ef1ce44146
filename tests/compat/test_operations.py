# SPDX-License-Identifier: Apache-2.0
"""Operation names and the released validity checks, blind spots included."""

from pathlib import Path

import numpy as np
import pytest
import torch

from arch2vec_fast import compat

NASBENCH201 = [
    "input",
    "nor_conv_1x1",
    "none",
    "skip_connect",
    "none",
    "avg_pool_3x3",
    "none",
    "output",
]


def darts_cell() -> tuple[np.ndarray, list[str]]:
    adjacency = np.zeros((11, 11), dtype=int)
    for block in range(4):
        adjacency[0, 2 * block + 2] = adjacency[1, 2 * block + 3] = 1
    adjacency[2:10, 10] = 1
    return adjacency, ["c_k-2", "c_k-1", *["sep_conv_3x3"] * 8, "output"]


def test_names_of_indices() -> None:
    assert compat.to_ops_nasbench101(torch.tensor([0, 2, 4])) == [
        "input",
        "conv3x3-bn-relu",
        "output",
    ]
    assert compat.to_ops_nasbench201(torch.tensor([0, 3, 5, 6])) == [
        "input",
        "avg_pool_3x3",
        "none",
        "output",
    ]
    assert compat.to_ops_darts(np.array([0, 1, 2, 9, 10])) == [
        "c_k-2",
        "c_k-1",
        "none",
        "dil_conv_5x5",
        "output",
    ]


def test_one_hot_rows_of_a_darts_cell() -> None:
    labels = [0, 1, 6, 6, 5, 4, 3, 2, 9, 8, 10]
    rows = compat.one_hot_darts(labels)
    assert rows.dtype == np.int8
    assert rows.argmax(1).tolist() == labels
    assert np.array_equal(rows, compat.to_operations_darts(labels))
    assert not compat.one_hot_darts(labels[:2])[2:].any()


def test_nasbench201_check_sees_neither_node_1_nor_edges() -> None:
    assert compat.is_valid_nasbench201(None, NASBENCH201)
    assert compat.is_valid_nasbench201(None, ["input", "input", *NASBENCH201[2:]])
    assert not compat.is_valid_nasbench201(None, [*NASBENCH201[:2], "output", *NASBENCH201[3:]])
    assert not compat.is_valid_nasbench201(None, ["none", *NASBENCH201[1:]])


def test_darts_check_wants_an_earlier_source_for_every_operation() -> None:
    adjacency, ops = darts_cell()
    assert compat.is_valid_darts(adjacency.tolist(), ops)
    for node in range(2, 10):
        broken = adjacency.copy()
        broken[:, node] = 0
        assert not compat.is_valid_darts(broken, ops), node
    assert not compat.is_valid_darts(adjacency, ["c_k-1", "c_k-2", *ops[2:]])
    assert not compat.is_valid_darts(adjacency, [*ops[:4], "output", *ops[5:]])


def test_darts_check_does_not_see_the_output_row_or_a_second_source() -> None:
    adjacency, ops = darts_cell()
    adjacency[:, 10] = 0
    adjacency[1, 2] = 1
    assert compat.is_valid_darts(adjacency, ops)


def test_load_json_reads_and_names_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"0": {"module_adjacency": [[0, 1], [0, 0]]}}')
    assert compat.load_json(str(path))["0"]["module_adjacency"][0] == [0, 1]
    path.write_text('{"0": ')
    with pytest.raises(ValueError, match=r"data\.json: not a JSON file"):
        compat.load_json(path)
    with pytest.raises(OSError, match=r"missing\.json"):
        compat.load_json(tmp_path / "missing.json")


def test_rejects_an_unknown_operation() -> None:
    with pytest.raises(ValueError, match=r"idx: operation 7 is outside 0\.\.6"):
        compat.to_ops_nasbench201([7])

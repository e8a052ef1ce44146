# SPDX-License-Identifier: Apache-2.0
"""Table files: what is written comes back, whatever is not one is refused in one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from arch2vec_fast import benchmarks, spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.benchmarks.store import SUFFIX

COUNT = 37


def table(*, runs: int = 3, times: bool = True) -> TableBenchmark:
    rng = np.random.default_rng(0)
    space = spaces.get("nasbench201")
    return TableBenchmark(
        name="nasbench201-cifar10",
        space=space,
        cells=space.enumerate()[:COUNT],
        reward="validation accuracy after 12 epochs, mean of 3 runs",
        fidelities=(4, 12),
        validation=rng.random((COUNT, 2, runs), np.float32),
        test=np.where(np.arange(COUNT) == 5, np.nan, rng.random(COUNT)),
        times=1 + rng.random((COUNT, 2)) if times else None,
        metadata={
            "source": "made up",
            "quantity": "validation accuracy after 12 epochs",
            "runs": "3 runs",
        },
    )


@pytest.mark.parametrize("times", [True, False])
def test_tables_come_back_as_they_were(times: bool, tmp_path: Path) -> None:
    bench, path = table(times=times), tmp_path / ("t" + SUFFIX)
    benchmarks.write_table(path, bench)
    read = benchmarks.read_table(path)
    assert read.cells == bench.cells
    assert (read.name, read.reward, read.fidelities) == (bench.name, bench.reward, bench.fidelities)
    assert read.metadata == bench.metadata
    assert read.space is bench.space
    assert np.array_equal(read.validation, bench.validation)
    assert read.validation.dtype == np.float32
    assert np.array_equal(read.test, bench.test, equal_nan=True)
    assert (read.times is None) == (bench.times is None)
    assert read.times is None or np.array_equal(read.times, bench.times)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_reward_names_the_choice_of_runs(tmp_path: Path) -> None:
    path = tmp_path / ("t" + SUFFIX)
    benchmarks.write_table(path, table())
    read = benchmarks.read_table(path, noise="run")
    assert read.reward == "validation accuracy after 12 epochs, one of 3 runs, drawn by seed"
    rows, seeds = np.arange(COUNT), np.arange(COUNT)
    assert not np.array_equal(
        read.query(rows, seeds).validation,
        benchmarks.read_table(path).query(rows, seeds).validation,
    )


def test_one_value_a_cell_has_no_runs_to_draw_from(tmp_path: Path) -> None:
    path = tmp_path / ("t" + SUFFIX)
    benchmarks.write_table(path, table(runs=1))
    assert benchmarks.read_table(path).reward == table().reward
    with pytest.raises(ValueError, match=r"^noise: this table of .* one value a cell"):
        benchmarks.read_table(path, noise="run")


def test_imported_tables_win_over_npz_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "nasbench201.npz", ops=np.zeros((1, 6)))  # damaged: would raise
    benchmarks.write_table(tmp_path / ("nasbench201-cifar10" + SUFFIX), table())
    assert len(benchmarks.get("nasbench201-cifar10", data=tmp_path)) == COUNT
    place = benchmarks.find("nasbench201-cifar10", data=tmp_path)
    assert place is not None
    assert place.kind == "table"


def test_a_table_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / ("anywhere" + SUFFIX)
    benchmarks.write_table(path, table())
    assert len(benchmarks.get("nasbench201-cifar10", data=path)) == COUNT
    with pytest.raises(ValueError, match=r"^data: .* is a table of nasbench201-cifar10, not of"):
        benchmarks.get("nasbench101", data=path)


def test_rejects_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / ("t" + SUFFIX)
    benchmarks.write_table(path, table())
    whole = path.read_bytes()
    for length in (0, 3, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"^{path}: not a whole safetensors file") as caught:
            benchmarks.read_table(path)
        assert "\n" not in str(caught.value)


def test_rejects_foreign_and_later_files(tmp_path: Path) -> None:
    path = tmp_path / ("t" + SUFFIX)
    save_file({"vectors": np.zeros(3, np.float32)}, path, {"format": "arch2vec-fast-1"})
    with pytest.raises(ValueError, match="but not a benchmark table"):
        benchmarks.read_table(path)
    save_file({"codes": np.zeros(3)}, path, {"format": "arch2vec-fast-benchmark-9"})
    with pytest.raises(ValueError, match="upgrade arch2vec-fast"):
        benchmarks.read_table(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        benchmarks.read_table(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.full((COUNT, 1), -1)}, "codes: cell 0 holds bits"),
        ({"codes": np.zeros(COUNT, np.int64)}, "codes: expected shape"),
        ({"validation": np.full((COUNT, 2, 1), 50.0)}, "validation: accuracies outside"),
        ({"validation": np.full((COUNT, 2, 1), np.nan)}, "validation: not all finite"),
        ({"validation": np.zeros((COUNT, 2, 1), np.int64)}, "validation: .* no column of numbers"),
        ({"test": np.zeros(3)}, "test: shape"),
        ({"times": np.zeros((COUNT, 2))}, "times: "),
        ({"test": None}, "lacks 'test'"),
    ],
)
def test_rejects_damaged_tables(
    change: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / ("t" + SUFFIX)
    benchmarks.write_table(path, table())
    tensors = {**load_file(path), **change}
    metadata = {
        "format": "arch2vec-fast-benchmark-1",
        "name": "nasbench201-cifar10",
        "space": "nasbench201",
        "reward": "r",
        "fidelities": "[4, 12]",
        "metadata": "{}",
    }
    save_file({key: value for key, value in tensors.items() if value is not None}, path, metadata)
    with pytest.raises(ValueError, match=message) as caught:
        benchmarks.read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_tables_of_named_spaces_are_written(tmp_path: Path) -> None:
    space = spaces.CellSpace(3, ("input", "conv", "output"))
    cells = space.enumerate()
    bench = replace(
        table(), space=space, cells=cells, fidelities=(4,), times=None,
        validation=np.zeros((len(cells), 1, 1)), test=np.zeros(len(cells)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="bench: custom is no named space"):
        benchmarks.write_table(tmp_path / "t", bench)
    assert not list(tmp_path.iterdir())

# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of the public tables: what they hold is what was published."""

from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast import benchmarks, spaces

# Reward of the best cell, test accuracy of the cells with it, best test accuracy; per cent.
CEILINGS = {
    "nasbench201-cifar10": (84.892, [94.3733], 94.3733),
    "nasbench201-cifar10-200": (91.6067, [94.3733], 94.3733),
    "nasbench201-cifar100": (61.32, [72.28, 73.0933], 73.5133),
    "nasbench201-imagenet16-120": (38.6667, [46.4778], 47.3111),
    "nasbench101": (94.3176, [94.3176], 94.3176),
    "nasbench101-30k": (94.9119, [93.5363], 94.3176),
}


@pytest.mark.data
@pytest.mark.parametrize("name", CEILINGS)
def test_ceilings_are_the_published_ones(name: str, data_dir: Path) -> None:
    bench = benchmarks.get(name, data=data_dir)
    reward, tests, best = CEILINGS[name]
    picks = np.flatnonzero(bench.mean_validation == bench.mean_validation.max())
    assert sorted(100 * bench.test_accuracy[picks]) == pytest.approx(tests, abs=1e-4)
    assert 100 * bench.ceiling.validation == pytest.approx(reward, abs=1e-4)
    assert 100 * bench.ceiling.test_of_pick == pytest.approx(np.mean(tests), abs=1e-4)
    assert 100 * bench.ceiling.test == pytest.approx(best, abs=1e-4)


@pytest.mark.data
def test_a_cifar10_query_costs_what_the_released_converter_says(data_dir: Path) -> None:
    bench = benchmarks.get("nasbench201-cifar10", data=data_dir)
    seconds = bench.query(np.arange(len(bench)), np.zeros(len(bench), np.int64)).seconds
    assert seconds.mean() == pytest.approx(112.84, abs=0.01)
    assert 12_000 // seconds.mean() == 106
    with np.load(data_dir / "nasbench201.npz") as table:
        train, valid = table["c10valid_train_s_per_epoch"], table["c10valid_valid_s_per_epoch"]
    assert seconds == pytest.approx(12 * train + valid, rel=1e-6)


@pytest.mark.data
def test_cells_are_in_the_order_of_the_benchmark(data_dir: Path) -> None:
    nasbench201 = benchmarks.get("nasbench201-cifar100", data=data_dir)
    assert nasbench201.cells == spaces.get("nasbench201").enumerate()
    nasbench101 = benchmarks.get("nasbench101", data=data_dir)
    assert nasbench101.cells == spaces.get("nasbench101").enumerate("official")


@pytest.mark.data
def test_the_sample_of_nasbench101_lies_where_its_index_says(data_dir: Path) -> None:
    whole = benchmarks.get("nasbench101", data=data_dir)
    sample = benchmarks.get("nasbench101-30k", data=data_dir)
    with np.load(data_dir / "nasbench101_val30k.npz") as table:
        assert np.array_equal(whole.find(sample.cells), table["index"])
        assert np.array_equal(whole.test[table["index"]], sample.test)
    assert sample.fidelities == (4, 12, 36, 108)
    assert sample.times is not None
    assert sample.times[:, 0] * 27 == pytest.approx(sample.times[:, 3])


@pytest.mark.data
@pytest.mark.parametrize("name", CEILINGS)
def test_rewards_say_what_they_are(name: str, data_dir: Path) -> None:
    bench = benchmarks.get(name, data=data_dir)
    assert f"after {bench.fidelities[-1]} epochs" in bench.reward
    assert bench.reward.startswith("test" if name == "nasbench101" else "validation")
    assert "run" in bench.reward


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="name: unknown benchmark 'nasbench301'; choose one of"):
        benchmarks.get("nasbench301")


@pytest.mark.parametrize("name", CEILINGS)
def test_what_is_not_there_is_said_with_the_way_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{name}: .* lacks it") as caught:
        benchmarks.get(name, data=tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("ARCH2VEC_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="ARCH2VEC_DATA is not set"):
        benchmarks.get(name)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        benchmarks.get(name, data=tmp_path / "absent")
    assert benchmarks.find(name, data=tmp_path) is None


def test_foreign_npz_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nasbench201.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(ValueError, match=r"not a whole \.npz table"):
        benchmarks.get("nasbench201-cifar10", data=tmp_path)
    np.savez(path, ops=np.zeros((2, 6), np.uint8))
    with pytest.raises(ValueError, match="lacks the column op_names, which nasbench201-cifar10"):
        benchmarks.get("nasbench201-cifar10", data=tmp_path)
    np.savez(path, ops=np.array([{}], dtype=object), op_names=np.array(["none"]))
    with pytest.raises(ValueError, match=r"not a whole \.npz table \(Object arrays"):
        benchmarks.get("nasbench201-cifar10", data=tmp_path)

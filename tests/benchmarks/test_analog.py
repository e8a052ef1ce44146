# SPDX-License-Identifier: Apache-2.0
"""The demo's table: the data of analog-nasbench, read without importing or executing it."""

import itertools
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arch2vec_fast import benchmarks, spaces
from arch2vec_fast.benchmarks import analog

OPS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")


def dump(path: Path, entries: dict[Any, float], *, extra: Any = None) -> Path:
    """A `data.anb` as the package's own classes would pickle it."""
    module = types.ModuleType("analognasbench.data")
    for name in ("Architecture", "DriftMeasurement"):
        setattr(module, name, type(name, (), {"__module__": module.__name__}))
    objects = {}
    for codes, accuracy in entries.items():
        objects[codes] = module.Architecture()
        drift = module.DriftMeasurement()
        drift.__dict__.update(value=10.0, uncertainty=0.5)
        objects[codes].__dict__.update(
            architecture=codes, baseline_accuracy=accuracy, baseline_drift_60=drift, extra=extra
        )
    sys.modules["analognasbench"] = types.ModuleType("analognasbench")
    sys.modules[module.__name__] = module
    try:
        path.write_bytes(pickle.dumps(objects))
    finally:
        del sys.modules["analognasbench"], sys.modules[module.__name__]
    return path


@pytest.fixture(scope="module")
def everything() -> dict[Any, float]:
    """Each cell's accuracy spells its operations out: a digit an edge."""
    return {
        codes: sum(code * 5**place for place, code in enumerate(codes)) / 200
        for codes in itertools.product(range(5), repeat=6)
    }


def test_operations_and_edges_are_the_right_ones(
    everything: dict[Any, float], tmp_path: Path
) -> None:
    written = benchmarks.import_analog(tmp_path, file=dump(tmp_path / "data.anb", everything))
    assert written == tmp_path / "nasbench201-demo.safetensors"
    bench = benchmarks.get("nasbench201-demo", data=tmp_path)
    space = spaces.get("nasbench201")
    assert bench.cells == space.enumerate()
    edges = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for row in (0, 77, 9930):
        arch = space.to_string(bench.cells[[row]])[0]  # type: ignore[attr-defined]
        named = {
            (int(text.split("~")[1]), target): text.split("~")[0]
            for target, node in enumerate(arch.split("+"), 1)
            for text in node.strip("|").split("|")
        }
        codes = tuple(OPS.index(named[edge]) for edge in edges)
        assert 100 * bench.validation[row, 0, 0] == pytest.approx(everything[codes])
    assert np.array_equal(bench.validation[:, 0, 0], bench.test)
    assert not bench.has_times
    assert bench.reward.startswith("CIFAR-10 test accuracy")


def test_other_files_are_refused(everything: dict[Any, float], tmp_path: Path) -> None:
    path = tmp_path / "data.anb"
    dump(path, dict(itertools.islice(everything.items(), 10)))
    with pytest.raises(ValueError, match="holds 10 of 15,625 cells"):
        benchmarks.import_analog(tmp_path, file=path)
    whole = path.read_bytes()
    for content in (b"", whole[:200], pickle.dumps([1]), pickle.dumps({(0, 1): {}})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path}: not the data of analog-nasbench"):
            benchmarks.import_analog(tmp_path, file=path)
    dump(path, {(9,) * 6: 1.0})
    with pytest.raises(ValueError, match="not the data of analog-nasbench"):
        benchmarks.import_analog(tmp_path, file=path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        benchmarks.import_analog(tmp_path, file=tmp_path / "absent")
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.anb"]


class Hostile:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


def test_code_is_refused(tmp_path: Path) -> None:
    path = dump(tmp_path / "data.anb", {(0,) * 6: 1.0}, extra=Hostile(tmp_path / "mark"))
    with pytest.raises(ValueError, match=r"names posix\.system, which is no data"):
        benchmarks.import_analog(tmp_path, file=path)
    assert not (tmp_path / "mark").exists()


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analog, "_PACKAGE", "no-such-package")
    message = r"pip install 'arch2vec-fast\[analog\]'"
    with pytest.raises(FileNotFoundError, match=message):
        benchmarks.get("nasbench201-demo", data=tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        benchmarks.import_analog(tmp_path)


@pytest.mark.data
def test_the_package_agrees_with_the_benchmark(data_dir: Path, tmp_path: Path) -> None:
    if analog.find_analog() is None:
        pytest.skip("the package analog-nasbench is not installed")
    demo = benchmarks.get("nasbench201-demo", data=tmp_path)
    bench = benchmarks.get("nasbench201-cifar10", data=data_dir)
    assert demo.cells == bench.cells
    assert np.corrcoef(demo.test, bench.test)[0, 1] > 0.999
    assert np.median(np.abs(demo.test - bench.test)) < 0.004
    assert "analognasbench" not in sys.modules

# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-201 files in all their containers; nothing in them is executed."""

import bz2
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arch2vec_fast import benchmarks, spaces
from arch2vec_fast.benchmarks import import_nasbench201
from official_files import accuracy201, nasbench201_object, nasbench201_record

NUMBERS = (0, 1, 2, 311)
RUNS = {0: 1, 1: 2, 2: 3, 311: 3}
CONTAINERS = ("legacy", "zip", "bz2", "folder")
NAMES = {"cifar100": "nasbench201-cifar100", "ImageNet16-120": "nasbench201-imagenet16-120"}


def archs() -> list[str]:
    space = spaces.get("nasbench201")
    return space.to_string(space.enumerate()[:312])  # type: ignore[attr-defined, no-any-return]


def made(**options: bool) -> dict[int, Any]:
    return {
        number: nasbench201_record(archs()[number], number, runs=RUNS[number], **options)
        for number in NUMBERS
    }


def write(container: str, folder: Path, records: dict[int, Any]) -> Path:
    path = folder / "NAS-Bench-201"
    if container == "folder":
        path.mkdir()
        for number, record in records.items():
            (path / f"{number:06d}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(record)))
        (path / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"arch2infos": None})))
    elif container == "bz2":
        path.write_bytes(
            bz2.compress(pickle.dumps(nasbench201_object(records, archs()), protocol=4))
        )
    else:
        whole = nasbench201_object(records, archs(), ("less", "full"))
        torch.save(whole, path, _use_new_zipfile_serialization=container == "zip")
    return path


@pytest.mark.parametrize("container", CONTAINERS)
def test_runs_come_back(container: str, tmp_path: Path) -> None:
    path = write(container, tmp_path, made())
    written = import_nasbench201(path, tmp_path, partial=True)
    assert [entry.name for entry in written] == [
        "nasbench201-cifar10.safetensors",
        "nasbench201-cifar10-200.safetensors",
        "nasbench201-cifar100.safetensors",
        "nasbench201-imagenet16-120.safetensors",
    ]
    for dataset, name in NAMES.items():
        bench = benchmarks.get(name, data=tmp_path)
        assert bench.cells == spaces.get("nasbench201").enumerate()[list(NUMBERS)]
        assert bench.fidelities == (12, 200)
        assert bench.validation.shape == (4, 2, 6)
        assert bench.reward == "validation accuracy after 200 epochs, mean of 1 to 3 runs"
        for row, number in enumerate(NUMBERS):
            seeds = [777, 888, 999][: RUNS[number]]
            short = accuracy201(dataset, "x-valid", 111, 12, number)
            long = [accuracy201(dataset, "x-valid", seed, 200, number) for seed in seeds]
            test = [accuracy201(dataset, "x-test", seed, 200, number) for seed in seeds]
            assert 100 * bench.validation[row, 0] == pytest.approx([short] * 6)
            assert 100 * bench.validation[row, 1] == pytest.approx(long * (6 // len(long)))
            assert 100 * bench.test[row] == pytest.approx(np.mean(test))
        numbers = np.array(NUMBERS)
        seconds = [e * (4.0 + numbers) + 0.5 + numbers for e in (12, 200)]
        assert bench.times == pytest.approx(np.stack(seconds, 1))


def test_cifar10_is_validated_on_one_half_and_tested_after_both(tmp_path: Path) -> None:
    import_nasbench201(write("zip", tmp_path, made()), tmp_path, partial=True)
    paper = benchmarks.get("nasbench201-cifar10", data=tmp_path)
    both = benchmarks.get("nasbench201-cifar10-200", data=tmp_path)
    assert paper.fidelities == (12,)
    assert paper.reward == "validation accuracy after 12 epochs, mean of 2 runs"
    assert both.fidelities == (12, 200)
    assert np.array_equal(paper.test, both.test)
    for row, number in enumerate(NUMBERS):
        runs = [accuracy201("cifar10-valid", "x-valid", seed, 12, number) for seed in (777, 111)]
        test = [
            accuracy201("cifar10", "ori-test", seed, 200, number)
            for seed in (777, 888, 999)[: RUNS[number]]
        ]
        assert 100 * paper.validation[row, 0] == pytest.approx(runs)
        assert 100 * paper.test[row] == pytest.approx(np.mean(test))


def test_version_1_0_lacks_short_schedules_and_seconds_elsewhere(tmp_path: Path) -> None:
    import_nasbench201(write("legacy", tmp_path, made(old=True)), tmp_path, partial=True)
    assert benchmarks.get("nasbench201-cifar10", data=tmp_path).has_times
    for name in NAMES.values():
        bench = benchmarks.get(name, data=tmp_path)
        assert bench.fidelities == (200,)
        assert bench.times is None


@pytest.mark.parametrize("length", [12, 200])
def test_the_official_package_reads_the_same_numbers(length: int, tmp_path: Path) -> None:
    """`pip install nas-bench-201`; its API averages over seeds as the table does over runs."""
    official = pytest.importorskip("nas_201_api")
    whole = nasbench201_object(made(), archs(), ("less", "full"))
    api = official.NASBench201API(whole, verbose=False)
    import_nasbench201(write("legacy", tmp_path, made()), tmp_path, partial=True)
    names = {"cifar10-valid": "nasbench201-cifar10-200", **NAMES}
    for dataset, name in names.items():
        bench = benchmarks.get(name, data=tmp_path)
        place = bench.fidelities.index(length)
        for row, number in enumerate(NUMBERS):
            told = api.get_more_info(number, dataset, hp=str(length), is_random=False)
            assert 100 * bench.validation[row, place].mean() == pytest.approx(
                told["valid-accuracy"]
            )
            assert bench.times is not None
            seconds = length * told["train-per-time"] + told["valid-per-time"]
            assert bench.times[row, place] == pytest.approx(seconds)
            tested = "cifar10" if dataset == "cifar10-valid" else dataset
            told = api.get_more_info(number, tested, hp="200", is_random=False)
            assert 100 * bench.test[row] == pytest.approx(told["test-accuracy"])


@pytest.mark.data
def test_rows_of_the_public_table_come_back(data_dir: Path, tmp_path: Path) -> None:
    public = benchmarks.get("nasbench201-cifar100", data=data_dir)
    records = made()
    for number, record in records.items():
        for key, result in record["12"]["all_results"].items():
            if key[0] == "cifar100":
                accuracy = 100 * float(public.validation[number, 0, 0])
                result["eval_acc1es"]["x-valid@11"] = accuracy
        for key, result in record["200"]["all_results"].items():
            if key[0] == "cifar100":
                result["eval_acc1es"]["x-test@199"] = 100 * float(public.test[number])
    import_nasbench201(write("legacy", tmp_path, records), tmp_path, partial=True)
    bench = benchmarks.get("nasbench201-cifar100", data=tmp_path)
    rows = list(NUMBERS)
    assert bench.cells == public.cells[rows]
    assert bench.validation[:, 0].mean(1) == pytest.approx(public.validation[rows, 0, 0], abs=1e-6)
    assert bench.test == pytest.approx(public.test[rows], abs=1e-9)


def failure(path: Path, out: Path, *, partial: bool = True) -> str:
    before = sorted(out.iterdir())
    with pytest.raises(ValueError, match=f"^{path}") as caught:
        import_nasbench201(path, out, partial=partial)
    assert "\n" not in str(caught.value)
    assert sorted(out.iterdir()) == before
    return str(caught.value)


class Hostile:
    """Unpickled by Python, this would run a command."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


@pytest.mark.parametrize("container", CONTAINERS)
def test_code_is_refused(container: str, tmp_path: Path) -> None:
    records = made()
    records[1]["200"]["net"] = Hostile(tmp_path / "mark")
    path = write(container, tmp_path, records)
    assert "names posix.system, which is no data; refused" in failure(path, tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("container", ["legacy", "bz2", "zip"])
def test_truncated_files_are_refused(container: str, tmp_path: Path) -> None:
    path = write(container, tmp_path, made())
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 3000 if container == "legacy" else 3000, 10):
        path.write_bytes(whole[:cut])
        text = failure(path, tmp_path)
        assert "download the file again" in text


def test_a_cut_off_legacy_file_says_where(tmp_path: Path) -> None:
    path = write("legacy", tmp_path, made())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"ends early, at byte {len(whole) // 2:,} (after " in failure(path, tmp_path)


def test_missing_architectures_need_partial(tmp_path: Path) -> None:
    path = write("zip", tmp_path, made())
    assert "holds 4 of 15,625 architectures" in failure(path, tmp_path, partial=False)


def accuracies(record: Any, schedule: str, dataset: str, seed: int) -> dict[str, float]:
    found: dict[str, float] = record[schedule]["all_results"][dataset, seed]["eval_acc1es"]
    return found


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: r["12"].pop("all_results"), "architecture 1 lacks 'all_results'"),
        (
            lambda r: accuracies(r, "200", "cifar100", 777).pop("x-valid@199"),
            "architecture 1 lacks 'x-valid@199'",
        ),
        (
            lambda r: accuracies(r, "12", "cifar10", 111).update({"ori-test@11": 101.0}),
            "architecture 1 is damaged (accuracy 101.0",
        ),
        (lambda r: r["12"].update(arch_str="|none~0|"), "is damaged (2 arch strings)"),
        (lambda r: [r[key].update(arch_str=archs()[2]) for key in r], "which is number 2"),
        (lambda r: r.pop("200"), "architecture 1 lacks the results of 200 epochs"),
    ],
)
def test_damage_names_the_architecture(damage: Any, message: str, tmp_path: Path) -> None:
    records = made()
    damage(records[1])
    path = write("folder", tmp_path, records)
    assert message in failure(path, tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(pickle.dumps({"arch": 1}))
    assert "holds no 'arch2infos'" in failure(path, tmp_path)
    path.write_bytes(b"\x00" * 100)
    assert "uses pickle operation" in failure(path, tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "no")
    assert "not one that torch wrote" in failure(path, tmp_path)
    folder = tmp_path / "empty"
    folder.mkdir()
    assert "holds no 000000.pickle.pbz2" in failure(folder, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        import_nasbench201(tmp_path / "absent", tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        import_nasbench201(path, tmp_path / "absent")

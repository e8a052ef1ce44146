# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-101 files: rows written in the official format come back; damage names its record."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast import benchmarks, spaces
from arch2vec_fast.benchmarks import import_nasbench101, tfrecord
from official_files import Training, crc32c, frame, metrics, nasbench101_file, nasbench101_row

COUNT = 7


def trainings(epochs: tuple[int, ...] = (108,), runs: int = 3) -> list[Training]:
    """Of the first cells of the benchmark, shuffled: the file's order must not matter."""
    rng = np.random.default_rng(0)
    cells = spaces.get("nasbench101").enumerate("official")
    made = [
        Training(cells[row], length, *(1000 * rng.random(1)), *rng.random(2))
        for row in range(COUNT)
        for length in epochs
        for _ in range(runs)
    ]
    return [made[i] for i in rng.permutation(len(made))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nasbench.tfrecord"
    path.write_bytes(nasbench101_file(trainings()))
    return path


@pytest.mark.parametrize("epochs", [(108,), (4, 12, 36, 108)])
def test_trainings_come_back(epochs: tuple[int, ...], tmp_path: Path) -> None:
    made = trainings(epochs)
    (tmp_path / "f").write_bytes(nasbench101_file(made))
    path = import_nasbench101(tmp_path / "f", tmp_path, partial=True)
    assert path == tmp_path / "nasbench101.safetensors"
    bench = benchmarks.get("nasbench101", data=tmp_path)
    assert bench.cells == spaces.get("nasbench101").enumerate("official")[:COUNT]
    assert bench.fidelities == epochs
    assert bench.times is not None
    for row, cell in enumerate(bench.cells):
        for column, length in enumerate(epochs):
            mine = [t for t in made if t.cell == cell and t.epochs == length]
            assert sorted(bench.validation[row, column]) == pytest.approx(
                sorted(t.validation for t in mine), rel=1e-6
            )
            assert bench.times[row, column] == pytest.approx(np.mean([t.seconds for t in mine]))
        assert bench.test[row] == pytest.approx(np.mean([t.test for t in mine]), rel=1e-6)
    assert bench.reward == "validation accuracy after 108 epochs, mean of 3 runs"
    drawn = benchmarks.get("nasbench101", data=tmp_path, noise="run")
    assert drawn.reward == "validation accuracy after 108 epochs, one of 3 runs, drawn by seed"


@pytest.mark.data
def test_rows_of_the_public_tables_come_back(data_dir: Path, tmp_path: Path) -> None:
    sample = benchmarks.get("nasbench101-30k", data=data_dir)
    assert sample.times is not None
    rows = np.arange(0, len(sample), 997)
    made = [
        Training(
            sample.cells[[row]],
            length,
            float(sample.times[row, column]),
            float(sample.validation[row, column, 0]),
            float(sample.test[row]),
        )
        for row in rows
        for column, length in enumerate(sample.fidelities)
        for _ in range(3)
    ]
    (tmp_path / "f").write_bytes(nasbench101_file(made))
    import_nasbench101(tmp_path / "f", tmp_path, partial=True)
    bench = benchmarks.get("nasbench101", data=tmp_path)
    found = bench.find(sample.cells[rows])
    assert sorted(found) == list(range(len(rows)))
    assert bench.validation.mean(2)[found] == pytest.approx(sample.validation[rows, :, 0], abs=1e-6)
    assert bench.test[found] == pytest.approx(sample.test[rows], abs=1e-6)
    assert bench.times[found] == pytest.approx(sample.times[rows], rel=1e-6)


def test_any_labelling_and_a_checkpoint_path_are_read(tmp_path: Path) -> None:
    made = [t._replace(cell=t.cell.canonical()) for t in trainings()]
    assert any(t.cell != other.cell for t, other in zip(made, trainings()))
    rows = [nasbench101_row(t, checkpoint=True) for t in made]
    (tmp_path / "f").write_bytes(b"".join(map(frame, rows)))
    import_nasbench101(tmp_path / "f", tmp_path, partial=True)
    assert len(benchmarks.get("nasbench101", data=tmp_path)) == COUNT


def test_cells_without_all_their_runs_are_not_whole(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"423,617 of 423,624 cells lack runs, .* or pass partial"):
        import_nasbench101(file, tmp_path)
    made = trainings()
    file.write_bytes(nasbench101_file(made[1:]))
    import_nasbench101(file, tmp_path, partial=True)
    assert len(benchmarks.get("nasbench101", data=tmp_path)) == COUNT - 1
    file.write_bytes(nasbench101_file([*made, made[0]]))
    with pytest.raises(ValueError, match=f"record {len(made)} is run 4 of one cell"):
        import_nasbench101(file, tmp_path, partial=True)


def failure(file: Path, out: Path) -> str:
    before = sorted(out.iterdir())
    with pytest.raises(ValueError, match=f"^{file}: ") as caught:
        import_nasbench101(file, out, partial=True)
    assert "\n" not in str(caught.value)
    assert sorted(out.iterdir()) == before
    return str(caught.value)


def test_damage_names_the_record(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    records = [frame(nasbench101_row(t)) for t in trainings()]
    second = len(records[0])
    for position, message in [
        (second + 3, "record 1 is damaged (checksum of its length)"),
        (second + 9, "record 1 is damaged (checksum of its length)"),
        (second + 40, "record 1 is damaged (checksum of its data)"),
        (second + len(records[1]) - 1, "record 1 is damaged (checksum of its data)"),
    ]:
        broken = bytearray(whole)
        broken[position] ^= 0x10
        file.write_bytes(broken)
        assert message in failure(file, tmp_path)


def test_truncation_names_the_record(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    last = len(trainings()) - 1
    for cut in (1, 4, 5, 300):
        file.write_bytes(whole[:-cut])
        assert f"record {last} is cut off: the file ends inside it" in failure(file, tmp_path)
    file.write_bytes(whole[:5])
    assert "record 0 is cut off" in failure(file, tmp_path)
    file.write_bytes(b"")
    assert "holds no record" in failure(file, tmp_path)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, "0" * 32, "is of the cell '0000"),
        (0, 3, "fields of other types"),
        (1, "108", "fields of other types"),
        (2, "010", "describes no cell"),
        (2, "0" * 49, "describes no cell"),
        (2, "1" * 49, "describes no cell"),
        (2, "2" * 49, "describes no cell"),
        (3, "input,output", "describes no cell"),
        (3, "input,sep3x3,output", "describes no cell"),
        (4, "not base64!", "is no training"),
        (4, base64.b64encode(b"\x0a\x7f").decode(), "a message is cut off"),
        (4, base64.b64encode(b"\xff" * 20).decode(), "longer than 64 bits"),
        (4, base64.b64encode(b"").decode(), "is no training"),
    ],
)
def test_strange_records_are_named(
    position: int, value: object, message: str, file: Path, tmp_path: Path
) -> None:
    made = trainings()
    row = json.loads(nasbench101_row(made[1]))
    row[position] = value
    records = [nasbench101_row(made[0]), json.dumps(row).encode()]
    file.write_bytes(b"".join(map(frame, records)))
    text = failure(file, tmp_path)
    assert "record 1 " in text
    assert message in text


def test_numbers_out_of_range_are_refused(file: Path, tmp_path: Path) -> None:
    training = trainings()[0]
    for change in ({"validation": 93.0}, {"test": float("nan")}, {"seconds": 0.0}):
        file.write_bytes(nasbench101_file([training._replace(**change)]))
        assert "record 0 is no training of NAS-Bench-101 (accuracies" in failure(file, tmp_path)


def test_a_cell_under_the_name_of_another_is_refused(file: Path, tmp_path: Path) -> None:
    first, other = (json.loads(nasbench101_row(t)) for t in (trainings()[0], trainings()[-1]))
    assert first[0] != other[0]
    file.write_bytes(frame(json.dumps([other[0], *first[1:]]).encode()))
    assert "record 0 describes another cell than its hash" in failure(file, tmp_path)


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    file.write_bytes(frame(b"\xff\xfe"))
    assert "record 0 is no training" in failure(file, tmp_path)
    file.write_bytes(b"PK\x03\x04" * 1000)
    assert "record 0 is damaged" in failure(file, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        import_nasbench101(tmp_path / "absent", tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        import_nasbench101(file, tmp_path / "absent")


def test_checksums_match_the_plain_twin() -> None:
    rng = np.random.default_rng(0)
    messages = [rng.bytes(int(length)) for length in (0, 1, 7, 8, 9, 63, 64, 65, 257, 1)]
    assert tfrecord.crc32c(messages).tolist() == [crc32c(message) for message in messages]
    assert tfrecord.crc32c([]).tolist() == []


def test_many_batches_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "_BATCH", 4)
    rows = [bytes([number]) * (number % 5) for number in range(12)]
    path = tmp_path / "f"
    for count in (3, 4, 5, 8, 12):
        path.write_bytes(b"".join(map(frame, rows[:count])))
        with path.open("rb") as stream:
            read = [data for batch in tfrecord.read_records(stream, path) for data in batch]
        assert read == rows[:count]
    broken = bytearray(path.read_bytes())
    broken[-1] ^= 1
    path.write_bytes(broken)
    with path.open("rb") as stream, pytest.raises(ValueError, match="record 11 is damaged"):
        list(tfrecord.read_records(stream, path))


def test_metrics_are_protobuf() -> None:
    training = trainings()[0]
    assert metrics(training)[:3] == b"\x0a\x2d\x09"  # field 1, 45 bytes; field 1, a double

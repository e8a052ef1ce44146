# SPDX-License-Identifier: Apache-2.0
"""Files are whole or absent, and what is wrong with one names it."""

import os
from pathlib import Path

import pytest

from arch2vec_fast import spaces
from arch2vec_fast._files import atomic_file, keep_lines, read_cells, read_json, write_json
from arch2vec_fast.spaces import CellBatch

DARTS = spaces.get("darts")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("full_disk")
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    file.write_text("old")
    cells = spaces.get("nasbench201").sample(2, seed=0)
    for save in (cells.save_json, lambda path: DARTS.save_json(DARTS.sample(2, seed=0), path)):
        with pytest.raises(OSError, match=r"cells\.json: could not be written \(No space left"):
            save(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_errors_name_the_file_asked_for_not_the_draft(tmp_path: Path) -> None:
    for target in (tmp_path / "absent" / "a.json", tmp_path):
        with pytest.raises(OSError, match="could not be written") as raised:
            write_json(target, 1)
        assert str(raised.value).startswith(f"{target}: could not be written (")
        assert f".{target.name}." not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "file") as file:
            file.write(b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_numbers_that_json_does_not_have_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.json: not written, a number is not finite"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_json_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('"é"'.encode())
    assert read_json(tmp_path / "a.json") == "é"
    (tmp_path / "a.json").write_bytes(b'"\xe9"')
    with pytest.raises(ValueError, match=r"a\.json: not a JSON file"):
        read_json(tmp_path / "a.json")


def test_lines_that_are_no_objects_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n5\n{"step": 2}\n{"st')
    keep_lines(path, lambda line: True)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_cells_are_read_in_the_format_of_their_space(tmp_path: Path) -> None:
    """DARTS has one of its own, with hashes and genotypes; the plain records are read too."""
    cells = DARTS.sample(5, seed=0, distinct=True)
    DARTS.save_json(cells, tmp_path / "released.json")
    cells.save_json(tmp_path / "plain.json")
    assert read_cells(tmp_path / "released.json", DARTS) == cells
    assert read_cells(tmp_path / "plain.json", DARTS) == cells
    small = spaces.get("nasbench101")
    small.save_json(small.sample(3, seed=0), tmp_path / "small.json")
    assert small.load_json(tmp_path / "small.json") == CellBatch.load_json(tmp_path / "small.json")

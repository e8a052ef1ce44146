# SPDX-License-Identifier: Apache-2.0
"""The pickle reader builds what Python builds from plain data, and nothing else."""

import io
import pickle
import pickletools
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arch2vec_fast.benchmarks.pickles import PickleReader

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9)
)
KEYS = st.integers(-9, 300) | st.text(max_size=3) | st.tuples(st.text(max_size=2), st.integers())
DATA = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=5)
        | st.sets(st.integers(0, 99), max_size=4)
    ),
    max_leaves=12,
)


class Trickle(io.BytesIO):
    """Gives a few bytes at a time, as a decompressor may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 3))


def load(data: bytes, **options: Any) -> Any:
    return PickleReader(io.BytesIO(data), {}, **options).load()


@given(value=DATA)
def test_plain_data_comes_back(value: Any) -> None:
    data = pickle.dumps(value, protocol=4)
    assert load(data) == value
    assert PickleReader(Trickle(data), {}).load() == value


def test_large_containers_and_shared_parts_come_back() -> None:
    shared = [1.5, "x"]
    value = {"a": [shared, shared], **{i: float(i) for i in range(3000)}, "t": tuple(range(999))}
    for protocol in (2, 3, 4, 5):
        back = load(pickle.dumps(value, protocol=protocol))
        assert back == value
        assert back["a"][0] is back["a"][1]


@given(value=DATA, cut=st.integers(1, 50))
def test_what_ends_early_is_refused(value: Any, cut: int) -> None:
    data = pickle.dumps(value, protocol=4)
    with pytest.raises(ValueError, match=r"ends early, at byte|is damaged"):
        load(data[: max(0, len(data) - cut)])


@given(noise=st.binary(max_size=80))
def test_noise_is_data_or_a_value_error(noise: bytes) -> None:
    with suppress(ValueError):
        load(noise)


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02}U\x01aK\x01s.",
        pickle.dumps(pickletools.genops),
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x01a)R.",
    ],
)
def test_code_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="refused"):
        load(data)


def test_unwanted_items_are_dropped_and_parts_reduced() -> None:
    value = {"a@1": 1.0, "a@2": 2.0, "in": {1: 1.0, 2: 2.0, 3: [3]}, "name": "a@2"}
    back = load(
        pickle.dumps(value),
        keep=lambda key: key in (1, "a@1", "in", "name", "a@2"),
        reduce=lambda key, part: (key, sorted(part)),
    )
    assert back == {"a@1": 1.0, "a@2": 2.0, "in": ("in", [1, 3]), "name": "a@2"}
    assert "a@2" not in load(pickle.dumps(value), keep=lambda key: key != "a@2")


def test_what_is_done_is_forgotten() -> None:
    parts = {number: {"x@1": [float(number)], "name": "shared"} for number in range(2000)}
    lengths: list[int] = []

    def reduce(key: Any, part: dict[Any, Any]) -> Any:
        name, total = part["name"], sum(part["x@1"])
        part["x@1"].clear()
        part.clear()
        reader.forget(lambda value: value in ({}, []))
        lengths.append(len(reader._memo))
        return total, name

    reader = PickleReader(io.BytesIO(pickle.dumps(parts)), {}, reduce=reduce)
    assert reader.load() == {number: (float(number), "shared") for number in parts}
    assert lengths[-1] < 2100

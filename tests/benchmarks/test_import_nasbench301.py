# SPDX-License-Identifier: Apache-2.0
"""The surrogate read out of ONNX files: what was written comes back, anything else is refused."""

from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast.benchmarks import find, import_nasbench301
from arch2vec_fast.benchmarks.import_nasbench301 import _tensor
from arch2vec_fast.benchmarks.nasbench301 import CONSTANTS, FILE, Nasbench301Surrogate
from arch2vec_fast.spaces.darts import Darts
from official_files import message, onnx_file, onnx_tensor
from surrogate_weights import surrogate_weights


def dotted(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By the names that torch gives: embds_fct.0.weight, deep.0.1.bias, wide.0.weight."""
    names = {name: name.replace("_", ".").replace("embds.fct", "embds_fct") for name in weights}
    return {names[name]: array for name, array in weights.items()}


def imported(weights: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    file = folder / "model.onnx"
    file.write_bytes(onnx_file(dotted(weights), CONSTANTS))
    with np.load(import_nasbench301(file, folder)) as archive:
        return dict(archive)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    weights = surrogate_weights()
    found = imported(weights, tmp_path)
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32
    place = find("darts-nb301", data=tmp_path)
    assert place is not None
    edges = Darts().edges(Darts().sample(30, seed=0))
    both = Nasbench301Surrogate.load(place.path), Nasbench301Surrogate(weights)
    predicted = [surrogate.predict(edges).validation for surrogate in both]
    np.testing.assert_array_equal(*predicted)


@pytest.mark.data
def test_the_public_weights_survive_the_way_through_onnx(data_dir: Path, tmp_path: Path) -> None:
    if not (data_dir / FILE).exists():
        pytest.skip(f"needs {FILE} of $ARCH2VEC_DATA")
    with np.load(data_dir / FILE) as archive:
        weights = dict(archive)
    found = imported(weights, tmp_path)
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array)


def failure(content: bytes, folder: Path) -> str:
    """The one line that importing a file of `content` fails with; nothing is written."""
    file = folder / "x.onnx"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.onnx: ") as caught:
        import_nasbench301(file, folder)
    assert list(folder.iterdir()) == [file]
    text = str(caught.value)
    assert "\n" not in text
    assert "give nb301/new_model.onnx of slds-lmu/yahpo_data, commit 3a646b8" in text
    return text


def test_another_network_is_refused(tmp_path: Path) -> None:
    weights = dotted(surrogate_weights())
    without = {name: array for name, array in weights.items() if name != "deeper.3.1.bias"}
    text = failure(onnx_file(without, CONSTANTS), tmp_path)
    assert "not the surrogate (weights: lack deeper_3_1_bias and 0 more arrays)" in text
    wide = {**weights, "wide.0.weight": np.zeros((2, 68), np.float32)}
    text = failure(onnx_file(wide, CONSTANTS), tmp_path)
    assert "wide_0_weight and wide_0_bias have shapes 2x68 and 2, not 2x69 and 2" in text
    codes = {**weights, "embds_fct.28.weight": np.zeros((8, 2), np.float32)}
    text = failure(onnx_file(codes, CONSTANTS), tmp_path)
    assert "embds_fct_28_weight has shape 8x2, not 4xD" in text
    holes = {**weights, "wide.0.bias": np.full(2, np.nan, np.float32)}
    assert "wide_0_bias holds numbers that are not finite" in failure(
        onnx_file(holes, CONSTANTS), tmp_path
    )
    text = failure(onnx_file(weights, (1 / 98, *CONSTANTS[1:])), tmp_path)
    assert "epochs or seconds are scaled otherwise" in text


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    whole = onnx_file(dotted(surrogate_weights()), CONSTANTS)
    for torn in (whole[: len(whole) // 2], whole[:40], b"not a model", b"", whole[10:]):
        assert "no whole ONNX file" in failure(torn, tmp_path)
    elsewhere = onnx_tensor("wide.0.bias", np.zeros(2, np.float32)) + message((14, 1))
    text = failure(message((7, message((5, elsewhere)))), tmp_path)
    assert "tensors lie in another file" in text
    short = message((1, 3), (2, 1), (8, "wide.0.bias"), (9, bytes(8)))
    assert "no whole ONNX file" in failure(message((7, message((5, short)))), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such file .*absent; give nb301/new_model"):
        import_nasbench301(tmp_path / "absent", tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is no folder; make it first"):
        import_nasbench301(tmp_path / "x.onnx", tmp_path / "nowhere")


def test_packed_floats_are_read_too(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for raw in (True, False):
        name, found = _tensor(onnx_tensor("a", array, raw=raw))
        assert name == "a"
        assert found is not None
        np.testing.assert_array_equal(found, array)

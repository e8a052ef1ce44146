# SPDX-License-Identifier: Apache-2.0
"""The NAS-Bench-301 surrogate from its public ONNX file, without ONNX.

Weights and the constants that scale epochs and seconds are read out of the file and checked; its
graph is not run. Of the format (a protobuf message) this takes `ModelProto{7: graph}`,
`GraphProto{1: node, 5: initializer}`, `NodeProto{4: op_type, 5: attribute}`, `AttributeProto{5: t}`
and `TensorProto{1: dims, 2: data_type, 4: float_data, 8: name, 9: raw_data, 14: data_location}`.

Source: onnx/onnx, `onnx.proto`; slds-lmu/yahpo_data, nb301/new_model.onnx.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast._atomic import atomic_file
from arch2vec_fast.benchmarks.nasbench301 import CONSTANTS, FILE, Nasbench301Surrogate
from arch2vec_fast.benchmarks.protobuf import fields, varints

__all__ = ["import_nasbench301"]

_GRAPH: Final = 7
_NODE, _INITIALIZER = 1, 5
_OP_TYPE, _ATTRIBUTE, _TENSOR = 4, 5, 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _DATA_LOCATION = 1, 2, 4, 8, 9, 14
_FLOAT: Final = 1  # a data type
_LARGEST: Final = 1 << 28  # bytes of a file; the surrogate's has 2.6 million
_PUBLIC: Final = (
    "give nb301/new_model.onnx of slds-lmu/yahpo_data, commit 3a646b8 (later ones hold another "
    "network)"
)


class _Contents(NamedTuple):
    """What a file holds."""

    weights: dict[str, NDArray[np.float32]]
    """Initialisers of the graph that are float32, by name."""
    constants: list[float]
    """Float scalars among its constants, in order."""


def import_nasbench301(file: str | Path, out: str | Path) -> Path:
    """Turn the surrogate's public ONNX file into `OUT/nb301_yahpo_surrogate.npz`.

    file: `nb301/new_model.onnx` of github.com/slds-lmu/yahpo_data at commit 3a646b8; what lies
    there today under another name is another network. out: an existing folder, e.g. that of
    `ARCH2VEC_DATA`, where the benchmark `darts-nb301` finds it. Returns the path written.

    Raises FileNotFoundError, or ValueError, one line, for a file that is no ONNX file or not of
    this network: names and shapes of all weights and the constants of the scaling are compared.
    """
    path, folder = Path(file), Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"out: {folder} is no folder; make it first")
    contents = _read(path)
    weights = {name.replace(".", "_"): array for name, array in contents.weights.items()}
    try:
        Nasbench301Surrogate(weights)
        if contents.constants != np.array(CONSTANTS, np.float32).tolist():
            raise ValueError("constants: epochs or seconds are scaled otherwise")
    except ValueError as error:
        raise ValueError(f"{path}: not the surrogate ({error}); {_PUBLIC}") from None
    target = folder / FILE
    with atomic_file(target) as stream:
        np.savez_compressed(stream, **weights)  # type: ignore[arg-type]
    return target


def _read(path: Path) -> _Contents:
    """The float32 tensors of an ONNX file."""
    if not path.is_file():
        raise FileNotFoundError(f"file: no such file {path}; {_PUBLIC}")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path}: too large for the surrogate; {_PUBLIC}")
    weights, constants = {}, []
    try:
        (graph,) = _all(path.read_bytes(), _GRAPH)
        for name, tensor in map(_tensor, _all(graph, _INITIALIZER)):
            if tensor is not None:
                weights[name] = tensor
        for node in _all(graph, _NODE):
            if _all(node, _OP_TYPE) == [b"Constant"]:
                constants += _scalars(node)
    except (ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{path}: no whole ONNX file ({error}); {_PUBLIC}") from None
    return _Contents(weights, constants)


def _all(message: bytes, number: int) -> list[bytes]:
    """Every field `number`."""
    return [raw for kind, _, raw in fields(message) if kind == number]


def _scalars(node: bytes) -> list[float]:
    """Float scalars that a node of constants holds: one or none."""
    tensors = [_tensor(raw)[1] for part in _all(node, _ATTRIBUTE) for raw in _all(part, _TENSOR)]
    return [float(tensor) for tensor in tensors if tensor is not None and tensor.ndim == 0]


def _tensor(message: bytes) -> tuple[str, NDArray[np.float32] | None]:
    """Name and values of a tensor; None where they are no float32."""
    shape: list[int] = []
    data_type, name, data = 0, "", b""
    for number, _, raw in fields(message):
        if number == _DIMS:
            shape.extend(varints(raw))
        elif number == _DATA_TYPE:
            data_type = next(varints(raw))
        elif number == _NAME:
            name = raw.decode()
        elif number in (_RAW_DATA, _FLOAT_DATA):
            data += raw
        elif number == _DATA_LOCATION and any(varints(raw)):
            raise ValueError("tensors lie in another file")
    if data_type != _FLOAT:
        return name, None
    return name, np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)

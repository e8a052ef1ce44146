# SPDX-License-Identifier: Apache-2.0
"""Writers of small files in the formats of the official benchmarks, for the importers' tests."""

import base64
import json
import struct
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from arch2vec_fast import spaces
from arch2vec_fast.spaces import CellBatch

Record = dict[str, dict[str, Any]]


def crc32c(data: bytes) -> int:
    """CRC32C bit by bit: the slow and obvious twin of `tfrecord.crc32c`."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    checksum = crc32c(data)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One TFRecord."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", masked(length)), data, struct.pack("<I", masked(data)))
    )


class Training(NamedTuple):
    """One training of a NAS-Bench-101 cell."""

    cell: CellBatch
    epochs: int
    seconds: float
    validation: float
    test: float


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def message(*parts: tuple[int, bytes | int | str]) -> bytes:
    """A protobuf message of (field number, value): integers as varints, all else by length."""
    out = b""
    for number, value in parts:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
            continue
        data = value.encode() if isinstance(value, str) else value
        out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def onnx_tensor(name: str, array: np.ndarray, *, raw: bool = True) -> bytes:
    """A TensorProto of float32 or int64."""
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    dims = [(1, size) for size in array.shape]
    return message(*dims, (2, kind), (8, name), (9 if raw else 4, array.tobytes()))


def onnx_constant(value: np.ndarray) -> bytes:
    """A NodeProto that gives one constant."""
    attribute = message((1, "value"), (5, onnx_tensor("", value)), (20, 4))
    return message((2, "1"), (3, "Constant_0"), (4, "Constant"), (5, attribute))


def onnx_file(weights: dict[str, np.ndarray], constants: Iterable[float]) -> bytes:
    """An ONNX model as torch exports it, but for the nodes that compute something."""
    nodes = [onnx_constant(np.array(2, np.int64))]
    nodes += [onnx_constant(np.array(value, np.float32)) for value in constants]
    nodes.append(message((1, "0"), (1, "1"), (2, "2"), (4, "Mul")))
    tensors = [onnx_tensor(name, array) for name, array in weights.items()]
    tensors.append(onnx_tensor("210", np.array([2], np.int64)))
    graph = message(
        *((1, node) for node in nodes), (2, "torch-jit-export"), *((5, t) for t in tensors)
    )
    return message((1, 6), (2, "pytorch"), (7, graph), (8, message((2, 12))))


def metrics(training: Training, *, checkpoint: bool = False) -> bytes:
    """A serialized ModelMetrics: evaluations at the start, half-way and at the end."""
    message = b""
    for share in (0.0, 0.5, 1.0):
        fields = (
            training.epochs * share,
            training.seconds * share,
            0.99 * share,
            training.validation * share,
            training.test * share,
        )
        evaluation = b"".join(
            bytes(((number << 3) | 1,)) + struct.pack("<d", value)
            for number, value in enumerate(fields, 1)
        )
        if checkpoint:
            path = b"/tmp/model.ckpt-1234"
            evaluation += bytes(((6 << 3) | 2, len(path))) + path
        message += bytes(((1 << 3) | 2,)) + varint(len(evaluation)) + evaluation
    message += bytes(((2 << 3) | 0,)) + varint(8_555_530)
    return message + bytes(((3 << 3) | 1,)) + struct.pack("<d", 2 * training.seconds)


def nasbench101_row(training: Training, *, checkpoint: bool = False) -> bytes:
    """The JSON of one record, as google-research/nasbench reads it."""
    space = spaces.get("nasbench101")
    matrix, names = space.to_matrix(training.cell)
    adjacency = "".join(str(int(bit)) for bit in matrix.ravel())
    encoded = base64.b64encode(metrics(training, checkpoint=checkpoint)).decode()
    name = space.nasbench_hash(training.cell)[0]  # type: ignore[attr-defined]
    return json.dumps([name, training.epochs, adjacency, ",".join(names), encoded]).encode()


def nasbench101_file(trainings: Iterable[Training]) -> bytes:
    return b"".join(frame(nasbench101_row(training)) for training in trainings)


def nasbench201_record(arch: str, number: int, *, runs: int = 3, old: bool = False) -> Record:
    """Both schedules of one architecture, as the APIs' `state_dict`s; numbers made from `number`.

    old: as version 1.0 has it, 12 epochs on `cifar10-valid` alone and no seconds of 200 epochs.
    """
    short = {"cifar10-valid": [777, 111], "cifar10": [111], "cifar100": [111]}
    long = dict.fromkeys(("cifar10-valid", "cifar10", "cifar100"), [777, 888, 999][:runs])
    short["ImageNet16-120"], long["ImageNet16-120"] = [111], long["cifar10"]
    schedules = {12: {"cifar10-valid": [777]} if old else short, 200: long}
    record: Record = {}
    for epochs, seeds in schedules.items():
        results = {
            (dataset, seed): nasbench201_result(dataset, seed, epochs, number)
            for dataset, used in seeds.items()
            for seed in used
        }
        record[str(epochs)] = {
            "arch_index": number,
            "arch_str": arch,
            "all_results": results,
            "dataset_seed": seeds,
            "clear_net_done": True,
        }
    return record


def accuracy201(dataset: str, part: str, seed: int, epochs: int, number: int) -> float:
    """A made-up final accuracy in per cent, different for every run."""
    return 10 + (len(dataset) * 7 + len(part) * 3 + seed % 13 + epochs % 7 + number * 1.37) % 80


def nasbench201_result(dataset: str, seed: int, epochs: int, number: int) -> dict[str, Any]:
    """One `ResultsCount`: accuracies and seconds by epoch."""
    parts = {"cifar10-valid": ["x-valid", "ori-test"], "cifar10": ["ori-test"]}
    names = parts.get(dataset, ["x-valid", "x-test", "ori-test"])
    last = epochs - 1
    accuracies = {f"{part}@{epoch}": 1.0 + epoch / 500 for part in names for epoch in range(epochs)}
    for part in names:
        accuracies[f"{part}@{last}"] = accuracy201(dataset, part, seed, epochs, number)
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": {epoch: 10.0 + epoch / 10 for epoch in range(epochs)},
        "train_acc5es": None,
        "train_losses": {epoch: 2.0 - epoch / 300 for epoch in range(epochs)},
        "train_times": OrderedDict((epoch, 4.0 + number) for epoch in range(epochs)),
        "params": np.float64(0.1),
        "flop": 11.7,
        "seed": f"{seed:04d}",
        "epochs": epochs,
        "latency": [np.float64(0.012)],
        "eval_names": names,
        "eval_acc1es": accuracies,
        "eval_losses": dict.fromkeys(accuracies, 0.5),
        "eval_times": dict.fromkeys(accuracies, 0.5 + number),
    }


def nasbench201_object(
    records: dict[int, Record], archs: list[str], names: tuple[str, str] = ("12", "200")
) -> dict[str, Any]:
    """The object of a file of all architectures; the `.pth` names schedules "less" and "full"."""
    renamed = {
        number: {name: record[key] for name, key in zip(names, ("12", "200"))}
        for number, record in records.items()
    }
    return {
        "meta_archs": archs,
        "total_archs": len(archs),
        "arch2infos": renamed,
        "evaluated_indexes": set(records),
    }

# SPDX-License-Identifier: Apache-2.0
"""What Ray is asked for is checked before Ray, which would wait for minutes, is started."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from arch2vec_fast import _machine
from arch2vec_fast.cli import run
from arch2vec_fast.darts import ray_workers as module
from arch2vec_fast.darts.ray_workers import ray_workers
from arch2vec_fast.darts.trained import TrainHere
from toy import toy_images

pytest.importorskip("ray")


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """Accepts one connection and answers it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@pytest.fixture
def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["", "ray://"])
def test_a_dead_address_is_said_at_once(kind: str, closed: str) -> None:
    with pytest.raises(OSError, match=f"ray-address: nothing answers at {kind}127"):
        ray_workers(1, address=kind + closed)


def test_a_server_of_another_kind_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        server(b"HTTP/1.1 400 Bad Request\r\n") as address,
        pytest.raises(OSError, match=r"what answers at .* is not Ray; check the port"),
    ):
        ray_workers(1, address=address)
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(OSError, match="nothing answers at"):
            ray_workers(1, address=address)


def test_what_speaks_http2_is_let_through() -> None:
    with server(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))) as address:
        module._check_answers(address)


def test_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    with pytest.raises(ValueError, match=r"5 trainings at once, but this machine has 4 CPUs; ask"):
        ray_workers(5)
    with pytest.raises(ValueError, match=r"99 trainings at once, but this machine has \d+ GPUs"):
        ray_workers(99, device="cuda")
    for device in ("cuda:1", "gpu"):
        with pytest.raises(ValueError, match=f"device: {device} is neither cpu nor cuda, which"):
            ray_workers(2, device=device)
    for address in ("head", ":6379", "head:x"):
        with pytest.raises(ValueError, match="is none; give HOST:PORT, ray://HOST:PORT or auto"):
            ray_workers(2, address=address)


class FakeRay:
    """A cluster of one machine with two GPUs."""

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def cluster_resources() -> dict[str, float]:
        return {"CPU": 8.0, "GPU": 2.0}


def test_the_gpus_of_the_cluster_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert ray_workers(2, address="head:6379", device="cuda").at_once == 2
    with pytest.raises(ValueError, match="3 trainings at once, but the cluster has 2 GPUs; ask"):
        ray_workers(3, address="head:6379", device="cuda")


def test_a_machine_without_gpus_searches_on_its_cpu_and_trains_on_the_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def workers(count: int, *, address: str, device: str) -> TrainHere:
        asked.append((count, address, device))
        return TrainHere()

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(module, "ray_workers", workers)
    monkeypatch.setattr("arch2vec_fast.darts.images.load_images", lambda *names: toy_images())
    cheap = ["--epochs", "1", "--channels", "2", "--layers", "3", "--method", "random"]
    where = ["--store", str(tmp_path / "s"), "--out", str(tmp_path / "out"), "--device", "cuda"]
    search = ["search", "darts", "--seeds", "1", "--queries", "1", *cheap, *where]
    assert run(search) == 2
    assert "device: cuda is not available here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert run([*search, "--workers", "2", "--ray-address", "head:6379"]) == 0
    told = "trainings on the GPUs of head:6379, everything else on the cpu (device: cuda is not"
    assert told in capsys.readouterr().err
    assert asked == [(2, "head:6379", "cuda")]


def test_a_command_without_its_cluster_leaves_nothing(
    closed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    search = ("search", "darts", "--queries", "1", "--seeds", "1", "--store", str(store))
    for command in (search, ("table4",)):
        for wrong in (("--ray-address", closed), ("--workers", "999")):
            capsys.readouterr()
            assert run([*command, "--out", str(out), *wrong]) == 2
            assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_cores_are_counted_where_the_system_does_not_say_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _machine.usable_cores() >= 1
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert _machine.usable_cores() == 7

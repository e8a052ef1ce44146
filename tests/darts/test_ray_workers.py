# SPDX-License-Identifier: Apache-2.0
"""What Ray is asked for is checked before Ray, which would wait for minutes, is started."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from arch2vec_fast import _machine
from arch2vec_fast.cli import run
from arch2vec_fast.darts import ray_workers as module
from arch2vec_fast.darts.ray_workers import ray_workers

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
    with pytest.raises(ValueError, match="device: cuda:1 is one GPU, but each worker gets its own"):
        ray_workers(2, device="cuda:1")
    for address in ("head", ":6379", "head:x"):
        with pytest.raises(ValueError, match="is none; give HOST:PORT, ray://HOST:PORT or auto"):
            ray_workers(2, address=address)


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

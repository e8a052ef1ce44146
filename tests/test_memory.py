# SPDX-License-Identifier: Apache-2.0
"""Out of memory: one line that names the argument, what it needs, what is free, what would fit."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arch2vec_fast import _memory, functional, spaces
from arch2vec_fast._memory import counted_memory, free_bytes, is_out_of_memory
from arch2vec_fast.embeddings import embed_chunks
from arch2vec_fast.index import build_index
from arch2vec_fast.models import Recipe, build_model
from arch2vec_fast.models.inference import FoldedGin
from arch2vec_fast.pretrain import pretrain
from arch2vec_fast.pretrain.engine import FusedEngine
from arch2vec_fast.surrogates.dngo import DNGO

MIB = 2**20
SPACE = spaces.get("nasbench101")


@pytest.fixture
def ten_mebibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "free_bytes", lambda device: 10 * MIB)


def fail_on_the_gpu(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 3.10 GiB. GPU 0 has a total capacity of 79.1 GiB"
    )


@pytest.mark.usefixtures("ten_mebibytes")
def test_names_what_to_lower_and_how_far() -> None:
    message = (
        r"^chunk_size: 262144 need about 3\.0 GiB on cuda:1, 10 MiB are free; use at most 760$"
    )
    with (
        pytest.raises(MemoryError, match=message),
        counted_memory("chunk_size", 262_144, 12_345, "cuda:1"),
    ):
        fail_on_the_gpu()
    with (
        pytest.raises(MemoryError, match=r"^seeds: 4 need .*; not even one fits: free memory"),
        counted_memory("seeds", 4, 20 * MIB, "cpu"),
    ):
        raise MemoryError("std::bad_alloc")


@pytest.mark.usefixtures("ten_mebibytes")
def test_an_estimate_that_should_have_fitted_is_halved() -> None:
    with (
        pytest.raises(MemoryError, match=r"use at most 490$"),
        counted_memory("queries", 999, 1, "cpu"),
    ):
        fail_on_the_gpu()


def test_other_errors_pass() -> None:
    for error in (RuntimeError("mat1 and mat2 shapes"), ValueError("k: 0"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, counted_memory("k", 2, 8, "cpu"):
            raise error
        assert caught.value is error


@contextmanager
def address_space(extra: int) -> Iterator[None]:
    """The process may grow by this many bytes and no more."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_real_failures_are_recognised() -> None:
    """By torch, by its stable interface under an operator, by a kernel, by NumPy."""
    recipe = replace(Recipe.get("best", SPACE.name), batch_size=200_000)
    model = build_model(recipe, SPACE.layout, variable_size=True).eval()
    # So many that memory which the process has free already, from earlier work, is not enough.
    codes, order = SPACE.enumerate().to_torch().repeat(64, 1), torch.arange(200_000)
    folded, engine = FoldedGin(model, SPACE.layout), FusedEngine(model, SPACE.layout, codes, 0)
    calls = {
        "torch": lambda: torch.empty(2**30),
        "operator": lambda: functional.unpack_cells(codes, SPACE.layout),
        "hidden states": lambda: folded(codes, output="hidden"),
        "training step": lambda: engine.train(order, 0, [1e-3], training=True),
        "NumPy": lambda: np.empty(2**30),
    }
    for name, call in calls.items():
        with address_space(32 * MIB), pytest.raises((RuntimeError, MemoryError)) as caught:
            call()
        assert is_out_of_memory(caught.value), name
    assert free_bytes(torch.device("cpu")) > MIB


@pytest.mark.usefixtures("ten_mebibytes")
def test_embedding_names_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FoldedGin, "__call__", fail_on_the_gpu)
    cells = SPACE.enumerate()[:2000]
    model = build_model(Recipe.get("best", SPACE.name), SPACE.layout, variable_size=True).eval()
    with pytest.raises(MemoryError, match=r"^chunk_size: 1500 need about .*; use at most 750$"):
        next(embed_chunks(model, cells, chunk_size=1500))


@pytest.mark.parametrize("engine", ["fused", "eager"])
@pytest.mark.usefixtures("ten_mebibytes")
def test_pretraining_names_the_batch(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = "FusedEngine" if engine == "fused" else "EagerEngine"
    monkeypatch.setattr(f"arch2vec_fast.pretrain.engine.{where}.train", fail_on_the_gpu)
    with pytest.raises(
        MemoryError, match=r"^batch_size: 200 need about \S+ MiB on cpu, .* at most"
    ):
        pretrain(
            *("nasbench201", "best", tmp_path / "run"),
            cells=spaces.get("nasbench201").enumerate()[:300],
            batch_size=200,
            engine=engine,
        )
    assert (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.usefixtures("ten_mebibytes")
def test_search_names_queries_candidates_and_seeds(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    points = torch.randn(50, 4, generator=generator)
    searches = points.expand(3, 50, 4)
    index, model = build_index(points), DNGO(seeds=range(3), num_epochs=2)
    model.fit(searches, searches[..., 0])
    for name in ("nearest_latent", "dngo_acquire", "dngo_fit"):
        monkeypatch.setattr(functional, name, fail_on_the_gpu)
    with pytest.raises(MemoryError, match=r"^queries: 50 need about .* on cpu"):
        index.nearest(points, 3)
    with pytest.raises(MemoryError, match=r"^candidates: 50 need about .* on cpu"):
        model.acquire(points)
    with pytest.raises(MemoryError, match=r"^seeds: 3 need about .* on cpu"):
        model.fit(searches, searches[..., 0])

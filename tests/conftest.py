# SPDX-License-Identifier: Apache-2.0
"""Fixtures of every test: isolation of global state, real tables, CUDA policy.

Environment: `ARCH2VEC_DATA` is the folder of the benchmark tables; tests that need it are skipped
by name without it. `FAIL_WITHOUT_CUDA=1` turns the skips of CUDA tests into failures, so that a GPU
machine cannot pass by skipping.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# The same examples on every machine and no deadline: a shared runner is slow at random, never wrong
# at random.
settings.register_profile(
    "tests", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") is None or torch.cuda.is_available():
        return
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail("no CUDA device, and FAIL_WITHOUT_CUDA=1 forbids the skip", pytrace=False)
    pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def _restore_global_state() -> Iterator[None]:
    """A test may seed, change the default dtype or the threads; the next one does not notice."""
    python_state, numpy_state, torch_state = (
        random.getstate(),
        np.random.get_state(),  # noqa: NPY002  (the legacy state is what must be restored)
        torch.get_rng_state(),
    )
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)  # imports half of torch's compiler
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    random.setstate(python_state)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the benchmark tables; skips, by name, where there is none."""
    value = os.environ.get("ARCH2VEC_DATA")
    if not value:
        pytest.skip("ARCH2VEC_DATA is not set: no benchmark tables")
    folder = Path(value)
    if not folder.is_dir():
        pytest.skip(f"ARCH2VEC_DATA={value} is no folder: no benchmark tables")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator, so that no test draws from the global one."""
    return torch.Generator().manual_seed(0)

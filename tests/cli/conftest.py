# SPDX-License-Identifier: Apache-2.0
"""A finished small run, shared by the command tests."""

from pathlib import Path

import pytest

from arch2vec_fast.pretrain import pretrain


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    pretrain("nasbench201", "released", folder, epochs=1, limit=600, batch_size=64)
    return folder

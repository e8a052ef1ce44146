# SPDX-License-Identifier: Apache-2.0
"""Processes that share work: who takes what, and which GPU."""

import pytest
import torch

from arch2vec_fast import _checks
from arch2vec_fast._processes import Processes, joined


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 65])
def test_shares_are_all_there_is_and_the_first_is_longest(count: int, size: int) -> None:
    parts = [list(range(count))[Processes(rank, size).share(count)] for rank in range(size)]
    assert [index for part in parts for index in part] == list(range(count))
    lengths = [len(part) for part in parts]
    assert lengths[0] == max(lengths) <= min(lengths) + 1


def test_without_torchrun_one_process_exchanges_nothing() -> None:
    with joined("cpu") as processes:
        assert processes == Processes.current() == Processes(0, 1)
        assert processes.first
        assert processes.any(True)
        assert not processes.any(False)
        assert processes.on_first(lambda: 7) == 7
        assert processes.sum_(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("device", "local_size", "message"),
    [
        ("cuda:0", "1", r"^device: cuda:0 would be every process's; give cuda, one GPU is each's"),
        (
            "cuda",
            "3",
            r"^device: 3 processes share 2 GPUs here; start torchrun with --nproc-per-nod",
        ),
    ],
)
def test_every_process_needs_a_gpu_of_its_own(
    device: str, local_size: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(_checks, "_check_capability", lambda name, device: None)
    environment = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "6", "RANK": "4", "LOCAL_RANK": "1"}
    for name, value in {**environment, "LOCAL_WORLD_SIZE": local_size}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message), joined(device):
        pass

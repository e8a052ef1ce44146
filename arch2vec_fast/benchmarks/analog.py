# SPDX-License-Identifier: Apache-2.0
"""A table for the demo that needs no benchmark file: the data of the package analog-nasbench.

The package (an optional extra, `pip install 'arch2vec-fast[analog]'`) holds the CIFAR-10 test
accuracy of every NAS-Bench-201 cell as its authors' baseline for analog hardware. They are not the
benchmark's own numbers: over all cells they correlate with its 200-epoch test means by .999 and lie
.33 points (median) from them. There are no validation accuracies and no times, so the reward is
test accuracy and says so, and budgets are numbers of queries.

The package is located, not imported: its module needs pandas and unpickles its data by executing
it. Its operations are numbered 0 to 4 on the edges (0,1) (0,2) (0,3) (1,2) (1,3) (2,3).
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks.base import TableBenchmark
from arch2vec_fast.benchmarks.pickles import PickleReader
from arch2vec_fast.benchmarks.store import SUFFIX, write_table
from arch2vec_fast.spaces.nasbench201 import NasBench201

__all__ = ["find_analog", "import_analog", "read_analog"]

_NAME: Final = "nasbench201-demo"
_PACKAGE: Final = "analog-nasbench"
_FILE: Final = "analognasbench/data.anb"
_OPS: Final = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
_READING_ORDER: Final = (0, 1, 3, 2, 4, 5)  # of the edges, in an arch string
_ARCH: Final = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
_CLASSES: Final = {
    ("analognasbench.data", "Architecture"): dict,
    ("analognasbench.data", "DriftMeasurement"): dict,
}


def find_analog() -> Path | None:
    """The data file of the installed package; None where it is not installed. Nothing is run."""
    try:
        path = Path(str(metadata.distribution(_PACKAGE).locate_file(_FILE)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def import_analog(out: str | Path, *, file: str | Path | None = None) -> Path:
    """Write `OUT/nasbench201-demo.safetensors` from the package's data; returns its path.

    out: an existing folder. file: default the `data.anb` of the installed package. `benchmarks.get`
    reads the package directly, too; a table file loads in milliseconds where that takes a second.
    Raises FileNotFoundError, or ValueError for a file that is not the package's.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"out: {folder} is no folder; make it first")
    path = find_analog() if file is None else Path(file)
    if path is None:
        raise FileNotFoundError(f"file: none given and {missing_package()}")
    target = folder / (_NAME + SUFFIX)
    write_table(target, read_analog(path))
    return target


def missing_package() -> str:
    """How to get the package, for messages."""
    return f"the package {_PACKAGE} is not installed; pip install 'arch2vec-fast[analog]'"


def read_analog(path: Path) -> TableBenchmark:
    """The table of a `data.anb`; see the module. Plain data is built, no code is run."""
    if not path.is_file():
        raise FileNotFoundError(f"file: no such file {path}; give the package's data.anb")
    space = spaces.get("nasbench201")
    assert isinstance(space, NasBench201)
    try:
        with path.open("rb") as stream:
            entries = PickleReader(stream, _CLASSES).load()
        accuracy = np.array([entry["baseline_accuracy"] for entry in entries.values()], np.float64)
        rows = space.index_of(space.from_string([_arch(codes) for codes in entries]))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: not the data of {_PACKAGE} ({error})") from None
    if len(np.unique(rows)) != space.num_cells:
        raise ValueError(f"{path}: holds {len(rows):,} of {space.num_cells:,} cells; install again")
    test = np.empty(len(rows))
    test[rows] = accuracy / 100
    return TableBenchmark(
        name=_NAME,
        space=space,
        cells=space.enumerate(),
        reward="CIFAR-10 test accuracy, one network (no validation accuracy here)",
        fidelities=(200,),
        validation=test[:, None, None],
        test=test,
        metadata={"source": f"baseline_accuracy of the package {_PACKAGE}", "runs": "one network"},
    )


def _arch(codes: Any) -> str:
    if len(codes) != len(_READING_ORDER):
        raise ValueError(f"a cell of {len(codes)} operations")
    return _ARCH.format(*(_OPS[codes[edge]] for edge in _READING_ORDER))

# SPDX-License-Identifier: Apache-2.0
"""The authors' own programs, run from a clone of MSU-MLSys-Lab/arch2vec and watched from outside.

A script is executed as it stands, by its own command line, in a scratch folder that holds the files
it reads. Only what this machine lacks is replaced: `.cuda()` stays where it is, `emcee` (imported,
never used: do_mcmc=False) and `nasbench` (TensorFlow) are empty modules, and the number of threads
is the caller's. Which cells a search asked for is read off the test accuracies, which it carries
along and never looks at: they hold the cell's row instead.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.compat import load_checkpoint
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.models import Recipe
from arch2vec_fast.models.gin_vae import AutoencoderBase, build_model
from arch2vec_fast.models.prior import LatentMoments, LatentPrior
from arch2vec_fast.spaces import CellSpace

# (method, space) -> script and arguments of its run script; the budget of NAS-Bench-101's is fixed.
_SEARCHES = {
    ("arch2vec-bo", "nasbench101"): (
        "search_methods/dngo.py",
        "--dim {dim} --init_size 16 --topk 5 --emb_path table-arch2vec.pt",
    ),
    ("arch2vec-rl", "nasbench101"): (
        "search_methods/reinforce.py",
        "--dim {dim} --bs 16 --saved_arch2vec --emb_path table-arch2vec.pt",
    ),
    ("arch2vec-bo", "nasbench201"): (
        "search_methods/dngo_search_NB201_8x8.py",
        "--dim {dim} --init_size 16 --batch_size 1 --dataset_name table --MAX_BUDGET {seconds}",
    ),
    ("arch2vec-rl", "nasbench201"): (
        "search_methods/reinforce_search_NB201_8x8.py",
        "--latent_dim {dim} --bs 16 --gamma 0.4 --baseline 0.4 --saved_arch2vec "
        "--dataset_name table --MAX_BUDGET {seconds}",
    ),
}
_PRETRAINING = "models/pretraining_nasbench201.py"
_TEST = 2  # place of the test accuracies in what the watched functions return


class Program:
    """A script of the clone: `names` are its functions, replaceable until `run` runs its main."""

    def __init__(self, reference: Path, script: str) -> None:
        source = (reference / script).read_text()
        *definitions, main = ast.parse(source).body
        if not isinstance(main, ast.If):
            raise ValueError(f"{reference / script}: does not end in its command line")
        self.digest = hashlib.sha256(source.encode()).hexdigest()[:16]
        self.names: dict[str, Any] = {"__name__": "authors"}
        self._script = script
        self._main = main.body
        self._execute(definitions)

    def run(self, arguments: str, folder: Path) -> str:
        """What the program printed, run in `folder`."""
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(io.StringIO()) as printed,
            mock.patch.object(sys, "argv", [self._script, *arguments.split()]),
        ):
            self._execute(self._main)
        return printed.getvalue()

    def _execute(self, statements: list[ast.stmt]) -> None:
        module = ast.Module(statements, type_ignores=[])
        exec(compile(module, self._script, "exec"), self.names)


@contextlib.contextmanager
def at_hand(reference: Path) -> Iterator[None]:
    """Within, the clone's modules can be imported and run on this machine's CPU."""
    if not (reference / _PRETRAINING).is_file():
        raise ValueError(f"reference: {reference} is no clone of MSU-MLSys-Lab/arch2vec")
    stubs = {name: ModuleType(name) for name in ("emcee", "nasbench", "nasbench.lib")}
    for name in ("nasbench.api", "nasbench.lib.graph_util"):
        parent, _, child = name.rpartition(".")
        stubs[name] = ModuleType(name)
        setattr(stubs[parent], child, stubs[name])
    stubs["nasbench.lib.graph_util"].hash_module = _labelled_graph  # type: ignore[attr-defined]
    with (
        _modules(reference, stubs),
        mock.patch.object(sys, "path", [str(reference), *sys.path]),
        mock.patch.object(Tensor, "cuda", lambda self: self),
        mock.patch.object(nn.Module, "cuda", lambda self: self),
        mock.patch.object(torch, "set_num_threads"),
        mock.patch.object(np.linalg, "linalg", np.linalg, create=True),  # gone from NumPy 2
    ):
        yield


@contextlib.contextmanager
def _modules(reference: Path, stubs: dict[str, ModuleType]) -> Iterator[None]:
    """Within, `stubs` can be imported; at the end they are forgotten, and the clone's modules."""
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            origin = getattr(module, "__file__", None) or ""
            if name in stubs or Path(origin).is_relative_to(reference):
                del sys.modules[name]


def _labelled_graph(matrix: NDArray[Any], labels: list[Any]) -> bytes:
    return bytes(matrix.astype(np.uint8)) + bytes(np.asarray(labels, np.uint8))


# -- search --------------------------------------------------------------------------------


def write_table(table: EmbeddingTable, benchmark: TableBenchmark, folder: Path) -> None:
    """The embedding file that the search programs read, below `folder`."""
    rows = np.arange(len(benchmark.cells))
    validation, seconds = benchmark.query(rows, np.zeros_like(rows))
    columns = {"valid_accuracy": validation, "test_accuracy": rows.astype(float), "time": seconds}
    if benchmark.space.name == "nasbench201":  # per cent there
        columns["valid_accuracy"] = 100 * validation
        columns["valid_accuracy_avg"] = columns["test_accuracy_avg"] = rows.astype(float)
    path = folder / "pretrained" / f"dim-{table.vectors.shape[1]}" / "table-arch2vec.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    table.export_released(path, columns)


def search(
    reference: Path,
    method: str,
    benchmark: TableBenchmark,
    folder: Path,
    *,
    dim: int,
    seed: int,
    seconds: float,
) -> list[int]:
    """Rows of the cells that the authors' program queries, in order, until `seconds` are spent.

    folder: of `write_table`. As with ours, the query that reaches the budget is the last.
    """
    script, arguments = _SEARCHES[method, benchmark.space.name]
    program = Program(reference, script)
    cost = benchmark.query(np.arange(len(benchmark.cells)), np.full(len(benchmark.cells), seed))[1]
    watch = _Watch(cost, seconds, 100 if benchmark.space.name == "nasbench201" else 1)
    if method == "arch2vec-rl":
        program.names["Env"].step = watch(program.names["Env"].step)
    else:
        for name in ("get_init_samples", "propose_location"):
            program.names[name] = watch(program.names[name])
    line = f"{arguments} --seed {seed} --output_path logs".format(dim=dim, seconds=seconds)
    with contextlib.suppress(_BudgetSpentError):
        program.run(line, folder)
    return watch.rows[: int(np.searchsorted(np.cumsum(cost[watch.rows]), seconds)) + 1]


class _BudgetSpentError(Exception):
    """Ends a program whose own budget is larger."""


class _Watch:
    """Notes the rows that functions of a program return as test accuracies."""

    def __init__(self, cost: NDArray[np.float64], seconds: float, scale: int) -> None:
        self.rows: list[int] = []
        self._cost, self._seconds, self._scale = cost, seconds, scale

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            if self._cost[self.rows].sum() >= self._seconds:
                raise _BudgetSpentError
            result = function(*arguments)
            labels = np.atleast_1d(np.asarray(result[_TEST], np.float64))
            self.rows += np.rint(self._scale * labels).astype(int).tolist()
            return result

        return watched


def search_digest(reference: Path, method: str, benchmark: TableBenchmark) -> str:
    """Which version of the authors' search program it is."""
    return Program(reference, _SEARCHES[method, benchmark.space.name][0]).digest


# -- pretraining ---------------------------------------------------------------------------


def pretrain_nasbench201(
    reference: Path, space: CellSpace, folder: Path, *, seed: int, samples: int
) -> tuple[AutoencoderBase, LatentPrior, dict[str, float]]:
    """The authors' pretraining of NAS-Bench-201 by its defaults: model, prior, what it printed.

    folder: holds `data/cifar10_valid_converged.json`, the cells. The prior is theirs: moments of
    the encoder means of the last epoch. It samples `samples` cells after that epoch and one after
    the others: from the second epoch on nothing else draws random numbers, so the run is the same.
    printed: mean "loss" of the last epoch, "valid" and "unique" of those samples.
    """
    program = Program(reference, _PRETRAINING)
    seen = [LatentMoments(covariance=False)]
    build, save = program.names["Model"], program.names["save_checkpoint_vae"]

    def watched_model(**sizes: Any) -> nn.Module:
        model: nn.Module = build(**sizes)  # training calls it, validation calls its forward
        model.register_forward_hook(lambda module, inputs, outputs: seen[-1].add(outputs[2]))
        return model

    def watched_save(model: nn.Module, optimizer: Any, epoch: int, *rest: Any) -> None:
        save(model, optimizer, epoch, *rest)
        given = program.names["args"]
        if epoch + 2 == given.epochs:
            given.latent_points = samples
        if epoch + 1 < given.epochs:
            seen.append(LatentMoments(covariance=False))

    program.names.update(Model=watched_model, save_checkpoint_vae=watched_save)
    printed = program.run(f"--seed {seed} --latent_points 1", folder).splitlines()
    checkpoint = load_checkpoint(folder / "pretrained/dim-16/model-nasbench201.pt", space.name)
    model = build_model(Recipe.released(space.name), space.layout)
    model.load_state_dict(checkpoint.model.state_dict())
    shares = {name: _last(printed, f"Ratio of {name} decodings") for name in ("valid", "unique")}
    return model.eval(), seen[-1].per_node(), {"loss": checkpoint.loss, **shares}


def _last(lines: list[str], start: str) -> float:
    """The number that ends the last of the lines that begin so."""
    return float([line for line in lines if line.startswith(start)][-1].split()[-1])

# SPDX-License-Identifier: Apache-2.0
"""Tables 2 and 3 of the paper, study by study: which searches, under which budgets; resumable.

Table 2, NAS-Bench-101: 1,000 queries for methods that search cells as they are, 400 for those that
learn a representation; a query counts whatever its training length. Table 3, NAS-Bench-201: 12,000
seconds on CIFAR-10, and on CIFAR-100 and ImageNet16-120 as many queries as the method made on
CIFAR-10. A directory holds `BENCHMARK/METHOD-RECIPE` (what `search` keeps) and
`encoder/PRETRAINING` (what they search in).

Source: Yan et al. 2020, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from arch2vec_fast import benchmarks
from arch2vec_fast.benchmarks import Benchmark
from arch2vec_fast.embeddings import EmbeddingTable, embed
from arch2vec_fast.pretrain import Run, pretrain
from arch2vec_fast.pretrain.run import is_run
from arch2vec_fast.search import methods
from arch2vec_fast.search.recipes import SearchRecipe
from arch2vec_fast.search.runner import search
from arch2vec_fast.search.trace import Trace

__all__ = [
    "DATA_SETS",
    "Encoder",
    "Job",
    "embed_pool",
    "find_nasbench101",
    "readout_for",
    "run_job",
    "run_jobs",
    "table2_jobs",
    "table3_jobs",
    "table_encoders",
]

Readout = Literal["latent", "hidden"]

SEEDS = 500
DATA_SETS = ("nasbench201-cifar10", "nasbench201-cifar100", "nasbench201-imagenet16-120")

_DISCRETE_QUERIES, _LEARNT_QUERIES = 1_000, 400
_SECONDS = 12_000.0
_QUERIES_201 = 106  # 12,000 seconds at the mean cost of a query, where CIFAR-10 is not at hand
_LEARNT = ("arch2vec-rl", "arch2vec-bo", "supervised-rl", "supervised-bo")
# Recipes that differ; the others are run once, as "paper".
_RECIPES = {
    **dict.fromkeys((*_LEARNT, "bo"), SearchRecipe.names()),
    "reinforce": ("paper", "best"),
}
# What a search recipe searches in, by the recipe of the pretraining. The paper's searches ran on
# embeddings of the released code; by the equations alone (`Recipe.paper`) nothing is learnt.
_PRETRAININGS = {"released": "released", "paper": "released", "best": "best"}
_HIDDEN_COMPONENTS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One study: a method with a recipe on a benchmark, and its budget.

    seconds, queries: of a search. like: instead, the benchmark on which the same method and recipe
    say how many queries to make.
    """

    benchmark: str
    method: str
    recipe: str
    seconds: float | None = None
    queries: int | None = None
    like: str | None = None

    @property
    def name(self) -> str:
        """BENCHMARK/METHOD-RECIPE, of folders and messages."""
        return f"{self.benchmark}/{self.method}-{self.recipe}"


def find_nasbench101(data: str | Path | None = None) -> str:
    """The best table of NAS-Bench-101 at hand: imported, else 30,001 cells, else test accuracies.

    Raises FileNotFoundError where there is none; the message says how to get one.
    """
    place = benchmarks.find("nasbench101", data=data)
    if place is not None and place.kind == "table":
        return "nasbench101"
    if benchmarks.find("nasbench101-30k", data=data) is not None:
        return "nasbench101-30k"
    benchmarks.get("nasbench101", data=data)
    return "nasbench101"


def table2_jobs(
    benchmark: str, chosen: Sequence[str] | None = None, recipes: Sequence[str] | None = None
) -> list[Job]:
    """Studies of Table 2 on `benchmark`; `chosen` methods and recipes, default all.

    Raises ValueError for unknown names.
    """
    return [
        Job(
            benchmark=benchmark,
            method=method,
            recipe=recipe,
            queries=_LEARNT_QUERIES if method in _LEARNT else _DISCRETE_QUERIES,
        )
        for method, recipe in _pairs(chosen, recipes)
    ]


def table3_jobs(
    names: Sequence[str] = DATA_SETS,
    chosen: Sequence[str] | None = None,
    recipes: Sequence[str] | None = None,
) -> list[Job]:
    """Studies of Table 3 on the benchmarks `names`; CIFAR-10 first, whose searches count queries.

    Raises ValueError for unknown names.
    """
    first = DATA_SETS[0]
    jobs = []
    for name in sorted(names, key=lambda name: name != first):
        for method, recipe in _pairs(chosen, recipes):
            budget = Job(benchmark=name, method=method, recipe=recipe, seconds=_SECONDS)
            if name != first:
                like = first if first in names else None
                queries = None if like else _QUERIES_201
                budget = Job(
                    benchmark=name, method=method, recipe=recipe, queries=queries, like=like
                )
            jobs.append(budget)
    return jobs


def _pairs(
    chosen: Sequence[str] | None, recipes: Sequence[str] | None
) -> Iterator[tuple[str, str]]:
    recipes = SearchRecipe.names() if recipes is None else recipes
    for recipe in recipes:
        SearchRecipe.get(recipe)
    for method in methods.METHODS if chosen is None else chosen:
        methods.get(method)
        different = _RECIPES.get(method, ())
        for recipe in [name for name in recipes if name in different] or ["paper"]:
            yield method, recipe


def readout_for(method: str, recipe: SearchRecipe) -> Readout:
    """Which vectors a method searches in: a Gaussian process takes all it can get."""
    return "hidden" if method == "arch2vec-bo" and recipe.surrogate == "gp" else "latent"


def embed_pool(
    run: Run,
    benchmark: Benchmark,
    readout: Readout,
    *,
    device: str = "cpu",
    progress: bool = False,
) -> EmbeddingTable:
    """Vectors of all cells of `benchmark` by the encoder of a run.

    latent: the paper's 16 numbers. hidden: node states of all layers of the simplified cells, 128
    principal components.
    """
    if readout == "latent":
        return embed(run, benchmark.cells, device=device, progress=progress)
    return embed(
        run,
        benchmark.cells,
        readout="hidden",
        components=_HIDDEN_COMPONENTS,
        simplify=True,
        device=device,
        progress=progress,
    )


@dataclass(slots=True, kw_only=True)
class Encoder:
    """Embeddings of a benchmark's cells, made when first asked for.

    folder: where the run and the embeddings are kept. run: a finished pretraining to use instead,
    whose embeddings carry a digest of its checkpoint in their name; without one, the space is
    pretrained there first with `recipe`, resuming what was interrupted.
    limit: cells to pretrain on; default the whole space, of DARTS 600,000.
    """

    folder: Path
    run: Path | None = None
    recipe: str = "best"
    limit: int | None = None
    seed: int = 0
    device: str = "cpu"
    progress: bool = False
    _tables: dict[str, EmbeddingTable] = field(default_factory=dict)

    def table(self, benchmark: Benchmark, readout: Readout) -> EmbeddingTable:
        """Vectors of all cells of `benchmark`, in its order, as `embed_pool` makes them."""
        path = self.folder / f"{benchmark.name}-{readout}{self._digest}.safetensors"
        name = str(path)
        if name not in self._tables:
            kept = EmbeddingTable.load(path) if path.exists() else None
            if kept is None or kept.cells != benchmark.cells:  # of another pool: made anew
                self.folder.mkdir(parents=True, exist_ok=True)
                run, device = self._trained(benchmark), self.device
                made = embed_pool(run, benchmark, readout, device=device, progress=self.progress)
                made.save(path)
                kept = EmbeddingTable.load(path)
            self._tables[name] = kept
        return self._tables[name]

    @property
    def _digest(self) -> str:
        """Tells the embeddings of a given run from those of another that was given before."""
        return "" if self.run is None else f"-{Run.load(self.run).weights_digest[:12]}"

    def _trained(self, benchmark: Benchmark) -> Run:
        if self.run is not None:
            return Run.load(self.run)
        folder = self.folder / benchmark.space.name
        return pretrain(
            benchmark.space,
            self.recipe,
            folder,
            limit=self.limit,
            seed=self.seed,
            device=self.device,
            resume=is_run(folder),
            progress=self.progress,
        )


def table_encoders(
    folder: Path, *, run: Path | None = None, device: str = "cpu", progress: bool = False
) -> dict[str, Encoder]:
    """The encoder of each search recipe, in `folder`; with `run` it is that one for all.

    `best` searches in what `Recipe.best` learns. `released` and `paper` search in what
    `Recipe.released` learns, as the paper's searches did.
    """
    by_pretraining = {
        name: Encoder(folder=folder / name, recipe=name, device=device, progress=progress)
        for name in dict.fromkeys(_PRETRAININGS.values())
    }
    if run is not None:
        given = Encoder(folder=folder, run=run, device=device, progress=progress)
        by_pretraining = dict.fromkeys(by_pretraining, given)
    return {recipe: by_pretraining[name] for recipe, name in _PRETRAININGS.items()}


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    encoders: Mapping[str, Encoder],
    *,
    seeds: int = SEEDS,
    noise: Literal["mean", "run"] = "mean",
    data: str | Path | None = None,
    progress: bool = False,
    on_start: Callable[[Job, Benchmark], None] = lambda job, benchmark: None,
    on_skip: Callable[[Job, str], None] = lambda job, reason: None,
) -> Iterator[Trace]:
    """Search what is not finished; yields the trace of each study, in the order of `jobs`.

    encoders: by search recipe, see `table_encoders`. seeds: searches of a study, seeds 0, 1, ...
    noise: of every benchmark, one choice for all. on_start is told of each study before it is
    searched or read back, on_skip of studies that cannot run, and why: no fidelities where the
    method needs them, a package that is missing.
    """
    made: dict[tuple[str, str, str], float] = {}
    opened: dict[str, Benchmark] = {}
    for job in jobs:
        if job.benchmark not in opened:
            opened = {job.benchmark: benchmarks.get(job.benchmark, data=data, noise=noise)}
        benchmark = opened[job.benchmark]
        method = methods.get(job.method)
        if method.needs_fidelities and len(benchmark.fidelities) < 2:
            on_skip(job, "needs several training lengths, and there is one")
            continue
        on_start(job, benchmark)
        if job.like is not None:
            queries = round(made.get((job.like, job.method, job.recipe), _QUERIES_201))
            job = replace(job, queries=queries, like=None)
        try:
            encoder = encoders[job.recipe]
            trace = run_job(job, benchmark, out, encoder, seeds=range(seeds), progress=progress)
        except ImportError as error:  # hours of other studies do not end for a missing package
            on_skip(job, str(error))
            continue
        made[job.benchmark, job.method, job.recipe] = len(trace) / len(trace.seeds)
        yield trace


def run_job(
    job: Job,
    benchmark: Benchmark,
    out: Path,
    encoder: Encoder,
    *,
    seeds: Sequence[int] | range,
    progress: bool = False,
) -> Trace:
    """One study in `out`/`job.name`, in the embeddings of `encoder` where its method needs some."""
    recipe = SearchRecipe.get(job.recipe, benchmark.space.name)
    table = None
    if methods.get(job.method).needs_embeddings:
        table = encoder.table(benchmark, readout_for(job.method, recipe))
    return search(
        benchmark,
        job.method,
        seeds=seeds,
        seconds=job.seconds,
        queries=job.queries,
        recipe=recipe,
        embeddings=table,
        device=encoder.device,
        out=out / job.name,
        progress=progress,
    )

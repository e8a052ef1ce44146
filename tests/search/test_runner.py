# SPDX-License-Identifier: Apache-2.0
"""The loop: budgets, resumption, independence of seeds, and the trace it leaves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast import spaces
from arch2vec_fast.benchmarks import TableBenchmark
from arch2vec_fast.embeddings import EmbeddingTable
from arch2vec_fast.search import (
    Proposals,
    SearchProblem,
    SearchRecipe,
    Trace,
    methods,
    runner,
    search,
)
from arch2vec_fast.search.budget import Budget
from arch2vec_fast.search.runner import align, run_group
from strategies import topological_permutations
from toy import SPACE, toy_benchmark

PLAIN = ("random", "evolution", "local-search")


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    return toy_benchmark()


@pytest.mark.parametrize("method", PLAIN)
def test_a_seed_does_not_know_its_company(method: str, toy: TableBenchmark) -> None:
    many = search(toy, method, seeds=range(5), queries=60)
    alone = search(toy, method, seeds=[3], queries=60)
    np.testing.assert_array_equal(many["row"][many["seed"] == 3], alone["row"])
    assert len(np.unique(many["row"].reshape(5, -1), axis=0)) == 5


@pytest.mark.parametrize("method", ["evolution", "local-search"])
def test_better_than_random_on_a_smooth_benchmark(method: str, toy: TableBenchmark) -> None:
    chance, found = (
        [trace["regret"][rows.stop - 1] for _, rows in trace.searches()]
        for trace in (
            search(toy, name, seeds=range(10), queries=120) for name in ("random", method)
        )
    )
    assert np.mean(found) < 0.5 * np.mean(chance)


@pytest.mark.parametrize("method", ["random", "local-search"])
def test_cells_are_distinct(method: str, toy: TableBenchmark) -> None:
    trace = search(toy, method, seeds=range(3), queries=200)
    for _, rows in trace.searches():
        assert len(np.unique(trace["row"][rows])) == 200


@pytest.mark.parametrize("method", PLAIN)
def test_a_small_pool_is_exhausted(method: str, toy: TableBenchmark) -> None:
    few = np.arange(0, 15_625, 521)
    small = replace(
        toy,
        cells=toy.cells[few],
        validation=toy.validation[few],
        test=toy.test[few],
        times=None,
    )
    trace = search(small, method, seeds=[0, 1], queries=100)
    for _, rows in trace.searches():
        if method == "evolution":  # may ask again
            assert rows.stop - rows.start == 100
        else:
            assert sorted(trace["row"][rows]) == list(range(len(few)))
            assert trace["regret"][rows.stop - 1] == 0


def test_seconds_end_a_search(toy: TableBenchmark) -> None:
    trace = search(toy, "random", seeds=range(4), seconds=2000.0)
    for _, rows in trace.searches():
        elapsed = trace["elapsed"][rows]
        np.testing.assert_allclose(elapsed, np.cumsum(trace["seconds"][rows]))
        assert elapsed[-2] < 2000 <= elapsed[-1]


def test_columns_follow_from_the_answers(toy: TableBenchmark) -> None:
    trace = search(toy, "random", seeds=[5, 2], queries=50)
    assert trace.seeds.tolist() == [2, 5]
    for _, rows in trace.searches():
        row, validation = trace["row"][rows], trace["validation"][rows]
        np.testing.assert_array_equal(trace["query"][rows], np.arange(50))
        np.testing.assert_array_equal(trace.cells[rows], toy.cells.codes[row])
        np.testing.assert_array_equal(validation, toy.mean_validation[row])
        np.testing.assert_array_equal(trace["test"][rows], toy.test_accuracy[row])
        np.testing.assert_array_equal(trace["incumbent"][rows], np.maximum.accumulate(validation))
        best = row[[int(validation[: n + 1].argmax()) for n in range(50)]]
        np.testing.assert_array_equal(trace["incumbent_test"][rows], toy.test_accuracy[best])
    np.testing.assert_array_equal(trace["regret"], toy.ceiling.test - trace["incumbent_test"])


class Scripted:
    """Asks what it is told to; keeps what it hears."""

    def __init__(self, rounds: list[Proposals]) -> None:
        self.rounds = rounds
        self.heard: list[np.ndarray] = []

    def ask(self, active: np.ndarray) -> Proposals:
        return self.rounds.pop(0)

    def tell(self, rows: np.ndarray, rewards: np.ndarray) -> None:
        self.heard.append(rewards)


def test_longest_training_is_the_incumbent() -> None:
    toy = toy_benchmark(fidelities=(4, 12))
    order = np.argsort(toy.test_accuracy)
    worse, better = order[100], order[-1]
    rounds = [
        Proposals(np.array([[better]]), np.array([[4]])),
        Proposals(np.array([[worse]]), np.array([[12]])),
    ]
    problem = SearchProblem(benchmark=toy, seeds=np.array([0]), recipe=SearchRecipe.paper())
    columns = run_group(Scripted(rounds), problem, Budget(queries=2))
    assert columns["incumbent_test"].tolist() == toy.test_accuracy[[better, worse]].tolist()
    assert columns["seconds"].tolist() == [toy.times[better, 0], toy.times[worse, 1]]


def test_a_round_may_be_cut_and_a_search_may_end_early(toy: TableBenchmark) -> None:
    rounds = [Proposals(np.array([[0, 1, 2], [3, -1, 4]])), Proposals(np.array([[5, 6], [-1, -1]]))]
    problem = SearchProblem(benchmark=toy, seeds=np.array([0, 1]), recipe=SearchRecipe.paper())
    searcher = Scripted(rounds)
    columns = run_group(searcher, problem, Budget(queries=4))
    assert columns["row"].tolist() == [0, 1, 2, 5, 3, 4]
    assert np.isnan(searcher.heard[0]).tolist() == [[False] * 3, [False, True, False]]
    assert np.isnan(searcher.heard[1]).tolist() == [[False, True], [True, True]]


def interrupted_in_group(number: int, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Lets the search of the `number`th group be interrupted; seeds of the groups that begin."""
    create, made = methods.create, []

    def failing(name: str, problem: SearchProblem):
        made.append(problem.seeds.tolist())
        if len(made) == number:
            raise KeyboardInterrupt
        return create(name, problem)

    monkeypatch.setattr(methods, "create", failing)
    return made


def test_goes_on_where_it_stopped(
    toy: TableBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arch2vec_fast.search.runner._GROUP", 2)
    whole = search(toy, "random", seeds=range(5), queries=10)
    made = interrupted_in_group(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        search(toy, "random", seeds=range(5), queries=10, out=tmp_path)
    resumed = search(toy, "random", seeds=range(5), queries=10, out=tmp_path)
    assert made == [[0], [1, 2], [3, 4], [3], [4]]
    for name in whole.columns:
        np.testing.assert_array_equal(resumed[name], whole[name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search.json", "trace.parquet"]
    again = search(toy, "random", seeds=range(5), queries=10, out=tmp_path)
    assert len(made) == 5
    np.testing.assert_array_equal(again["row"], whole["row"])
    with pytest.raises(ValueError, match=r"out: .* holds another search .its budget differ"):
        search(toy, "random", seeds=range(5), queries=11, out=tmp_path)


def test_goes_on_whatever_groups_were_formed(
    toy: TableBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(toy, "random", seeds=range(5), queries=10)
    made = interrupted_in_group(3, monkeypatch)
    monkeypatch.setattr("arch2vec_fast.search.runner._GROUP", 2)
    with pytest.raises(KeyboardInterrupt):
        search(toy, "random", seeds=range(5), queries=10, out=tmp_path)
    (tmp_path / "part-000000.parquet").rename(tmp_path / "part-000009.parquet")
    resumed = search(toy, "random", seeds=range(5), queries=10, out=tmp_path)
    assert made == [[0], [1, 2], [3, 4], [3], [4]]
    np.testing.assert_array_equal(resumed["row"], whole["row"])


def test_groups_of_slow_searches_take_about_a_minute() -> None:
    groups = runner._Groups(50, saved=True)
    sizes = []
    for seconds in (5.0, 40.0, 48.0, 200.0, 900.0):
        sizes.append(groups.size)
        groups.took(groups.size, seconds)
    assert sizes == [1, 8, 12, 15, 4]
    assert groups.size == 1  # a search that takes more than a minute is a group of its own
    assert runner._Groups(50, saved=False).size == 50


def test_embeddings_of_the_first_ten_seeds_are_kept(tmp_path: Path) -> None:
    class Learner:
        def embeddings(self) -> list[np.ndarray]:
            return [np.full((len(SPACE.enumerate()), 1), seed, np.float32) for seed in (3, 14)]

    bench = toy_benchmark()
    problem = SearchProblem(benchmark=bench, seeds=np.array([3, 14]), recipe=SearchRecipe.paper())
    trace = search(bench, "random", seeds=[3, 14], queries=2)
    folder = runner._Folder(tmp_path, dict(trace.metadata), np.arange(3, 20))
    folder.save(trace, Learner(), problem, np.arange(3, 20))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["embeddings-3.safetensors"]
    assert EmbeddingTable.load(tmp_path / "embeddings-3.safetensors").vectors[0, 0] == 3


def test_a_search_that_cannot_begin_leaves_nothing(toy: TableBenchmark, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="embeddings: arch2vec-rl searches in an embedding"):
        search(toy, "arch2vec-rl", seeds=[0], queries=5, out=tmp_path / "rl")
    with pytest.raises(ValueError, match="device"):
        search(toy, "random", seeds=[0], queries=5, device="tpu", out=tmp_path / "random")
    assert not list(tmp_path.iterdir())


def test_a_method_without_embeddings_records_none(toy: TableBenchmark) -> None:
    vectors = np.zeros((len(toy.cells), 2), np.float32)
    table = EmbeddingTable(vectors=vectors, cells=toy.cells)
    trace = search(toy, "random", seeds=[0], queries=5, embeddings=table)
    assert trace.metadata["embeddings"] is None


def test_a_trace_survives_its_file(toy: TableBenchmark, tmp_path: Path) -> None:
    trace = search(toy, "random", seeds=range(2), queries=3)
    trace.save(tmp_path / "t.parquet")
    loaded = Trace.load(tmp_path / "t.parquet")
    assert (loaded.method, loaded.recipe, loaded.benchmark) == ("random", "best", "toy")
    assert loaded.metadata == trace.metadata
    np.testing.assert_array_equal(loaded.cells, trace.cells)
    for name in trace.columns:
        np.testing.assert_array_equal(loaded[name], trace[name])
        assert loaded[name].dtype == trace[name].dtype


def test_foreign_and_torn_files_are_refused(toy: TableBenchmark, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    with pytest.raises(FileNotFoundError, match=r"none\.parquet: no such file"):
        Trace.load(tmp_path / "none.parquet")
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="not the trace of a search"):
        Trace.load(tmp_path / "other.parquet")
    search(toy, "random", seeds=[0], queries=3).save(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        Trace.load(tmp_path / "t.parquet")


def test_traces_of_one_kind_join(toy: TableBenchmark) -> None:
    both = search(toy, "random", seeds=range(2), queries=4)
    parts = [search(toy, "random", seeds=[seed], queries=4) for seed in (1, 0)]
    joined = Trace.concat(parts)
    np.testing.assert_array_equal(joined["row"], both["row"])
    with pytest.raises(ValueError, match="same seed twice"):
        Trace.concat([both, parts[0]])
    with pytest.raises(ValueError, match="of method 'random' and 'evolution'"):
        Trace.concat([both, search(toy, "evolution", seeds=[9], queries=4)])


def table(cells: spaces.CellBatch) -> EmbeddingTable:
    vectors = np.random.default_rng(0).standard_normal((len(cells), 2)).astype(np.float32)
    return EmbeddingTable(vectors=vectors, cells=cells)


def test_embeddings_are_found_by_their_cells(toy: TableBenchmark) -> None:
    straight = table(toy.cells)
    assert align(straight, toy) is straight
    order = np.random.default_rng(1).permutation(len(toy.cells))
    shuffled = EmbeddingTable(vectors=straight.vectors[order], cells=toy.cells[order])
    np.testing.assert_array_equal(align(shuffled, toy).vectors, straight.vectors)
    with pytest.raises(ValueError, match=r"no vector for 5 of the 15,625 cells .*row 15620 first"):
        align(table(toy.cells[:-5]), toy)
    with pytest.raises(ValueError, match="cells of 7 nodes and 5 operation types, not of"):
        align(table(spaces.get("nasbench101").sample(3, seed=0)), toy)


def test_vectors_are_found_whatever_numbers_nodes_have(toy: TableBenchmark) -> None:
    space = spaces.get("nasbench101")
    cells = space.sample(60, seed=0).unique()[0]
    count = len(cells)
    moved = cells.relabel(topological_permutations(cells, seed=1, absent_last=True))
    assert moved != cells
    pool = replace(
        toy,
        space=space,
        cells=moved,
        validation=toy.validation[:count],
        test=toy.test[:count],
        times=None,
    )
    vectors = np.arange(count, dtype=np.float32)[:, None]
    found = align(EmbeddingTable(vectors=vectors[::-1], cells=cells[::-1]), pool)
    np.testing.assert_array_equal(found.vectors, vectors)
    assert found.cells is moved


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": 0}, "queries: 0 is below one query"),
        ({"seconds": 10.0}, "seconds: 10 is below one query of toy"),
        ({"seconds": float("nan")}, "seconds: nan is no budget"),
        ({}, "budget: none given"),
        ({"queries": 5, "seeds": []}, "seeds: expected one or more integers"),
        ({"queries": 5, "seeds": [-1]}, "seeds: expected one or more integers"),
        ({"queries": 5, "seeds": [1, 1]}, "seeds: some are given twice"),
        ({"queries": 5, "method": "magic"}, "method: no method 'magic'; choose one of random"),
        ({"queries": 5, "recipe": "worst"}, "recipe: no preset 'worst'"),
    ],
)
def test_rejects(arguments: dict, message: str, toy: TableBenchmark) -> None:
    arguments = {"method": "random", "seeds": [0], **arguments}
    with pytest.raises(ValueError, match=message) as raised:
        search(toy, **arguments)
    assert "\n" not in str(raised.value)


def test_times_must_be_known_to_be_spent(toy: TableBenchmark) -> None:
    timeless = replace(toy, times=None)
    with pytest.raises(ValueError, match="seconds: toy knows no times; give a number of queries"):
        search(timeless, "random", seeds=[0], seconds=100.0)
    trace = search(timeless, "random", seeds=[0], queries=3)
    assert np.isnan(trace["elapsed"]).all()


def test_recipes_go_through_files() -> None:
    for name in SearchRecipe.names():
        recipe = SearchRecipe.get(name, "nasbench201")
        assert SearchRecipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match=r"recipe\.surrogate: unknown value 'forest'"):
        replace(recipe, surrogate="forest")

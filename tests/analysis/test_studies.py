# SPDX-License-Identifier: Apache-2.0
"""Traces become studies: grouped, checked, summarised, written as CSV and read back."""

import csv
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast.analysis.search_tables import summary, table2, table3, write_csv
from arch2vec_fast.analysis.studies import load_studies, studies, trace_files
from traces import trace


def test_regret_of_hand_made_searches() -> None:
    """Seed 0 sees .5, .7, .8 (test .85); seed 1 sees .1, then stays with .75 (test .70)."""
    (study,) = studies([trace({0: [1, 2, 4], 1: [0, 5]})])
    assert study.queries.tolist() == [3, 2]
    np.testing.assert_allclose(study.final("incumbent_test"), [0.85, 0.70])
    np.testing.assert_allclose(study.best_test_seen, [0.85, 0.70])
    by_query = study.curve("test", "queries")
    assert by_query.x.tolist() == [1, 2, 3]
    np.testing.assert_allclose(by_query.mean, [(0.35 + 0.7) / 2, (0.18 + 0.2) / 2, 0.125])
    by_time = study.curve("validation", "time")
    assert by_time.x.tolist() == [20, 50, 90]
    np.testing.assert_allclose(by_time.mean, [(0.3 + 0.05) / 2, (0.1 + 0.05) / 2, 0.025])


def test_best_test_seen_is_not_what_the_search_returns() -> None:
    (study,) = studies([trace({0: [3, 4]})])
    facts = summary(study)
    assert facts["test"].mean == pytest.approx(0.85)
    assert facts["best_test_seen"].mean == pytest.approx(0.90)
    assert facts["regret"].mean == pytest.approx(0.05)


def test_a_table_says_whose_embeddings_a_recipe_searched_in() -> None:
    found = studies([trace({0: [3, 4]}, embeddings={"recipe": "released"})])
    assert table2(found)[0][1] == "paper in released"
    assert table3({"nasbench201-cifar10": found})[1][0][1] == "paper in released"
    own = studies([trace({0: [3, 4]}, embeddings={"recipe": "paper"})])
    assert table2(own)[0][1] == table2(studies([trace({0: [3, 4]})]))[0][1] == "paper"


def test_seeds_in_several_files_are_one_study(tmp_path: Path) -> None:
    trace({0: [1], 1: [2]}).save(tmp_path / "a.parquet")
    trace({7: [4, 3, 2]}).save(tmp_path / "b.parquet")
    trace({0: [4]}, method="evolution").save(tmp_path / "c.parquet")
    found = load_studies([tmp_path])
    assert [study.method for study in found] == ["random", "evolution"]
    assert found[0].seeds.tolist() == [0, 1, 7]


def test_parts_beside_a_finished_trace_are_left_out(tmp_path: Path) -> None:
    for name in ("run/trace.parquet", "run/part-000000.parquet", "other/part-000000.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(path.relative_to(tmp_path)) for path in trace_files([tmp_path])]
    assert names == ["other/part-000000.parquet", "run/trace.parquet"]


def test_the_favourite_is_the_cell_most_searches_end_with() -> None:
    (study,) = studies([trace({0: [1, 2], 1: [2, 0], 2: [4]})])
    code, position, count = study.favourite
    assert count == 2
    assert study.trace["row"][position] == 2
    np.testing.assert_array_equal(code, study.trace.cells[1])


def test_rejects_what_must_not_be_compared() -> None:
    one = trace({0: [1]})
    with pytest.raises(ValueError, match=r"trace 1: reward is 'other', but .* in trace 0"):
        studies([one, trace({1: [1]}, method="evolution", reward="other")])
    with pytest.raises(ValueError, match=r"trace 1: noise is 'run'"):
        studies([one, trace({1: [1]}, noise="run")])
    with pytest.raises(ValueError, match=r"trace 1: random .paper. has other budget here"):
        studies([one, trace({1: [1]}, budget={"seconds": None, "queries": 7})])
    with pytest.raises(ValueError, match="same seed twice"):
        studies([one, trace({0: [2]})])
    with pytest.raises(ValueError, match="trace 0: holds no seeds"):
        studies([trace({})])
    with pytest.raises(ValueError, match="no ceiling; search again"):
        studies([trace({0: [1]}, ceiling=None)])


def test_table2_ends_with_the_ceiling() -> None:
    found = studies([trace({0: [1], 1: [0]}), trace({0: [4], 1: [4]}, method="evolution")])
    rows = table2(found)
    assert [row[0] for row in rows] == [
        "Regularised evolution",
        "Random search",
        "a perfect search",
    ]
    reward, test, regret, of_five, seen = rows[0][-5:]
    assert [reward, test, regret] == ["80.00 ± 0.00", "85.00 ± 0.00", "5.00 ± 0.00"]
    assert of_five == seen == "85.00 ± 0.00"
    assert rows[1][-4] == "37.50 ± 17.50"
    assert rows[2][-5:] == ["80.00", "85.00", "5.00", "", "90.00"]


def test_table3_leaves_gaps_where_nothing_was_run() -> None:
    found = studies([trace({0: [1], 1: [0]}), trace({0: [4]}, name="other", method="evolution")])
    groups = {name: [s for s in found if s.benchmark == name] for name in ("hand", "other")}
    header, rows = table3(groups)
    assert header[4:] == ["hand validation", "hand test", "other validation", "other test"]
    # The standard deviation, as the paper prints it, not the standard error of table 2.
    assert rows[0][4:] == ["30.00 ± 28.28", "37.50 ± 24.75", "-", "-"]
    assert [row[2] for row in rows] == ["6 cells"] * 2 + [""]
    assert rows[1][4:] == ["-", "-", "80.00", "85.00"]


def test_csv_reads_back_to_the_bit(tmp_path: Path) -> None:
    untimed = trace({0: [4]}, name="other", timed=False)
    found = studies([trace({0: [1, 2, 4], 1: [0, 5]}), untimed])
    paths = write_csv(found, tmp_path / "numbers")
    assert [path.name for path in paths] == ["summary.csv", "final.csv", "curves.csv", "ecdf.csv"]
    with paths[1].open() as file:
        final = list(csv.DictReader(file))
    values = [float(row["test"]) for row in final if row["benchmark"] == "hand"]
    assert values == found[0].final("incumbent_test").tolist()
    assert final[-1]["seconds"] == ""
    with paths[2].open() as file:
        curves = list(csv.DictReader(file))
    assert {row["axis"] for row in curves if row["benchmark"] == "other"} == {"queries"}
    band = found[0].curve("test", "time")
    mine = [row for row in curves if (row["benchmark"], row["axis"]) == ("hand", "time")]
    assert [float(r["mean"]) for r in mine if r["measure"] == "test"] == band.mean.tolist()

# SPDX-License-Identifier: Apache-2.0
"""The page of compared searches is self-contained, labelled and complete."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from arch2vec_fast.analysis import search_report
from arch2vec_fast.analysis.published import FILE, PublishedCurve, published_curves
from arch2vec_fast.analysis.search_figures import distribution_figure, regret_figure
from arch2vec_fast.analysis.search_tables import QUOTED, quoted
from arch2vec_fast.analysis.studies import studies
from traces import trace

CURVE = PublishedCurve(
    "arch2vec-bo", np.array([10.0, 50.0]), np.array([0.3, 0.01]), np.array([0.3, 0.02])
)


@pytest.fixture
def html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(search_report, "plotly_library", lambda: "/* plotly */")
    found = studies(
        [
            trace({0: [1, 2, 4], 1: [0, 5]}, name="nasbench201-cifar10"),
            trace({0: [4], 3: [3]}, name="nasbench201-cifar10", method="mine & yours"),
            trace({0: [4], 1: [3]}, name="nasbench201-cifar100", timed=False),
        ]
    )
    out = tmp_path / "pages" / "report.html"
    return search_report.write_search_report(found, out, csv=tmp_path / "csv").read_text()


def plots(html: str) -> dict[str, dict[str, object]]:
    found = re.search('<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL)
    assert found
    return {plot["id"]: plot for plot in json.loads(found[1])["plots"]}


def test_page_loads_nothing(html: str) -> None:
    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not {"src", "href", "srcset"} & set(dict(attrs))

    Checker().feed(html)
    without_svg_names = html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|url\(|@import", without_svg_names)


def test_every_caption_says_what_the_numbers_are(html: str) -> None:
    captions = re.findall("<caption>(Per cent.*?)</caption>", html)
    assert len(captions) == 2
    for caption in captions:
        for word in ("validation accuracy by hand", "noise: mean", "recipe: paper", "6 cells"):
            assert word in caption
    assert "seeds: 0-1 (Random search, paper), 2 between 0 and 3 (mine" in captions[0]
    assert "mine &amp; yours" in html
    assert "a perfect search" in html
    assert "best test seen (oracle)" in html


def test_table_3_needs_two_data_sets(html: str) -> None:
    assert "NAS-Bench-201 (Table 3)" in html
    assert "cifar100 test" in html


def test_untimed_benchmarks_count_queries(html: str) -> None:
    names = set(plots(html))
    assert {"b0-test-time", "b0-test-queries", "b1-test-queries"} <= names
    assert "b1-test-time" not in names
    for name in names:
        assert f'id="{name}"' in html
    assert (html.count("Costs in seconds are not known here")) == 1


def test_curves_carry_their_errors_and_a_ceiling() -> None:
    (study,) = studies([trace({0: [1, 2, 4], 1: [0, 5]})])
    figure = regret_figure("x", [study], "test", "queries")
    lower, upper, mean = figure["data"]
    assert upper["fill"] == "tonexty"
    assert mean["line"]["shape"] == "hv"
    assert mean["customdata"][-1] == pytest.approx([12.5, 7.5])
    assert lower["y"][-1] == pytest.approx(1e-3)  # below zero, drawn at the floor
    assert figure["layout"]["shapes"][0]["y0"] == pytest.approx(5)


def test_validation_has_a_ceiling_too() -> None:
    (study,) = studies([trace({0: [1, 2, 4], 1: [0, 5]})])
    figure = regret_figure("x", [study], "validation", "queries")
    level = figure["layout"]["shapes"][0]
    assert level["y0"] == level["y1"] == pytest.approx(1e-3)  # no regret, on a logarithmic axis
    assert level["label"]["text"] == "a perfect search by this reward"
    assert 10 ** figure["log"]["yaxis"]["range"][0] < 1e-3
    assert figure["linear"]["yaxis"]["range"][0] == 0


def test_distribution_goes_on_to_the_right() -> None:
    """A method whose searches all end at no regret is a line at 100 %, not a point."""
    found = studies([trace({0: [3], 1: [3]}), trace({0: [1], 1: [4]}, method="evolution")])
    figure = distribution_figure("x", found)
    first, second = figure["data"]
    assert first["x"] == pytest.approx([1e-3, 1e-3, 42])  # a logarithmic axis has no zero
    assert first["y"] == [0, 1, 1]
    assert second["x"] == pytest.approx([5, 5, 35, 42])
    assert second["y"] == [0, 0.5, 1, 1]


def test_distribution_has_a_ceiling_where_nothing_remains() -> None:
    whole = {"validation": 0.8, "test": 0.9, "test_of_pick": 0.9}
    (study,) = studies([trace({0: [1, 2, 4], 1: [0, 5]}, ceiling=whole)])
    level = distribution_figure("x", [study])["layout"]["shapes"][0]
    assert level["x0"] == level["x1"] == pytest.approx(1e-3)  # no regret, on a logarithmic axis


def test_a_reward_that_is_the_test_accuracy_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_report, "plotly_library", lambda: "")
    one = trace({0: [4, 2]})
    columns = {**one.columns, "validation": one["test"], "incumbent": one["incumbent_test"]}
    found = studies([replace(one, columns=columns)])
    html = search_report.write_search_report(found, tmp_path / "r.html").read_text()
    assert "test accuracy as reward" in html
    assert "searches see what they are judged by" in html
    assert not [name for name in plots(html) if "validation" in name]


def test_published_curves_are_dashed_and_named() -> None:
    (study,) = studies([trace({0: [1, 2, 4]}, space="nasbench101")])
    figure = regret_figure("x", [study], "test", "time", [CURVE])
    assert figure["data"][-1]["line"]["dash"] == "dash"
    assert figure["data"][-1]["name"].endswith("published")
    assert not any("dash" in str(t.get("name")) for t in figure["data"][:-1])


def test_published_curves_stand_in_a_table_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_report, "plotly_library", lambda: "")
    monkeypatch.setattr(search_report, "quoted_for", lambda group, curves: curves)
    found = studies([trace({0: [1, 2, 4]})])
    out = tmp_path / "r.html"
    html = search_report.write_search_report(found, out, curves=[CURVE]).read_text()
    table = re.search("<caption>Quoted, not run here.*?</table>", html, re.DOTALL)
    assert table
    assert "423,624 cells" in table[0]
    assert "1.00" in table[0]


def test_published_errors_are_quoted_on_nasbench101_alone() -> None:
    (here,) = studies([trace({0: [1, 2, 4]}, space="nasbench101")])
    rows = {row[0]: dict(zip(QUOTED, row, strict=True)) for row in quoted([here], [])}
    assert rows["AlphaX"]["test error"] == "6.23"
    assert rows["AlphaX"]["budget"] == "150 queries"
    assert "Sci. Rep." in rows["AlphaX"]["source"]
    (elsewhere,) = studies([trace({0: [1, 2, 4]})])
    assert quoted([elsewhere], []) == []


def test_no_studies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="traces: none given"):
        search_report.write_search_report([], tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_published_file_is_optional_and_checked(tmp_path: Path) -> None:
    assert published_curves(tmp_path) == []
    (tmp_path / FILE).write_bytes(b"PK not really")
    with pytest.raises(ValueError, match="not the file of published curves"):
        published_curves(tmp_path)


@pytest.mark.data
def test_published_curves_of_the_authors(data_dir: Path) -> None:
    curves = {curve.method: curve for curve in published_curves(data_dir)}
    assert len(curves) == 8
    for curve in curves.values():
        assert (np.diff(curve.seconds) > 0).all()
        assert 0 < curve.test[-1] < 0.01
    assert curves["arch2vec-bo"].test[-1] == pytest.approx(0.0027525, abs=1e-6)

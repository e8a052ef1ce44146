# SPDX-License-Identifier: Apache-2.0
"""The report is one well-formed, self-contained, accessible page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from arch2vec_fast.analysis import page, report
from arch2vec_fast.pretrain import pretrain
from arch2vec_fast.spaces import CellSpace

VOID = {"meta", "br", "wbr", "path", "rect"}


class Checker(HTMLParser):
    """Collects tags, and fails on wrong nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, tag
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    run = pretrain("nasbench101", "best", folder / "run", epochs=1, limit=800)
    patch = pytest.MonkeyPatch()
    patch.setattr(report, "plotly_library", lambda: "/* plotly */")
    try:
        path = report.write_report(run, folder / "page" / "report.html", samples=100)
    finally:
        patch.undo()
    return path.read_text()


def test_page_is_well_formed(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []


def test_page_loads_nothing(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    for _, attributes in checker.seen:
        assert not {"src", "href", "srcset"} & set(attributes)
    assert "url(" not in html
    assert "@import" not in html


def test_page_is_accessible(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    for tag, attributes in checker.seen:
        if tag == "svg" or attributes.get("role") == "img":
            assert attributes.get("aria-label")
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
    tags = [tag for tag, _ in checker.seen]
    assert tags.count("table") == tags.count("caption")
    assert ("html", {"lang": "en"}) in checker.seen


def test_page_has_its_parts(html: str) -> None:
    titles = re.findall("<h2>(.*?)</h2>", html)
    assert titles == [
        "Training",
        "Map of the latent space",
        "Quality",
        "Neighbours",
        "Held-out cells and their reconstruction",
        "Cells sampled from the prior",
        "How it was made",
    ]
    found = re.search('<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL)
    assert found
    plots = {plot["id"]: plot for plot in json.loads(found[1])["plots"]}
    assert len(plots["map"]["data"][0]["x"]) == 800
    assert len(plots["map"]["data"][0]["text"]) == 800
    for identifier in plots:
        assert f'id="{identifier}"' in html
    for word in ("untrained control", "uniform draws", "--recipe best", "commit"):
        assert word in html


def test_a_space_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network behind the cells their size is the number of edges."""
    monkeypatch.setattr(report, "plotly_library", lambda: "")
    names = ("input", "conv", "<pool>", "output")
    space = CellSpace(5, names, name="mine", max_edges=6, variable_size=True)
    run = pretrain(space, "best", tmp_path / "run", epochs=1, cells=space.sample(300, seed=0))
    html = report.write_report(run, tmp_path / "report.html", samples=50).read_text()
    assert "arch2vec on mine" in html
    assert "&lt;pool&gt;" in html
    assert re.search(r"\d edges, squared distance", html)


def test_text_is_escaped() -> None:
    assert "&lt;i&gt;" in page.cards([("<i>", "x")])
    assert (
        "</script>"
        not in page.document("t", "", '{"x": "</script>"}', "").split("</head>")[1][
            : len('\n<body>\n\n<script type="application/json" id="facts">{"x": "')
        ]
    )


def test_unknown_projection(tmp_path: Path) -> None:
    run = pretrain("nasbench201", "best", tmp_path / "run", epochs=1, limit=40)
    with pytest.raises(ValueError, match="unknown method 'umap'"):
        report.write_report(run, tmp_path / "r.html", projection="umap")

# SPDX-License-Identifier: Apache-2.0
"""Searches compared, as one HTML file that needs nothing else: tables, curves, distributions.

Every number stands beside what it must be read against: the reward in words, the seeds, how noise
was treated, the recipe, and the ceiling of the reward, which is what a perfect search would return.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from arch2vec_fast._files import atomic_file
from arch2vec_fast.analysis import page
from arch2vec_fast.analysis.draw import draw_cell
from arch2vec_fast.analysis.published import NOTE, PublishedCurve, published_curves
from arch2vec_fast.analysis.report import plotly_library
from arch2vec_fast.analysis.search_figures import distribution_figure, regret_figure
from arch2vec_fast.analysis.search_style import Series, published, series, title
from arch2vec_fast.analysis.search_tables import (
    QUOTED,
    QUOTED_CAPTION,
    TABLE2,
    quoted,
    quoted_for,
    summary,
    table2,
    table3,
    write_csv,
)
from arch2vec_fast.analysis.studies import Study

__all__ = ["write_search_report"]

_OF_TABLE_3 = ("nasbench201-cifar10", "nasbench201-cifar100", "nasbench201-imagenet16-120")

_MEANINGS = {
    "reward of pick": "largest reward a search was told; the cell that earned it is its pick",
    "test of pick": "test accuracy of that cell, which no search has seen unless its reward is one",
    "test regret": "largest test accuracy of the pool less that of the pick",
    "best of five finalists": "largest test accuracy among the five best rewards of different "
    "networks: what training five cells in full finds, chosen by test accuracy",
    "best test seen": "largest test accuracy among the queried cells: an oracle's choice "
    "that takes the test set to make, no result of a search",
    "ceiling": "what a search returns that finds the largest reward of the pool; a reward is "
    "noisy, so this is less than the largest test accuracy; the mean over cells that tie for it",
    "queries": "one counts as one whatever its training length, also the short ones of BOHB",
    "distinct cells": "a method may ask for a cell again, and pays again",
    "±": "standard error of the mean over seeds; in Table 3 the standard deviation, "
    "as in the paper",
}


def write_search_report(
    found: Sequence[Study],
    out: str | Path,
    *,
    csv: str | Path | None = None,
    curves: Sequence[PublishedCurve] | None = None,
) -> Path:
    """Write the report of studies (`studies.load_studies`) and return its path.

    csv: a folder for the numbers behind it (`search_tables.write_csv`). curves: the authors' own,
    drawn and quoted on NAS-Bench-101; by default those in `ARCH2VEC_DATA`, if they are there.
    Raises ImportError without plotly, ValueError without studies, OSError if a file cannot be
    written. The file takes about 5 MB, most of it plotly.
    """
    if not found:
        raise ValueError("traces: none given; a report needs at least one")
    library = plotly_library()
    curves = published_curves() if curves is None else curves
    groups: dict[str, list[Study]] = {}
    for study in found:
        groups.setdefault(study.benchmark, []).append(study)
    plots: list[dict[str, Any]] = []
    body = [_header(groups), "<main>", _table3_section(groups)]
    for number, group in enumerate(groups.values()):
        body.append(_benchmark_section(f"b{number}", group, quoted_for(group, curves), plots))
    body.append(page.section("How to read the tables", page.definitions(_MEANINGS)))
    body += [_provenance_section(found), "</main>"]
    facts = json.dumps({"plots": plots}, allow_nan=False)
    html = page.document("arch2vec: searches compared", "\n".join(body), facts, library)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if csv is not None:
        write_csv(found, Path(csv))
    with atomic_file(out) as file:
        file.write(html.encode())
    return out


def _header(groups: dict[str, list[Study]]) -> str:
    every = [study for group in groups.values() for study in group]
    numbers = []
    for name, group in groups.items():
        best = min(map(summary, group), key=lambda facts: float(facts["regret"].mean))
        numbers.append(
            (
                f"{100 * best['test'].mean:.2f} %",
                f"test of pick on {name}, {title(best['method'])}, {best['recipe']}",
            )
        )
    queries = sum(int(study.queries.sum()) for study in every)
    numbers.append((f"{queries:,}", f"queries by {len(every)} studies, all of them in the traces"))
    return (
        "<header><h1>Searches compared</h1>"
        f'<div class="soft">{escape(", ".join(groups))}</div>{page.cards(numbers)}</header>'
    )


def _table3_section(groups: dict[str, list[Study]]) -> str:
    """NAS-Bench-201 on its data sets, side by side; nothing where fewer than two are there."""
    parts = {name: groups[name] for name in _OF_TABLE_3 if name in groups}
    if len(parts) < 2:
        return ""
    header, rows = table3(parts)
    rewards = "; ".join(f"{name}: {group[0].reward}" for name, group in parts.items())
    return page.section(
        "NAS-Bench-201 (Table 3)",
        page.table(
            f"Accuracy of the pick, per cent, mean ± standard deviation over seeds. {rewards}",
            header,
            rows,
        ),
        intro="Compare with published numbers only where their reward is the same.",
    )


def _benchmark_section(
    identifier: str,
    group: Sequence[Study],
    curves: Sequence[PublishedCurve],
    plots: list[dict[str, Any]],
) -> str:
    timed = all(study.has_times for study in group)
    toggle = f"{identifier}-log"
    spots = []
    blind = not all(study.sees_test for study in group)  # otherwise both regrets are one
    for measure in ("test", "validation") if blind else ("test",):
        for axis in ("time", "queries") if timed else ("queries",):
            spot = f"{identifier}-{measure}-{axis}"
            plots.append(regret_figure(spot, group, measure, axis, curves) | {"toggle": toggle})
            spots.append(page.plot(spot, f"Mean {measure} regret against {axis}, 95 % bands."))
    spot = f"{identifier}-distribution"
    plots.append(distribution_figure(spot, group) | {"toggle": toggle})
    spots.append(page.plot(spot, "Distribution of the final test regret over seeds."))
    entries = [series(group, study) for study in group]
    entries += [published(curve.method) for curve in curves]
    name = group[0].benchmark
    label = " (Table 2)" if group[0].metadata.get("space") == "nasbench101" else ""
    return page.section(
        f"{name}{label}",
        page.table(_caption(group), TABLE2, table2(group)),
        _quoted(group, curves),
        _legend(toggle, entries),
        f'<div class="plots">{"".join(spots)}</div>',
        _figure_notes(group, curves, timed),
        _picks(group),
    )


def _quoted(group: Sequence[Study], curves: Sequence[PublishedCurve]) -> str:
    """What nobody ran here, in a table of its own."""
    rows = quoted(group, curves)
    if not rows:
        return ""
    return "<details><summary>Published results</summary>" + (
        page.table(QUOTED_CAPTION, QUOTED, rows) + "</details>"
    )


def _legend(toggle: str, entries: Sequence[Series]) -> str:
    rows = [(entry.key, entry.name, entry.colour, entry.svg_dash) for entry in entries]
    return page.series_legend(toggle, rows)


def _caption(group: Sequence[Study]) -> str:
    """Reward, noise, pool, seeds, budgets and recipes of the studies of one benchmark."""
    first = group[0]
    pool = first.metadata.get("pool")
    cells = f" of {pool:,} cells" if isinstance(pool, int) else ""
    recipes = ", ".join(dict.fromkeys(study.recipe for study in group))
    return (
        f"Per cent, mean ± standard error. Reward: {first.reward}; noise: {first.noise}; "
        f"pool{cells}; seeds: {_seeds(group)}; budget: {_budgets(group)}; recipe: {recipes}."
    )


def _seeds(group: Sequence[Study]) -> str:
    """Seeds in words: "0-499" where they are the same for all, otherwise by method."""
    words = {f"{title(study.method)}, {study.recipe}": _range(study.seeds) for study in group}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{text} ({name})" for name, text in words.items())


def _range(seeds: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    low, high = int(seeds[0]), int(seeds[-1])
    if len(seeds) == 1:
        return str(low)
    if high - low + 1 == len(seeds):
        return f"{low}-{high}"
    return f"{len(seeds)} between {low} and {high}"


def _budgets(group: Sequence[Study]) -> str:
    """Budgets in words, each with its methods where they differ."""
    words: dict[str, dict[str, None]] = {}
    for study in group:
        budget = study.metadata.get("budget") or {}
        limits = [
            f"{budget[name]:,.0f} {unit}"
            for name, unit in (("seconds", "s"), ("queries", "queries"))
            if budget.get(name) is not None
        ]
        words.setdefault(" or ".join(limits) or "unknown", {})[title(study.method)] = None
    if len(words) == 1:
        return next(iter(words))
    return ", ".join(f"{text} ({', '.join(names)})" for text, names in words.items())


def _figure_notes(group: Sequence[Study], curves: Sequence[PublishedCurve], timed: bool) -> str:
    first = group[0]
    notes = [
        f"Reward: {first.reward}. Seeds: {_seeds(group)}. Noise: {first.noise}. "
        "Lines are means over seeds at equal time or number of queries, each search holding its "
        "last value, also after its end; bands are 95 % confidence intervals of the mean "
        "(Student's t).",
        "A curve begins where every seed has an answer. Where a method has several recipes, best "
        "is solid, paper dash-dotted, released dotted.",
    ]
    ceiling = first.ceiling
    left = 100 * (ceiling.test - ceiling.test_of_pick)
    if left > 0:
        notes.append(
            f"Dotted grey: a perfect search by this reward, which keeps {left:.3f} points of test "
            "regret."
        )
    else:
        notes.append("Dotted grey: a perfect search by this reward has no regret.")
    if first.noise == "run":
        notes.append("The ceiling is of mean rewards, so one lucky run can lie above it.")
    if first.sees_test:
        notes.append("The reward is the test accuracy: searches see what they are judged by.")
    if not timed:
        notes.append("Costs in seconds are not known here, so queries are counted.")
    if curves:
        notes.append(f"Dashed: {NOTE}.")
    notes.append("Values below 0.001 points are drawn there, for want of a zero.")
    return f'<p class="soft">{escape(" ".join(notes))}</p>'


def _picks(group: Sequence[Study]) -> str:
    """The most frequent pick of each study, drawn."""
    from arch2vec_fast import spaces
    from arch2vec_fast.spaces import CellBatch

    name = str(group[0].metadata.get("space"))
    if name not in spaces.names():
        return ""
    space = spaces.get(name)
    figures = []
    for study in group:
        codes, rows, count = study.favourite
        cell = CellBatch(codes[None], space.layout)
        test = 100 * study.trace["incumbent_test"][rows]
        reward = 100 * study.trace["incumbent"][rows]
        caption = (
            f"picked by {count} of {len(study.seeds)} searches; reward {reward:.2f}, "
            f"test {test:.2f} %. {space.describe(cell)}"
        )
        drawing = (f"{title(study.method)}, {study.recipe}", draw_cell(cell, space))
        figures.append(page.figure([drawing], caption))
    intro = '<p class="soft">The cell that most searches of each study returned.</p>'
    return f'{intro}<div class="cells">{"".join(figures)}</div>'


def _provenance_section(found: Sequence[Study]) -> str:
    parts = []
    for study in found:
        facts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in study.metadata.items()
        }
        facts["seeds"] = _range(study.seeds)
        parts.append(
            page.facts_table(f"{study.benchmark}, {study.method}, recipe {study.recipe}", facts)
        )
    return page.section(
        "How it was made",
        "<details><summary>Settings of every study</summary>",
        *parts,
        "</details>",
        intro="From the traces alone: each holds every query of every seed.",
    )

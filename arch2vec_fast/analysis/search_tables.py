# SPDX-License-Identifier: Apache-2.0
"""Tables of searches: Table 2 (NAS-Bench-101), Table 3 (NAS-Bench-201), and CSV files.

A row is a mean over seeds with what it must be read against: the reward in words, the ceiling of
that reward, and "best test seen", which no search can return because it takes the test set to
choose. Accuracies are fractions here and per cent where they are printed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arch2vec_fast._files import atomic_file
from arch2vec_fast.analysis.published import ERRORS, SEARCHES, PublishedCurve
from arch2vec_fast.analysis.search_style import title
from arch2vec_fast.analysis.statistics import Estimate, ecdf, estimate
from arch2vec_fast.analysis.studies import Study

__all__ = [
    "CEILING",
    "QUOTED",
    "QUOTED_CAPTION",
    "per_cent",
    "quoted",
    "quoted_for",
    "recipe_of",
    "summary",
    "table2",
    "table3",
    "write_csv",
]

CEILING = "a perfect search"


def summary(study: Study) -> dict[str, Any]:
    """One study as plain numbers; accuracies and regrets in [0, 1] as `Estimate`s.

    Keys: benchmark, method, recipe, embeddings (the recipe that made them, or None), reward, label,
    noise, seeds, queries, distinct, seconds (mean; None without times), validation and test of the
    pick, regret, best_of_finalists, best_test_seen.
    """
    return {
        "benchmark": study.benchmark,
        "method": study.method,
        "recipe": study.recipe,
        "embeddings": study.embeddings,
        "reward": study.reward,
        "label": study.label,
        "noise": study.noise,
        "seeds": len(study.seeds),
        "queries": float(study.queries.mean()),
        "distinct": float(study.distinct.mean()),
        "seconds": float(study.final("elapsed").mean()) if study.has_times else None,
        "validation": estimate(study.final("incumbent")),
        "test": estimate(study.final("incumbent_test")),
        "regret": estimate(study.ceiling.test - study.final("incumbent_test")),
        "best_of_finalists": estimate(study.best_of_finalists),
        "best_test_seen": estimate(study.best_test_seen),
    }


def recipe_of(facts: Mapping[str, Any]) -> str:
    """The recipe of a `summary`: "best", or "paper in released" in another's embeddings."""
    recipe, embeddings = facts["recipe"], facts["embeddings"]
    return str(recipe) if embeddings in (None, recipe) else f"{recipe} in {embeddings}"


def quoted_for(
    group: Sequence[Study], curves: Sequence[PublishedCurve]
) -> Sequence[PublishedCurve]:
    """The authors' curves where they may stand beside a group: NAS-Bench-101, with times."""
    timed = all(study.has_times for study in group)
    return curves if timed and group[0].metadata.get("space") == "nasbench101" else ()


# -- for people ----------------------------------------------------------------------------


def per_cent(value: Estimate, spread: str = "error", digits: int = 2) -> str:
    """Mean with its standard error or standard deviation, in per cent."""
    if math.isnan(value.mean):
        return "-"
    mean, around = 100 * value.mean, 100 * getattr(value, spread)
    if math.isnan(around):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {around:.{digits}f}"


TABLE2 = (
    "method",
    "recipe",
    "measured with",
    "seeds",
    "queries",
    "distinct cells",
    "reward of pick",
    "test of pick",
    "test regret",
    "best of five finalists",
    "best test seen (oracle)",
)


def table2(group: Sequence[Study]) -> list[list[str]]:
    """Rows under `TABLE2` for the studies of one benchmark, best test accuracy first.

    Per cent, mean ± standard error; the ceiling last.
    """
    rows = []
    for facts in sorted(map(summary, group), key=lambda facts: facts["regret"].mean):
        rows.append(
            [
                title(facts["method"]),
                recipe_of(facts),
                facts["label"],
                f"{facts['seeds']:,}",
                f"{facts['queries']:,.0f}",
                f"{facts['distinct']:,.0f}",
                per_cent(facts["validation"]),
                per_cent(facts["test"]),
                per_cent(facts["regret"]),
                per_cent(facts["best_of_finalists"]),
                per_cent(facts["best_test_seen"]),
            ]
        )
    ceiling = group[0].ceiling
    pick, regret = 100 * ceiling.test_of_pick, 100 * (ceiling.test - ceiling.test_of_pick)
    blank = ["ceiling", group[0].label, "", "", ""]
    numbers = [f"{100 * ceiling.validation:.2f}", f"{pick:.2f}", f"{regret:.2f}"]
    rows.append([CEILING, *blank, *numbers, "", f"{100 * ceiling.test:.2f}"])
    return rows


QUOTED_CAPTION = (
    "Quoted, not run here: other rewards and pool, all 423,624 cells. Not comparable with the rows "
    "above. Sci. Rep.: table 1 of that article, which has them from BANANAS."
)
QUOTED = ("method", "source", "searches", "budget", "test error", "test regret")


def quoted(group: Sequence[Study], curves: Sequence[PublishedCurve]) -> list[list[str]]:
    """Rows under `QUOTED`, per cent: where the authors' curves end, then what others printed.

    None where the group is not of NAS-Bench-101 and no curve is given. A source prints an error or
    a regret; the other is a dash.
    """
    rows = [
        [
            title(curve.method),
            "authors' curve",
            f"{SEARCHES}",
            f"{curve.seconds[-1]:,.0f} s",
            "-",
            f"{100 * curve.test[-1]:.2f}",
        ]
        for curve in sorted(curves, key=lambda curve: float(curve.test[-1]))
    ]
    if group[0].metadata.get("space") != "nasbench101":
        return rows
    facts = [ERRORS.source, f"{ERRORS.searches}", f"{ERRORS.queries} queries"]
    return rows + [
        [method, *facts, f"{100 * error:.2f}", "-"] for method, error in ERRORS.methods.items()
    ]


def table3(groups: Mapping[str, Sequence[Study]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows over the benchmarks of `groups`: validation and test of the pick.

    Per cent, mean ± standard deviation over seeds, as the paper prints its Table 3.
    """
    header = ["method", "recipe", "measured with", "seeds"]
    cells: dict[tuple[str, str], dict[str, list[str]]] = {}
    seeds: dict[tuple[str, str], set[str]] = {}
    labels: dict[tuple[str, str], set[str]] = {}
    for name, group in groups.items():
        data_set = name.removeprefix("nasbench201-")
        header += [f"{data_set} validation", f"{data_set} test"]
        for facts in map(summary, group):
            key = facts["method"], recipe_of(facts)
            parts = [per_cent(facts[part], "std") for part in ("validation", "test")]
            cells.setdefault(key, {})[name] = parts
            seeds.setdefault(key, set()).add(f"{facts['seeds']:,}")
            labels.setdefault(key, set()).add(facts["label"])
    rows = [
        [title(key[0]), key[1], *(" / ".join(sorted(facts[key])) for facts in (labels, seeds))]
        + [text for name in groups for text in found.get(name, ["-", "-"])]
        for key, found in cells.items()
    ]
    ceilings = [group[0].ceiling for group in groups.values()]
    pairs = [(100 * c.validation, 100 * c.test_of_pick) for c in ceilings]
    rows.append([CEILING, "", "", ""] + [f"{value:.2f}" for pair in pairs for value in pair])
    return header, rows


# -- for scripts ---------------------------------------------------------------------------


def write_csv(found: Sequence[Study], folder: Path) -> list[Path]:
    """Write summary.csv, final.csv, curves.csv and ecdf.csv into `folder`, each whole or not.

    Accuracies and regrets are fractions, numbers are printed to full precision, an unknown number
    is an empty field. `final.csv` has a row a search, so every statistic can be recomputed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "summary.csv": _summary_lines(found),
        "final.csv": _final_lines(found),
        "curves.csv": _curve_lines(found),
        "ecdf.csv": _ecdf_lines(found),
    }
    return [_write(folder / name, lines) for name, lines in files.items()]


def _write(path: Path, lines: Iterable[Sequence[Any]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in lines:
        writer.writerow([_field(value) for value in line])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return path


def _field(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else value


def _label(study: Study) -> tuple[str, str, str]:
    return study.benchmark, study.method, study.recipe


_ESTIMATES = ("validation", "test", "regret", "best_of_finalists", "best_test_seen")
_LABELS = ("benchmark", "method", "recipe")


def _summary_lines(found: Sequence[Study]) -> Iterable[Sequence[Any]]:
    plain = ("embeddings", "reward", "label", "noise", "seeds", "queries", "distinct", "seconds")
    parts = ("mean", "error", "std")
    yield (*_LABELS, *plain, *(f"{name}_{part}" for name in _ESTIMATES for part in parts))
    for study in found:
        facts = summary(study)
        numbers = (getattr(facts[name], part) for name in _ESTIMATES for part in parts)
        yield (*_label(study), *(facts[name] for name in plain), *numbers)


def _final_lines(found: Sequence[Study]) -> Iterable[Sequence[Any]]:
    yield (*_LABELS, "seed", "queries", "distinct", "seconds", *_ESTIMATES)
    for study in found:
        test = study.final("incumbent_test")
        columns = (
            study.seeds,
            study.queries,
            study.distinct,
            study.final("elapsed"),
            study.final("incumbent"),
            test,
            study.ceiling.test - test,
            study.best_of_finalists,
            study.best_test_seen,
        )
        for values in zip(*(column.tolist() for column in columns)):
            yield (*_label(study), *values)


def _curve_lines(found: Sequence[Study]) -> Iterable[Sequence[Any]]:
    yield (*_LABELS, "measure", "axis", "x", "mean", "error", "lower", "upper", "seeds")
    for study in found:
        for axis in ("time", "queries") if study.has_times else ("queries",):
            for measure in ("test", "validation"):
                band = study.curve(measure, axis)
                for values in zip(*(part.tolist() for part in band[:5])):
                    yield (*_label(study), measure, axis, *values, band.seeds)


def _ecdf_lines(found: Sequence[Study]) -> Iterable[Sequence[Any]]:
    yield (*_LABELS, "regret", "share")
    for study in found:
        regrets, shares = ecdf(study.ceiling.test - study.final("incumbent_test"))
        for regret, share in zip(regrets.tolist(), np.asarray(shares).tolist()):
            yield (*_label(study), regret, share)

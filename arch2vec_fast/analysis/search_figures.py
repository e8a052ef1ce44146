# SPDX-License-Identifier: Apache-2.0
"""Figures of a search report as plotly's plain dictionaries: regret curves and distributions.

Regrets are drawn in percentage points. A logarithmic axis has no zero, so what is below 0.001
points (a tenth of one image of the CIFAR-10 test set) is drawn there and hovers as what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arch2vec_fast.analysis.published import PublishedCurve
from arch2vec_fast.analysis.search_style import Series, published, series
from arch2vec_fast.analysis.statistics import Band, ecdf
from arch2vec_fast.analysis.studies import Study

__all__ = ["distribution_figure", "regret_figure"]

_FLOOR = 1e-3  # percentage points
_AXES = {"time": "seconds of training and validation", "queries": "queries"}
_MEASURES = {"test": "test regret", "validation": "validation regret"}

Figure = dict[str, Any]
Hover = tuple[str, Sequence[NDArray[np.float64]]]
Vector = NDArray[np.float64]


def regret_figure(
    identifier: str,
    group: Sequence[Study],
    measure: str,
    axis: str,
    curves: Sequence[PublishedCurve] = (),
) -> Figure:
    """Mean regret of each study with its 95 % band, against time or queries.

    measure: "test" or "validation". The dotted line is a perfect search by this reward: what
    remains of test regret when the cell with the best reward has been found, and no regret in
    validation, which a logarithmic axis shows at its floor.
    """
    bands = [(series(group, study), study.curve(measure, axis)) for study in group]
    parts = [_band(style, band) for style, band in bands]
    data = [edge for *edges, _ in parts for edge in edges]  # lines on top of all bands
    data += [line for *_, line in parts]
    drawn = [(band.x, 100 * band.mean) for _, band in bands]
    for curve in curves if axis == "time" else ():
        values = 100 * (curve.test if measure == "test" else curve.validation)
        hover = ("%{customdata[0]:.3f}", (values,))
        style = published(curve.method)
        data.append(_line(style, _numbers(curve.seconds), _positive(values), hover))
        drawn.append((curve.seconds, values))
    ceiling = group[0].ceiling
    floor = 100 * (ceiling.test - ceiling.test_of_pick) if measure == "test" else 0.0
    layout = _layout(_AXES[axis], f"{_MEASURES[measure]} (% points)")
    layout |= _level(max(floor, _FLOOR), "a perfect search by this reward")
    return {"id": identifier, "data": data, "layout": layout} | _scales(drawn, floor)


def distribution_figure(identifier: str, group: Sequence[Study]) -> Figure:
    """Share of searches whose final test regret is at most x (Fig. 6 of the paper)."""
    regrets = [100 * (study.ceiling.test - study.final("incumbent_test")) for study in group]
    end = max(1.2 * float(values.max()) for values in regrets)
    data = []
    for study, values in zip(group, regrets):
        x, share = ecdf(values)
        style = series(group, study)
        # From zero at the smallest regret, and on to the right of the largest of all studies.
        steps = np.concatenate((x[:1], x, [end])), np.concatenate(([0.0], share, [1.0]))
        hover = ("%{y:.0%} within %{customdata[0]:.3f}", steps[:1])
        data.append(_line(style, _positive(steps[0]), _numbers(steps[1]), hover))
    ceiling = group[0].ceiling
    floor = 100 * (ceiling.test - ceiling.test_of_pick)
    layout = _layout("final test regret (% points)", "share of searches")
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%", "autorange": False}
    layout["hovermode"] = "closest"
    layout |= _level(max(floor, _FLOOR), vertical=True)
    edges = [value for trace in data for value in (trace["x"][0], trace["x"][-1])]
    axis = {"type": "log", **_ticks(min(edges), max(edges), (1, 2, 5))}
    return {"id": identifier, "data": data, "layout": layout, "log": {"xaxis": axis}}


def _band(style: Series, band: Band) -> list[Figure]:
    """Lower edge, upper edge filled down to it, and the mean on top."""
    known = np.isfinite(band.mean)
    x = _numbers(band.x[known])
    common = {"type": "scatter", "mode": "lines", "x": x, "legendgroup": style.key}
    edge = common | {"line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip"}
    lower, upper = 100 * band.lower[known], 100 * band.upper[known]
    parts = [] if band.seeds < 2 else [edge | {"y": _positive(lower)}]
    if parts:
        parts.append(edge | {"y": _positive(upper), "fill": "tonexty", "fillcolor": style.band})
    mean = 100 * band.mean[known]
    error = np.nan_to_num(100 * band.error[known])
    hover = ("%{customdata[0]:.3f} ± %{customdata[1]:.3f}", (mean, error))
    return [*parts, _line(style, x, _positive(mean), hover)]


def _line(style: Series, x: list[float], y: list[float], hover: Hover) -> Figure:
    """A step function; `customdata` keeps what the floor of a logarithmic axis hides."""
    text, values = hover
    return {
        "type": "scatter",
        "mode": "lines",
        "name": style.name,
        "legendgroup": style.key,
        "x": x,
        "y": y,
        "customdata": [list(row) for row in zip(*map(_numbers, values))],
        "hovertemplate": f"{style.name}: {text}<extra></extra>",
        "line": {"color": style.colour, "width": 2, "dash": style.dash, "shape": "hv"},
    }


def _layout(x: str, y: str) -> Figure:
    axis = {"exponentformat": "none", "automargin": True}
    return {
        "margin": {"l": 62, "r": 14, "t": 18, "b": 46},
        "xaxis": {"title": {"text": x}, "rangemode": "tozero", **axis},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero", **axis},
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {"namelength": -1},
    }


def _level(value: float, text: str = "", *, vertical: bool = False) -> Figure:
    """A dotted line over the whole plot, with its meaning beside it."""
    across, along = ("x", "y") if vertical else ("y", "x")
    line = {f"{across}0": value, f"{across}1": value, f"{along}0": 0, f"{along}1": 1}
    return {
        "shapes": [
            {"type": "line", f"{along}ref": "paper", **line}
            | {"line": {"color": "#808a99", "width": 1.5, "dash": "dot"}}
            | {"label": {"text": text, "textposition": "start", "font": {"size": 11}}}
        ]
    }


def _scales(drawn: Sequence[tuple[Vector, Vector]], floor: float) -> Figure:
    """Ranges of the regret axis: whole on a logarithmic one, without the first fall on a linear."""
    end = max(float(x[-1]) for x, _ in drawn)
    late = [y[x >= end / 10] for x, y in drawn]
    highest = max(float(np.nanmax(y)) for _, y in drawn)
    high = max((float(np.nanmax(y)) for y in late if len(y)), default=highest)
    means = np.concatenate([y for _, y in drawn])
    low = max(min(float(np.nanmin(means)), floor), _FLOOR)
    low, top = low / 1.5, 1.2 * max(highest, 2 * low)
    begin = min(float(x[0]) for x, _ in drawn)
    steps = (1, 2, 5) if top < 300 * low else (1,)
    vertical = {"range": [float(np.log10(low)), float(np.log10(top))], **_ticks(low, top, steps)}
    horizontal = _ticks(begin, end, (1,) if end > 30 * begin else (1, 2, 5))
    return {
        "log": {"xaxis": {"type": "log", **horizontal}, "yaxis": {"type": "log", **vertical}},
        "linear": {"yaxis": {"range": [0, max(1.1 * high, 2 * _FLOOR)]}},
    }


def _ticks(low: float, high: float, steps: Sequence[int]) -> Figure:
    """Labels at whole multiples of powers of ten: plotly's own are bare digits between decades."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    marks = [step * 10.0**power for power in powers for step in steps]
    return {"tickvals": marks, "ticktext": [f"{m:,.0f}" if m >= 1 else f"{m:g}" for m in marks]}


def _positive(values: Vector) -> list[float]:
    return _numbers(np.maximum(values, _FLOOR))


def _numbers(values: Vector) -> list[float]:
    """Six significant digits: a plot shows fewer, and the page stays small."""
    return [float(f"{value:.6g}") for value in values.tolist()]

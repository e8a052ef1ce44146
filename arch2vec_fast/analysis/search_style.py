# SPDX-License-Identifier: Apache-2.0
"""Names and colours of search methods: the same in every figure, on light and dark pages.

A method keeps its colour whatever else is drawn; recipes of one method, where there are several,
differ in the line's dash, and evenly dashed lines are curves that were not measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arch2vec_fast.analysis.studies import Study
from arch2vec_fast.search.methods import METHODS

__all__ = ["Series", "published", "series", "title"]

# Told apart by hue and, in pairs, by lightness; each at least 3 : 1 against white and near-black.
_COLOURS = {
    "random": "#7d8796",
    "evolution": "#2f9e44",
    "local-search": "#74931c",
    "reinforce": "#9c5fd6",
    "bo": "#c2528b",
    "bohb": "#96704a",
    "bananas": "#a98500",
    "arch2vec-rl": "#3a76e0",
    "arch2vec-bo": "#dd3b32",
    "supervised-rl": "#1592ad",
    "supervised-bo": "#dc7413",
}
_SPARE = ("#5b6ee1", "#b0568f", "#4f8f7b", "#b5642c")
_DASHES = {"best": "solid", "paper": "dashdot", "released": "dot"}
_SVG_DASHES = {"solid": "none", "dash": "8 4", "dot": "2 4", "dashdot": "8 3 2 3"}
_PUBLISHED_DASH = "dash"


@dataclass(frozen=True, slots=True)
class Series:
    """How one curve is named and drawn."""

    key: str
    name: str
    colour: str
    dash: str

    @property
    def svg_dash(self) -> str:
        """The dash for a legend."""
        return _SVG_DASHES.get(self.dash, "12 4")

    @property
    def band(self) -> str:
        """The colour, faint, for what lies within the error."""
        red, green, blue = (int(self.colour[at : at + 2], 16) for at in (1, 3, 5))
        return f"rgba({red},{green},{blue},.15)"


def title(method: str) -> str:
    """The name of a method for people."""
    return METHODS[method].title if method in METHODS else method


def series(group: Sequence[Study], study: Study) -> Series:
    """The curve of a study among those of its group: solid unless its method has other recipes."""
    method, recipe = study.method, study.recipe
    several = len({other.recipe for other in group if other.method == method}) > 1
    dash = _DASHES.get(recipe, "longdash") if several else "solid"
    return Series(f"{method}|{recipe}", f"{title(method)}, {recipe}", _colour(method), dash)


def published(method: str) -> Series:
    """The authors' own curve of a method."""
    name = f"{title(method)}, published"
    return Series(f"{method}|published", name, _colour(method), _PUBLISHED_DASH)


def _colour(method: str) -> str:
    return _COLOURS.get(method) or _SPARE[sum(method.encode()) % len(_SPARE)]

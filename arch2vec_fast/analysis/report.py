# SPDX-License-Identifier: Apache-2.0
"""A run as one HTML file that needs nothing else: no network, no server, no other files.

Headline numbers, the loss, a map of the latent space, every measurement of
`pretrain.metrics.evaluate` with what it means, and drawn cells: neighbours in the latent space,
held-out cells beside their reconstruction, samples from the prior before and after legal decoding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from arch2vec_fast._files import atomic_file
from arch2vec_fast.analysis import page
from arch2vec_fast.analysis.draw import draw_cell, legend
from arch2vec_fast.analysis.projection import METHODS, project
from arch2vec_fast.embeddings import embed
from arch2vec_fast.models.decoder import Decoded
from arch2vec_fast.models.dense import unpack
from arch2vec_fast.pretrain.decoding import legal_cells, raw_cells
from arch2vec_fast.pretrain.metrics import evaluate, sample_decoded
from arch2vec_fast.pretrain.run import Run
from arch2vec_fast.spaces import CellBatch, CellSpace
from arch2vec_fast.spaces.nasbench201 import NasBench201

_MAP_POINTS = 20_000
_TSNE_POINTS = 3_000
_DRAWN = 4
_LOSS_FLOOR = 1e-4  # nats; below it a log scale shows noise only
_PARAMETERS = "M parameters"
_NEIGHBOURS = 3

_RECONSTRUCTION_COLUMNS = (
    "model",
    "exact cells",
    "exact, legal",
    "operations",
    "edges",
    "operations (released)",
    "edges (released)",
)
_MEANINGS = {
    "valid": "share of decoded cells that the rule accepts",
    "unique": "distinct cells (up to isomorphism) among the valid ones",
    "ceiling": "how distinct as many uniform draws from the space would be on average",
    "novel": "valid cells that were not trained on; for uniform draws, the share left out",
    "released rule": "the check of the authors' code; for NAS-Bench-201 and DARTS it hardly looks "
    "at edges",
    "strict rule": "a cell of the space exactly as decoded, nothing to prune or ignore",
    "raw": "most likely label of each node, edges with probability above one half",
    "legal": "most likely cell of the space; always valid, for the untrained model too",
}


@dataclass(frozen=True, slots=True)
class _Subset:
    """Cells on the map, their vectors and their sizes: parameters, or edges without a network."""

    cells: CellBatch
    vectors: NDArray[np.float32]
    sizes: NDArray[np.float64]
    unit: str

    def size(self, index: int) -> str:
        """The size of a cell in words."""
        digits = 3 if self.unit == _PARAMETERS else 0
        return f"{self.sizes[index]:.{digits}f} {self.unit}"


def write_report(
    run: Run,
    out: str | Path,
    *,
    samples: int = 10_000,
    projection: str = "pca",
    seed: int = 0,
    evaluation: dict[str, Any] | None = None,
    progress: bool = False,
) -> Path:
    """Write the report of a run and return its path.

    samples, seed: of the evaluation and of the cells shown. projection: of the map, `pca` or
    `tsne` (3,000 cells). evaluation: a result of `evaluate` to show instead of a new one.
    progress: show that of the evaluation on standard error.
    Raises ImportError without plotly, ValueError for an unknown projection, OSError if `out`
    cannot be written. The file takes about 5 MB, most of it plotly.
    """
    if projection not in METHODS:
        raise ValueError(
            f"projection: unknown method {projection!r}; choose one of {', '.join(METHODS)}"
        )
    library = plotly_library()
    result = evaluation or evaluate(run, samples=samples, seed=seed, progress=progress)
    rng = np.random.default_rng(seed)
    subset = _subset(run, _TSNE_POINTS if projection == "tsne" else _MAP_POINTS, rng)
    plots = [_map(subset, run.space, projection, seed), *_curves(run)]
    body = [
        _header(run, result),
        "<main>",
        _curves_section(run),
        _map_section(subset, run.space, projection),
        _metrics_section(result),
        _neighbours_section(subset, run.space, rng),
        _reconstruction_section(run, rng),
        _samples_section(run, seed),
        _configuration_section(run),
        "</main>",
    ]
    facts = json.dumps({"plots": plots}, allow_nan=False)
    html = page.document(f"arch2vec on {run.space.name}", "\n".join(body), facts, library)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as file:
        file.write(html.encode())
    return out


def plotly_library() -> str:
    """plotly's JavaScript, to be written into a page."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ImportError("report: needs plotly: pip install 'arch2vec-fast[report]'") from None
    return str(get_plotlyjs())


def _subset(run: Run, limit: int, rng: np.random.Generator) -> _Subset:
    cells = run.cells
    if len(cells) > limit:
        cells = cells[np.sort(rng.choice(len(cells), limit, replace=False))]
    vectors = embed(run, cells).vectors
    try:
        return _Subset(cells, vectors, run.space.num_parameters(cells) / 1e6, _PARAMETERS)
    except ValueError:  # a space that stands for no network
        return _Subset(cells, vectors, cells.num_edges().astype(np.float64), "edges")


# -- numbers -------------------------------------------------------------------------------


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _header(run: Run, result: dict[str, Any]) -> str:
    strict, legal = result["reconstruction"]["strict"], result["legal"]["strict"]
    raw, counts = result["raw"]["strict"], result["counts"]
    ceiling = _percent(legal["unique_ceiling"])
    numbers = [
        (f"{_percent(strict['exact'])} %", "held-out cells reconstructed exactly"),
        (f"{_percent(raw['valid'])} %", "samples from the prior strictly valid as decoded"),
        (f"{_percent(legal['unique'])} %", f"of legal samples distinct (uniform: {ceiling} %)"),
        (f"{counts['train_cells']:,}", f"training cells, {counts['validation_cells']:,} held out"),
        (f"{counts['parameters']:,}", "parameters of the model"),
    ]
    return (
        f"<header><h1>arch2vec on {run.space.name}</h1>"
        f'<div class="soft">recipe <b>{run.recipe.name}</b>, {_epochs(run)}, '
        f"seed {run.seed}, commit {run.config.get('commit') or 'unknown'}</div>"
        f"{page.cards(numbers)}</header>"
    )


def _epochs(run: Run) -> str:
    return f"{run.recipe.epochs} epoch{'s' if run.recipe.epochs != 1 else ''}"


def _metrics_section(result: dict[str, Any]) -> str:
    untrained = result.get("untrained")
    reconstruction = [("trained", result["reconstruction"])]
    sampling = [("", result)]
    if untrained:
        reconstruction.append(("untrained control", untrained["reconstruction"]))
        sampling.append(("untrained, ", untrained))
    first = page.table(
        f"Reconstruction of {result['counts']['validation_cells']:,} held-out cells, per cent",
        _RECONSTRUCTION_COLUMNS,
        [(name, *map(_percent, _reconstruction_shares(part))) for name, part in reconstruction],
    )
    rows = []
    for label, source in sampling:
        for decoding, rule in (("raw", "released"), ("raw", "strict"), ("legal", "strict")):
            part = source[decoding][rule]
            shares = (part[name] for name in ("valid", "unique", "unique_ceiling", "novel"))
            rows.append((f"{label}{decoding}, {rule} rule", *map(_percent, shares)))
    uniform = result["uniform"]
    rows.append(
        ("uniform draws", "100.00", _percent(uniform["unique"]), "-", _percent(uniform["novel"]))
    )
    second = page.table(
        f"{result['counts']['samples']:,} cells decoded from the {result['prior']} prior, per cent",
        ("decoding", "valid", "unique", "ceiling", "novel"),
        rows,
    )
    return page.section(
        "Quality",
        first,
        "<br/>",
        second,
        page.definitions(_MEANINGS),
        intro="Table 1 of the paper in the sense of the authors' code and in a strict one. Being "
        "valid by construction is no merit, so raw decoding, the untrained model and the uniform "
        "ceiling stand beside it.",
    )


def _reconstruction_shares(part: dict[str, Any]) -> tuple[float | None, ...]:
    strict, released = part["strict"], part["released"]
    names = ("exact", "exact_legal", "node_accuracy", "edge_accuracy")
    return (
        *(strict[name] for name in names),
        released["ops_accuracy"],
        released["edge_accuracy"],
    )


# -- plots ---------------------------------------------------------------------------------


def _curves(run: Run) -> list[dict[str, Any]]:
    train = [line for line in run.metrics if line.get("event") == "train"]
    epochs = [line for line in run.metrics if line.get("event") == "epoch"]
    steps = [line["step"] for line in train]
    colours = {"loss": "#2457d6", "node": "#c2410c", "edge": "#0f9d6a", "kl": "#a855f7"}
    names = {"loss": "loss", "node": "operations", "edge": "edges", "kl": "KL"}
    loss = [
        _line(
            steps,
            [max(line[part], _LOSS_FLOOR) for line in train],
            names[part],
            colour,
            width=2.5 if part == "loss" else 1.2,
        )
        for part, colour in colours.items()
        if any(line[part] > 0 for line in train)
    ]
    at = [line["step"] for line in epochs if line["validation"]]
    shares = {"exact": "exact cells", "node_accuracy": "operations", "edge_accuracy": "edges"}
    held_out = [
        _line(
            at,
            [100 * line["validation"][key] for line in epochs if line["validation"]],
            name,
            colour,
            mode="lines+markers",
        )
        for (key, name), colour in zip(shares.items(), ("#2457d6", "#c2410c", "#0f9d6a"))
    ]
    return [
        {"id": "loss", "data": loss, "layout": _axes("step", "nats", kind="log")},
        {
            "id": "held-out",
            "data": held_out,
            "layout": _axes("step", "held out, right (%)", zero=True),
        },
    ]


def _line(
    x: list[float], y: list[float], name: str, colour: str, mode: str = "lines", width: float = 2
) -> dict[str, Any]:
    style = {"color": colour, "width": width}
    return {"type": "scatter", "mode": mode, "x": x, "y": y, "name": name, "line": style}


def _axes(x: str, y: str, *, kind: str = "linear", zero: bool = False) -> dict[str, Any]:
    return {
        "margin": {"l": 58, "r": 12, "t": 24, "b": 44},
        "xaxis": {"title": {"text": x}, "rangemode": "tozero" if zero else "normal"},
        "yaxis": {
            "title": {"text": y},
            "type": kind,
            "exponentformat": "power",
            "rangemode": "tozero" if zero else "normal",
        },
        "legend": {"orientation": "h", "y": 1.12},
        "hovermode": "x unified",
    }


def _curves_section(run: Run) -> str:
    losses = [line["loss"] for line in run.metrics if line.get("event") == "epoch"]
    final = f" The last epoch's mean loss is {losses[-1]:.4f}." if losses else ""
    return page.section(
        "Training",
        '<div class="plots">',
        page.plot("loss", f"Loss and its parts over training steps.{final}"),
        page.plot("held-out", "Accuracy on held-out cells after each epoch."),
        "</div>",
        intro="Left: the loss and its parts on training cells. Right: how much of the held-out "
        "cells comes back right, decoded from their means.",
    )


def _map(subset: _Subset, space: CellSpace, method: str, seed: int) -> dict[str, Any]:
    plane = project(subset.vectors, method, seed=seed)
    smallest, largest = subset.sizes.min(), subset.sizes.max()
    logarithmic = 0 < 30 * smallest < largest
    colour = np.log10(subset.sizes) if logarithmic else subset.sizes
    text = [
        f"{_wrap(escape(name, quote=False))}<br>{subset.size(index)}"
        for index, name in enumerate(_describe(subset.cells, space))
    ]
    bar: dict[str, Any] = {"title": {"text": subset.unit, "side": "right"}, "thickness": 14}
    if logarithmic:
        ticks = [tick for tick in _TICKS if smallest <= tick <= largest]
        bar |= {"tickvals": np.log10(ticks).tolist(), "ticktext": [f"{tick:g}" for tick in ticks]}
    marker = {"size": 4, "opacity": 0.75, "colorscale": _SCALE, "colorbar": bar}
    data = {
        "type": "scattergl",
        "mode": "markers",
        "x": plane[:, 0].round(4).tolist(),
        "y": plane[:, 1].round(4).tolist(),
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker | {"color": colour.round(4).tolist()},
    }
    names = ("component 1", "component 2") if method == "pca" else ("t-SNE 1", "t-SNE 2")
    layout = _axes(*names) | {"hovermode": "closest"}
    return {"id": "map", "data": [data], "layout": layout}


# Every colour stands out on white and on black.
_SCALE = [[0.0, "#5b6ee1"], [0.35, "#1fa3a3"], [0.7, "#e0a526"], [1.0, "#e0482d"]]
_TICKS = [base * 10**power for power in range(-3, 4) for base in (1, 2, 5)]


def _describe(cells: CellBatch, space: CellSpace) -> list[str]:
    """One line a cell; in one call where the space can."""
    if isinstance(space, NasBench201):
        return space.to_string(cells)
    return [space.describe(cell) for cell in cells]


def _wrap(text: str, width: int = 60) -> str:
    """Break a description at natural places, so that hover boxes stay on the screen."""
    lines, line = [], ""
    for part in text.replace("+|", "+ |").replace("), (", "),  (").split(" "):
        if line and len(line) + len(part) > width:
            lines.append(line)
            line = part
        else:
            line = f"{line} {part}" if line else part
    return "<br>".join([*lines, line])


def _map_section(subset: _Subset, space: CellSpace, method: str) -> str:
    how = "the two directions of largest variance" if method == "pca" else "t-SNE"
    return page.section(
        "Map of the latent space",
        page.plot(
            "map",
            f"{len(subset.cells):,} cells of {space.name} in two dimensions ({how}), coloured by "
            f"{subset.unit}.",
            tall=True,
        ),
        intro=f"{len(subset.cells):,} cells by {how}; hover to see a cell. The model has seen "
        "neither sizes nor accuracies: colour that varies smoothly was learnt from structure.",
    )


# -- drawings ------------------------------------------------------------------------------


def _neighbours_section(subset: _Subset, space: CellSpace, rng: np.random.Generator) -> str:
    query = int(rng.integers(len(subset.cells)))
    distance = ((subset.vectors - subset.vectors[query]).astype(np.float64) ** 2).sum(1)
    figures = []
    for rank, index in enumerate(np.argsort(distance, kind="stable")[: _NEIGHBOURS + 1].tolist()):
        caption = subset.size(index)
        if rank:
            caption += f", squared distance {distance[index]:.3g}"
        name = f"neighbour {rank}" if rank else "a cell"
        figures.append(page.figure([(name, draw_cell(subset.cells[index], space))], caption))
    return page.section(
        "Neighbours",
        page.colour_legend(legend(space)),
        f'<div class="cells">{"".join(figures)}</div>',
        intro="A cell chosen at random and the cells nearest to it in the latent space.",
    )


@torch.no_grad()
def _reconstruction_section(run: Run, rng: np.random.Generator) -> str:
    space, cells = run.space, run.validation_cells
    if not len(cells):
        return ""
    pick = np.sort(rng.choice(len(cells), min(_DRAWN, len(cells)), replace=False))
    cells = cells[pick]
    mu, _ = run.model.encode(*unpack(cells.to_torch(), cells.layout))
    decoded = raw_cells(run.model.decode(mu), space)
    figures = []
    for original, copy in zip(cells, decoded):
        same = original == copy
        drawings = [("original", draw_cell(original, space))]
        drawings.append(("reconstruction", draw_cell(copy, space)))
        tag = "exact" if same else "differs"
        figures.append(page.figure(drawings, space.describe(original), tag=tag, good=same))
    return page.section(
        "Held-out cells and their reconstruction",
        f'<div class="cells">{"".join(figures)}</div>',
        intro="Encoded to their means and decoded raw; the model has never seen these cells.",
    )


def _samples_section(run: Run, seed: int) -> str:
    space = run.space
    decoded = Decoded(*sample_decoded(run.model, run.prior, _DRAWN, seed))
    raw, legal = raw_cells(decoded, space), legal_cells(decoded, space)
    reasons = space.validity(raw, rule="strict").tolist()
    figures = []
    for before, after, reason in zip(raw, legal, reasons):
        drawings = [("raw", draw_cell(before, space)), ("legal", draw_cell(after, space))]
        if before == after:
            drawings = [("raw = legal", draw_cell(after, space))]
        tag = "invalid as decoded" if reason else "valid as decoded"
        caption = space.reasons[reason] if reason else space.describe(after)
        figures.append(page.figure(drawings, caption, tag=tag, good=not reason))
    return page.section(
        "Cells sampled from the prior",
        f'<div class="cells">{"".join(figures)}</div>',
        intro=f"Drawn from the {run.prior.kind} prior (seed {seed}, the first {_DRAWN}, not "
        "chosen). Faint nodes lie on no path from input to output.",
    )


def _configuration_section(run: Run) -> str:
    recipe = run.recipe
    cells = run.config["cells"]
    source = "" if cells["source"] == "enumerated" else f" --cells {run.path / 'cells.npz'}"
    command = (
        f"arch2vec-fast pretrain {run.space.name} --recipe {recipe.name} "
        f"--epochs {recipe.epochs} --batch-size {recipe.batch_size} --lr {recipe.learning_rate:g} "
        f"--seed {run.seed}{source} --out RUN\n"
        "arch2vec-fast evaluate RUN\narch2vec-fast embed RUN\narch2vec-fast report RUN"
    )
    facts = {"cells": f"{cells['count']:,}, {cells['source']}, {cells['order']}"}
    facts |= {name: str(value) for name, value in run.config["versions"].items()}
    facts |= {"commit": str(run.config.get("commit"))}
    return page.section(
        "How it was made",
        f"<pre><code>{escape(command)}</code></pre>",
        "<details><summary>All settings</summary>",
        page.facts_table("Recipe", {k: str(v) for k, v in recipe.to_dict().items()}),
        page.facts_table("Run", facts),
        "</details>",
    )

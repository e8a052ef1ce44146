# SPDX-License-Identifier: Apache-2.0
"""The frame of the HTML report: style, script and small pieces of markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark;
  --paper: #f7f8fa; --card: #ffffff; --ink: #16202e; --soft: #566173; --line: #dfe4ea;
  --accent: #2457d6; --good: #0b7a4b; --bad: #b3261e; --chip: #eef2f8; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #0f141b; --card: #171e28; --ink: #e6ebf2; --soft: #9aa7b8; --line: #2a3442;
  --accent: #8ab0ff; --good: #5fd39b; --bad: #ff8f86; --chip: #212b39; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main, header { max-width: 1190px; margin: 0 auto; padding: 0 24px }
header { padding-top: 44px }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.02em }
h2 { font-size: 20px; margin: 0 0 4px; letter-spacing: -.01em }
p { margin: 6px 0 14px; max-width: 78ch } .soft { color: var(--soft) }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 22px 24px; margin: 20px 0 }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px;
  margin: 22px 0 0; padding: 0; list-style: none }
.cards li { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 16px 18px }
.cards b { display: block; font-size: 28px; line-height: 1.2; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums }
.cards span { color: var(--soft); font-size: 14px }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
  gap: 12px }
.plots .plot:last-child:nth-child(odd) { grid-column: 1 / -1 }
.plot { min-height: 320px; min-width: 0 } .plot.tall { min-height: 560px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--soft); padding: 0 0 8px; font-size: 14px }
th, td { padding: 7px 10px 7px 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th { font-weight: 600 }
thead th { color: var(--soft); font-size: 13px; white-space: normal; vertical-align: bottom }
th:first-child, td:first-child, table.facts td { text-align: left }
table.facts td { white-space: normal; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 16px 0 0;
  font-size: 14px } dt { font-weight: 600 } dd { margin: 0; color: var(--soft) }
.cells { display: flex; flex-wrap: wrap; gap: 14px; margin: 14px 0 0 }
figure { margin: 0; border: 1px solid var(--line); border-radius: 12px; padding: 12px;
  display: flex; flex-direction: column; width: min-content; min-width: 180px; max-width: 100% }
figure .pair { display: flex; justify-content: safe center; gap: 16px; overflow-x: auto; flex: 1 }
figure .pair > div { display: flex; flex-direction: column; align-items: center; gap: 6px }
figure .pair small { color: var(--soft) }
figcaption { font-size: 13px; line-height: 1.45; color: var(--soft); margin-top: 10px;
  overflow-wrap: anywhere }
@media (max-width: 640px) { figure { width: 100% } figure .pair { flex-wrap: wrap } }
svg.cell { display: block; flex: none; color: var(--ink) }
.tag { display: table; white-space: nowrap; margin-bottom: 4px; border-radius: 99px;
  padding: 1px 9px; font-size: 12.5px; font-weight: 600; background: var(--chip) }
.tag.good { color: var(--good) } .tag.bad { color: var(--bad) }
.legend { display: flex; flex-wrap: wrap; gap: 6px 16px; margin: 10px 0 0; padding: 0;
  list-style: none; font-size: 14px; color: var(--soft) }
.legend i { display: inline-block; width: 13px; height: 13px; border-radius: 4px;
  margin-right: 6px; vertical-align: -1px }
.series { display: flex; flex-wrap: wrap; gap: 6px 8px; margin: 12px 0 8px; align-items: center }
.series button, .series label { font: inherit; font-size: 14px; color: var(--ink); cursor: pointer;
  background: none; border: 1px solid var(--line); border-radius: 99px; padding: 2px 12px 2px 9px }
.series button[aria-pressed="false"] { opacity: .4; text-decoration: line-through }
.series span { margin-left: auto; display: flex; gap: 8px } .series label { color: var(--soft) }
.series svg { margin-right: 7px; vertical-align: 3px }
pre { background: var(--chip); border-radius: 10px; padding: 12px 14px; overflow-x: auto;
  font-size: 13.5px } summary { cursor: pointer; font-weight: 600; margin: 6px 0 }
footer { color: var(--soft); font-size: 13px; padding: 4px 0 40px }
"""

# Colours come from the page's own variables, so plots follow the light or dark scheme.
SCRIPT = """
const facts = JSON.parse(document.getElementById('facts').textContent);
const hidden = new Set();
function draw() {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue('--ink').trim();
  const soft = style.getPropertyValue('--soft').trim();
  const line = style.getPropertyValue('--line').trim();
  for (const plot of facts.plots) {
    const layout = structuredClone(plot.layout);
    const logarithmic = document.getElementById(plot.toggle)?.checked;
    for (const [axis, change] of Object.entries((logarithmic ? plot.log : plot.linear) ?? {}))
      Object.assign(layout[axis], change);
    const bands = document.getElementById(`${plot.toggle}-bands`)?.checked ?? true;
    const data = plot.data.map(trace => ({ ...trace,
      visible: !hidden.has(trace.legendgroup) && (bands || Boolean(trace.name)) }));
    Object.assign(layout, { paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
      font: { color: ink, family: 'system-ui, sans-serif', size: 13 },
      modebar: { bgcolor: 'rgba(0,0,0,0)', color: soft, activecolor: ink } });
    for (const name of Object.keys(layout).filter(key => /axis/.test(key)))
      Object.assign(layout[name], { gridcolor: line, zerolinecolor: line, linecolor: line });
    Plotly.react(plot.id, data, layout, { responsive: true, displaylogo: false,
      displayModeBar: plot.id === 'map' ? 'hover' : false });
  }
}
for (const box of document.querySelectorAll('.series input')) box.addEventListener('change', draw);
for (const button of document.querySelectorAll('.series button'))
  button.addEventListener('click', () => {
    const key = button.dataset.series;
    hidden.delete(key) || hidden.add(key);
    for (const other of document.querySelectorAll('.series button'))
      if (other.dataset.series === key) other.setAttribute('aria-pressed', !hidden.has(key));
    draw();
  });
draw();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
"""


def document(title: str, body: str, facts_json: str, library: str) -> str:
    """The whole page. facts_json: JSON with "plots"; library: plotly's JavaScript."""
    facts = facts_json.replace("</", "<\\/")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<script type="application/json" id="facts">{facts}</script>\n'
        f"<script>{library}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str, intro: str = "") -> str:
    """A titled block."""
    paragraph = f'<p class="soft">{intro}</p>' if intro else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{paragraph}\n{''.join(parts)}\n</section>"


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with column and row headers."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts_table(caption: str, facts: dict[str, str]) -> str:
    """Two columns, name and value."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<table class="facts"><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>'


def cards(items: Iterable[tuple[str, str]]) -> str:
    """Big numbers with what they mean."""
    inner = "".join(
        f"<li><b>{escape(big)}</b><span>{escape(small)}</span></li>" for big, small in items
    )
    return f'<ul class="cards">{inner}</ul>'


def definitions(items: dict[str, str]) -> str:
    """Terms and what they mean."""
    inner = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items.items())
    return f"<dl>{inner}</dl>"


def plot(identifier: str, description: str, *, tall: bool = False) -> str:
    """The place of a plot; description is read out by screen readers."""
    kind = "plot tall" if tall else "plot"
    return (
        f'<div class="{kind}" id="{identifier}" role="img" '
        f'aria-label="{escape(description, quote=True)}"></div>'
    )


def figure(
    drawings: Iterable[tuple[str, str]], caption: str, *, tag: str = "", good: bool = True
) -> str:
    """Drawings with a small title each, side by side, and a caption."""
    inner = "".join(f"<div><small>{escape(name)}</small>{svg}</div>" for name, svg in drawings)
    kind = "good" if good else "bad"
    chip = f'<span class="tag {kind}">{escape(tag)}</span>' if tag else ""
    return (
        f'<figure><div class="pair">{inner}</div>'
        f"<figcaption>{chip}{_breakable(caption)}</figcaption></figure>"
    )


def _breakable(text: str) -> str:
    """Escaped text that may break after the bars of an architecture string."""
    return escape(text).replace("|", "|<wbr/>")


def colour_legend(pairs: Iterable[tuple[str, str]]) -> str:
    """Operation names beside their colours."""
    inner = "".join(
        f'<li><i style="background:{colour}"></i>{escape(name)}</li>' for name, colour in pairs
    )
    return f'<ul class="legend" aria-label="Colours of operations">{inner}</ul>'


def series_legend(identifier: str, entries: Iterable[tuple[str, str, str, str]]) -> str:
    """Curves as buttons that show and hide them, and boxes for logarithmic axes and for bands.

    entries: (key, name, colour, SVG dash array) of each; key is the `legendgroup` in the plots,
    whose `toggle` is identifier. Data without a name are the bands.
    """
    buttons = "".join(
        f'<button type="button" data-series="{escape(key, quote=True)}" aria-pressed="true">'
        '<svg width="26" height="4" aria-hidden="true"><line x1="0" y1="2" x2="26" y2="2" '
        f'stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/></svg>'
        f"{escape(name)}</button>"
        for key, name, colour, dash in entries
    )
    boxes = "".join(
        f'<label><input type="checkbox" id="{name}" checked/> {text}</label>'
        for name, text in ((identifier, "logarithmic axes"), (f"{identifier}-bands", "95 % bands"))
    )
    return f'<div class="series">{buttons}<span>{boxes}</span></div>'

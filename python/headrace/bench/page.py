"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from html import escape
from pathlib import Path

from headrace.bench.drawings import Group, groups
from headrace.bench.results import Results
from headrace.bench.summary import tables
from headrace.bench.tables import Table

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2em; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
td, th { border: 1px solid #8884; padding: 3px 8px; text-align: left; vertical-align: top; }
th { background: #8882; } tr:has(td:first-child[data-ours]) { font-weight: 600; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg text { fill: currentColor; }
svg .small { font-size: 9px; opacity: .7; } .grid { stroke: #8885; } .floor { stroke: #888; stroke-dasharray: 3 3; }
.legend { cursor: pointer; } .off { opacity: .15; } .card { font-size: 13px; opacity: .8; }
nav button { font: inherit; font-size: 13px; margin: 0 4px 4px 0; padding: 2px 10px; border: 1px solid #8886;
  border-radius: 4px; background: none; color: inherit; cursor: pointer; }
nav button[aria-pressed=true] { background: #d6272822; border-color: #d62728; }
"""

_SCRIPT = """
for (const nav of document.querySelectorAll("nav[data-for]")) {
  const figures = document.querySelectorAll(`figure[data-group="${nav.dataset.for}"]`);
  const show = name => {
    for (const figure of figures) figure.hidden = figure.dataset.name !== name;
    for (const button of nav.children) button.setAttribute("aria-pressed", button.dataset.name === name);
  };
  for (const figure of figures) {
    const button = document.createElement("button");
    button.textContent = button.dataset.name = figure.dataset.name;
    button.onclick = () => show(figure.dataset.name);
    nav.append(button);
  }
  if (figures.length) show(figures[0].dataset.name);
}
for (const legend of document.querySelectorAll(".legend")) legend.onclick = () => {
  const series = legend.closest("svg").querySelector(`.series[data-peer="${legend.dataset.peer}"]`);
  series.style.display = series.style.display ? "" : "none";
  legend.classList.toggle("off");
};
"""


def write(results: Results, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(results))


def page(results: Results) -> str:
    """The page as text."""
    first, *rest = tables(results)
    card = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    rounds, workers = results.settings["rounds"], results.settings["workers"]
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>headrace bench</title><style>{_STYLE}</style><h1>headrace bench</h1>",
        f'<p class="card">{escape(card)}; {rounds} rounds, {workers} workers</p>',
        _table(first),
        *map(_group, groups(results)),
        *map(_table, rest),
        f"<script>{_SCRIPT}</script></html>",
    ]
    return "\n".join(part for part in parts if part)


def _group(group: Group) -> str:
    """Figures of which one is shown at a time; all of them where there is no script."""
    drawn = "".join(
        f'<figure data-group="{group.name}" data-name="{escape(label)}">'
        f"<figcaption>{escape(label)}</figcaption>{figure}</figure>"
        for label, figure in group.figures.items()
    )
    text = f"<p>{escape(group.text)}</p>" if group.text else ""
    return f'<h2>{escape(group.title)}</h2>{text}<nav data-for="{group.name}"></nav>{drawn}'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{' data-ours' if not position and cell.startswith('headrace') else ''}>{escape(cell)}</td>"
            for position, cell in enumerate(row)
        )
        + "</tr>"
        for row in table.rows
    )
    body = f"<table><tr>{head}</tr>{rows}</table>" if table.rows else ""
    return f"<h2>{escape(table.title)}</h2><p>{escape(table.text)}</p>{body}"

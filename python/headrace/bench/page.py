"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from html import escape
from pathlib import Path

from headrace.bench import analysis, svg
from headrace.bench.plans import parse
from headrace.bench.results import Cell, Results
from headrace.bench.summary import Table, tables

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
        _group("Time per task", "ladder", _ladders(results)),
        _group("Efficiency over the length of tasks", "grain", _grains(results)),
        _group("Cost over the size of the graph", "size", _sizes(results)),
        _group("Cost over the number of workers", "workers", _workers(results)),
        _group("Handing a value on", "payload", _payloads(results)),
        *map(_table, rest),
        f"<script>{_SCRIPT}</script></html>",
    ]
    return "\n".join(part for part in parts if part)


def _ladders(results: Results) -> dict[str, str]:
    peers = list(results.peers)
    figures = {}
    for family in analysis.families(results, "ladder"):
        cells = [cell for cell in results.of_study("ladder") if parse(cell.workload).family == family]
        bars = [svg.Bar(cell.peer, cell.task_us, _note(cell)) for cell in cells]
        figures[family] = svg.ladder(bars, "microseconds a task", peers, results.floors)
    return figures


def _grains(results: Results) -> dict[str, str]:
    peers = list(results.peers)
    label, share = "microseconds of work a task", "of the workers' time"
    return {
        shape: drawn
        for shape in ("stencil_1d", "trivial")
        if (drawn := svg.curves(analysis.efficiency_curves(results, shape), label, share, peers, percent=True))
    }


def _sizes(results: Results) -> dict[str, str]:
    peers = list(results.peers)
    shapes = dict.fromkeys(parse(cell.workload).shape for cell in results.of_study("size"))
    return {
        shape: svg.curves(analysis.size_curves(results, shape), "tasks", "microseconds a task", peers)
        for shape in shapes
    }


def _workers(results: Results) -> dict[str, str]:
    peers = list(results.peers)
    label = f"workers (this machine has {results.machine['cores']} cores)"
    return {
        family: svg.curves(analysis.worker_curves(results, family), label, "microseconds a task", peers)
        for family in analysis.families(results, "workers")
    }


def _payloads(results: Results) -> dict[str, str]:
    drawn = svg.curves(analysis.payload_curves(results), "bytes", "microseconds a hand-over", list(results.peers))
    return {"chain of 10": drawn} if drawn else {}


def _group(title: str, name: str, figures: dict[str, str]) -> str:
    """Figures of which one is shown at a time; all of them where there is no script."""
    if not figures:
        return ""
    drawn = "".join(
        f'<figure data-group="{name}" data-name="{escape(label)}">'
        f"<figcaption>{escape(label)}</figcaption>{figure}</figure>"
        for label, figure in figures.items()
    )
    return f'<h2>{escape(title)}</h2><nav data-for="{name}"></nav>{drawn}'


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


def _note(cell: Cell) -> str:
    return (
        f"{cell.peer}, {cell.workload}: {cell.task_us:.4g} µs a task, {cell.tasks:,} tasks, {cell.edges:,} edges, "
        f"{len(cell.seconds)} runs in {len(cell.rounds)} rounds"
    )

"""The tables of a report, as rows of words: markdown prints them, and the page shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headrace.bench.analysis import efficiency_curves, metg_us, pairs, peak
from headrace.bench.plans import parse
from headrace.bench.results import Cell, Results, percentile


class Table(NamedTuple):
    """A heading, what to know about it, columns and rows."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(results: Results) -> list[Table]:
    """All of them; those without rows are left out. What headrace loses comes first."""
    found = [
        losses(results),
        ladder(results),
        ratios(results),
        latency(results),
        grains(results),
        resources(results),
        alone(results),
        skipped(results),
        systems(results),
    ]
    return [table for table in found if table.rows or table.title.startswith("Where")]


def losses(results: Results) -> Table:
    """Where a peer was faster, or nobody was."""
    rows = [
        (
            pair.cell.peer,
            pair.cell.workload,
            f"{_us(pair.cell.task_us)}",
            f"{_us(pair.ours.task_us)}",
            f"{pair.times_faster:.2f}×",
            pair.verdict,
        )
        for pair in pairs(results)
        if pair.verdict != "faster"
    ]
    text = "Every workload on which headrace was not faster than a peer in every round, the worst first."
    if not rows:
        text = "In this run headrace was faster than every peer in every round of every workload that both ran."
    return Table(
        "Where headrace does not win",
        text,
        ("peer", "workload", "peer µs/task", "headrace", "ratio", "headrace is"),
        rows,
    )


def ladder(results: Results) -> Table:
    """Microseconds a task, workload by workload."""
    columns = list(dict.fromkeys(parse(cell.workload).family for cell in results.of_study("ladder")))
    by_peer: dict[str, dict[str, Cell]] = {}
    for cell in results.of_study("ladder"):
        by_peer.setdefault(cell.peer, {})[parse(cell.workload).family] = cell
    rows = [
        (peer, *(_sized(cells[family]) if family in cells else "–" for family in columns))
        for peer, cells in by_peer.items()
    ]
    text = (
        "Microseconds a task, client to client, median of the rounds; in brackets the tasks of the graph, "
        "which is smaller for slow peers."
    )
    return Table("Time per task", text, ("peer", *columns), rows)


def ratios(results: Results) -> Table:
    """How many times faster headrace is, on equal graphs."""
    by_peer: dict[str, dict[str, str]] = {}
    columns: dict[str, None] = {}
    for pair in pairs(results):
        if "ladder" in pair.cell.studies:
            family = parse(pair.cell.workload).family
            columns[family] = None
            by_peer.setdefault(pair.cell.peer, {})[family] = f"{pair.times_faster:.3g}×"
    order = [
        family
        for family in dict.fromkeys(parse(c.workload).family for c in results.of_study("ladder"))
        if family in columns
    ]
    rows = [(peer, *(row.get(family, "–") for family in order)) for peer, row in by_peer.items()]
    return Table(
        "How many times faster headrace is",
        "On equal graphs, the median of the ratios within each round.",
        ("peer", *order),
        rows,
    )


def latency(results: Results) -> Table:
    """One call, a hop, the first task."""
    by_peer: dict[str, dict[str, Cell]] = {}
    for cell in results.of_study("latency"):
        by_peer.setdefault(cell.peer, {})[parse(cell.workload).shape + ("1" if cell.tasks == 1 else "")] = cell
    rows = []
    for peer, cells in by_peer.items():
        call, hops, first = cells.get("independent1"), cells.get("chain"), cells.get("independent")
        rows.append(
            (
                peer,
                _percentiles([seconds * 1e6 for seconds in call.seconds]) if call else "–",
                _percentiles(hops.hops_us) if hops else "–",
                f"{_us(percentile(first.first_task_s, 0.5) * 1e6)} of {first.tasks:,}" if first else "–",
                f"{_us(percentile(first.submit_s, 0.5) / first.tasks * 1e6)}" if first and first.submit_s else "–",
                f"{percentile(results.peers[peer].start_s, 0.5):.2f} s" if results.peers[peer].start_s else "–",
            )
        )
    return Table(
        "Latency",
        "Microseconds, p50 / p99 / p99.9. A call: submit one task, wait for its value. A hop: from the end of a task "
        "to the beginning of the one that needs it, in a chain; headrace and others keep a chain on one worker. First "
        "task: from submit on, graph building "
        "included. Submit: a task, where a graph is handed over as a whole. Cold start: imports to a first result.",
        ("peer", "call", "hop", "first task", "submit", "cold start"),
        rows,
    )


def grains(results: Results) -> Table:
    """METG of both patterns."""
    found: dict[str, dict[str, str]] = {}
    for shape in ("stencil_1d", "trivial"):
        curves = efficiency_curves(results, shape)
        for curve in curves:
            metg = metg_us(curve, 0.5 * peak(curves))
            least = curve.points[0][0] if curve.points else math.nan
            text = "over " + _us(curve.points[-1][0]) if math.isnan(metg) else _us(metg)
            found.setdefault(curve.peer, {})[shape] = f"≤ {text}" if metg == least else text
    rows = [(peer, row.get("stencil_1d", "–"), row.get("trivial", "–")) for peer, row in found.items()]
    return Table(
        "METG (50 %)",
        "The length in microseconds below which tasks have less than half of the best share of the workers' time that "
        "any peer came to (patterns in the style of Task Bench, rows of two tasks a worker, tasks that take fixed "
        "processor time).",
        ("peer", "stencil_1d", "trivial"),
        rows,
    )


def resources(results: Results) -> Table:
    """Memory and processor time."""
    rows = [
        (
            cell.peer,
            cell.workload,
            f"{cell.peak_bytes / 2**20:,.0f}",
            "–" if math.isnan(cell.processor_us) else _us(cell.processor_us),
            f"{1e6 / cell.task_us:,.0f}",
            "–" if math.isnan(cell.spread) else f"{cell.spread:.0%}",
        )
        for cell in results.of_study("ladder")
    ]
    return Table(
        "Memory, processor time, throughput",
        "Peak of all processes together in MiB, shared pages counted once; processor time a task of all "
        "processes in microseconds.",
        ("peer", "workload", "peak MiB", "processor µs/task", "tasks/s", "spread"),
        rows,
    )


def alone(results: Results) -> Table:
    """The broker without workers."""
    rows = [(f"{shape}, {tasks:,} tasks", f"{ns:,.0f}") for shape, tasks, ns in results.scheduler_alone]
    return Table(
        "Scheduler alone",
        "headrace's broker with workers that answer at once, no socket and no Python: the form in which some systems "
        "publish. Not to be compared with anything above.",
        ("graph", "ns/task"),
        rows,
    )


def skipped(results: Results) -> Table:
    """What is not there, and why."""
    rows = [(name, "all", record.skipped) for name, record in results.peers.items() if record.skipped]
    rows += [(cell.peer, cell.workload, cell.failure) for cell in results.cells if cell.failure]
    return Table("Skipped", "Asked for, and not measured.", ("peer", "workload", "reason"), rows)


def systems(results: Results) -> Table:
    """What was measured, and in which way."""
    rows = [
        (name, record.kind, record.fast_path, ", ".join(" ".join(item) for item in record.versions.items()))
        for name, record in results.peers.items()
        if not record.skipped
    ]
    return Table("Systems", "The way that each is used, and versions.", ("peer", "kind", "way", "versions"), rows)


def markdown(results: Results) -> str:
    """The whole summary."""
    lines = [
        "# headrace bench",
        "",
        ", ".join(f"{name} {value}" for name, value in results.machine.items()),
        "",
        f"{results.settings['rounds']} rounds, {results.settings['workers']} workers. "
        f"Floors of this machine: {', '.join(f'{name} {_us(value)} µs' for name, value in results.floors.items())}.",
    ]
    for table in tables(results):
        lines += ["", f"## {table.title}", "", table.text]
        if table.rows:
            lines += ["", _row(table.columns), _row(["---"] * len(table.columns)), *map(_row, table.rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _sized(cell: Cell) -> str:
    return f"{_us(cell.task_us)} ({cell.tasks:,})"


def _percentiles(samples_us: list[float]) -> str:
    return " / ".join(_us(percentile(samples_us, share)) for share in (0.5, 0.99, 0.999))


def _us(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

"""The tables of a report, as rows of words: markdown prints them, and the page shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from headrace.bench.airflow_tables import airflow_tables
from headrace.bench.analysis import efficiency_curves, metg_us, pairs, peak
from headrace.bench.plans import parse
from headrace.bench.reasons import reason_for
from headrace.bench.results import Cell, Results, percentile
from headrace.bench.studies import STUDIES
from headrace.bench.tables import Table, percentiles, sized, us
from headrace.bench.value_tables import value_tables


def tables(results: Results) -> list[Table]:
    """All of them; those without rows are left out. What headrace loses comes first."""
    found = [
        losses(results),
        ladder(results),
        ratios(results),
        latency(results),
        *airflow_tables(results),
        *value_tables(results),
        grains(results),
        resources(results),
        alone(results),
        primitives(results),
        skipped(results),
        systems(results),
        asked(results),
    ]
    return [table for table in found if table.rows or table.title.startswith("Where")]


def losses(results: Results) -> Table:
    """Where a peer was faster, or nobody was."""
    rows = [
        (
            pair.cell.peer,
            pair.cell.workload,
            f"{us(pair.cell.task_us)}",
            f"{us(pair.ours.task_us)}",
            f"{pair.times_faster:.2f}×",
            pair.verdict,
            reason_for(pair.cell),
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
        ("peer", "workload", "peer µs/task", "headrace", "ratio", "headrace is", "why"),
        rows,
    )


def ladder(results: Results) -> Table:
    """Microseconds a task, workload by workload."""
    columns = list(dict.fromkeys(parse(cell.workload).family for cell in results.of_study("ladder")))
    by_peer: dict[str, dict[str, Cell]] = {}
    for cell in results.of_study("ladder"):
        by_peer.setdefault(cell.peer, {})[parse(cell.workload).family] = cell
    rows = [
        (peer, *(sized(cells[family]) if family in cells else "–" for family in columns))
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
        workload = parse(cell.workload)
        name = workload.shape + ("1" if cell.tasks == 1 else "") + (" away" if workload.is_pinned else "")
        by_peer.setdefault(cell.peer, {})[name] = cell
    rows = []
    for peer, cells in by_peer.items():
        call, hops, first = cells.get("independent1"), cells.get("chain"), cells.get("independent")
        away = cells.get("chain away")
        rows.append(
            (
                peer,
                percentiles([seconds * 1e6 for seconds in call.seconds]) if call else "–",
                percentiles(hops.hops_us) if hops else "–",
                percentiles(away.hops_us) if away else "–",
                f"{us(percentile(first.first_task_s, 0.5) * 1e6)} of {first.tasks:,}" if first else "–",
                f"{us(percentile(first.submit_s, 0.5) / first.tasks * 1e6)}" if first and first.submit_s else "–",
                f"{percentile(results.peers[peer].start_s, 0.5):.2f} s" if results.peers[peer].start_s else "–",
            )
        )
    return Table(
        "Latency",
        "Microseconds, p50 / p99 / p99.9. A call: submit one task, wait for its value. A hop: from the end of a task "
        "to the beginning of the one that needs it, in a chain; headrace and others keep a chain on one worker; "
        "away: where each task is told to run on the other worker, if it can be told. First task: from submit on, "
        "graph building included. Submit: a task, where a graph is handed over as a whole. Cold start: imports to a "
        "first result.",
        ("peer", "call", "hop", "hop away", "first task", "submit", "cold start"),
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
            text = "over " + us(curve.points[-1][0]) if math.isnan(metg) else us(metg)
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
            "–" if math.isnan(cell.processor_us) else us(cell.processor_us),
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
    """The broker with workers that cost nothing."""
    rows = [
        (harness, f"{shape}, {tasks:,} tasks", f"{ns:,.0f}") for harness, shape, tasks, ns in results.scheduler_alone
    ]
    return Table(
        "Scheduler alone",
        "headrace's broker with workers that answer at once and no Python: as a machine without sockets, and as it "
        "runs, with sockets and processes. This is the form in which some systems publish (Frisky, HyperQueue). "
        "Not to be compared with anything above.",
        ("harness", "graph", "ns/task"),
        rows,
    )


def primitives(results: Results) -> Table:
    """What the machine charges."""
    rows = [(name, us(value)) for name, value in (results.floors | results.primitives).items()]
    return Table(
        "What the machine itself charges",
        "Microseconds. One way is half a round trip, blocking, between two processes on a core each, where it is not "
        "said otherwise.",
        ("primitive", "µs"),
        rows,
    )


def asked(results: Results) -> Table:
    """Which study asked whom."""
    is_full = results.settings.get("is_full", False)
    rows = [
        (name, STUDIES[name].question, STUDIES[name].whose if is_full else "all that were chosen")
        for name in results.settings.get("studies", ())
        if name in STUDIES
    ]
    return Table("Studies", "What was asked, and of whom.", ("study", "question", "peers"), rows)


def skipped(results: Results) -> Table:
    """What is not there, and why."""
    rows = [(name, "all", record.skipped) for name, record in results.peers.items() if record.skipped]
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in results.cells:
        if cell.failure:
            reasons.setdefault((cell.peer, cell.failure), []).append(cell.workload)
    rows += [(peer, ", ".join(workloads), reason) for (peer, reason), workloads in reasons.items()]
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
        f"Floors of this machine: {', '.join(f'{name} {us(value)} µs' for name, value in results.floors.items())}.",
    ]
    for table in tables(results):
        lines += ["", f"## {table.title}", "", table.text]
        if table.rows:
            lines += ["", _row(table.columns), _row(["---"] * len(table.columns)), *map(_row, table.rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

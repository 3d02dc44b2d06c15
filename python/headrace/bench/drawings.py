"""The figures of a report, group by group."""

from __future__ import annotations

from typing import NamedTuple

from headrace.bench import analysis, svg
from headrace.bench.plans import parse
from headrace.bench.results import Cell, Results
from headrace.bench.svg import Axis


class Group(NamedTuple):
    """Figures of one kind, by what tells them apart."""

    title: str
    name: str
    text: str
    figures: dict[str, str]


_TASK_US = Axis("microseconds a task")


def groups(results: Results) -> list[Group]:
    """Those of which there is something to draw."""
    found = [
        Group(
            "Time per task",
            "ladder",
            "Dashed: what the machine charges for a way between two processes.",
            _ladders(results),
        ),
        Group(
            "Efficiency over the length of tasks",
            "grain",
            "METG (50 %) is where a curve falls below a half.",
            _grains(results),
        ),
        Group("Cost over the size of the graph", "size", "", _sizes(results)),
        Group("Cost over the number of workers", "workers", "", _workers(results)),
        Group("Handing a value on", "payload", _PAYLOAD, _payloads(results)),
        Group("Memory over time", "memory", _MEMORY, _memory(results)),
    ]
    return [group for group in found if group.figures]


_PAYLOAD = (
    "From the end of the task that made an array until the next one has read a byte of each of its pages, the median. "
    "Engines may run both on one worker, and then hand on a pointer."
)
_MEMORY = (
    "An array of 200 MB through ten tasks, each of which makes a new one: all processes together, shared memory once. "
    "It begins before the graph is submitted and ends with its result in the client."
)


def _ladders(results: Results) -> dict[str, str]:
    peers = list(results.peers)
    figures = {}
    for family in analysis.families(results, "ladder"):
        cells = [cell for cell in results.of_study("ladder") if parse(cell.workload).family == family]
        bars = [svg.Bar(cell.peer, cell.task_us, _note(cell)) for cell in cells]
        figures[family] = svg.ladder(bars, _TASK_US.label, peers, results.floors)
    return figures


def _grains(results: Results) -> dict[str, str]:
    label, share = Axis("microseconds of work a task"), Axis("of the workers' time", "percent")
    return _drawn(
        {
            shape: svg.curves(analysis.efficiency_curves(results, shape), label, share, list(results.peers))
            for shape in ("stencil_1d", "trivial")
        }
    )


def _sizes(results: Results) -> dict[str, str]:
    shapes = dict.fromkeys(parse(cell.workload).shape for cell in results.of_study("size"))
    return {
        shape: svg.curves(analysis.size_curves(results, shape), Axis("tasks"), _TASK_US, list(results.peers))
        for shape in shapes
    }


def _workers(results: Results) -> dict[str, str]:
    label = Axis(f"workers (this machine has {results.machine['cores']} cores)", "linear")
    return {
        family: svg.curves(analysis.worker_curves(results, family), label, _TASK_US, list(results.peers))
        for family in analysis.families(results, "workers")
    }


def _payloads(results: Results) -> dict[str, str]:
    label, time = Axis("bytes"), Axis("microseconds a hand-over")
    return _drawn({"two tasks": svg.curves(analysis.payload_curves(results), label, time, list(results.peers))})


def _memory(results: Results) -> dict[str, str]:
    label, held = Axis("seconds", "linear"), Axis("MiB", "linear")
    curves = analysis.memory_curves(results)
    peers = list(results.peers)
    # Beside engines that take seconds, what takes a tenth of one is a stroke at the left.
    quick = [curve for curve in curves if curve.points[-1][0] <= 4 * min(curve.points[-1][0] for curve in curves)]
    figures = {"all": svg.curves(curves, label, held, peers)}
    if 0 < len(quick) < len(curves):
        figures["the quickest"] = svg.curves(quick, label, held, peers)
    return _drawn(figures)


def _drawn(figures: dict[str, str]) -> dict[str, str]:
    return {name: figure for name, figure in figures.items() if figure}


def _note(cell: Cell) -> str:
    return (
        f"{cell.peer}, {cell.workload}: {cell.task_us:.4g} µs a task, {cell.tasks:,} tasks, {cell.edges:,} edges, "
        f"{len(cell.seconds)} runs in {len(cell.rounds)} rounds"
    )

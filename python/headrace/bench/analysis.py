"""What follows from the samples of a run: ratios within rounds, efficiency curves, METG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from headrace.bench.bodies import HEADER_BYTES
from headrace.bench.plans import Workload, parse
from headrace.bench.results import Cell, Results
from headrace.bench.schedule import OURS

#: Ratios nearer to 1 than this are called level.
LEVEL = 0.05
#: With fewer rounds nothing is called slower or faster that is not so by far.
_ROUNDS_LEAST = 3
_FAR = 2.0


@dataclass(frozen=True)
class Pair:
    """A peer and headrace on the same graph."""

    cell: Cell
    ours: Cell
    ratios: list[float]
    """How many times faster headrace was, by round."""

    @property
    def times_faster(self) -> float:
        """The median of them."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """`faster` if headrace won in every round, `slower` if it lost in every one, `level` otherwise.

        With too few rounds to tell, and less than twice the time between them, it is `unclear`.
        """
        if len(self.ratios) < _ROUNDS_LEAST and 1 / _FAR < self.times_faster < _FAR:
            return "unclear"
        if min(self.ratios) > 1 + LEVEL:
            return "faster"
        return "slower" if max(self.ratios) < 1 - LEVEL else "level"


def pairs(results: Results) -> list[Pair]:
    """Every cell of a peer beside headrace's on the same graph, the worst for headrace first."""
    found = []
    for cell in results.cells:
        if cell.peer.startswith(OURS) or not cell.rounds:
            continue
        ours = results.cell(OURS, cell.workload, cell.workers)
        if ours is None or not ours.rounds:
            continue
        if ratios := _ratios(ours, cell):
            found.append(Pair(cell, ours, ratios))
    return sorted(found, key=lambda pair: pair.times_faster)


def _ratios(ours: Cell, theirs: Cell) -> list[float]:
    """How many times longer it took, for each round in which both ran."""
    seconds = dict(zip(ours.turns or range(len(ours.rounds)), ours.by_round_s, strict=True))
    others = zip(theirs.turns or range(len(theirs.rounds)), theirs.by_round_s, strict=True)
    return [their_s / seconds[number] for number, their_s in others if number in seconds]


@dataclass(frozen=True)
class Curve:
    """One peer over one quantity."""

    peer: str
    points: list[tuple[float, float]]


def efficiency_curves(results: Results, shape: str) -> list[Curve]:
    """Which part of the workers' time tasks have, by their length in microseconds."""
    points: dict[str, list[tuple[float, float]]] = {}
    for cell in results.of_study("grain"):
        workload = parse(cell.workload)
        if workload.shape == shape:
            cores = min(cell.workers, int(results.machine["cores"].split()[0]))
            ideal_s = cell.tasks * workload.amount / 1e6 / cores
            points.setdefault(cell.peer, []).append((workload.amount, ideal_s / cell.median_s))
    return [Curve(peer, sorted(curve)) for peer, curve in points.items()]


def metg_us(curve: Curve, share: float = 0.5) -> float:
    """The length of tasks above which they have at least that share of the time; nan where none has."""
    found = math.nan
    above: tuple[float, float] | None = None
    for grain_us, efficiency in reversed(curve.points):
        if efficiency < share:
            if above is not None:
                part = (share - efficiency) / (above[1] - efficiency)
                found = math.exp(math.log(grain_us) + part * (math.log(above[0]) - math.log(grain_us)))
            return found
        above = (grain_us, efficiency)
        found = grain_us
    return found


def peak(curves: list[Curve]) -> float:
    """The best efficiency that anybody came to: what the machine had to give while this was measured."""
    return max((efficiency for curve in curves for _, efficiency in curve.points), default=1.0)


def size_curves(results: Results, shape: str) -> list[Curve]:
    """Microseconds a task by the number of tasks."""
    return _curves(results, "size", shape, lambda cell, _workload: (cell.tasks, cell.task_us))


def worker_curves(results: Results, family: str) -> list[Curve]:
    """Microseconds a task by the number of workers."""
    points: dict[str, list[tuple[float, float]]] = {}
    for cell in results.of_study("workers"):
        if parse(cell.workload).family == family:
            points.setdefault(cell.peer, []).append((cell.workers, cell.task_us))
    return [Curve(peer, sorted(curve)) for peer, curve in points.items()]


def payload_curves(results: Results) -> list[Curve]:
    """Microseconds of a hand-over by the bytes of the value."""
    points: dict[str, list[tuple[float, float]]] = {}
    for cell in results.of_study("payload"):
        if cell.hops_us:
            size = max(parse(cell.workload).amount, HEADER_BYTES)
            points.setdefault(cell.peer, []).append((size, statistics.median(cell.hops_us)))
    return [Curve(peer, sorted(curve)) for peer, curve in points.items()]


def memory_curves(results: Results) -> list[Curve]:
    """MiB over seconds."""
    return [
        Curve(cell.peer, [(second, held / 2**20) for second, held in cell.memory])
        for cell in results.of_study("memory")
        if cell.memory
    ]


def families(results: Results, study: str) -> list[str]:
    """The workloads of a study without their sizes, in order."""
    return list(dict.fromkeys(parse(cell.workload).family for cell in results.of_study(study)))


def _curves(
    results: Results, study: str, shape: str, point: Callable[[Cell, Workload], tuple[float, float]]
) -> list[Curve]:
    points: dict[str, list[tuple[float, float]]] = {}
    for cell in results.of_study(study):
        workload = parse(cell.workload)
        if workload.shape == shape:
            points.setdefault(cell.peer, []).append(point(cell, workload))
    return [Curve(peer, sorted(curve)) for peer, curve in points.items()]

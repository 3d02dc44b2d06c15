"""Why a peer is as fast as headrace, or faster: what profiles have shown, for the report's first table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from headrace.bench.plans import Workload, parse
from headrace.bench.results import Cell


class Reason(NamedTuple):
    """An explanation, and what it holds for."""

    holds: Callable[[str, Workload, Cell], bool]
    text: str


_IN_PROCESS = ("dask-sync", "dask-threaded")
_LONG_US = 10_000
_TINY = 32

REASONS = (
    Reason(
        lambda _peer, workload, _cell: workload.body in ("spin", "sleep") and workload.amount >= _LONG_US,
        "the time is the tasks' own: any engine that keeps all workers busy has the same",
    ),
    Reason(
        lambda peer, workload, _cell: peer in _IN_PROCESS and workload.body in ("payload", "untouched", "memory"),
        "arrays stay in one process and are handed on by pointer; headrace copies each once, into shared memory",
    ),
    Reason(
        lambda peer, _workload, cell: peer in _IN_PROCESS and cell.tasks <= _TINY,
        "it calls functions in its own process; headrace wakes a worker and is woken, twice 30 µs on two cores, "
        'whatever the code does (Client(mode="sync") does not)',
    ),
    Reason(
        lambda _peer, _workload, cell: cell.tasks == 1,
        "one call is a wake-up of a worker and one of the client for everybody with processes: the machine's own cost",
    ),
    Reason(
        lambda peer, workload, _cell: peer == "pool-map" and workload.shape in ("independent", "trivial", "fan"),
        "chunks cut by hand travel as one pickle and come back as one: only the loop in the worker is left",
    ),
    Reason(
        lambda peer, workload, _cell: peer in _IN_PROCESS and bool(workload.graph),
        "pieces stay in one process and are handed on by pointer; headrace unpickles a node for each task and copies "
        "what is below 64 KiB into frames",
    ),
)


def reason_for(cell: Cell) -> str:
    """The first that holds; or that nobody has looked."""
    workload = parse(cell.workload)
    for reason in REASONS:
        if reason.holds(cell.peer, workload, cell):
            return reason.text
    return "not explained yet"

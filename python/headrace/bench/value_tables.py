"""Tables of large values: what handing them on costs in time, memory and copies."""

from __future__ import annotations

import statistics

from headrace.bench.plans import parse
from headrace.bench.results import Cell, Results
from headrace.bench.tables import Table, us

_MIB = 2**20


def value_tables(results: Results) -> list[Table]:
    """All of them."""
    return [hand_overs(results), memory(results), large(results)]


def hand_overs(results: Results) -> Table:
    """Microseconds by bytes."""
    cells = [cell for cell in results.cells if "payload" in cell.studies]
    sizes = sorted({parse(cell.workload).amount for cell in cells})
    by_peer: dict[str, dict[float, str]] = {}
    for cell in cells:
        by_peer.setdefault(cell.peer, {})[parse(cell.workload).amount] = _hand_over(cell)
    rows = [(peer, *(found.get(size, "–") for size in sizes)) for peer, found in by_peer.items()]
    return Table(
        "Handing a value on",
        "Two tasks. Microseconds from the end of the one that made an array of so many bytes until the other has read "
        "a byte of each of its pages, and in brackets the most memory of all processes in MiB. What was not run says "
        "why under “Skipped”.",
        ("peer", *(_bytes(size) for size in sizes)),
        rows,
    )


def _hand_over(cell: Cell) -> str:
    if not cell.hops_us:
        return "not run"
    return f"{us(statistics.median(cell.hops_us))} ({cell.peak_bytes / _MIB:,.0f})"


def memory(results: Results) -> Table:
    """The peak on the way through ten tasks."""
    rows = [
        (
            cell.peer,
            f"{cell.median_s:.3g}",
            f"{cell.peak_bytes / _MIB:,.0f}",
            f"{(cell.peak_bytes - cell.memory[0][1]) / _MIB:,.0f}" if cell.memory else "–",
            f"{cell.moved_bytes / _MIB:,.0f}" if cell.moved_bytes >= 0 else "–",
            results.peers[cell.peer].copies or "not known",
        )
        for cell in results.of_study("memory")
    ]
    return Table(
        "An array through ten tasks",
        "Of 200 MB, or 2 MB in a smoke run. Each task makes a new one of it. Peak: all processes, shared memory once; "
        "above: what it is above the beginning. Moved: MiB written to files and pipes or sent over the loopback, "
        "without Unix sockets, which tell nothing. Copies: how often one array is copied between two tasks, as its "
        "system documents or its code shows.",
        ("peer", "seconds", "peak MiB", "above", "moved MiB", "copies"),
        rows,
    )


def large(results: Results) -> Table:
    """Through ten workers in turn, into the store, to the client."""
    by_peer: dict[str, dict[str, str]] = {}
    for cell in results.of_study("values"):
        workload = parse(cell.workload)
        samples = cell.seconds if workload.shape == "put" else cell.back_s
        by_peer.setdefault(cell.peer, {})[workload.shape] = f"{us(statistics.median(samples) * 1e3)} ms"
    rows = [
        (peer, *(found.get(shape, "–") for shape in ("chain", "put", "independent"))) for peer, found in by_peer.items()
    ]
    return Table(
        "Large values",
        "200 MB: from the end of the task that made it through nine more, each on the other worker, untouched, to the "
        "client; from the client to where workers find it; from a task's end to the client.",
        ("peer", "through ten tasks", "into the store", "to the client"),
        rows,
    )


def _bytes(size: float) -> str:
    for limit, unit in ((1_000_000_000, "GB"), (1_000_000, "MB")):
        if size >= limit and size % limit == 0:
            return f"{size / limit:g} {unit}"
    for limit, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= limit:
            return f"{size / limit:g} {unit}"
    return f"{size:g} B"

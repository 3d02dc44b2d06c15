"""The summary that a README includes: one table, and where headrace does not win."""

from __future__ import annotations

from pathlib import Path

from headrace.bench.analysis import pairs
from headrace.bench.plans import parse
from headrace.bench.results import Cell, Results, percentile
from headrace.bench.tables import sized, us
from headrace.errors import UsageError

BEGIN, END = "<!-- headrace bench: begin -->", "<!-- headrace bench: end -->"
_SHAPES = ("independent", "chain", "stencil_1d", "tree")


def replace(readme: Path, results: Results) -> None:
    """Put the summary between the marks of a file.

    Raises:
        UsageError: it has no marks.
    """
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{readme} has no lines {BEGIN} and {END}")
    readme.write_text(f"{before}{BEGIN}\n{digest(results)}{END}{after}")


def digest(results: Results) -> str:
    """Microseconds a task of everybody, in a table, and the losses in a sentence each."""
    machine, settings = results.machine, results.settings
    by_peer: dict[str, dict[str, Cell]] = {}
    for cell in results.of_study("ladder"):
        by_peer.setdefault(cell.peer, {})[parse(cell.workload).shape] = cell
    calls = {cell.peer: cell for cell in results.of_study("latency") if cell.tasks == 1}
    lines = [
        "| engine | " + " | ".join((*_SHAPES, "one call, p50", "start")) + " |",
        "| --- " * (len(_SHAPES) + 3) + "|",
    ]
    for peer, cells in sorted(by_peer.items(), key=lambda item: _first(item[1])):
        call, starts = calls.get(peer), results.peers[peer].start_s
        figures = (
            *(sized(cells[shape]) if shape in cells else "–" for shape in _SHAPES),
            us(percentile(call.seconds, 0.5) * 1e6) if call else "–",
            f"{percentile(starts, 0.5):.2f} s" if starts else "–",
        )
        lines.append(f"| {peer} | " + " | ".join(figures) + " |")
    skipped = [f"{name} ({record.skipped})" for name, record in results.peers.items() if record.skipped]
    lines += [
        "",
        "Microseconds a task, client to client, in brackets the tasks of the graph, which is smaller for slow engines; "
        f"{settings['workers']} workers, {settings['rounds']} rounds in {results.took_s / 60:.0f} minutes, "
        f"{machine['cores']} cores of {machine['cpu']}, {machine['kernel']}, {machine['python']}, commit "
        f"{machine['commit']}, {machine['date']}.",
        "",
        _losses(results),
    ]
    if skipped:
        lines += ["", f"Not measured: {'; '.join(skipped)}."]
    return "\n".join(lines) + "\n"


def _first(cells: dict[str, Cell]) -> float:
    return cells["independent"].task_us if "independent" in cells else float("inf")


#: So many workloads of the second kind are named.
NAMED_MAX = 8


def _losses(results: Results) -> str:
    """Where somebody else was faster in every round, and where nobody was."""
    found = pairs(results)
    slower = [pair for pair in found if pair.verdict == "slower"]
    level = [pair for pair in found if pair.verdict in ("level", "unclear")]
    words = "Nothing was faster than headrace in every round."
    if slower:
        told = "; ".join(f"{pair.cell.peer} on `{pair.cell.workload}` ({pair.times_faster:.2f} ×)" for pair in slower)
        words = f"Faster than headrace in every round: {told}."
    if level:
        names = list(dict.fromkeys(f"`{pair.cell.workload}`" for pair in level))
        more = f" and {len(names) - NAMED_MAX} more, which the report lists" if len(names) > NAMED_MAX else ""
        words += f" Level with the best of them, or too near to tell: {', '.join(names[:NAMED_MAX])}{more}."
    return words

"""The model of Airflow beside Airflow itself: same graphs, times from each one's own task instances."""

from __future__ import annotations

import statistics

from headrace.bench.plans import parse
from headrace.bench.results import Cell, Results
from headrace.bench.tables import Table, us

_REAL, _CALIBRATED = "airflow", "airflow-style-calibrated"
_PHASES = ("gap_s", "found_s", "begun_s", "ran_s")


def airflow_tables(results: Results) -> list[Table]:
    """All of them."""
    return [totals(results), phases(results)]


def totals(results: Results) -> Table:
    """Seconds of whole graphs."""
    by_peer: dict[str, dict[str, Cell]] = {}
    for cell in results.of_study("airflow"):
        by_peer.setdefault(cell.peer, {})[parse(cell.workload).shape] = cell
    shapes = list(dict.fromkeys(parse(cell.workload).shape for cell in results.of_study("airflow")))
    rows = [
        (peer, *(f"{us(found[shape].median_s)}" if shape in found else "–" for shape in shapes))
        for peer, found in by_peer.items()
    ]
    real = by_peer.get(_REAL, {})
    for model in (_CALIBRATED, "airflow-style"):
        if real and model in by_peer:
            deviations = (_deviation(by_peer[model].get(shape), real.get(shape)) for shape in shapes)
            rows.append((f"{model} against {_REAL}", *deviations))
    return Table(
        "Airflow, and the model of it",
        "Seconds of a graph of 16 tasks that do nothing. Of Airflow 3 from the trigger to the end of the run, by its "
        "own tables; of the others by the client. The calibrated model is told by Airflow's chain, in the same run, "
        "how long a task takes to begin and to run, which is 0 in the other models; that it then tells the other "
        "graphs is what shows the loop to be Airflow's. The last rows: how far the model is off.",
        ("peer", *shapes),
        rows,
    )


def _deviation(model: Cell | None, real: Cell | None) -> str:
    return f"{model.median_s / real.median_s - 1:+.0%}" if model and real else "–"


def phases(results: Results) -> Table:
    """What a task waited for."""
    rows = []
    for cell in results.of_study("airflow"):
        if cell.own:
            medians = [statistics.median(cell.own[phase]) * 1e3 if cell.own.get(phase) else None for phase in _PHASES]
            figures = ("–" if value is None else us(value) for value in medians)
            rows.append((cell.peer, parse(cell.workload).shape, *figures))
    return Table(
        "Where a task waits",
        "Milliseconds, medians over the tasks, from the task instances of Airflow and of the model. Gap: from the end "
        "of its last input to its own beginning. Of that: until it was queued (the scheduler's loop), and from there "
        "until it began (executor, process, API server). Ran: from its beginning to its end.",
        ("peer", "graph", "gap", "until queued", "until begun", "ran"),
        rows,
    )

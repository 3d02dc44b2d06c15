"""`headrace run`: replay a recorded workflow, and check that every task had its inputs before it ran."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import click

from headrace import Client, Graph
from headrace.cli.app import ExitCode
from headrace.cli.host import describe_host, host_line, start_workers
from headrace.cli.options import finite
from headrace.formats.wfformat import Workflow, build, read, stand_in

if TYPE_CHECKING:
    from headrace.runs import Run
    from headrace.statistics import RunStatistics

_WRONG_SHOWN_MAX = 10


@click.command("run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--workers", type=click.IntRange(1), help="Worker processes; one per core if not given.")
@click.option(
    "--time-scale",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    callback=finite,
    help="A task takes this times its recorded runtime; 0 is as fast as possible.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def command(file: str, workers: int | None, time_scale: float, as_json: bool) -> ExitCode:
    """Replay the WfFormat 1.5 workflow in FILE (.json or .json.gz).

    Each task stands in for its recorded program and returns a hash over its parents' hashes. The hashes are compared
    with those of a sequential evaluation: a task that ran before one of its inputs existed could not have the right
    one. The makespan is shown beside the two lower bounds, the critical path and the work divided by the workers.
    """
    flow = read(file)
    graph = build(Graph, flow, time_scale)
    with Client(workers=workers) as client:
        start_workers(client)
        if not as_json:
            click.echo(f"{host_line()}\n\n{_headline(file, flow)}")
        run = client.submit(graph, keep=list(flow))
        run.wait(progress=not as_json)
        wrong = _wrong_tasks(run, sequentially(flow))
        report = _report(flow, run.statistics(), time_scale) | {"ok": not wrong, "tasks_right": len(flow) - len(wrong)}
    click.echo(json.dumps({"host": describe_host()} | report, indent=2) if as_json else _text(report))
    for name, reason in list(wrong.items())[:_WRONG_SHOWN_MAX]:
        click.echo(f"headrace: task '{name}': {reason}", err=True)
    return ExitCode.TASKS_FAILED if wrong else ExitCode.OK


def sequentially(flow: Workflow) -> dict[str, str]:
    """Give the right result of every task, evaluated one after the other in this process and without waiting."""
    results: dict[str, str] = {}
    for name, recorded in flow.items():
        results[name] = stand_in(name, 0.0, *(results[parent] for parent in recorded.parents))
    return results


def critical_path_s(flow: Workflow) -> float:
    """Give the recorded runtime of the longest chain of tasks."""
    ends_s: dict[str, float] = {}
    for name, (parents, runtime_s) in flow.items():
        ends_s[name] = runtime_s + max((ends_s[parent] for parent in parents), default=0.0)
    return max(ends_s.values(), default=0.0)


def work_s(flow: Workflow) -> float:
    """Give the recorded runtime of all tasks together."""
    return math.fsum(recorded.runtime_s for recorded in flow.values())


def _wrong_tasks(run: Run, expected: dict[str, str]) -> dict[str, str]:
    """Give what is wrong with each task that failed or has another result than it should."""
    wrong = {}
    for node, answer in run.as_completed(errors="return"):
        if isinstance(answer, BaseException):
            wrong[node.key] = f"{type(answer).__name__}: {' '.join(str(answer).split())}"
        elif answer != expected[node.key]:
            wrong[node.key] = "its hash differs from that of a sequential evaluation"
    return wrong


def _report(flow: Workflow, state: RunStatistics, time_scale: float) -> dict[str, Any]:
    """Give the figures of the run beside the bounds that no schedule can beat."""
    workers = len(state.workers)
    path_s, whole_s = critical_path_s(flow) * time_scale, work_s(flow) * time_scale
    bound_s = max(path_s, whole_s / workers)
    return {
        "tasks": len(flow),
        "edges": sum(len(recorded.parents) for recorded in flow.values()),
        "workers": workers,
        "tasks_by_worker": [worker.finished for worker in state.workers],
        "time_scale": time_scale,
        "makespan_s": state.elapsed_s,
        "critical_path_s": path_s,
        "work_s": whole_s,
        "lower_bound_s": bound_s,
        "makespan_to_bound": state.elapsed_s / bound_s if bound_s else None,
    }


def _headline(file: str, flow: Workflow) -> str:
    """Say what the file holds."""
    edges = sum(len(recorded.parents) for recorded in flow.values())
    return (
        f"{os.path.basename(file)}: {len(flow):,} tasks, {edges:,} edges, "
        f"{work_s(flow):,.0f} s of recorded work, {critical_path_s(flow):,.0f} s of it in a row"
    )


def _text(report: dict[str, Any]) -> str:
    """Lay the report out for people."""
    tasks, makespan_s = report["tasks"], report["makespan_s"]
    by_worker = " + ".join(f"{count:,}" for count in report["tasks_by_worker"])
    lines = [
        f"  order        {report['tasks_right']:,} of {tasks:,} hashes equal those of a sequential evaluation",
        f"  tasks        {tasks:,} on {report['workers']} workers ({by_worker})"
        + (f", {tasks / makespan_s:,.0f} tasks/s" if makespan_s else ""),
        f"  makespan     {makespan_s * 1e3:,.1f} ms at time scale {report['time_scale']:g}",
    ]
    if report["lower_bound_s"]:
        path_ms, share_ms = report["critical_path_s"] * 1e3, report["work_s"] / report["workers"] * 1e3
        lines += [
            f"  lower bounds {path_ms:,.1f} ms critical path, {share_ms:,.1f} ms work on {report['workers']} workers",
            f"               the makespan is {report['makespan_to_bound']:.3f} times the larger one",
        ]
    return "\n".join(lines)

"""`headrace demo`: a real computation of many thousand tasks, checked, with figures of where its time went."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import click

from headrace import Client
from headrace.cli import latency, wordcount
from headrace.cli.app import ExitCode
from headrace.cli.host import describe_host, host_line, start_workers

_PHASES = ("build", "submit", "first lease", "run", "read back")


@click.command("demo")
@click.option(
    "--pages",
    type=click.IntRange(1, 1_000_000),
    default=6_000,
    show_default=True,
    help="Three tasks each, less one.",
)
@click.option("--workers", type=click.IntRange(1), help="Worker processes; one per core if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def command(pages: int, workers: int | None, as_json: bool) -> ExitCode:
    """Count the words of generated pages in more than 10,000 tasks.

    The right answer is known by arithmetic, and the result is held against it. Live progress goes to standard error.
    Two short measurements follow: empty tasks, and the hops of a chain.
    """
    start = time.perf_counter()
    with Client(workers=workers) as client:
        start_workers(client)
        start_up_s = time.perf_counter() - start
        if not as_json:
            click.echo(f"{host_line()}\n\nword count: {pages:,} pages are written, counted, and merged in a tree")
        report = {"start_up_s": start_up_s} | _count_words(client, pages, progress=not as_json)
        report["empty_task_us"] = latency.empty_task_us(client)
        report["hop_on_one_worker_us"] = latency.hop_us(client, 1)
        if report["workers"] > 1:
            report["hop_between_workers_us"] = latency.hop_us(client, report["workers"])
    click.echo(json.dumps({"host": describe_host()} | report, indent=2) if as_json else _text(report))
    return ExitCode.OK if report["ok"] else ExitCode.TASKS_FAILED


def _count_words(client: Client, pages: int, progress: bool) -> dict[str, Any]:
    """Run the computation with a clock beside each phase."""
    ticks = [time.perf_counter()]
    graph, whole = wordcount.build(pages)
    ticks.append(time.perf_counter())
    run = client.submit(graph, keep=[whole])
    ticks.append(time.perf_counter())
    run.wait(progress=progress)
    ticks.append(time.perf_counter())
    counts = run.result(whole)
    ticks.append(time.perf_counter())

    state = run.statistics()
    build_s, submit_s, wait_s, read_s = (after - before for before, after in pairwise(ticks))
    lease_s = min(state.first_lease_s, wait_s)
    workers_s = state.elapsed_s * len(state.workers)
    return {
        "ok": counts == wordcount.expected_count(pages),
        "workers": len(state.workers),
        "tasks": state.progress.total,
        "tasks_by_worker": [worker.finished for worker in state.workers],
        "words": sum(counts.values()),
        "tasks_per_s": state.progress.total / (ticks[-1] - ticks[0]),
        # The workers have done nothing else before, so the time since their start is this run's.
        "busy_share": min(1.0, sum(worker.busy_s for worker in state.workers) / workers_s),
        "phases_s": dict(zip(_PHASES, (build_s, submit_s, lease_s, wait_s - lease_s, read_s), strict=True)),
    }


def _text(report: dict[str, Any]) -> str:
    """Lay the report out for people."""
    whole_s = sum(report["phases_s"].values())
    verdict = "correct" if report["ok"] else "WRONG"
    lines = [
        f"  answer       {verdict}: {report['words']:,} words",
        f"  tasks        {report['tasks']:,} on {report['workers']} workers"
        f" ({' + '.join(f'{count:,}' for count in report['tasks_by_worker'])}), {report['tasks_per_s']:,.0f} tasks/s",
        f"  user code    {report['busy_share']:.0%} of the workers' time",
        "  where the time went",
        *(
            f"    {name:<12} {seconds * 1e3:9.2f} ms  {seconds / whole_s:4.0%}"
            for name, seconds in report["phases_s"].items()
        ),
        "",
        "the engine by itself",
        f"  start        {report['start_up_s'] * 1e3:.0f} ms from Client() to a result from every worker",
        f"  empty task   {report['empty_task_us']:.2f} µs each among 10,000, from Graph.add to its value read",
        f"  chain        {report['hop_on_one_worker_us']:.2f} µs a hop (p50) where the chain stays on one worker",
    ]
    if "hop_between_workers_us" in report:
        lines.append(
            f"               {report['hop_between_workers_us']:.1f} µs a hop (p50) where it changes workers each time"
        )
    return "\n".join(lines)

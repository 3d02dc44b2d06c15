"""`headrace bench`: headrace beside its peers, measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.bench import compare, digest, figures, page, summary
from headrace.bench.bodies import BODIES
from headrace.bench.dask_graphs import GRAPHS
from headrace.bench.engines import PEERS, chosen
from headrace.bench.environments import missing
from headrace.bench.plans import parse
from headrace.bench.results import Results, load
from headrace.bench.runner import Settings, run
from headrace.bench.shapes import SHAPES
from headrace.bench.studies import STUDIES, WORKLOADS
from headrace.cli.app import ExitCode
from headrace.errors import UsageError

#: What a run without options takes: a few minutes.
_USUAL: dict[str, Any] = {
    "peers": "headrace,pool,airflow-style-event",
    "studies": "ladder,latency",
    "seconds": 1.0,
    "minutes": None,
}
#: Everything, in half an hour.
_FULL: dict[str, Any] = {"peers": "all", "studies": "all", "seconds": 0.15, "minutes": 27.0}
#: Of one round that shows that everything works: seconds.
_SMOKE: dict[str, Any] = {"rounds": 1, "tasks": 100, "seconds": 0.05}


@click.group("bench")
def command() -> None:
    """Measure headrace beside Airflow-style scheduling and its peers.

    Every engine runs the same graphs in a process of its own, and every answer is checked.
    """


@command.command("list")
def list_() -> ExitCode:
    """Show peers, workloads and studies."""
    lines = ["peers"]
    width = max(map(len, PEERS))
    for peer in PEERS.values():
        lines.append(f"  {peer.name:{width}}  {peer.kind:8}  {peer.fast_path}")
        if reason := missing(peer):
            lines.append(f"  {'':{width}}  {'':8}  {reason}")
    lines += [
        "",
        "workloads: NAME:tasks=N:width=N:radix=N:seed=N:body=BODY",
        "           wfformat:file=PATH:scale=0.01, dask:graph=NAME:tasks=N",
    ]
    lines += [f"  {name:{width}}  {_first_line(shape)}" for name, shape in SHAPES.items()]
    lines += ["", "graphs of Dask's"]
    lines += [f"  {name:{width}}  {_first_line(made)}" for name, made in GRAPHS.items()]
    lines += ["", "bodies"]
    lines += [f"  {name:{width}}  {body.meaning}" for name, body in BODIES.items()]
    lines += ["", "studies"]
    lines += [f"  {study.name:{width}}  {study.question}" for study in STUDIES.values()]
    click.echo("\n".join(lines))
    return ExitCode.OK


@command.command("run")
@click.option("--full", is_flag=True, help="All peers, each study for those that it is meant for, in 27 minutes.")
@click.option("--peers", help=f"Names or kinds with commas, or `all`.  [default: {_USUAL['peers']}]")
@click.option("--workloads", default=",".join(WORKLOADS), show_default=True, help="For the ladder; with commas.")
@click.option("--studies", help=f"With commas, or `all`.  [default: {_USUAL['studies']}]")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Turns of each peer.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option(
    "--tasks", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Of the larger graphs."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 600),
    help="For each workload, peer and round; slow peers get smaller graphs.  [default: 1; 0.15 with --full]",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.1, 1000),
    help="How long all may take; what finds no time is told.  [default: no limit; 27 with --full]",
)
@click.option("--smoke", is_flag=True, help="One short round, to see that all works; no figure of it means anything.")
@click.option("--install", "do_install", is_flag=True, help="Make the environments that peers need.")
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for results.json, report.html, summary.md and figures.",
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Where samples go.")
@click.option("--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Where the report goes.")
@click.option(
    "--markdown", "markdown_path", type=click.Path(dir_okay=False, path_type=Path), help="Where the summary goes."
)
@click.option(
    "--scheduler-alone", "with_scheduler_alone", is_flag=True, help="The Rust harness too; needs the repository."
)
@click.option("--allow-quick-build", is_flag=True, help="Measure a build without link-time optimisation all the same.")
def run_(
    full: bool,
    workloads: str,
    rounds: int,
    workers: int,
    tasks: int,
    smoke: bool,
    do_install: bool,
    folder: Path | None,
    json_path: Path | None,
    html_path: Path | None,
    markdown_path: Path | None,
    with_scheduler_alone: bool,
    allow_quick_build: bool,
    **given: Any,
) -> ExitCode:
    """Measure peers on workloads, and print the summary.

    A peer that cannot be installed or started is shown as skipped, with the reason. Environments of peers lie in
    $HEADRACE_BENCH_HOME, by default ~/.cache/headrace/bench.
    """
    chosen_ones = (_FULL if full else _USUAL) | {name: value for name, value in given.items() if value is not None}
    wanted = [parse(text) for text in _words(workloads)]
    if smoke:
        wanted = [workload.sized(min(workload.sizes.tasks, _SMOKE["tasks"])) for workload in wanted]
    settings = Settings(
        peers=chosen(chosen_ones["peers"]),
        workloads=wanted,
        studies=_studies(chosen_ones["studies"]),
        rounds=_SMOKE["rounds"] if smoke else rounds,
        workers=workers,
        tasks=_SMOKE["tasks"] if smoke else tasks,
        budget_s=_SMOKE["seconds"] if smoke else chosen_ones["seconds"],
        minutes=chosen_ones["minutes"],
        is_full=full,
        do_install=do_install,
        with_scheduler_alone=with_scheduler_alone,
        any_build=allow_quick_build or smoke,
    )
    if folder:
        json_path = json_path or folder / "results.json"
    results = run(
        settings,
        lambda words: click.echo(words, err=True),
        lambda results: results.save(json_path) if json_path else None,
    )
    if json_path:
        results.save(json_path)
    if folder:
        _write_report(results, folder, do_install)
    if html_path:
        page.write(results, html_path)
    text = summary.markdown(results)
    if markdown_path:
        markdown_path.write_text(text)
    click.echo(text, nl=False)
    return ExitCode.TASKS_FAILED if any("WrongAnswer" in cell.failure for cell in results.cells) else ExitCode.OK


@command.command("report")
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Where the report goes.")
@click.option("--out", "folder", type=click.Path(file_okay=False, path_type=Path), help="A folder for all of it.")
@click.option(
    "--readme",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A Markdown file whose part between the marks of headrace bench is made anew.",
)
@click.option("--install", "do_install", is_flag=True, help="Make the environment of what draws PNG.")
def report(
    results: Path, html_path: Path | None, folder: Path | None, readme: Path | None, do_install: bool
) -> ExitCode:
    """Make the report of a saved run anew."""
    saved = load(results)
    if html_path:
        page.write(saved, html_path)
    if folder:
        _write_report(saved, folder, do_install)
    if readme:
        digest.replace(readme, saved)
    click.echo(summary.markdown(saved), nl=False)
    return ExitCode.OK


@command.command("compare")
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare_(before: Path, after: Path) -> ExitCode:
    """Tell changes between two saved runs from noise."""
    click.echo(compare.as_text(load(before), load(after)))
    return ExitCode.OK


def _write_report(results: Results, folder: Path, do_install: bool) -> None:
    """Page, summary and figures."""
    page.write(results, folder / "report.html")
    (folder / "summary.md").write_text(summary.markdown(results))
    if reason := figures.write(results, folder / "figures", do_install=do_install):
        click.echo(f"figures as SVG alone: {reason}", err=True)


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _studies(text: str) -> list[str]:
    names = list(STUDIES) if text == "all" else _words(text)
    for name in names:
        if name not in STUDIES:
            raise UsageError(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    return names


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]

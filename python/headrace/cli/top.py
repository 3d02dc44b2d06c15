"""`headrace top`: the running brokers of this user, their tasks and workers, and what results take."""

from __future__ import annotations

import json
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.app import ExitCode
from headrace.cli.options import finite
from headrace.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.observer import Seen
    from headrace.statistics import RunStatistics, Shared

_COMMAND_CHARS_MAX = 100
_UNITS = ("KiB", "MiB", "GiB", "TiB")


@click.command("top")
@click.option("--once", is_flag=True, help="Print one snapshot and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a snapshot, each on its own line.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    callback=finite,
    help="Seconds between two snapshots.",
)
def command(once: bool, as_json: bool, interval: float) -> ExitCode:
    """Show the running brokers of this user on this machine, until Ctrl-C.

    Looks where a client that is started here puts its broker: in XDG_RUNTIME_DIR, or else in /tmp/headrace-<uid>. Tasks
    are those of all runs since the broker's start.

    \b
    The object of --json has time (seconds since 1970), looked_in, and a list of brokers. Each has:
      directory  where it listens
      pid        process id of its client; null if not known
      command    that process's command, a list of words
      problem    why the broker does not tell; the rest is null then, and this is null else
      tasks      waiting, ready, leased, done, failed, skipped, cancelled
      workers    a list: number, pid (0: none lives), finished (tasks), busy_s (in user code)
      deaths     workers that died
      shared     a list: name, is_tag, used, total; resources, and tags with limits
      store      limit, owned, peak, mapped, inline, spilled (bytes); largest, a list: key, bytes
    """  # noqa: D301  (the \b is for click: it must be the character)
    render = _json if as_json else _text
    with Observer() as observer:
        if once:
            click.echo(render(observer.base, observer.look()))
        elif as_json or not sys.stdout.isatty():
            for seen in _snapshots(observer, interval):
                click.echo(render(observer.base, seen) + ("" if as_json else "\n"))
        else:
            _show_live(observer, interval)
    return ExitCode.OK


def _snapshots(observer: Observer, interval_s: float) -> Iterator[list[Seen]]:
    """Look again and again."""
    while True:
        yield observer.look()
        time.sleep(interval_s)


def _show_live(observer: Observer, interval_s: float) -> None:
    """Keep the terminal's screen up to date."""
    from rich.live import Live
    from rich.text import Text

    with Live(screen=True, auto_refresh=False) as live:
        for seen in _snapshots(observer, interval_s):
            text = f"headrace top  {time.strftime('%H:%M:%S')}\n\n{_text(observer.base, seen)}"
            live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


def _json(base: str, brokers: list[Seen]) -> str:
    """Lay a snapshot out for scripts."""
    return json.dumps({"time": time.time(), "looked_in": base, "brokers": [fields(broker) for broker in brokers]})


def fields(broker: Seen) -> dict[str, Any]:
    """Lay a broker out for scripts."""
    state = broker.state
    store = state and state.store._asdict() | {"largest": [result._asdict() for result in state.store.largest]}
    return {
        "directory": broker.directory,
        "pid": broker.pid or None,
        "command": broker.command,
        "problem": broker.problem or None,
        "tasks": state and state.progress._asdict(),
        "workers": state and [worker._asdict() for worker in state.workers],
        "deaths": state and state.worker_deaths,
        "shared": state and [thing._asdict() for thing in state.shared],
        "store": store,
    }


def _text(base: str, brokers: list[Seen]) -> str:
    """Lay a snapshot out for people."""
    if not brokers:
        return f"no broker runs (looked in {base})"
    return "\n\n".join("\n".join(lines(broker)) for broker in brokers)


def lines(broker: Seen) -> Iterator[str]:
    """Lay a broker out for people."""
    process = f"process {broker.pid}" if broker.pid else f"a process that cannot be told, in {broker.directory}"
    command = _plain(shlex.join(broker.command))
    if len(command) > _COMMAND_CHARS_MAX:
        command = command[: _COMMAND_CHARS_MAX - 1] + "…"
    yield f"{process}: {command}" if command else process
    if broker.state is None:
        yield f"  problem  {_plain(broker.problem)}"
    else:
        yield from _state_lines(broker.state)


def _state_lines(state: RunStatistics) -> Iterator[str]:
    tasks = [f"{count:,} {name}" for name, count in state.progress._asdict().items() if count]
    yield f"  tasks    {', '.join(tasks) or 'none yet'}"
    for worker in state.workers:
        process = f"process {worker.pid}" if worker.pid else "no process"
        yield f"  worker   {worker.number}: {process}, {worker.busy_s:,.1f} s busy, {worker.finished:,} tasks finished"
    if state.worker_deaths:
        yield f"  deaths   {state.worker_deaths:,} of workers"
    # Memory has an amount even where nobody asks for any.
    things = [thing for thing in state.shared if thing.used or thing.name != "memory"]
    if things:
        yield f"  limits   {', '.join(map(_thing, things))}"
    store = state.store
    yield (
        f"  results  {_size(store.owned)} of {_size(store.limit)} owned, {_size(store.peak)} at the peak, "
        f"{_size(store.mapped)} mapped, {_size(store.inline)} inline, {_size(store.spilled)} spilled"
    )
    for result in store.largest:
        yield f"  largest  {_size(result.bytes):>10} {_plain(result.key)}"


def _thing(thing: Shared) -> str:
    """Say how much of a resource or tag is held."""
    amount = _size if thing.name == "memory" and not thing.is_tag else str
    kind = "tag " if thing.is_tag else ""
    return f"{kind}{_plain(thing.name)}: {amount(thing.used)} of {amount(thing.total)}"


def _size(count: int) -> str:
    """Give a number of bytes in the unit that suits it."""
    power = min((max(count, 1).bit_length() - 1) // 10, len(_UNITS))
    return f"{count / (1 << 10 * power):,.1f} {_UNITS[power - 1]}" if power else f"{count} B"


def _plain(text: str) -> str:
    """Give one line without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))

"""`headrace why KEY`: where a task is, and what it waits for."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.app import ExitCode
from headrace.observer import Observer
from headrace.why import STATES, Why, why

if TYPE_CHECKING:
    from headrace.observer import Seen


@click.command("why")
@click.argument("key")
@click.option("--stacks", is_flag=True, help="Add the Python stacks of the process that runs it.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a list of JSON objects, one for each broker that knows it."
)
def command(key: str, stacks: bool, as_json: bool) -> ExitCode:
    """Say where the task KEY is and what it waits for: tasks, resources, tags, a worker, memory.

    Asks the brokers that `headrace top` shows. The exit code is 1 where none of them knows the task: it has ended and
    was let go of, or there never was one.

    \b
    Each object of --json has:
      directory, pid  where the broker listens, and the process of its client
      key, state      the key, and one of waiting, ready, pausing, queued, running, done, failed, skipped, cancelled
      text            the same for people, and what the task waits for; a line for each task of that key
      worker          number of the worker that has it, or null
      worker_pid      its process, or null
      attempt         number of its attempt, or of the last one
      since_s         seconds that a running task has been running
      stacks          stacks, or why there are none; empty if they were not asked for
    """  # noqa: D301  (the \b is for click: it must be the character)
    with Observer() as observer:
        seen = observer.why(key, stacks=stacks)
        base = observer.base
    found = [(broker, why(key, broker.because)) for broker in seen if broker.because is not None]
    known = [(broker, answer) for broker, answer in found if answer.state != STATES[0]]
    silent = [broker for broker in seen if broker.because is None]
    if as_json:
        click.echo(json.dumps([_fields(broker, answer) for broker, answer in known]))
    else:
        for broker, answer in known:
            if len(seen) > 1:
                click.echo(f"process {broker.pid}: {shlex.join(broker.command)}")
            click.echo(str(answer))
    for broker in silent:
        click.echo(f"headrace: process {broker.pid} does not tell: {broker.problem}", err=True)
    if known:
        return ExitCode.OK
    where = f"of {len(found)} brokers none" if found else f"no broker runs (looked in {base}), so nobody"
    click.echo(f"headrace: {where} knows a task {key!r}: it has ended and was let go of, or never was", err=True)
    return ExitCode.TASKS_FAILED


def _fields(broker: Seen, answer: Why) -> dict[str, Any]:
    """Lay an answer out for scripts."""
    fields = answer._asdict()
    pid = fields.pop("pid")
    return {"directory": broker.directory, "pid": broker.pid or None, **fields, "worker_pid": pid}

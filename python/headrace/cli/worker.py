"""`headrace worker ADDRESS`: lends this machine's processors to a broker elsewhere."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from headrace.agent import MachineAgent
from headrace.cli.app import ExitCode

if TYPE_CHECKING:
    from types import FrameType

#: Seconds between two looks whether a signal has come.
_LOOK_S = 0.1

_WORDS = {
    "joined": "with the broker",
    "lost": "the connection is lost; workers are ended, and it is tried again",
}


@click.command("worker")
@click.argument("address")
@click.option("--slots", type=int, help="Worker processes; by default one for each core.")
@click.option("--name", help="What people call this machine; by default its host name.")
@click.option("--keys", help="Key file, or the directory of worker.key, as `headrace keygen` makes them.")
@click.option("--preload", multiple=True, metavar="MODULE", help="Imported by each worker before its first task.")
def command(address: str, slots: int | None, name: str | None, keys: str | None, preload: tuple[str, ...]) -> ExitCode:
    """Have worker processes here for the broker at ADDRESS, until it ends, or SIGTERM or Ctrl-C.

    One a machine is enough: it starts and watches all worker processes here. It waits for a broker that is not there
    yet, and joins anew when the connection was lost. What its workers were running when it leaves runs again elsewhere.
    headrace and the first two numbers of Python's version must be those of the broker.
    """
    terminated = False

    def terminate(_number: int, _frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True

    signal.signal(signal.SIGTERM, terminate)
    with MachineAgent(address, slots=slots, name=name, keys=keys, preload=preload) as agent:
        while not terminated:
            news = agent.wait(_LOOK_S)
            if news == "over":
                click.echo("headrace worker: the broker has ended", err=True)
                return ExitCode.OK
            if news is not None:
                click.echo(f"headrace worker: {_WORDS[news]}", err=True)
    return ExitCode.OK

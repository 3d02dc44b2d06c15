"""`headrace broker`: a broker of its own, with workers, for clients that come and go."""

from __future__ import annotations

import resource as resource_limits
import signal
import sys
import time
from typing import TYPE_CHECKING

import click

from headrace.cli.app import ExitCode
from headrace.cli.health import Health, health
from headrace.cli.log import Log, log_format
from headrace.cli.options import finite, pairs
from headrace.cli.settings import configurable
from headrace.standalone import Broker

if TYPE_CHECKING:
    from types import FrameType

#: Seconds between two looks whether a signal has come.
_LOOK_S = 0.1

#: Seconds that a broker has to answer somebody who asks whether it is alive.
_ALIVE_S = 1.0


@configurable("broker")
@click.option("--workers", type=int, help="Worker processes; by default one for each core.")
@click.option("--extra-workers", type=int, help="Further ones at a time for tasks that wait for tasks.")
@click.option("--preload", multiple=True, metavar="MODULE", help="Imported by each worker before its first task.")
@click.option("--store-limit", type=int, metavar="BYTES", help="Memory that results may take; half of it by default.")
@click.option("--resource", multiple=True, metavar="NAME=AMOUNT", help="What tasks may ask for.")
@click.option("--limit", multiple=True, metavar="TAG=N", help="Workers that may run tasks of a tag at once.")
@click.option("--listen", metavar="tcp://HOST:PORT", help="Listen to the network as well, which takes keys.")
@click.option("--keys", metavar="DIRECTORY", help="Keys and list of a broker, as `headrace keygen` makes them.")
@click.option(
    "--places",
    type=click.IntRange(0, 2048),
    default=64,
    show_default=True,
    help="Workers that there may be on other machines.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    callback=finite,
    help="Seconds that work may go on after SIGTERM.",
)
@health
@log_format
def command(
    workers: int | None,
    extra_workers: int | None,
    preload: tuple[str, ...],
    store_limit: int | None,
    resource: tuple[str, ...],
    limit: tuple[str, ...],
    listen: str | None,
    keys: str | None,
    places: int,
    drain_s: float,
    health: str | None,
    log_format: str,
) -> ExitCode:
    """Run a broker and its workers until SIGTERM or Ctrl-C.

    The first line on standard output is its address on this machine, the second one that in the network, if it listens
    there. Any number of clients may use it at once: headrace.Client(ADDRESS). They get equal shares of the workers.
    When one of them ends, however, its tasks are cancelled and its results are freed. What clients submit and get
    travels in frames; workers of one machine share memory.

    At SIGTERM it takes no more clients, and ends when nothing is left to run; at a second one, or after --drain-s
    seconds, it ends at once, as it does at Ctrl-C. What a task prints is its client's to show; what nobody's task
    printed appears here.

    Each option may also stand in a file, in a table [broker], or in the environment, as HEADRACE_BROKER_LISTEN; flags
    go before the environment, and that goes before the file.
    """
    terminations = 0

    def terminate(_number: int, _frame: FrameType | None) -> None:
        nonlocal terminations
        terminations += 1

    # Each peer takes a descriptor, and the usual limit is for programs that have few.
    _, most = resource_limits.getrlimit(resource_limits.RLIMIT_NOFILE)
    resource_limits.setrlimit(resource_limits.RLIMIT_NOFILE, (most, most))
    log = Log("headrace broker", log_format)
    broker = Broker(
        workers=workers,
        extra_workers=extra_workers,
        preload=preload,
        store_limit=store_limit,
        resources=dict(pairs("--resource", resource)),
        limits={tag: int(most) for tag, most in pairs("--limit", limit)},
        listen=listen,
        keys=keys,
        places=places,
        log=log.taker(),
    )
    signal.signal(signal.SIGTERM, terminate)
    answers = {
        "/live": lambda: is_alive(broker.address),
        "/ready": lambda: terminations == 0 and is_alive(broker.address),
    }
    with broker, Health(health, answers):
        for address in filter(None, (broker.address, broker.endpoint)):
            click.echo(address)
        sys.stdout.flush()
        log.note("started", f"listens at {broker.address}", address=broker.address, endpoint=broker.endpoint)
        while terminations == 0 and not broker.wait(_LOOK_S):
            pass
        if terminations == 0:
            return ExitCode.OK
        log.say("draining", f"draining: no more clients are taken; what runs has {drain_s:g} s to end")
        broker.drain()
        until_s = time.monotonic() + drain_s
        while terminations == 1 and time.monotonic() < until_s:
            if broker.wait(_LOOK_S):
                return ExitCode.OK
        log.say("ending", "ending with work left: it is cancelled")
        return ExitCode.TERMINATED


def is_alive(address: str) -> bool:
    """Say whether the broker in this process answers."""
    from headrace.observer import Observer

    with Observer(address.removeprefix("ipc://")) as observer:
        seen = observer.look(_ALIVE_S)
    return bool(seen) and seen[0].state is not None

"""`headrace worker ADDRESS`: lends this machine's processors to a broker elsewhere."""

from __future__ import annotations

import math
import os
import select
import signal
import time
from typing import TYPE_CHECKING

import click

from headrace.agent import MachineAgent
from headrace.agent_process import JOINED, REFUSED
from headrace.cli.app import ExitCode
from headrace.cli.health import Health, health
from headrace.cli.log import Log, log_format
from headrace.cli.options import finite, pairs
from headrace.cli.settings import configurable
from headrace.errors import BrokerLost, InfraError
from headrace.keys import parsed

if TYPE_CHECKING:
    from types import FrameType

    from headrace.keys import PeerKeys

#: Seconds between two looks whether a signal has come, or the end of whoever started this.
_LOOK_S = 0.1

_WORDS = {
    "joined": "with the broker",
    "lost": "the connection is lost; workers are ended, and it is tried again",
}

#: What `--keys` is where the key comes on standard input.
_STANDARD_INPUT = "-"


@configurable("worker")
@click.argument("address", envvar="HEADRACE_WORKER_ADDRESS")
@click.option("--slots", type=int, help="Worker processes; by default one for each core.")
@click.option("--name", help="What people call this machine; by default its host name.")
@click.option("--resource", multiple=True, metavar="NAME=AMOUNT", help="What tasks may ask for of this machine.")
@click.option(
    "--keys",
    metavar="FILE",
    help="Key file, or the directory of worker.key, as `headrace keygen` makes them; - reads it from standard input.",
)
@click.option("--preload", multiple=True, metavar="MODULE", help="Imported by each worker before its first task.")
@click.option("--tied", is_flag=True, help="Leave when standard input ends, or the process that started this.")
@click.option(
    "--give-up-s",
    type=click.FloatRange(0),
    callback=finite,
    help="Seconds without a broker after which it ends; by default it waits for ever.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    callback=finite,
    help="Seconds that its workers may go on with what they run after SIGTERM.",
)
@health
@log_format
def command(
    address: str,
    slots: int | None,
    name: str | None,
    resource: tuple[str, ...],
    keys: str | None,
    preload: tuple[str, ...],
    tied: bool,
    give_up_s: float | None,
    drain_s: float,
    health: str | None,
    log_format: str,
) -> ExitCode:
    """Have worker processes here for the broker at ADDRESS, until it ends, or SIGTERM or Ctrl-C.

    One a machine is enough: it starts and watches all worker processes here. It waits for a broker that is not there
    yet, and joins anew when the connection was lost. headrace and the first two numbers of Python's version must be
    those of the broker. The first line on standard output is "joined" once it is with the broker, or says why it will
    not be.

    At SIGTERM its workers are given nothing more, and it leaves when they have ended what they run; at a second one, or
    after --drain-s seconds, it leaves at once, as it does at Ctrl-C. What they were running then runs again elsewhere.

    Each option may also stand in a file, in a table [worker], or in the environment, as HEADRACE_WORKER_SLOTS; flags go
    before the environment, and that goes before the file.
    """
    parent = os.getppid()
    terminations, is_up = 0, False

    def terminate(_number: int, _frame: FrameType | None) -> None:
        nonlocal terminations
        terminations += 1

    def is_alone() -> bool:
        return tied and (os.getppid() != parent or has_ended_input())

    log = Log("headrace worker", log_format)
    own = key_from_input() if keys == _STANDARD_INPUT else keys
    signal.signal(signal.SIGTERM, terminate)
    answers = {"/live": lambda: True, "/ready": lambda: is_up and terminations == 0}
    resources = dict(pairs("--resource", resource))
    with (
        MachineAgent(address, slots=slots, name=name, resources=resources, keys=own, preload=preload) as agent,
        Health(health, answers),
    ):
        has_said, up_s, until_s = False, time.monotonic(), math.inf
        while terminations < 2 and time.monotonic() < until_s and not is_alone():
            if terminations == 1 and until_s == math.inf:
                log.say("draining", f"draining: what runs has {drain_s:g} s to end")
                agent.drain()
                until_s = time.monotonic() + drain_s
            try:
                news = agent.wait(_LOOK_S)
                if not is_up and give_up_s is not None and time.monotonic() - up_s >= give_up_s:
                    raise BrokerLost(f"no broker has answered at {address} for {give_up_s:g} s")
            except InfraError as error:
                click.echo(f"{REFUSED}{' '.join(str(error).split())}")
                raise
            if news == "over":
                log.say("over", "it has left" if terminations else "the broker has ended")
                return ExitCode.OK
            if news is not None:
                is_up = news == "joined"
                log.say(news, _WORDS[news])
            if is_up:
                up_s = time.monotonic()
                if not has_said:
                    click.echo(JOINED)
                    has_said = True
    return ExitCode.OK


def key_from_input() -> PeerKeys:
    """Read a key file from standard input, and nothing beyond it."""
    text = b""
    while not (has_line(text, b"broker ") and has_line(text, b"secret ") and has_line(text, b"public ")):
        if not (byte := os.read(0, 1)):
            break
        text += byte
    return parsed(text.decode(errors="replace"), "standard input")


def has_line(text: bytes, start: bytes) -> bool:
    """Say whether a whole line starts so."""
    return any(line.startswith(start) for line in text.split(b"\n")[:-1])


def has_ended_input() -> bool:
    """Say whether standard input has ended; what comes there is dropped."""
    while select.select([0], [], [], 0)[0]:
        if not os.read(0, 4096):
            return True
    return False

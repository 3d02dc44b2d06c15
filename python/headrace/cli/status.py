"""`headrace status ADDRESS`: one broker, at one moment."""

from __future__ import annotations

import json
import os

import click

from headrace.attached import endpoint_of, is_far
from headrace.cli.app import ExitCode
from headrace.cli.top import fields, lines
from headrace.errors import BrokerLost
from headrace.keys import keys_of_peer
from headrace.observer import Observer


@click.command("status")
@click.argument("address")
@click.option("--keys", help="Key file for a broker in the network, or the directory of observer.key or client.key.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, as those in the list of `headrace top`.")
def command(address: str, keys: str | None, as_json: bool) -> ExitCode:
    """Ask the broker at ADDRESS how it is: its tasks and workers, and what results take.

    The exit code is 3 where none answers, so it can serve as a health check.
    """
    endpoint = endpoint_of(address)
    place = endpoint if is_far(endpoint) else os.path.dirname(endpoint.removeprefix("ipc://"))
    own = keys_of_peer(keys, "observer", "client") if is_far(endpoint) else None
    with Observer(place, own) as observer:
        seen = observer.look()
    if not seen or seen[0].state is None:
        raise BrokerLost(f"{address}: {seen[0].problem if seen else 'nobody listens'}")
    click.echo(json.dumps(fields(seen[0])) if as_json else "\n".join(lines(seen[0])))
    return ExitCode.OK

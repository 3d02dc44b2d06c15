"""`headrace keygen`: keys for a broker that listens to the network, and for those who may use it."""

from __future__ import annotations

import os

import click

from headrace.cli.app import ExitCode
from headrace.keys import ROLES, make_all, make_one, usual_directory


@click.command("keygen")
@click.argument("directory", required=False)
@click.option("--role", type=click.Choice(ROLES), help="Make one key more, for a peer of this role.")
@click.option("--name", help="What that key is called; by default as its role.")
def command(directory: str | None, role: str | None, name: str | None) -> ExitCode:
    """Make the keys of a broker in DIRECTORY, with one for a client, a worker and an observer.

    \b
      broker.key    stays where the broker runs
      client.key    for headrace.Client("tcp://…", keys="client.key"), and for `headrace status`
      worker.key    for `headrace worker --keys worker.key`
      observer.key  for `headrace status` alone
      allowed       the broker's list of who may be what; delete a line to lock somebody out

    Whoever can read client.key or worker.key can run code where the workers are: copy them by a safe way, and keep
    their mode at 0600. Without DIRECTORY it is $HEADRACE_KEYS, or the folder headrace of this user's configuration;
    that is where all other commands look, too.
    """  # noqa: D301  (the \b is for click: it must be the character)
    place = directory or usual_directory()
    if role is None and name is not None:
        raise click.UsageError("--name goes with --role")
    files = make_all(place) if role is None else [make_one(place, role, name or role)]
    for file in files:
        click.echo(os.path.join(place, file))
    return ExitCode.OK

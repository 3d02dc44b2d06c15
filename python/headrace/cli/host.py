"""What a figure is measured on: the machine, and workers that are up."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from headrace import Graph, task

if TYPE_CHECKING:
    from headrace import Client


def describe_host() -> dict[str, str | int]:
    """Give the versions and the machine that figures depend on."""
    return {
        "headrace": version("headrace"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)),
    }


def host_line() -> str:
    """Say the same in one line."""
    host = describe_host()
    return f"headrace {host['headrace']}, {host['python']}, {host['kernel']}, {host['cores']} cores"


def start_workers(client: Client) -> int:
    """Wait until every worker has run something, so that no figure contains its start.

    Returns:
        How many there are.
    """
    graph = Graph()
    graph.add(_nothing)
    run = client.submit(graph)
    run.results()
    count = len(run.statistics().workers)
    for call in [client.call(task(_nothing, worker=worker)) for worker in range(count)]:
        call.result()
    return count


def _nothing() -> None:
    """Say by returning that the worker is up."""

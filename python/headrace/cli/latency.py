"""Two short measurements of the engine itself: empty tasks, and the hops of a chain."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from headrace import Graph, task

if TYPE_CHECKING:
    from headrace import Client

_EMPTY_TASKS = 10_000
_ROUNDS = 3
_HOPS = 1_000
_PINNED_HOPS = 200


def empty_task_us(client: Client) -> float:
    """Measure an empty task among many, from `Graph.add` to its value read: the fastest of a few rounds.

    Returns:
        Microseconds per task.
    """
    return min(_empty_round_us(client) for _ in range(_ROUNDS))


def hop_us(client: Client, workers: int) -> float:
    """Measure the hop of a chain whose links are free to go anywhere, or are pinned to `workers` by turns.

    Args:
        client: whose workers run the chain.
        workers: 1 leaves every link free: the chain stays with one worker. More: each link on the next worker.

    Returns:
        The median, in microseconds, between the starts of one task and the next, by the machine's common clock.
    """
    if workers == 1:
        links = [task(_stamp)]
        hops = _HOPS
    else:
        links = [task(_stamp, worker=worker) for worker in range(workers)]
        hops = _PINNED_HOPS
    graph = Graph()
    nodes = [graph.add(links[0], None)]
    for hop in range(hops):
        nodes.append(graph.add(links[(hop + 1) % len(links)], nodes[-1]))
    stamps_ns: list[int] = client.submit(graph, keep=nodes).results()
    return statistics.median(after - before for before, after in pairwise(stamps_ns)) / 1e3


def _empty_round_us(client: Client) -> float:
    start = time.perf_counter()
    graph = Graph()
    for value in range(_EMPTY_TASKS):
        graph.add(_same, value)
    values = client.submit(graph).results()
    elapsed_us = (time.perf_counter() - start) * 1e6
    if values != list(range(_EMPTY_TASKS)):
        raise AssertionError("an empty task returned somebody else's value")
    return elapsed_us / _EMPTY_TASKS


def _same(value: int) -> int:
    return value


def _stamp(_before: int | None) -> int:
    return time.monotonic_ns()

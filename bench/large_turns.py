"""How large values are measured: chains of tasks, and work of one process in turn with them."""

import gc
import statistics
import time

import headrace
from large_workloads import ends

HOPS = 10
ITEMS = 25_000_000
BYTES = 8 * ITEMS


def in_turn(rounds, *measures, warm_up_rounds=1):
    """Let each measure its seconds once a round; for each, the list of them."""
    seconds = [[] for _ in measures]
    for number in range(warm_up_rounds + rounds):
        for measure, into in zip(measures, seconds, strict=True):
            gc.collect()
            taken = measure()
            if number >= warm_up_rounds:
                into.append(taken)
    return seconds


def timed(work):
    """Seconds that the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def chain(client, fn, first, check):
    """Seconds of a chain of tasks pinned to two workers by turns, up to its result in the client."""
    on = [headrace.task(fn, worker=worker) for worker in (0, 1)]
    start = time.perf_counter()
    graph = headrace.Graph()
    node = first
    for hop in range(HOPS):
        node = graph.add(on[hop % 2], node)
    value = client.submit(graph).result(node)
    seconds = time.perf_counter() - start
    assert check(value)
    return seconds


def settle(client):
    """Let the broker know what was let go of."""
    gc.collect()
    client.submit(headrace.Graph()).statistics()


def check_ends(value):
    """Whether an array begins and ends with a value."""
    return lambda array: ends(array) == (value, value)


def milliseconds(seconds):
    """The median, for people."""
    return f"{statistics.median(seconds) * 1e3:.3g} ms"

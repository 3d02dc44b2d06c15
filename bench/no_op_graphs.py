"""Graphs whose tasks do next to nothing, timed in whatever interpreter has a headrace.

`no_op_graphs.py [NAME=VALUE ...]`, with variables for the environment of its workers.
"""

import functools
import sys
import time

import headrace
from other_interpreter import serve
from workloads import inc

INDEPENDENT = 10_000
CHAIN = 1_000
#: Graphs of one turn: a quarter of a second.
REPEATS = {"independent": 40, "chain": 200}


def seconds_of(client, shape):
    """Seconds of a graph of this shape, from nothing to the last value read: the least disturbed of one turn."""
    return min(SHAPES[shape](client) for _ in range(REPEATS[shape]))


def independent(client):
    """Tasks that need nothing."""
    start = time.perf_counter()
    graph = headrace.Graph()
    graph.map(inc, range(INDEPENDENT))
    values = client.submit(graph).results()
    seconds = time.perf_counter() - start
    assert values == list(range(1, INDEPENDENT + 1))
    return seconds


def chain(client):
    """Tasks that each need the one before."""
    start = time.perf_counter()
    graph = headrace.Graph()
    node = graph.add(inc, 0)
    for _ in range(CHAIN - 1):
        node = graph.add(inc, node)
    value = client.submit(graph).result(node)
    seconds = time.perf_counter() - start
    assert value == CHAIN
    return seconds


SHAPES = {"independent": independent, "chain": chain}


def main(environment):
    with headrace.Client(workers=2, env=environment) as client:
        for shape in SHAPES:  # warm up
            seconds_of(client, shape)
        serve({shape: functools.partial(seconds_of, client, shape) for shape in SHAPES})


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))

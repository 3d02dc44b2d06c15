"""What does one hop of a chain cost, where each task needs the one before?"""

import pytest

import headrace
from comparison import take_turns
from figures import times_faster
from headrace.bench.pool_drivers import Call, run_deep
from workloads import inc

TASKS = 1_000


@pytest.mark.quick
def test_chain_hop(benchmark, client, pool, rounds, record):
    def ours():
        graph = headrace.Graph()
        node = graph.add(inc, 0)
        for _ in range(TASKS - 1):
            node = graph.add(inc, node)
        return client.submit(graph).result(node)

    def reference():
        calls = {0: Call(inc, (), (0,))}
        for link in range(1, TASKS):
            calls[link] = Call(inc, (link - 1,))
        return run_deep(pool, calls)[TASKS - 1]

    def check(value):
        assert value == TASKS

    turns = take_turns(benchmark, ours, reference, rounds=3 * rounds, check=check)
    record(times_faster(f"chain of {TASKS:,} inc", turns, tasks=TASKS, bar=80, aim=150, unit="µs/hop"))

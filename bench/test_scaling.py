"""Does a task cost the same among a million as among ten thousand?"""

import gc
import statistics
import time

import pytest

import headrace
from figures import at_most
from workloads import inc

SIZES = (10_000, 100_000, 1_000_000)
BARS = {100_000: 1.2, 1_000_000: 1.3}


@pytest.mark.parametrize("size", [pytest.param(100_000, marks=pytest.mark.quick), 1_000_000])
def test_cost_per_task_does_not_grow(client, rounds, record, size):
    smaller = size // 10
    ratios, small_us, large_us = [], [], []
    for _ in range(max(3, rounds // 3)):
        # Ten of the smaller make one of the larger: both take about as long, so both meet the same machine.
        small_us.append(statistics.median(cost_us(client, smaller) for _ in range(10)))
        large_us.append(cost_us(client, size))
        ratios.append(large_us[-1] / small_us[-1])
    record(
        at_most(
            f"{size:,} independent tasks: cost of one, against {smaller:,}",
            ratios,
            "×",
            bar=BARS[size],
            measured=f"{statistics.median(large_us):.3g} µs/task",
            reference=f"{smaller:,} tasks {statistics.median(small_us):.3g} µs/task",
        )
    )


def cost_us(client, size):
    """Microseconds per task from nothing to the last value read."""
    gc.collect()
    start = time.perf_counter()
    graph = headrace.Graph()
    for value in range(size):
        graph.add(inc, value)
    run = client.submit(graph)
    values = run.results()
    elapsed_us = (time.perf_counter() - start) * 1e6
    assert len(values) == size
    assert all(value == index + 1 for index, value in enumerate(values))
    return elapsed_us / size

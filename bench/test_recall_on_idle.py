"""Does a worker that runs dry get the long tasks that wait behind another's short ones?

2,000 tasks of 10 µs, then three of 20 ms. The estimate takes the long ones for short, so all three may land in one
worker's batch; only taking them back from it saves the day. The reference is list scheduling with free dispatch.
"""

import time

import pytest

import headrace
from figures import at_most
from list_scheduling import makespan_s
from workloads import spin

DURATIONS_S = [10e-6] * 2_000 + [20e-3] * 3
WORKERS = 2


@pytest.mark.quick
def test_long_tasks_behind_short_ones(client, rounds, record):
    ideal_s = makespan_s({number: ((), seconds) for number, seconds in enumerate(DURATIONS_S)}, WORKERS)
    ratios, elapsed_ms = [], []
    for _ in range(2 * rounds):
        graph = headrace.Graph()
        graph.map(spin, DURATIONS_S)
        start = time.perf_counter()
        run = client.submit(graph)
        assert run.wait()
        elapsed_s = time.perf_counter() - start
        assert run.results() == DURATIONS_S
        ratios.append(elapsed_s / ideal_s)
        elapsed_ms.append(elapsed_s * 1e3)
    record(
        at_most(
            "2,000 × 10 µs, then 3 × 20 ms, against list scheduling",
            ratios,
            "×",
            bar=1.10,
            measured=f"{sorted(elapsed_ms)[len(elapsed_ms) // 2]:.1f} ms",
            reference=f"list scheduling {ideal_s * 1e3:.0f} ms",
        )
    )

"""What does it cost that a worker leaves after ten tasks?

The tasks of 20 ms sleep, so a core is free for the next process to start meanwhile. Both clients take turns.
"""

import time

import pytest

import headrace
from figures import at_most
from workloads import nap

SHARE = 10
TASKS = 100
WORKERS = 2


@pytest.mark.quick
def test_workers_that_leave_after_ten_tasks(rounds, record):
    ratios, elapsed_ms = [], []
    with (
        headrace.Client(workers=WORKERS) as stay,
        headrace.Client(workers=WORKERS, max_tasks_per_worker=SHARE) as leave,
    ):
        for _ in range(rounds):
            stay_s, leave_s = elapsed_s(stay), elapsed_s(leave)
            ratios.append(leave_s / stay_s)
            elapsed_ms.append(leave_s * 1e3)
        assert leave.statistics().worker_deaths == 0
        assert leave.statistics().workers_retired >= rounds * TASKS // SHARE - WORKERS
    record(
        at_most(
            f"{TASKS} tasks of 20 ms, workers that leave after {SHARE}",
            ratios,
            "×",
            bar=1.25,
            measured=f"{sorted(elapsed_ms)[len(elapsed_ms) // 2]:.0f} ms",
            reference="workers that stay",
        )
    )


def elapsed_s(client):
    """Seconds that the tasks take."""
    graph = headrace.Graph()
    nodes = graph.map(nap, [0.02] * TASKS, range(TASKS))
    start = time.perf_counter()
    assert client.submit(graph, keep=nodes).results() == list(range(TASKS))
    return time.perf_counter() - start

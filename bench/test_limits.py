"""What do limits cost: those that are reached, and those that never are?

A limit that is reached must not leave a worker idle: a waiter goes out in the turn in which the tag is free. The ideal
is all tasks one after another on as many workers as the limit allows; they sleep, so that no core is short. A limit
that is never reached costs a count of each task, and a look at who may have what for each batch; it is held against
the same graph without the tag.
"""

import statistics
import time

import pytest

import headrace
from comparison import take_turns
from figures import at_most
from workloads import inc, nap

TASKS = 100
TASK_S = 1e-3
LIMIT = 2
NO_OPS = 10_000
CHAIN = 1_000


@pytest.mark.quick
@pytest.mark.parametrize("workers", [2, 4])
def test_tasks_under_a_limit(workers, rounds, record):
    ideal_s = TASKS * TASK_S / LIMIT
    limited = headrace.task(nap, tags="db")
    elapsed_ms = {nap: [], limited: []}
    with headrace.Client(workers=workers, limits={"db": LIMIT}) as client:
        for _ in range(2 * rounds):
            for fn, samples in elapsed_ms.items():
                graph = headrace.Graph()
                graph.map(fn, [TASK_S] * TASKS, range(TASKS))
                start = time.perf_counter()
                run = client.submit(graph)
                assert run.wait()
                samples.append((time.perf_counter() - start) * 1e3)
                assert run.results() == list(range(TASKS))
    record(
        at_most(
            f"{TASKS} × 1 ms under a limit of {LIMIT}, {workers} workers",
            elapsed_ms[limited],
            "ms",
            bar=80,
            aim=55,
            reference=f"ideal {ideal_s * 1e3:.0f} ms, without the tag {statistics.median(elapsed_ms[nap]):.0f} ms",
        )
    )


def independent(fn):
    graph = headrace.Graph()
    graph.map(fn, range(NO_OPS))
    return graph


def chain(fn):
    graph = headrace.Graph()
    node = 0
    for _ in range(CHAIN):
        node = graph.add(fn, node)
    return graph


@pytest.mark.quick
@pytest.mark.parametrize(("shape", "tasks"), [(independent, NO_OPS), (chain, CHAIN)])
def test_a_limit_that_is_never_reached(shape, tasks, benchmark, rounds, record):
    tagged = headrace.task(inc, tags="db")
    with headrace.Client(workers=2, limits={"db": 2}) as client:

        def run(fn):
            return client.submit(shape(fn)).results()[-1]

        def check(last):
            assert last == tasks

        turns = take_turns(benchmark, lambda: run(tagged), lambda: run(inc), rounds=3 * rounds, check=check)
    ratios = [1 / ratio for ratio in turns.ratios()]
    record(at_most(f"{tasks:,} tagged no-ops ({shape.__name__}) against untagged", ratios, "×", bar=1.15))

"""What does a task cost that depends on nothing, added one by one or mapped?"""

import pytest

import headrace
from comparison import check_shares, shares, take_turns
from figures import times_faster
from workloads import inc

TASKS = 10_000
EXPECTED = list(range(1, TASKS + 1))


@pytest.mark.quick
def test_independent_tasks_added_one_by_one(benchmark, client, pool, rounds, record):
    least_shares = []

    def ours():
        graph = headrace.Graph()
        for value in range(TASKS):
            graph.add(inc, value)
        run = client.submit(graph)
        return run, run.results()

    def reference():
        futures = [pool.submit(inc, value) for value in range(TASKS)]
        return [future.result() for future in futures]

    def check(answer):
        run, values = answer
        assert values == EXPECTED
        least_shares.append(min(shares(run)))

    turns = take_turns(benchmark, ours, reference, rounds=rounds, check=check, check_reference=check_values)
    question = f"{TASKS:,} independent inc(i), Graph.add one by one"
    record(times_faster(question, turns, tasks=TASKS, bar=40, aim=100, detail=check_shares(least_shares)))


@pytest.mark.quick
def test_independent_tasks_mapped(benchmark, client, pool, rounds, record):
    least_shares = []

    def ours():
        graph = headrace.Graph()
        graph.map(inc, range(TASKS))
        run = client.submit(graph)
        return run, run.results()

    def reference():
        return list(pool.map(inc, range(TASKS), chunksize=100))

    def check(answer):
        run, values = answer
        assert values == EXPECTED
        least_shares.append(min(shares(run)))

    turns = take_turns(benchmark, ours, reference, rounds=3 * rounds, check=check, check_reference=check_values)
    question = f"Graph.map(inc, range({TASKS:,})), run.results()"
    figure = times_faster(
        question,
        turns,
        tasks=TASKS,
        bar=1.5,
        aim=4,
        against="map(chunksize=100)",
        detail=check_shares(least_shares),
    )
    record(figure)


def check_values(values):
    assert values == EXPECTED

"""What does a task of a binary tree cost?"""

import pytest

import headrace
from comparison import check_shares, shares, take_turns
from figures import times_faster
from headrace.bench.pool_drivers import Call, run_wide
from workloads import add, inc

LEAVES = 4_096
TASKS = 2 * LEAVES - 1
EXPECTED = LEAVES * (LEAVES + 1) // 2


@pytest.mark.quick
def test_tree_reduction(benchmark, client, pool, rounds, record):
    least_shares = []

    def ours():
        graph = headrace.Graph()
        level = [graph.add(inc, value) for value in range(LEAVES)]
        while len(level) > 1:
            level = [graph.add(add, left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        run = client.submit(graph)
        return run, run.result(level[0])

    def reference():
        calls = {(0, leaf): Call(inc, (), (leaf,)) for leaf in range(LEAVES)}
        depth, width = 0, LEAVES
        while width > 1:
            depth, width = depth + 1, width // 2
            for j in range(width):
                calls[depth, j] = Call(add, ((depth - 1, 2 * j), (depth - 1, 2 * j + 1)))
        return run_wide(pool, calls)[depth, 0]

    def check(answer):
        run, value = answer
        assert value == EXPECTED
        least_shares.append(min(shares(run)))

    def check_reference(value):
        assert value == EXPECTED

    turns = take_turns(benchmark, ours, reference, rounds=rounds, check=check, check_reference=check_reference)
    detail = check_shares(least_shares)
    record(times_faster(f"tree of add over {LEAVES:,} leaves", turns, tasks=TASKS, bar=40, aim=90, detail=detail))

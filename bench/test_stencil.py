"""What does a task cost that needs three neighbours of the step before?"""

import pytest

import headrace
from comparison import check_shares, shares, take_turns
from figures import times_faster
from headrace.bench.pool_drivers import Call, run_wide
from workloads import cell

STEPS = 100
WIDTH = 100


@pytest.mark.quick
def test_stencil(benchmark, client, pool, rounds, record):
    expected = sequentially()
    least_shares = []

    def ours():
        graph = headrace.Graph()
        row = [graph.add(cell, j, j + 1, j + 2) for j in range(WIDTH)]
        for _ in range(STEPS - 1):
            row = [graph.add(cell, row[j - 1], row[j], row[(j + 1) % WIDTH]) for j in range(WIDTH)]
        run = client.submit(graph)
        return run, run.results()

    def reference():
        values = run_wide(pool, stencil_calls())
        return [values[STEPS - 1, j] for j in range(WIDTH)]

    def check(answer):
        run, values = answer
        assert values == expected
        least_shares.append(min(shares(run)))

    def check_reference(values):
        assert values == expected

    turns = take_turns(benchmark, ours, reference, rounds=rounds, check=check, check_reference=check_reference)
    detail = check_shares(least_shares)
    record(times_faster(f"stencil {STEPS} × {WIDTH}", turns, tasks=STEPS * WIDTH, bar=40, aim=90, detail=detail))


def sequentially():
    """The last row, computed here."""
    row = [cell(j, j + 1, j + 2) for j in range(WIDTH)]
    for _ in range(STEPS - 1):
        row = [cell(row[j - 1], row[j], row[(j + 1) % WIDTH]) for j in range(WIDTH)]
    return row


def stencil_calls():
    """The same graph for the reference; the row is a ring."""
    calls = {(0, j): Call(cell, (), (j, j + 1, j + 2)) for j in range(WIDTH)}
    for step in range(1, STEPS):
        for j in range(WIDTH):
            before = step - 1
            calls[step, j] = Call(cell, ((before, (j - 1) % WIDTH), (before, j), (before, (j + 1) % WIDTH)))
    return calls

"""What does a call cost through `headrace.Executor`, one future each, and mapped?"""

import pytest

import headrace
from comparison import take_turns
from figures import times_faster
from workloads import inc

CALLS = 10_000
EXPECTED = list(range(1, CALLS + 1))


@pytest.fixture
def executor():
    with headrace.Executor(2) as executor:
        executor.submit(inc, 0).result()
        yield executor


@pytest.mark.quick
def test_futures(benchmark, executor, pool, rounds, record):
    def submit(to):
        futures = [to.submit(inc, value) for value in range(CALLS)]
        return [future.result() for future in futures]

    turns = take_turns(benchmark, lambda: submit(executor), lambda: submit(pool), rounds=rounds, check=check)
    record(times_faster(f"Executor.submit(inc, i), {CALLS:,} futures", turns, tasks=CALLS, bar=5, aim=9))


@pytest.mark.quick
def test_map(benchmark, executor, pool, rounds, record):
    def mapped(by):
        return list(by.map(inc, range(CALLS), chunksize=1))

    turns = take_turns(benchmark, lambda: mapped(executor), lambda: mapped(pool), rounds=rounds, check=check)
    question = f"Executor.map(inc, range({CALLS:,}), chunksize=1)"
    record(times_faster(question, turns, tasks=CALLS, bar=15, aim=40, against="map(chunksize=1)"))


def check(values):
    assert values == EXPECTED

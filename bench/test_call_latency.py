"""How long does one call take, from `call` to its result?"""

import statistics
import time

import pytest

from comparison import take_turns
from figures import Figure, times_faster
from workloads import inc

CALLS = 300


@pytest.mark.quick
def test_call_latency(benchmark, client, pool, rounds, record):
    ours_us, pool_us = [], []

    def ours():
        return timed_calls(lambda value: client.call(inc, value).result(), ours_us)

    def reference():
        return timed_calls(lambda value: pool.submit(inc, value).result(), pool_us)

    def check(values):
        assert values == list(range(1, CALLS + 1))

    turns = take_turns(benchmark, ours, reference, rounds=rounds, check=check)
    mean = times_faster("one client.call(inc, i).result(), mean", turns, tasks=CALLS, bar=1.2, aim=1.6, unit="µs")
    # The first block of each is the warm-up round.
    ratios = [theirs / mine for mine, theirs in zip(medians(ours_us), medians(pool_us), strict=True)]
    p50, p99, pool_p50 = percentile(ours_us, 50), percentile(ours_us, 99), percentile(pool_us, 50)
    figure = Figure(
        question="one client.call(inc, i).result(), p50",
        measured=f"{p50:.3g} µs",
        reference=f"pool {pool_p50:.3g} µs",
        score=statistics.median(ratios),
        unit="×",
        bar=1.2,
        aim=1.6,
        at_least=True,
        samples=ratios,
        detail=f"p99 {p99:.3g} µs (pool {percentile(pool_us, 99):.3g}); mean {mean.measured}, {mean.score:.2f}×",
    )
    record(figure)


def timed_calls(call, into_us):
    """Make the calls one after the other; their values, and each latency into `into_us`."""
    values = []
    for value in range(CALLS):
        start = time.perf_counter_ns()
        values.append(call(value))
        into_us.append((time.perf_counter_ns() - start) / 1e3)
    return values


def medians(latencies_us):
    """The median of each measured block."""
    blocks = [latencies_us[start : start + CALLS] for start in range(0, len(latencies_us), CALLS)]
    return [statistics.median(block) for block in blocks[1:]]


def percentile(latencies_us, percent):
    """A percentile of all measured calls."""
    return statistics.quantiles(latencies_us[CALLS:], n=100)[percent - 1]

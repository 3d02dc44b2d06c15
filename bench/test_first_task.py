"""How soon after `submit` does the first task of a large graph start?"""

import gc
import time

import pytest

import headrace
from figures import at_most
from workloads import started_ns

LOOKED_AT = 64
"""Roots start in the order of their submission, so the first to start is among the first few."""


@pytest.mark.parametrize(("size", "bar_ms"), [pytest.param(10_000, 5, marks=pytest.mark.quick), (1_000_000, 80)])
def test_first_task_starts_soon(client, rounds, record, size, bar_ms):
    delays_ms = []
    for _ in range(rounds if size < 100_000 else max(3, rounds // 3)):
        graph = headrace.Graph()
        nodes = graph.map(started_ns, range(size))
        gc.collect()
        submitted_ns = time.monotonic_ns()
        run = client.submit(graph, keep=nodes[:LOOKED_AT])
        answers = run.results()
        assert [tag for _, tag in answers] == list(range(LOOKED_AT))
        delays_ms.append((min(ns for ns, _ in answers) - submitted_ns) / 1e6)
        assert run.wait()
    record(at_most(f"first task of {size:,} starts after submit", delays_ms, "ms", bar=bar_ms))

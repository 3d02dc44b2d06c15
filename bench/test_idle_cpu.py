"""How much of a core do an idle broker and its idle workers use?"""

import os
import time

import pytest

from figures import at_most
from processor_time import processor_time_ns
from worker_processes import worker_pids

WINDOW_S = 5
WORKERS = 2


@pytest.mark.quick
def test_idle_processor_time(client, record):
    # This process holds the broker's threads; the benchmark's own thread sleeps through the window.
    pids = [os.getpid(), *worker_pids(client, WORKERS)]
    time.sleep(0.5)  # let the wardens park
    samples = []
    for _ in range(2):
        before, start = total_ns(pids), time.monotonic_ns()
        time.sleep(WINDOW_S)
        samples.append((total_ns(pids) - before) / (time.monotonic_ns() - start) * 100)
    record(at_most("idle broker and 2 workers, together", samples, "% of a core", bar=0.2))


def total_ns(pids):
    """Processor time of all of them."""
    return sum(processor_time_ns(pid) for pid in pids)

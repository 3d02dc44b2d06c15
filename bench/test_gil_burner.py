"""Does a thread that burns the caller's interpreter lock slow a running graph down?

The broker never takes the lock, so a burning thread may cost no more than the same loop in another process, which takes
the same share of the cores and no lock. A pair is one run beside each; the clock is the broker's, from the graph's
arrival to its last commit.
"""

import multiprocessing
import statistics
import threading
import time

import headrace
from comparison import check_shares, shares
from figures import at_most
from workloads import count_to

TASKS_PER_WORKER = 5_000
TASK_S = 100e-6
PAIRS = 10


def test_lock_burning_client_thread(client, record):
    number = iterations_for(TASK_S)
    ratios, inside_s, outside_s, least_shares = [], [], [], []
    for _ in range(PAIRS):
        with BurningProcess():
            outside_s.append(elapsed_s(client, number, least_shares))
        with BurningThread():
            inside_s.append(elapsed_s(client, number, least_shares))
        ratios.append(inside_s[-1] / outside_s[-1])
    record(
        at_most(
            "lock burner in the client, against the same loop in another process",
            ratios,
            "×",
            bar=1.10,
            measured=f"{statistics.median(inside_s) * 1e3:.0f} ms",
            reference=f"other process {statistics.median(outside_s) * 1e3:.0f} ms",
            detail=f"2 × {TASKS_PER_WORKER:,} tasks of {TASK_S * 1e6:.0f} µs; {check_shares(least_shares)}",
        )
    )


def elapsed_s(client, number, least_shares):
    """One run by the broker's clock."""
    tags = range(2 * TASKS_PER_WORKER)
    graph = headrace.Graph()
    graph.map(count_to, [number] * len(tags), tags)
    run = client.submit(graph)
    assert run.wait()
    assert run.results() == list(tags)
    least_shares.append(min(shares(run)))
    return run.statistics().elapsed_s


def iterations_for(seconds):
    """How many iterations of `count_to` take about so long here and now."""
    number = 1_000
    best = min(timed(number) for _ in range(200))
    return max(1, round(number * seconds / best))


def timed(number):
    """Seconds that `count_to(number)` takes."""
    start = time.perf_counter()
    count_to(number, None)
    return time.perf_counter() - start


def burn(stop):
    """The loop, in pure Python, until told to stop."""
    while not stop.is_set():
        for _ in range(10_000):
            pass


class BurningThread:
    """Burns the lock of this process."""

    def __enter__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=burn, args=(self.stop,))
        self.thread.start()

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


class BurningProcess:
    """Burns a core in a process of its own."""

    def __enter__(self):
        spawn = multiprocessing.get_context("spawn")
        self.stop = spawn.Event()
        started = spawn.Event()
        self.process = spawn.Process(target=burn_after, args=(started, self.stop))
        self.process.start()
        started.wait()

    def __exit__(self, *_):
        self.stop.set()
        self.process.join()


def burn_after(started, stop):
    """Say that the process is up, then burn."""
    started.set()
    burn(stop)

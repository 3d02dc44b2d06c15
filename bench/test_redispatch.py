"""How soon does a task run again after SIGKILL of its worker?

One task at a time runs in a cluster that is idle otherwise. Its worker is killed; what counts is the time from the kill
to the first line of the task's next attempt. With two workers the other one takes it; with one worker a new process has
to start first. Bars: 50 ms at the 99th percentile, and 250 ms.
"""

import os
import select
import signal
import time

import pytest

import headrace
from figures import at_most
from workloads import inc, tell_and_stay

TIMEOUT_S = 10.0


@pytest.mark.quick
@pytest.mark.parametrize(("workers", "bar_ms", "kills_a_round"), [(2, 50, 24), (1, 250, 8)])
def test_redispatch(workers, bar_ms, kills_a_round, rounds, record, tmp_path):
    name = "another worker is idle" if workers > 1 else "its worker starts anew"
    with headrace.Client(workers=workers) as client, Inbox(tmp_path / "inbox") as inbox:
        samples_ms = [kill_once(client, inbox, tmp_path / str(kill), workers) for kill in range(rounds * kills_a_round)]
    ordered = sorted(samples_ms)
    at = lambda part: ordered[min(int(len(ordered) * part), len(ordered) - 1)]  # noqa: E731
    record(
        at_most(
            f"SIGKILL of a worker to its task's next attempt, p99, {name}",
            [at(0.99)],
            "ms",
            bar=bar_ms,
            measured=f"p50 {at(0.5):.2f} ms, p99 {at(0.99):.2f} ms, most {ordered[-1]:.2f} ms",
            reference=f"{len(ordered)} kills",
        )
    )


def kill_once(client, inbox, gate, workers):
    """Kill the worker of a task; milliseconds until its next attempt."""
    for call in [client.call(headrace.task(inc, worker=worker), worker) for worker in range(workers)]:
        call.result(TIMEOUT_S)  # everybody is there, and idle
    call = client.call(tell_and_stay, inbox.path, str(gate))
    pid, _ = inbox.next()
    gate.touch()
    start_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    other, started_ns = inbox.next()
    assert other != pid
    assert call.result(TIMEOUT_S) == other
    return (started_ns - start_ns) / 1e6


class Inbox:
    """Where tasks tell that they have begun: a pipe with a name."""

    def __init__(self, path):
        self.path = str(path)

    def __enter__(self):
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR)
        return self

    def __exit__(self, *_):
        os.close(self._fd)

    def next(self):
        """Process id and time of the next that begins."""
        ready, _, _ = select.select([self._fd], [], [], TIMEOUT_S)
        assert ready, "the task does not begin"
        pid, time_ns = os.read(self._fd, 4096).split()
        return int(pid), int(time_ns)

"""How soon does a task run again after SIGKILL of its worker?

One task at a time runs in a cluster that is idle otherwise. Its worker is killed; what counts is the time from the kill
to the first line of the task's next attempt. With two workers the other one takes it; with one worker a new process has
to start first. Bars: 50 ms at the 99th percentile, and 250 ms.
"""

import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

import headrace
from figures import at_most
from workloads import inc

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


def tell_and_stay(inbox, gate):
    """Tell who runs and when it began; stay until somebody ends this process, unless the gate is open."""
    now_ns, is_open = time.monotonic_ns(), Path(gate).exists()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letter:
        letter.sendto(struct.pack("qq", os.getpid(), now_ns), inbox)
    if not is_open:
        time.sleep(TIMEOUT_S)
    return os.getpid()


class Inbox:
    """Where tasks tell that they have begun."""

    def __init__(self, path):
        self.path = str(path)

    def __enter__(self):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(TIMEOUT_S)
        return self

    def __exit__(self, *_):
        self._socket.close()

    def next(self):
        """Process id and time of the next that begins."""
        return struct.unpack("qq", self._socket.recv(16))

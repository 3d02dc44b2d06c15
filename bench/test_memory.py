"""How many bytes does the broker hold per queued task and edge, and do endless calls leave memory flat?"""

import json
import subprocess
import sys

from figures import at_most
from processor_time import resident_bytes
from repository import REPOSITORY
from worker_processes import worker_pids
from workloads import inc

BENCH = REPOSITORY / "bench"


def test_bytes_per_queued_task_and_edge(record):
    plain, edged = queued(500_000, 0), queued(500_000, 4)
    per_task = beside_arguments(plain) / plain["tasks"]
    per_edge = (beside_arguments(edged) - per_task * edged["tasks"]) / edged["edges"]
    arguments = plain["held"] / plain["tasks"]
    detail = f"{plain['tasks']:,} tasks, growth of resident memory, less {arguments:.0f} bytes of arguments each"
    record(at_most("broker memory per queued task", [per_task], "bytes", bar=200, detail=detail))
    record(at_most("broker memory per edge", [per_edge], "bytes", bar=16, detail=f"{edged['edges']:,} edges"))


def beside_arguments(weighed):
    """Growth without the arguments, which are the user's."""
    return weighed["grown"] - weighed["held"]


def queued(tasks, edges_per_task):
    """Measure in a process of its own, whose heap nothing else has touched."""
    command = [sys.executable, str(BENCH / "queued_memory.py"), str(tasks), str(edges_per_task)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_million_calls_leave_memory_flat(client, record):
    warm_up, calls = 100_000, 1_000_000
    pids = ["self", *worker_pids(client, 2)]
    make_calls(client, warm_up)
    before = sum(resident_bytes(pid) for pid in pids)
    make_calls(client, calls)
    grown = (sum(resident_bytes(pid) for pid in pids) - before) / 2**20
    detail = f"client with broker, and workers: {before / 2**20:.0f} MiB after {warm_up:,} calls"
    record(at_most("growth over 1,000,000 client.call in sequence", [grown], "MiB", bar=2, detail=detail))


def make_calls(client, calls):
    """One call after the other, each answer checked."""
    for value in range(calls):
        assert client.call(inc, value).result() == value + 1

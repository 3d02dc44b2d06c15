"""Prints by how much this process grows when tasks are queued in its broker (test_memory.py runs it in a fresh one)."""

import ctypes
import gc
import json
import os
import signal
import sys

import headrace
from processor_time import resident_bytes
from worker_processes import worker_pids
from workloads import inc


def main(tasks: int, edges_per_task: int) -> None:
    """Queue the tasks for workers that are stopped, and weigh the process before and after."""
    with headrace.Client(workers=2) as client:
        pids = worker_pids(client, 2)
        graph, last, edges = build(tasks, edges_per_task)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            before = settled_bytes()
            run = client.submit(graph, keep=[last])
            statistics = run.statistics()  # answered after the graph has arrived
            after = settled_bytes()
            run.cancel()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    progress = statistics.progress
    assert progress.total - progress.ended == len(graph), f"queued: {progress}"
    print(json.dumps({"grown": after - before, "held": statistics.bytes_held, "tasks": len(graph), "edges": edges}))


def build(tasks: int, edges_per_task: int) -> tuple[headrace.Graph, headrace.Node, int]:
    """Independent tasks, or tasks that need their `edges_per_task` forerunners; the graph, its last node, its edges."""
    graph = headrace.Graph()
    if not edges_per_task:
        return graph, graph.map(inc, range(tasks))[-1], 0
    nodes = list(graph.map(inc, range(edges_per_task)))
    for _ in range(tasks - edges_per_task):
        nodes.append(graph.add(max, *nodes[-edges_per_task:]))
    return graph, nodes[-1], (tasks - edges_per_task) * edges_per_task


def settled_bytes() -> int:
    """Resident memory once freed memory went back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

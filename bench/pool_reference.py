"""The reference: `concurrent.futures.ProcessPoolExecutor`, one `submit` a task, graphs driven by `graphlib`.

The driver is the usual one: a callback on each future puts the finished task on a queue; the caller's thread takes it
off, tells the sorter, and submits what has become ready with the values of its predecessors. Acting in the callback
itself (the pool's own thread) was tried and is slower.
"""

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ProcessPoolExecutor
from graphlib import TopologicalSorter
from queue import SimpleQueue
from typing import Any, NamedTuple


class Call(NamedTuple):
    """One task of a graph: the names of its predecessors are its first arguments, constants follow."""

    function: Callable[..., Any]
    predecessors: tuple[Hashable, ...]
    constants: tuple[Any, ...] = ()


def run_graph(pool: ProcessPoolExecutor, calls: dict[Hashable, Call]) -> dict[Hashable, Any]:
    """Run every call once its predecessors have returned; the values by name."""
    sorter = TopologicalSorter({name: call.predecessors for name, call in calls.items()})
    sorter.prepare()
    finished: SimpleQueue[tuple[Hashable, Future[Any]]] = SimpleQueue()
    values: dict[Hashable, Any] = {}
    while sorter.is_active():
        for name in sorter.get_ready():
            call = calls[name]
            arguments = [values[predecessor] for predecessor in call.predecessors]
            future = pool.submit(call.function, *arguments, *call.constants)
            future.add_done_callback(lambda future, name=name: finished.put((name, future)))
        name, future = finished.get()
        values[name] = future.result()
        sorter.done(name)
    return values

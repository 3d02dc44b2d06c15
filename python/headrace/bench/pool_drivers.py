"""How a graph is driven through a `ProcessPoolExecutor`: one `submit` a task, `graphlib` and callbacks.

There are two usual drivers, and each graph is given the one that is faster for it: a callback that acts itself, in the
pool's own thread, saves a wake-up for each link of a chain (205 µs a link against 251 at best); a callback that only
reports to the caller's thread leaves the pool's thread free where many tasks end at a time.
"""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from graphlib import TopologicalSorter
from queue import SimpleQueue
from typing import Any, NamedTuple


class Call(NamedTuple):
    """One task of a graph: constants are its first arguments, the values of its predecessors follow."""

    function: Callable[..., Any]
    predecessors: tuple[Hashable, ...]
    constants: tuple[Any, ...] = ()


Calls = dict[Hashable, Call]
Values = dict[Hashable, Any]


def run_wide(pool: ProcessPoolExecutor, calls: Calls) -> Values:
    """Run a graph of many ready tasks: callbacks report, the caller's thread acts. The values by name."""
    sorter = prepared_sorter(calls)
    finished: SimpleQueue[tuple[Hashable, Future[Any]]] = SimpleQueue()
    values: Values = {}
    while sorter.is_active():
        for name in sorter.get_ready():
            future = submit(pool, calls[name], values)
            future.add_done_callback(partial(_report, finished, name))
        name, future = finished.get()
        values[name] = future.result()
        sorter.done(name)
    return values


def _report(finished: SimpleQueue[tuple[Hashable, Future[Any]]], name: Hashable, future: Future[Any]) -> None:
    finished.put((name, future))


def run_deep(pool: ProcessPoolExecutor, calls: Calls) -> Values:
    """Run a graph of few ready tasks: callbacks act themselves. The values by name."""
    sorter = prepared_sorter(calls)
    values: Values = {}
    all_done = threading.Event()
    turn = threading.RLock()  # a callback runs at once, in this thread, where its future is done already

    def submit_ready() -> None:
        for name in sorter.get_ready():
            submit(pool, calls[name], values).add_done_callback(partial(finish, name))

    def finish(name: Hashable, future: Future[Any]) -> None:
        with turn:
            values[name] = future.result()
            sorter.done(name)
            submit_ready()
            if not sorter.is_active():
                all_done.set()

    with turn:
        submit_ready()
    all_done.wait()
    return values


def prepared_sorter(calls: Calls) -> TopologicalSorter[Hashable]:
    """The sorter of the graph, ready to give."""
    sorter = TopologicalSorter({name: call.predecessors for name, call in calls.items()})
    sorter.prepare()
    return sorter


def submit(pool: ProcessPoolExecutor, call: Call, values: Values) -> Future[Any]:
    """Submit one call with the values that it needs."""
    arguments = [values[name] for name in call.predecessors]
    return pool.submit(call.function, *call.constants, *arguments)

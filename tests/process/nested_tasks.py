"""Tasks that submit tasks, wait for them, or return graphs."""

import asyncio
import concurrent.futures
import operator
import os
import queue
import time
from pathlib import Path

import headrace as hr


def fib(n):
    if n < 2:
        return n
    client = hr.current_client()
    one, other = client.call(fib, n - 1), client.call(fib, n - 2)
    return one.result() + other.result()


def double(x):
    return 2 * x


def plus(x, y):
    return x + y


def note(path, line):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def lines(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def await_gate(path, name, gate):
    """Say that it runs, and return once the gate is open."""
    note(path, name)
    while not Path(gate).exists():
        time.sleep(0.002)
    return name


def pid():
    return os.getpid()


def boom(text):
    raise ValueError(text)


def call_and_wait(fn, *args):
    return hr.current_client().call(fn, *args).result()


def call_and_wait_briefly(timeout, fn, *args):
    try:
        return hr.current_client().call(fn, *args).result(timeout)
    except TimeoutError:
        return "too late"


def call_and_await(fn, *args):
    async def main():
        return await hr.current_client().call(fn, *args)

    return asyncio.run(main())


def call_and_wait_by_futures(fn, *args):
    future = hr.current_client().call(fn, *args)
    concurrent.futures.wait([future])
    return future.result()


def call_and_be_called(fn, *args):
    ended = queue.SimpleQueue()
    hr.current_client().call(fn, *args).add_done_callback(ended.put)
    return ended.get().result()


def call_and_iterate(fn, *args):
    (future,) = concurrent.futures.as_completed([hr.current_client().call(fn, *args)])
    return future.result()


def call_and_wait_in_a_thread(fn, *args):
    client = hr.current_client()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: client.call(fn, *args).result()).result()


def call_and_leave(path, fn, *args):
    hr.current_client().call(fn, *args)
    note(path, "left")
    return "left"


def call_until_caught(path, fn, *args):
    """Wait for a call, and note what ends the wait."""
    try:
        return hr.current_client().call(fn, *args).result()
    except BaseException as error:
        note(path, type(error).__name__)
        raise


def wait_for_many(count):
    """A graph, keep, as_completed, put and refs within a task."""
    client = hr.current_client()
    graph = hr.Graph()
    parts = graph.map(double, range(count))
    total = graph.reduce(operator.add, parts)
    run = client.submit(graph, keep=[parts[1], total])
    ended = {node.key: value for node, value in run.as_completed()}
    assert sorted(ended.values()) == sorted([2, count * (count - 1)])
    ref = client.put(100)
    first = client.call(plus, ref, run.ref(total))
    last = client.call(plus, first, 1)
    assert run.wait()
    assert run.statistics().done == len(graph)
    return last.result()


def sum_of_ones(count):
    import numpy as np

    return float(hr.current_client().call(np.ones, count).result().sum())


def ones_by_way_of_another(count):
    """A large argument, a large result, and the same as a result of its own."""
    import numpy as np

    given = np.ones(count)
    got = hr.current_client().call(plus, given, 1.0).result()
    assert got[0] == got[-1] == 2.0
    return got


def old_client(keep):
    client = hr.current_client()
    keep.append(client)
    return repr(client)


def leak_client():
    global leaked
    leaked = hr.current_client()
    return leaked.call(double, 1).result()


def use_leaked_client():
    return leaked.call(double, 1).result()


def crash(path):
    note(path, "crash")
    os._exit(3)


def crash_at_depth(depth, path):
    if depth == 0:
        crash(path)
    return hr.current_client().call(crash_at_depth, depth - 1, path).result()


# -- graphs in the place of results ------------------------------------------------------------------------------------


def tree(count):
    graph = hr.Graph()
    graph.reduce(operator.add, graph.map(double, range(count)))
    return graph


def pair():
    graph = hr.Graph()
    graph.add(double, 1)
    graph.add(double, 2)
    return graph


def deep(n):
    if n == 0:
        return "bottom"
    graph = hr.Graph()
    graph.add(deep, n - 1)
    return graph


def bad_graph(path=None):
    graph = hr.Graph()
    graph.add(hr.task(boom, key="culprit"), "inner")
    return graph


def graph_that_is_late():
    graph = hr.Graph()
    graph.add(hr.task(time.sleep, key="culprit", timeout_s=0.2), 60)
    return graph


def graph_that_dies():
    graph = hr.Graph()
    graph.add(hr.task(os._exit, key="culprit"), 3)
    return graph


def graph_of_graph(make):
    graph = hr.Graph()
    graph.add(make)
    return graph


def empty_graph():
    return hr.Graph()


def graph_of(path, gate):
    note(path, "made")
    graph = hr.Graph()
    graph.add(await_gate, path, "inner", gate)
    return graph


def graph_of_future():
    graph = hr.Graph()
    graph.add(plus, hr.current_client().call(double, 20), 2)
    return graph


def graph_of_array(count):
    import numpy as np

    graph = hr.Graph()
    graph.add(plus, np.ones(count), 1.0)
    return graph


def die_once(path):
    note(path, "ran")
    if len(lines(path)) == 1:
        os._exit(7)
    return "alive"

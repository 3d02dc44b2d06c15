"""Graphs of Dask that ours and its peers run."""

import time

import dask.array as da

#: Chunks of 1 to 13 MB.
SHAPES = ("(x + x.T).sum()", "rechunk", "tree reduction")


def inc(number):
    return number + 1


def no_ops(tasks):
    """Half of the tasks depend on nothing, the others on one of these: graph, keys of the latter, their values.

    Keys are like Dask's own, a name and a number: where each had a name of its own, Frisky's scheduler would count them
    all at each end of one.
    """
    first = {f"x-{number}": (inc, number) for number in range(tasks // 2)}
    second = {f"y-{number}": (inc, f"x-{number}") for number in range(tasks // 2)}
    return first | second, list(second), [number + 2 for number in range(tasks // 2)]


def collection(shape):
    """A collection whose value is one number, and that number."""
    if shape == "(x + x.T).sum()":
        x = da.ones((40 * 360, 40 * 360), chunks=360)
        return (x + x.T).sum(), 2 * (40 * 360) ** 2
    if shape == "rechunk":
        x = da.ones((8_000, 8_000), chunks=(8_000, 200))
        return x.rechunk((200, 8_000), method="tasks").sum(), 8_000**2
    return da.ones(400 * 130_000, chunks=130_000).sum(split_every=2), 400 * 130_000


def seconds_of_no_ops(scheduler, tasks):
    """Run tasks that do nothing by a scheduler's `get`; how long that took a task."""
    graph, keys, expected = no_ops(tasks)
    start = time.perf_counter()
    values = scheduler.get(graph, keys)
    elapsed_s = time.perf_counter() - start
    assert list(values) == expected
    return elapsed_s / tasks


def seconds_of(scheduler, shape):
    """Compute a collection; how long that took."""
    computed, expected = collection(shape)
    start = time.perf_counter()
    value = computed.compute(scheduler=scheduler)
    elapsed_s = time.perf_counter() - start
    assert value == expected
    return elapsed_s

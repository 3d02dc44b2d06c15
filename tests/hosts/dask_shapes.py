"""Graphs of Dask that are known to be hard to order, and what an order of one costs in memory."""

import heapq
import itertools
import warnings

import dask
import dask.array as da
import numpy as np
from dask.base import collections_to_expr, flatten


def shapes():
    """Collections by name. Dask's own tests of its order have most of them, and its users the others."""
    x = da.random.random((200, 200), chunks=10)
    y = da.random.random((240, 10, 10), chunks=(5, 5, 5))
    u, v = (da.random.random((500, 10), chunks=(5, 10)) for _ in range(2))
    rows = da.random.normal(size=(50, 50), chunks=(1, None))
    products = rows
    for _ in range(3):
        products = products[1:] * products[:-1]
    z = da.random.random((120, 120), chunks=10)
    with warnings.catch_warnings(action="ignore"):  # it makes many chunks
        product = z @ z.T
    months = [y[month::12] for month in range(12)]
    tall = da.random.random((1_000, 10), chunks=(50, 10))
    wide = da.random.random((200, 100), chunks=(20, 50))
    return {
        "(x + x.T).sum()": [(x + x.T).sum()],
        "x + x.T": [x + x.T],
        "tree of 2": [da.random.random(4_000, chunks=10).sum(split_every=2)],
        "tree of 16": [da.random.random(4_000, chunks=10).sum(split_every=16)],
        "rechunk": [da.random.random((400, 400), chunks=(400, 10)).rechunk((10, 400), method="tasks").sum()],
        "sum, mean and std": [x.sum(), x.mean(), x.std()],
        "anomaly": [(y - y.mean(axis=0)).std(axis=0)],
        "climatology": [da.stack([month.mean(axis=0) for month in months])],
        "climatology, anomaly": [da.concatenate([month - month.mean(axis=0) for month in months]).mean(axis=0)],
        "means of u², v², uv": [(u**2).mean(axis=0), (v**2).mean(axis=0), (u * v).mean(axis=0)],
        "products of neighbours": [rows.mean(), products.mean()],
        "differences": [da.diff(da.diff(x, axis=0), axis=1).sum()],
        "vorticity": [((x[:, 1:] - x[:, :-1])[1:] + (x[1:] - x[:-1])[:, 1:]).mean(axis=0)],
        "overlap": [x.map_overlap(np.copy, depth=1, boundary="none").sum()],
        "running sum": [x.cumsum(axis=0).sum()],
        "z @ z.T": [product],
        "(z @ z.T).sum()": [product.sum()],
        "tall and skinny QR": list(da.linalg.tsqr(tall)),
        "compressed SVD": list(da.linalg.svd_compressed(wide, 5)),
    }


def tables():
    """The same of dataframes."""
    import dask.dataframe as dd
    import pandas as pd

    frame = pd.DataFrame({"a": np.arange(4_000) % 97, "b": np.arange(4_000) % 13, "c": 1.0})
    table = dd.from_pandas(frame, npartitions=40)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        shuffled = table.shuffle("a")
        return {
            "shuffle": [shuffled],
            "shuffle and sum": [shuffled.c.sum()],
            "means of groups": [table.groupby("a").c.mean()],
            "merge": [table.merge(table.groupby("a").c.sum().reset_index(), on="a").c_x.sum()],
        }


def optimized(collections):
    """The graph that Dask hands to a scheduler, and the keys that it asks for."""
    expr = collections_to_expr(collections).optimize()
    return dict(expr.__dask_graph__()), list(flatten(expr.__dask_keys__()))


def peak(needs, kept, turns, size):
    """Most that is alive at a time, if tasks end in these turns. An input lives until the end of who reads it."""
    readers = dict.fromkeys(needs, 0)
    for row in needs.values():
        for need in row:
            readers[need] += 1
    for task in kept:
        readers[task] += 1
    live = most = 0
    for turn in turns:
        live += sum(map(size, turn))
        most = max(most, live)
        for task in turn:
            for need in needs[task]:
                readers[need] -= 1
                live -= size(need) * (readers[need] == 0)
            live -= size(task) * (readers[task] == 0)
    return most


def turns_by_rank(needs, rank, workers):
    """Turns of workers that always take the ready tasks of least rank, as Dask's schedulers do."""
    return _turns(
        needs,
        workers,
        lambda ready, fresh: [heapq.heappush(ready, (rank[task], task)) for task in fresh],
        lambda ready: heapq.heappop(ready)[1],
        [],
    )


def turns_of_headrace(needs, priorities, workers):
    """Turns of workers by the kernel's rule (K3): of the highest priority first what has become ready, then roots."""
    clock = itertools.count()

    def put(ready, fresh):
        is_root = not next(clock)
        number = next(clock)
        for place, task in enumerate(fresh):
            heapq.heappush(ready, (-priorities[task], is_root, -number, place, task))

    return _turns(needs, workers, put, lambda ready: heapq.heappop(ready)[-1], [])


def _turns(needs, workers, put, take, ready):
    missing = {task: len(row) for task, row in needs.items()}
    readers = {task: [] for task in needs}
    for task, row in needs.items():
        for need in row:
            readers[need].append(task)
    put(ready, [task for task in needs if not missing[task]])
    turns = []
    while ready:
        turns.append([take(ready) for _ in range(min(workers, len(ready)))])
        for task in turns[-1]:
            fresh = []
            for reader in readers[task]:
                missing[reader] -= 1
                if not missing[reader]:
                    fresh.append(reader)
            put(ready, fresh)
    return turns

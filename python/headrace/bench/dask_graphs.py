"""Graphs that Dask makes of its collections, as plans that any engine can run: `dask:graph=array:tasks=1000`.

A task is a node of Dask's, pickled, which each engine hands over as bytes; its inputs are values of real size. Making
the graph is Dask's work, and is not timed.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Callable
from typing import Any

from headrace.bench.shapes import Predecessors
from headrace.errors import UsageError

_CHUNK = 64


def node(number: int, packed: bytes, *values: Any) -> Any:
    """Run a node of Dask's on the values of what it needs."""
    task, keys = pickle.loads(packed)
    return task(dict(zip(keys, values, strict=True)))


def digest(value: Any) -> int:
    """A number that is equal for equal values."""
    if hasattr(value, "to_frame") or hasattr(value, "iloc"):  # pickles of equal frames differ by what they share
        import pandas as pd

        value = pd.util.hash_pandas_object(value).to_numpy()
    data: bytes = value.tobytes() if hasattr(value, "tobytes") else pickle.dumps(value)
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little")


def array(tasks: int) -> Any:
    """(x + x.T).sum(), with square chunks."""
    import dask.array as da

    side = _side(tasks / 3.3)
    x = da.ones((side * _CHUNK, side * _CHUNK), chunks=_CHUNK)
    return (x + x.T).sum()


def rechunk(tasks: int) -> Any:
    """Columns to rows: a shuffle, each piece of which has one reader."""
    import dask.array as da

    side = _side(tasks)
    x = da.arange(side * side * 16, chunks=side * 16).reshape((side, side * 16))
    return x.rechunk((side, 16), method="tasks").rechunk((1, side * 16), method="tasks").sum()


def anomaly(tasks: int) -> Any:
    """What xarray is used for: the mean over time is taken away, then the spread of the rest."""
    import dask.array as da

    steps = max(2, tasks // 5)
    x = da.ones((steps * 4, _CHUNK, _CHUNK), chunks=(4, _CHUNK, _CHUNK)).cumsum(axis=0)
    return ((x - x.mean(axis=0)) ** 2).mean(axis=0)


def bag(tasks: int) -> Any:
    """A bag that is mapped, filtered and folded."""
    import operator

    import dask.bag as db

    numbers = db.from_sequence(range(tasks * 4), npartitions=max(2, tasks // 3))
    return numbers.map(_squared).filter(_is_even).fold(operator.add)


def dataframe(tasks: int) -> Any:
    """A group-by with a sum."""
    import dask.dataframe as dd
    import pandas as pd

    frame = pd.DataFrame({"name": [number % 7 for number in range(tasks * 20)], "x": range(tasks * 20)})
    return dd.from_pandas(frame, npartitions=max(2, tasks // 3)).groupby("name").x.sum()


GRAPHS: dict[str, Callable[[int], Any]] = {made.__name__: made for made in (array, rechunk, anomaly, bag, dataframe)}


def lay_out(name: str, tasks: int) -> tuple[Predecessors, list[bytes]]:
    """What each task needs, and its node.

    Raises:
        UsageError: Dask, or what it needs for this, is not installed here.
    """
    try:
        from dask import config
        from dask._task_spec import Alias, convert_legacy_graph
        from dask.base import collections_to_expr
        from dask.order import order

        # A client of distributed in this process would have it shuffle in a way that only distributed can.
        with config.set({"dataframe.shuffle.method": "tasks"}):
            graph = convert_legacy_graph(collections_to_expr([GRAPHS[name](tasks)]).optimize().__dask_graph__())
    except ImportError as error:
        raise UsageError(f"dask:graph={name} needs {error.name} beside the engine") from None
    priorities = order(graph)
    numbers: dict[Any, int] = {}
    needed: Predecessors = []
    packed: list[bytes] = []
    for key in sorted(graph, key=priorities.__getitem__):
        task = graph[key]
        if isinstance(task, Alias):
            numbers[key] = numbers[task.target]
            continue
        keys = sorted(task.dependencies, key=str)
        numbers[key] = len(needed)
        row = [numbers[before] for before in keys]
        needed.append(tuple(row))
        packed.append(pickle.dumps((task, keys)))
    return needed, packed


def _side(tasks: float) -> int:
    return max(2, math.isqrt(round(tasks)))


def _squared(value: int) -> int:
    return value * value


def _is_even(value: int) -> bool:
    return value % 2 == 0

"""Dask's collections on headrace: `dask.config.set(scheduler=DaskClient())`, or `compute(scheduler=get)`."""

from __future__ import annotations

import atexit
import threading
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dask.base import collections_to_expr, flatten
from dask.callbacks import local_callbacks
from dask.local import nested_get

import headrace
from headrace.integrations._dask_callbacks import follow
from headrace.integrations._dask_steps import same
from headrace.integrations._dask_translation import DaskFuture, Translation

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    Key = Hashable


class DaskClient:
    """A scheduler for Dask, on a client of headrace.

    Pass it as `scheduler=`, or use it in a `with` statement to make it Dask's scheduler meanwhile.

    Args:
        client: a client to use, which stays open; by default one of its own.
        **options: arguments of `headrace.Client` for that one, such as `workers` or `mode`.

    Source: the protocol of `dask.typing.SchedulerGetCallable` and of `dask.persist`, Dask 2026.8.
    """

    asynchronous = False

    def __init__(self, client: headrace.Client | None = None, **options: Any) -> None:
        self._owns = client is None
        if options.get("mode", "processes") == "processes":
            options["setup"] = partial(use_in_tasks, options.get("setup"))
        self.client = headrace.Client(**options) if client is None else client
        self._config: Any = None
        #: Futures by their keys. Graphs name them by these alone once Dask has optimized them.
        self._known: WeakValueDictionary[Key, DaskFuture] = WeakValueDictionary()

    def get(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Run a graph of Dask, and give the values of keys in the nesting of `keys`, lists as tuples.

        Raises:
            KeyError: a key is not in the graph.
            Exception: what a task raised, as it was raised. What has not ended then is cancelled.
        """
        translated = Translation(dsk, flatten([keys]), self.client, self._ref_of)
        with local_callbacks(kwargs.get("callbacks")) as callbacks:
            run = translated.submit(keep_all=bool(callbacks))
            try:
                if callbacks:
                    follow(run, translated.keys, translated.tasks, callbacks)
                values = translated.values(run)
            except BaseException:
                run.cancel()
                raise
        return nested_get(keys, values)

    def persist(self, collections: Any, optimize_graph: bool = True, **_kwargs: Any) -> list[Any]:
        """Start collections, and give the same on results that workers have, at once."""
        rebuilt = []
        for collection in collections:
            expr = collections_to_expr([collection], optimize_graph).optimize()
            keys = list(flatten(expr.__dask_keys__()))
            futures = self._start(expr, keys)
            rebuild, state = collection.__dask_postpersist__()
            rebuilt.append(rebuild(futures, *state))
        return rebuilt

    def compute(self, collections: Any, sync: bool = False, **kwargs: Any) -> Any:
        """Start collections, and give a future for the value of each; the values themselves with `sync`."""
        import dask

        if sync:
            return dask.compute(collections, scheduler=self, **kwargs)[0]
        single = dask.is_dask_collection(collections)
        futures = []
        for collection in [collections] if single else collections:
            expr, key = _finalized(collection)
            futures.append(self._start(expr, [key])[key])
        return futures[0] if single else futures

    def futures(self, collection: Any) -> list[DaskFuture]:
        """Give the futures that a persisted collection stands on."""
        return [value for value in dict(collection.__dask_graph__()).values() if isinstance(value, DaskFuture)]

    def scatter(self, data: Any) -> Any:
        """Put values where tasks find them, a future for each: of a list, tuple or dict for each item of it."""
        if isinstance(data, dict):
            return {key: self.scatter_one(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return _like(data, [self.scatter_one(value) for value in data])
        return self.scatter_one(data)

    def scatter_one(self, value: Any) -> DaskFuture:
        """Put a value where tasks find it."""
        from dask.tokenize import tokenize

        return self._future(f"{type(value).__name__}-{tokenize(value)}", self.client.put(value))

    def gather(self, futures: Any) -> Any:
        """Wait for the values of futures, in lists, tuples and dicts as well; raises what the first one did."""
        if isinstance(futures, DaskFuture):
            return futures.result()
        if isinstance(futures, dict):
            return {key: self.gather(value) for key, value in futures.items()}
        if isinstance(futures, list | tuple | set):
            return _like(futures, [self.gather(value) for value in futures])
        return futures

    def close(self) -> None:
        """End the client, if it is this one's own. What runs is finished before."""
        if self._owns:
            self.client.close()

    def __enter__(self) -> DaskClient:
        import dask

        self._config = dask.config.set(scheduler=self)
        self._config.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._config.__exit__(*error)
        if self._owns:
            self.client.close(cancel=error[0] is not None)

    def __reduce__(self) -> tuple[Any, ...]:
        return NestedClient, ()

    def _ref_of(self, key: Key) -> Any:
        return self._known[key].ref

    def _start(self, dsk: Any, keys: list[Key]) -> dict[Key, DaskFuture]:
        translated = Translation(dsk, keys, self.client, self._ref_of)
        run = translated.submit()
        return {key: self._future(key, ref, run) for key, ref in translated.refs(run).items()}

    def _future(self, key: Key, ref: Any, run: headrace.Run | None = None) -> DaskFuture:
        future = self._known[key] = DaskFuture(key, ref, self.client, run)
        return future


class NestedClient:
    """A `DaskClient` in worker processes: what it is asked to do belongs to the task that asks, and ends with it."""

    asynchronous = False

    def get(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Run a graph of Dask as tasks of the one that runs; see `DaskClient.get`."""
        return DaskClient(headrace.current_client()).get(dsk, keys, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(DaskClient(headrace.current_client()), name)

    def __reduce__(self) -> tuple[Any, ...]:
        return NestedClient, ()


def use_in_tasks(setup: Callable[[], object] | None = None) -> None:
    """Make headrace the scheduler of what tasks of this process compute; then call `setup`.

    `DaskClient` has its own workers do so. For a client of yours, pass this as `headrace.Client(setup=use_in_tasks)`.
    """
    import dask

    dask.config.set(scheduler=NestedClient())
    if setup is not None:
        setup()


def fill(graph: headrace.Graph, collection: Any) -> headrace.Node[Any]:
    """Add the tasks of a collection to a graph, and give the node of its value."""
    expr, key = _finalized(collection)
    nothing: dict[Key, Any] = {}
    place = Translation(expr, [key], None, nothing.__getitem__, graph).places[key]
    return place if isinstance(place, headrace.Node) else graph.add(same, place)


def _finalized(collection: Any) -> tuple[Any, Key]:
    """Give the graph of a collection's value, optimized by Dask, and the key of that."""
    from dask._expr import FinalizeCompute

    expr = FinalizeCompute(collections_to_expr([collection])).optimize()
    (key,) = flatten(expr.__dask_keys__())
    return expr, key


def get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Run a graph of Dask on a client that all such calls of this process share; see `DaskClient.get`.

    Within a task, on the client of that.
    """
    global _shared
    try:
        client = DaskClient(headrace.current_client())
    except headrace.UsageError:  # no task runs here
        with _sharing:
            if _shared is None:
                _shared = DaskClient()
                atexit.register(_shared.close)
        client = _shared
    return client.get(dsk, keys, **kwargs)


_shared: DaskClient | None = None
_sharing = threading.Lock()


def _like(model: Any, values: list[Any]) -> Any:
    """Make a list, tuple, named tuple or set of values."""
    return type(model)(*values) if hasattr(model, "_fields") else type(model)(values)

"""Dask's collections on headrace: `dask.config.set(scheduler=DaskClient())`, or `compute(scheduler=get)`."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dask._task_spec import Alias, DataNode, Dict, GraphNode, List, TaskRef, Tuple, convert_legacy_graph
from dask.base import collections_to_expr, flatten
from dask.callbacks import local_callbacks
from dask.local import nested_get

import headrace
from headrace.integrations._dask_callbacks import follow

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    Key = Hashable
    #: What stands for a task: its node, a ref of an earlier result, or the value itself.
    Place = Any


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
        translated = Translation(dsk, flatten([keys]), self.client, self._known)
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

    def _start(self, dsk: Any, keys: list[Key]) -> dict[Key, DaskFuture]:
        translated = Translation(dsk, keys, self.client, self._known)
        run = translated.submit()
        return {key: self._future(key, ref, run) for key, ref in translated.refs(run).items()}

    def _future(self, key: Key, ref: Any, run: headrace.Run | None = None) -> DaskFuture:
        future = self._known[key] = DaskFuture(key, ref, self.client, run)
        return future


class DaskFuture(TaskRef):  # type: ignore[misc]
    """A result that lives with the workers, by its key in a graph of Dask."""

    __dask_future__ = True
    __slots__ = ("__weakref__", "_client", "_run", "ref")

    def __init__(self, key: Key, ref: Any, client: headrace.Client, run: headrace.Run | None = None) -> None:
        super().__init__(key)
        self.ref = ref
        self._client = client
        self._run = run  # which knows why the ref has no value

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the value.

        Raises:
            TimeoutError: it is not there in time.
            Exception: what the task raised.
        """
        if not isinstance(self.ref, headrace.Ref):
            return self.ref
        try:
            return self._client.call(_same, self.ref).result(timeout)
        except headrace.UpstreamFailed as error:
            raise _root(error) from None

    def __repr__(self) -> str:
        return f"<DaskFuture {self.key!r}>"


class Translation:
    """A graph of Dask as one of headrace, and what stands for each of its keys."""

    def __init__(
        self,
        dsk: Any,
        keys: Iterable[Key],
        client: headrace.Client | None,
        known: Mapping[Key, DaskFuture],
        graph: headrace.Graph | None = None,
    ) -> None:
        raw, annotations = _materialized(dsk)
        self.client: Any = client
        by_reference = client is not None and client.mode != "processes"
        self.graph = headrace.Graph(by_reference=by_reference) if graph is None else graph
        self.places: dict[Key, Place] = {key: value.ref for key, value in raw.items() if isinstance(value, DaskFuture)}
        self.tasks: dict[Key, GraphNode] = convert_legacy_graph(raw)
        #: Keys of the tasks by their index in the graph.
        self.keys: list[Key] = []
        self._known = known
        self._wanted = dict.fromkeys(keys)
        self._options = _options(annotations)
        #: Functions with options, one for all tasks that have both in common.
        self._with_options: dict[tuple[int, str], Any] = {}
        for key in self._wanted:
            if not self._is_there(key) and key not in self.tasks:
                raise KeyError(key)
        for key in self._in_order():
            self._add(key, self.tasks[key])

    def submit(self, keep_all: bool = False) -> headrace.Run:
        """Start what there is to run."""
        places = map(self.places.__getitem__, self._wanted)
        kept = {place.index: place for place in places if isinstance(place, headrace.Node)}
        keep = self.graph.nodes if keep_all else list(kept.values())
        run: headrace.Run = self.client.submit(self.graph, keep=keep, on_error="stop")
        return run

    def values(self, run: headrace.Run) -> dict[Key, Any]:
        """Wait for the values of the wanted keys.

        Raises:
            Exception: what a task raised.
        """
        try:
            return {key: self._value(run, key) for key in self._wanted}
        except (headrace.UpstreamFailed, headrace.CancelledError) as error:
            # The others end soon, as the run stops at its first failure; one of them knows of that.
            nodes = [place for place in map(self.places.get, self._wanted) if isinstance(place, headrace.Node)]
            for failure in run.gather(*nodes, errors="return"):
                root = _root(failure) if isinstance(failure, BaseException) else error
                if not isinstance(root, headrace.UpstreamFailed | headrace.CancelledError):
                    raise root from None
            raise error

    def refs(self, run: headrace.Run) -> dict[Key, Any]:
        """Give a ref for each of the wanted keys, or its value if it is there already."""
        found = {key: self.places[key] for key in self._wanted}
        return {key: run.ref(place) if isinstance(place, headrace.Node) else place for key, place in found.items()}

    def _value(self, run: headrace.Run, key: Key) -> Any:
        place = self.places[key]
        if isinstance(place, headrace.Node):
            return run.result(place)
        return DaskFuture(key, place, self.client).result() if isinstance(place, headrace.Ref) else place

    def _in_order(self) -> Iterator[Key]:
        """Give the keys that are needed and have no place yet, each behind what it needs, depth first."""
        tasks, places = self.tasks, self.places
        begun: set[Key] = set()
        stack = list(reversed(self._wanted))
        while stack:
            key = stack[-1]
            if key in places:
                stack.pop()
            elif key in begun:
                stack.pop()
                yield key
            else:
                begun.add(key)
                needed = [other for other in tasks[key].dependencies if not self._is_there(other)]
                for other in needed:
                    if other in begun:
                        raise RuntimeError(f"the graph has a cycle, through {other!r}")
                    if other not in tasks:
                        raise KeyError(f"{other!r}, which {key!r} needs, is not in the graph")
                stack += needed

    def _is_there(self, key: Key) -> bool:
        """Whether something stands for a key already."""
        if key not in self.places and key not in self.tasks and (future := self._known.get(key)) is not None:
            self.places[key] = future.ref
        return key in self.places

    def _add(self, key: Key, task: GraphNode) -> None:
        if isinstance(task, DataNode):
            self.places[key] = task.value
        elif isinstance(task, Alias):
            self.places[key] = self.places[task.target]
        else:
            fn, args, kwargs = self._call(task)
            if (options := self._options.get(key)) is not None:
                same = id(fn), repr(options)
                if same not in self._with_options:
                    self._with_options[same] = headrace.task(fn, **options)
                fn = self._with_options[same]
            self.places[key] = self.graph.add(fn, *args, **kwargs)
            self.keys.append(key)

    def _call(self, task: Any) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
        """Give a function and its arguments, with places in those of keys."""
        try:
            args = [self._argument(value) for value in task.args]
            kwargs = task.kwargs and {name: self._argument(value) for name, value in task.kwargs.items()}
        except NestedCall:
            needed = list(task.dependencies)
            return evaluate, [task, needed, *map(self.places.__getitem__, needed)], {}
        return task.func, args, kwargs

    def _argument(self, value: Any) -> Any:
        kind = type(value)
        if kind is TaskRef:
            return self.places[value.key]
        if not isinstance(value, GraphNode):
            return value if kind is not DaskFuture else value.ref
        if kind is Alias:
            return self.places[value.target]
        if kind is DataNode:
            return value.value
        if kind is List:
            return [self._argument(part) for part in value.args]
        if kind is Tuple:
            return tuple(self._argument(part) for part in value.args)
        if kind is Dict:
            parts = iter([self._argument(part) for part in value.args])
            return dict(zip(parts, parts, strict=True))
        raise NestedCall


class NestedCall(Exception):  # noqa: N818
    """An argument is a call itself."""


def fill(graph: headrace.Graph, collection: Any) -> headrace.Node[Any]:
    """Add the tasks of a collection to a graph, and give the node of its value."""
    expr, key = _finalized(collection)
    place = Translation(expr, [key], None, {}, graph).places[key]
    return place if isinstance(place, headrace.Node) else graph.add(_same, place)


def _finalized(collection: Any) -> tuple[Any, Key]:
    """Give the graph of a collection's value, optimized by Dask, and the key of that."""
    from dask._expr import FinalizeCompute

    expr = FinalizeCompute(collections_to_expr([collection])).optimize()
    (key,) = flatten(expr.__dask_keys__())
    return expr, key


def evaluate(task: Any, keys: list[Key], *values: Any) -> Any:
    """Evaluate a node of Dask with calls among its arguments."""
    return task(dict(zip(keys, values, strict=True)))


def get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Run a graph of Dask on a client that all such calls of this process share; see `DaskClient.get`."""
    global _shared
    with _sharing:
        if _shared is None:
            _shared = DaskClient()
            atexit.register(_shared.close)
    return _shared.get(dsk, keys, **kwargs)


_shared: DaskClient | None = None
_sharing = threading.Lock()


def _root(error: BaseException) -> BaseException:
    """Give what a task raised itself that others did not run for."""
    while isinstance(error, headrace.UpstreamFailed) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _like(model: Any, values: list[Any]) -> Any:
    """Make a list, tuple, named tuple or set of values."""
    return type(model)(*values) if hasattr(model, "_fields") else type(model)(values)


def _same(value: Any) -> Any:
    return value


def _materialized(dsk: Any) -> tuple[dict[Key, Any], dict[str, dict[Key, Any]]]:
    """Give a graph as a dict, and its annotations: by their names and keys."""
    if not isinstance(dsk, Mapping):
        annotations = dsk.__dask_annotations__()
        return dict(dsk.__dask_graph__()), annotations
    annotations = {}
    for layer in getattr(dsk, "layers", {}).values():
        for name, value in (getattr(layer, "annotations", None) or {}).items():
            values = {key: value(key) if callable(value) else value for key in layer}
            annotations.setdefault(name, {}).update(values)
    return dict(dsk), annotations


def _options(annotations: dict[str, dict[Key, Any]]) -> dict[Key, dict[str, Any]]:
    """Give the options of tasks, by their keys. What headrace has no word for, such as `workers`, is left out."""
    options: dict[Key, dict[str, Any]] = {}
    for name in ("priority", "retries", "resources"):
        for key, value in annotations.get(name, {}).items():
            options.setdefault(key, {})[name] = value
    return options

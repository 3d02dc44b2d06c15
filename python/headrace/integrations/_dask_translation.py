"""Graphs of Dask as graphs of headrace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    List,
    TaskRef,
    Tuple,
    convert_legacy_graph,
    convert_legacy_task,
)

import headrace
from headrace.integrations._dask_steps import same, steps_of, take

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    Key = Hashable
    #: What stands for a task: its node, a ref of an earlier result, or the value itself.
    Place = Any
    Call = tuple[Callable[..., Any], list[Any], dict[str, Any]]

#: Types of arguments in Dask's old notation, a tuple of a function and its arguments, that are keys or values as they
#: are. Where there is another one, Dask makes a node of it.
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))


#: How many priorities the order of a graph may use.
_LEVELS = 64


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
            return self._client.call(same, self.ref).result(timeout)
        except headrace.UpstreamFailed as error:
            failure = error.__cause__ or error
        raise failure

    def __repr__(self) -> str:
        return f"<DaskFuture {self.key!r}>"


class Translation:
    """A graph of Dask as one of headrace, and what stands for each of its keys.

    Args:
        dsk: the graph, of any kind that Dask has.
        keys: those that are wanted.
        client: where it will run.
        known: refs of results of earlier graphs, which this one may name by their keys alone.
        graph: what to add to; by default a new one.

    Raises:
        KeyError: a key is not in the graph.
        RuntimeError: there is a cycle.

    Cost: some 4 µs a task, after what Dask takes to make its graph.
    """

    def __init__(
        self,
        dsk: Any,
        keys: Iterable[Key],
        client: headrace.Client | None,
        known: Callable[[Key], Any],
        graph: headrace.Graph | None = None,
    ) -> None:
        self._raw, annotations = _materialized(dsk)
        self.client: Any = client
        by_reference = client is not None and client.mode != "processes"
        self.graph = headrace.Graph(by_reference=by_reference) if graph is None else graph
        self.places: dict[Key, Place] = {}
        #: Keys of the tasks by their index in the graph.
        self.keys: list[Key] = []
        #: What their order adds to their priorities.
        self.levels: list[int] = []
        self._tasks: dict[Key, Any] = {}
        self._known = known
        self._wanted = dict.fromkeys(keys)
        for key, value in self._raw.items():
            if isinstance(value, DaskFuture):
                self.places[key] = value.ref
            else:
                self._tasks[key] = value
        try:
            order = headrace.depth_first(self._needs, self._wanted, levels=_LEVELS)
        except headrace.GraphError as error:
            raise RuntimeError(str(error)) from None  # as Dask does
        self._add_all(order, _options(annotations))

    @property
    def tasks(self) -> dict[Key, GraphNode]:
        """The graph as nodes of Dask."""
        nodes: dict[Key, GraphNode] = convert_legacy_graph(self._raw)
        return nodes

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
            failure = run.failure() or error  # which comes soon, as the run stops at its first failure
        raise failure

    def refs(self, run: headrace.Run) -> dict[Key, Any]:
        """Give a ref for each of the wanted keys, or its value if it is there already."""
        found = {key: self.places[key] for key in self._wanted}
        return {key: run.ref(place) if isinstance(place, headrace.Node) else place for key, place in found.items()}

    def _value(self, run: headrace.Run, key: Key) -> Any:
        place = self.places[key]
        if isinstance(place, headrace.Node):
            return run.result(place)
        return DaskFuture(key, place, self.client).result() if isinstance(place, headrace.Ref) else place

    def _needs(self, key: Key) -> Iterable[Key] | None:
        """Give what a task needs; None if something stands for it already. Each key is asked for once."""
        task = self._tasks.get(key)
        if type(task) is tuple and task and callable(task[0]):
            found = self._keys_in(task)
            if found is not None:
                return found
        if not isinstance(task, GraphNode):
            if key not in self._tasks:
                if key not in self.places:
                    self.places[key] = self._known(key)
                return None
            task = self._tasks[key] = convert_legacy_task(key, task, self._raw)
        if isinstance(task, DataNode) or not isinstance(task, GraphNode):
            self.places[key] = task.value if isinstance(task, DataNode) else task
            return None
        needed: frozenset[Key] = task.dependencies
        return needed if len(needed) < 2 else in_order(needed)

    def _keys_in(self, task: tuple[Any, ...]) -> list[Key] | None:
        """Give the keys among the arguments of a task in Dask's old notation; None if Dask has to look for them."""
        found, raw = [], self._raw
        for value in task[1:]:
            if type(value) not in _PLAIN:
                return None
            if value in raw:
                found.append(value)
        return found

    def _add_all(self, order: list[tuple[Key, int]], options: dict[Key, dict[str, Any]]) -> None:
        #: Functions with options, one for all tasks that have both in common.
        with_options: dict[tuple[int, str], Any] = {}
        raw, tasks, places, add = self._raw, self._tasks, self.places, self.graph.add
        has_levels = bool(order) and order[-1][1] < 0
        for key, priority in order:
            task = tasks[key]
            if type(task) is tuple:
                fn: Any = task[0]
                args = [places[value] if value in raw else value for value in task[1:]]
                kwargs: dict[str, Any] = {}
            elif isinstance(task, Alias):
                places[key] = places[task.target]
                continue
            else:
                fn, args, kwargs = self._call(task)
            if has_levels or (options and key in options):
                own = options.get(key, {})
                if has_levels:  # between two priorities of the user's
                    own = {**own, "priority": own.get("priority", 0) * _LEVELS + priority}
                same = id(fn), repr(own)
                if same not in with_options:
                    with_options[same] = headrace.task(fn, **own)
                fn = with_options[same]
            places[key] = add(fn, *args, **kwargs)
            self.keys.append(key)
            self.levels.append(priority)

    def _call(self, task: Any) -> Call:
        """Give a function and its arguments, with places in those of keys."""
        places, argument = self.places, self._argument
        try:
            if task.has_subgraph():
                raise SeveralCalls
            args = [places[value.key] if type(value) is TaskRef else argument(value) for value in task.args]
            kwargs = task.kwargs and {name: argument(value) for name, value in task.kwargs.items()}
        except SeveralCalls:
            needed = list(task.dependencies)
            return take, [steps_of(task, needed), *map(places.__getitem__, needed)], {}
        return task.func, args, kwargs

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, GraphNode):
            return value if not isinstance(value, TaskRef) else self.places[value.key]
        if isinstance(value, Alias):
            return self.places[value.target]
        if isinstance(value, DataNode):
            return value.value
        kind = type(value)
        if kind is List:
            return [self._argument(part) for part in value.args]
        if kind is Tuple:
            return tuple(self._argument(part) for part in value.args)
        if kind is Dict:
            parts = iter([self._argument(part) for part in value.args])
            return dict(zip(parts, parts, strict=True))
        raise SeveralCalls


class SeveralCalls(Exception):  # noqa: N818
    """A node stands for more than one call."""


def in_order(keys: frozenset[Key]) -> list[Key]:
    """Sort keys: neighbours in an array are often neighbours in time, and equal graphs shall have equal orders."""
    try:
        return sorted(keys)  # type: ignore[type-var]
    except TypeError:  # of several types
        return sorted(keys, key=str)


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
    """Give the options of tasks, by their keys. What headrace has no word for is left out."""
    options: dict[Key, dict[str, Any]] = {}
    for name in ("priority", "retries", "resources"):
        for key, value in annotations.get(name, {}).items():
            options.setdefault(key, {})[name] = value
    others = annotations.get("allow_other_workers", {})
    for turn, (key, names) in enumerate(annotations.get("workers", {}).items()):
        if not others.get(key):  # else it is but a wish
            options.setdefault(key, {})["worker"] = _worker(names, turn)
    return options


def _worker(names: Any, turn: int) -> int:
    """Give the number of one of the workers that an annotation names, of several each in its turn."""
    names = names if isinstance(names, list | tuple | set) else [names]
    try:
        numbers = sorted(map(int, names))
        return numbers[turn % len(numbers)]
    except (ValueError, TypeError, ZeroDivisionError):
        raise ValueError(
            f"the annotation workers={names!r} names no workers of headrace: they are numbered from 0"
        ) from None

"""Graphs of tasks."""

from __future__ import annotations

from _collections_abc import Sequence  # the rest of collections is not needed here

from headrace import _core
from headrace.errors import GraphError, UsageError

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from os import PathLike
    from typing import Any, TypeVar

    from headrace._core import Node

    T = TypeVar("T")

Sequence.register(_core.Nodes)

_MISSING: Any = object()

#: Most inputs that one task of `reduce` folds.
_ARITY_MAX = 65_536


class Graph(_core.Graph):
    """A graph of tasks: a value that grows by `add`, `map` and `reduce`, and is submitted as often as wanted.

    A task's arguments are captured when it is added, a function when the graph first sees it: changing them later
    changes nothing. Buffers of 1 MiB or more, as of arrays, are captured by `submit`, and must not change before.
    Nodes of earlier tasks may stand anywhere in the arguments; the function gets their results.

    Args:
        by_reference: keep arguments as the objects that they are instead of copying them. Such a graph runs in the
            modes "threads" and "sync" only, and nodes are found in lists, tuples and dicts but not inside objects.

    Cost: about 20 bytes a task and its encoded arguments; no object.
    """

    __slots__ = ()

    def reduce(
        self, fn: Callable[[T, T], T], nodes: Iterable[Node[T]], arity: int = 2, *, initial: T = _MISSING
    ) -> Node[T]:
        """Add a tree of tasks that folds the results of `nodes` with the binary function `fn`.

        Each task folds up to `arity` adjacent results from the left, and a lone leftover moves up without a task. The
        shape depends on the number of nodes alone, so `fn` need only be associative.

        Args:
            fn: a function of two arguments; an option `key` names the root of the tree.
            nodes: at least one, unless there is an `initial`.
            arity: how many results a task folds, at least 2.
            initial: a value that stands before the first result.

        Returns:
            The root of the tree; the node itself if there is only one.

        Raises:
            GraphError: there is nothing to fold.
        """
        if isinstance(arity, bool) or not isinstance(arity, int) or not 2 <= arity <= _ARITY_MAX:
            raise UsageError(f"arity must be an int from 2 to {_ARITY_MAX:,}, not {arity!r}")
        from headrace.steps import Fold, constant
        from headrace.task import Task

        options = dict(fn._options) if isinstance(fn, Task) else {}
        plain: Any = fn.__wrapped__ if isinstance(fn, Task) else fn
        step: Any = fn
        # The names are parameters of the function, and not of what calls it.
        if names := options.pop("writable", ()):
            from headrace.writable import WritableArguments

            plain = WritableArguments(plain, names)
        if arity > 2 and callable(plain):
            step = Task(Fold(plain), options)
        if not isinstance(nodes, (_core.Nodes, _core.Node)):
            nodes = list(nodes)
        if isinstance(nodes, Sequence) and not nodes:
            if initial is _MISSING:
                raise GraphError("reduce() of no nodes needs an initial value")
            step = Task(constant, options)
        return self._reduce(step, nodes, arity, None if initial is _MISSING else (initial,))

    def subgraph(self, nodes: Any) -> Graph:
        """Give the graph of some tasks and of everything that they need. Keys stay; nodes are new: `sub[node.key]`.

        Args:
            nodes: nodes, keys, and sequences of them.

        Cost: linear in the tasks of this graph.
        """
        culled = type(self)(by_reference=self.by_reference)
        culled._cull(self, nodes)
        return culled

    @classmethod
    def from_dict(cls, tasks: Mapping[Hashable, Any], /) -> Graph:
        """Make a graph of a mapping by Dask's convention.

        A value `(callable, *args)` is a task. An argument that equals a key stands for that task's result, also inside
        nested lists; a tuple that starts with a callable is a task of its own. Any other value is a constant, or
        another key's result under a second name. A key that is no text goes by its `str`.

        Raises:
            GraphError: tasks wait for each other in a cycle (it is named), or two keys have the same text.

        Cost: linear in the tasks and arguments; about 1 µs a task.
        """
        graph = cls()
        graph._fill(tasks if type(tasks) is dict else dict(tasks))
        return graph

    @classmethod
    def from_dask(cls, collection: Any, /) -> Graph:
        """Make a graph of a collection of Dask: an array, a dataframe, a bag, or what `dask.delayed` gives.

        Dask optimizes it first. Its one sink is the value of the collection. Persisted collections have no graph; use
        `headrace.integrations.dask.DaskClient` for those.

        Cost: what Dask takes to make and optimize its graph, and some 4 µs a task.
        """
        from headrace.integrations.dask import fill

        graph = cls()
        fill(graph, collection)
        return graph

    @classmethod
    def from_wfformat(cls, source: str | PathLike[str] | Mapping[str, Any], /, *, time_scale: float = 0.0) -> Graph:
        """Make a graph of a workflow in WfFormat 1.5, in which each task stands in for its recorded program.

        Args:
            source: a file (`.json` or `.json.gz`), or its parsed content.
            time_scale: a task takes this times its recorded runtime; 0 runs as fast as possible.

        Returns:
            A graph whose keys are the ids of the tasks. A result is a hash over the task's id and the hashes of its
            parents.

        Raises:
            GraphError: the file is not a workflow that can be run; the text names the task at fault.
        """
        from headrace.formats.wfformat import load

        return load(cls, source, time_scale=time_scale)

    def __repr__(self) -> str:
        tasks, edges, functions, sinks = self._counts()
        counts = (_count(tasks, "task"), _count(edges, "edge"), _count(functions, "function"), _count(sinks, "sink"))
        return f"<Graph: {', '.join(counts)}>"

    def _repr_html_(self) -> str:
        names = ("tasks", "edges", "functions", "sinks")
        head = "".join(f"<th>{name}</th>" for name in names)
        cells = "".join(f"<td>{count:,}</td>" for count in self._counts())
        return f"<table><caption>Graph</caption><tr>{head}</tr><tr>{cells}</tr></table>"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

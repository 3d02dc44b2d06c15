"""What the local engine runs: the tasks of graphs, and single calls. Nothing is encoded that was not already."""

from __future__ import annotations

import threading
import time
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from headrace._core import ExternalRef, Node, Nodes
from headrace.errors import GraphError, UsageError
from headrace.pickling import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace.graph import Graph
    from headrace.options import Policy
    from headrace.runs import Run

#: The run of single calls.
CALLS = 0

#: How a task ended; names of counts.
Ending = Literal["done", "failed", "skipped", "cancelled"]


class Counts:
    """How far a run is."""

    def __init__(self, workers: int) -> None:
        self.leased = self.done = self.failed = self.skipped = self.cancelled = 0
        self.retries = self.timeouts = 0
        self.finished_by = [0] * workers
        self.busy_s = [0.0] * workers
        self.start_s = time.monotonic()
        self.first_s = 0.0
        self.end_s = 0.0

    @property
    def ended(self) -> int:
        """Tasks that have ended, however."""
        return self.done + self.failed + self.skipped + self.cancelled

    def note_lease(self) -> None:
        """Count a task that starts."""
        self.leased += 1
        self.first_s = self.first_s or time.monotonic()

    def note_end(self, ending: Ending) -> None:
        """Count a task that has ended."""
        setattr(self, ending, getattr(self, ending) + 1)


class Batch(Protocol):
    """The tasks of one run."""

    run: int
    counts: Counts
    #: Whether it is to stop once a task has failed.
    stops: bool

    def depth(self, index: int) -> int:
        """Say how deep a task is: one more than the task that has submitted it; 0 for what no task has."""

    @property
    def total(self) -> int:
        """Tasks of the run so far."""

    def slot(self, index: int) -> int:
        """Give the kernel's number of a task that it still knows."""

    def find(self, index: int) -> int | None:
        """Give the kernel's number of a task, if it still knows it."""

    def slots(self) -> Iterable[int]:
        """Give the kernel's numbers of all tasks that it still knows."""

    def forget(self, index: int) -> None:
        """Note that the kernel does not know a task any more."""

    def finish(self, index: int) -> None:
        """Note that a task has ended and never runs again."""

    @property
    def over(self) -> bool:
        """Whether the run was released and the kernel knows none of its tasks."""

    def keeps(self, index: int) -> bool:
        """Say whether somebody may read the result of a task."""

    def let_go(self, index: int | None) -> Iterable[int]:
        """Let go of one result that the run keeps, or of all; give those that it still kept."""

    def key(self, index: int) -> str:
        """Give the key of a task."""

    def body(self, index: int) -> Callable[[list[Any]], Any]:
        """Give what runs a task, given the results of its predecessors."""

    def policy(self, index: int) -> tuple[Policy, Callable[..., Any]] | None:
        """Give what the options of a task ask for, and what it calls; None if they ask for nothing."""

    def hurried(self) -> list[int]:
        """Give the kernel's numbers of new tasks that may not stand ready for ever."""


class GraphBatch:
    """The tasks of a graph."""

    def __init__(self, run: Run, graph: Graph, workers: int, stops: bool, depth: int) -> None:
        self.run = run.number
        self.stops = stops
        self._depth = depth
        self.counts = Counts(workers)
        self.total = run._tasks
        self.kept = dict.fromkeys(run._keep)
        self.key = run.graph._key
        self._graph = graph
        self._has_policies = graph._has_policies
        self._slots: list[int | None] = []
        self._known = 0
        self._released = False

    def depth(self, index: int) -> int:
        """Say how deep a task is."""
        return self._depth

    def enter(self, slots: list[int]) -> None:
        """Take note of the kernel's numbers of all tasks."""
        self._slots[:] = slots
        self._known = len(slots)

    def slot(self, index: int) -> int:
        """Give the kernel's number of a task that it still knows."""
        slot = self._slots[index]
        assert slot is not None, "a result that is held is known to the kernel"
        return slot

    def find(self, index: int) -> int | None:
        """Give the kernel's number of a task, if it still knows it."""
        return self._slots[index]

    def slots(self) -> Iterator[int]:
        """Give the kernel's numbers of all tasks that it still knows."""
        return (slot for slot in self._slots if slot is not None)

    def forget(self, index: int) -> None:
        """Note that the kernel does not know a task any more."""
        self._slots[index] = None
        self._known -= 1

    def finish(self, index: int) -> None:
        """Keep what the task takes: it belongs to the graph."""

    @property
    def over(self) -> bool:
        """Whether the run was released and the kernel knows none of its tasks."""
        return self._released and not self._known

    def keeps(self, index: int) -> bool:
        """Say whether somebody may read the result of a task."""
        return index in self.kept

    def let_go(self, index: int | None) -> Iterable[int]:
        """Let go of one result that is kept, or of all; give those that were."""
        self._released |= index is None
        gone = list(self.kept) if index is None else [index] if index in self.kept else []
        for kept in gone:
            del self.kept[kept]
        return gone

    def body(self, index: int) -> Callable[[list[Any]], Any]:
        """Give what runs a task, given the results of its predecessors."""

        def execute(inputs: list[Any]) -> Any:
            fn, (args, kwargs) = self._graph._bind(index, inputs, _pack)
            return check_result(self.key(index), fn(*args, **kwargs))

        return execute

    def policy(self, index: int) -> tuple[Policy, Callable[..., Any]] | None:
        """Give what the options of a task ask for, and what it calls; None if they ask for nothing."""
        return self._graph._policy(index) if self._has_policies else None

    def hurried(self) -> list[int]:
        """Give the kernel's numbers of new tasks that may not stand ready for ever."""
        hurried = self._graph._hurried() if self._has_policies else []
        return [self.slot(index) for index in hurried if index < self.total]


class CallBatch:
    """The single calls. Each is held by its future, and forgotten with it."""

    run = CALLS
    over = False
    stops = False

    def __init__(self, workers: int) -> None:
        self.counts = Counts(workers)
        self.total = 0
        self._calls: dict[int, tuple[int, Call]] = {}

    def depth(self, index: int) -> int:
        """Say how deep a task is."""
        return self._calls[index][1].depth

    def enter(self, index: int, slot: int, call: Call) -> None:
        """Take note of a new call."""
        self._calls[index] = slot, call
        self.total += 1
        self._newest = slot, call

    def slot(self, index: int) -> int:
        """Give the kernel's number of a task that it still knows."""
        return self._calls[index][0]

    def find(self, index: int) -> int | None:
        """Give the kernel's number of a task, if it still knows it."""
        return self._calls[index][0] if index in self._calls else None

    def slots(self) -> Iterator[int]:
        """Give the kernel's numbers of all tasks that it still knows."""
        return (slot for slot, _ in list(self._calls.values()))

    def forget(self, index: int) -> None:
        """Note that the kernel does not know a task any more."""
        del self._calls[index]

    def finish(self, index: int) -> None:
        """Let go of what the call took."""
        if index in self._calls:
            self._calls[index][1].let_go()

    def keeps(self, index: int) -> bool:
        """Say whether somebody may read the result of a task."""
        return True

    def let_go(self, index: int | None) -> Iterable[int]:
        """Let go of one result that is kept, or of all; give those that were."""
        return () if index is None or index not in self._calls else (index,)

    def key(self, index: int) -> str:
        """Give the key of a task."""
        return self._calls[index][1].key or ""

    def body(self, index: int) -> Callable[[list[Any]], Any]:
        """Give what runs a task, given the results of its predecessors."""
        return self._calls[index][1].execute

    def policy(self, index: int) -> tuple[Policy, Callable[..., Any]] | None:
        """Give what the options of a task ask for, and what it calls; None if they ask for nothing."""
        return self._calls[index][1].policy

    def hurried(self) -> list[int]:
        """Give the kernel's numbers of new tasks that may not stand ready for ever."""
        slot, call = self._newest
        return [slot] if call.policy is not None and call.policy[0][5] > 0 else []


class Attempt:
    """One try of a task, with all that it takes: the engine may forget the task while it runs."""

    __slots__ = (
        "attempt", "batch", "below", "cancelled", "depth", "execute", "failures", "fn", "index", "inputs", "is_final",
        "key", "overdue", "policy", "seat", "slot", "started_s", "thread", "worker",
    )  # fmt: skip

    def __init__(
        self, batch: Batch, index: int, slot: int, attempt: int, failures: int, worker: int, inputs: list[Any]
    ) -> None:
        self.batch = batch
        self.index = index
        self.key = batch.key(index)
        self.execute = batch.body(index)
        self.policy: Policy | None
        self.fn: Callable[..., Any] | None
        self.policy, self.fn = batch.policy(index) or (None, None)
        self.slot = slot
        self.attempt = attempt
        self.failures = failures
        self.worker = worker
        #: The worker as people know it, and how many attempts wait below this one on its thread.
        self.seat = worker
        self.below = 0
        self.depth = batch.depth(index)
        self.inputs = inputs
        #: Whether it counts no more: it was cancelled, or has failed before it came to its end.
        self.cancelled = False
        #: Whether it runs for longer than it may.
        self.overdue = False
        #: When it was leased, and the thread that did so and runs it.
        self.started_s = time.monotonic()
        self.thread = threading.get_ident()
        #: Whether its failure is worth no retry.
        self.is_final = False

    @property
    def is_unwanted(self) -> bool:
        """Whether it had better end."""
        return self.cancelled or self.overdue


class Call:
    """A function with its arguments, which are the objects that the caller gave.

    Futures and refs are found in lists, tuples and dicts at any depth, but not inside other objects.
    """

    def __init__(
        self, session: int, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], depth: int
    ) -> None:
        self.depth = depth
        self._fn, self.name, self.key, self.priority, self.worker, _, policy = describe(fn, "call")
        self.policy = None if policy is None else (policy, self._fn)
        self._args = args
        self._kwargs = kwargs
        self._cited: dict[tuple[int, int], ExternalRef] = {}
        self._around: set[int] = set()
        self._find((args, kwargs))
        for ref in self._cited.values():
            if ref.session != session:
                raise UsageError(
                    f"call({self.name}): {ref!r} belongs to another client; pass the value itself or use that client"
                )
        self.inputs = list(self._cited)

    def let_go(self) -> None:
        """Forget the function and the arguments: they may be costly, or somebody waits for their end."""
        del self._fn, self._args, self._kwargs, self._cited, self.inputs
        self.policy = None

    def execute(self, inputs: list[Any]) -> Any:
        """Call the function, with results in the places of futures and refs."""
        args, kwargs = self._args, self._kwargs
        if self._cited:
            results = dict(zip(self.inputs, inputs, strict=True))
            try:
                args, kwargs = self._fill(args, results), self._fill(kwargs, results)
            except RecursionError:
                text = f"call({self.name}): a future or ref lies too deep among its arguments, or in a cycle of them"
                raise UsageError(text) from None
        return check_result(self.key or "", self._fn(*args, **kwargs))

    def _find(self, root: tuple[Any, ...]) -> None:
        """Enter every future and ref, and the containers around them, which `_fill` makes anew."""
        outer: dict[int, list[int]] = {id(root): []}  # of each container, those that it is in
        stack: list[Any] = [root]
        while stack:
            container = stack.pop()
            for part in _parts(container):
                if isinstance(part, (Node, Nodes)):
                    raise GraphError(
                        f"call({self.name}): {part!r} is part of a graph; submit the graph and pass the result by "
                        "reference: `run.ref(node)` can be an argument of any graph or call"
                    )
                if isinstance(part, ExternalRef):
                    self._cited[part.run, part.index] = part
                elif type(part) in (list, tuple, dict):
                    if id(part) not in outer:
                        stack.append(part)
                    outer.setdefault(id(part), []).append(id(container))
                if isinstance(part, ExternalRef) or id(part) in self._around:
                    self._mark(id(container), outer)
        self._around.discard(id(root))

    def _mark(self, container: int, outer: dict[int, list[int]]) -> None:
        waiting = [container]
        while waiting:
            inner = waiting.pop()
            if inner not in self._around:
                self._around.add(inner)
                waiting += outer[inner]

    def _fill(self, value: Any, results: dict[tuple[int, int], Any]) -> Any:
        if issubclass(type(value), ExternalRef):  # without a question to the object itself, which may raise
            return results[value.run, value.index]
        if id(value) not in self._around:
            return value  # the very object
        if type(value) is dict:
            return {self._fill(key, results): self._fill(part, results) for key, part in value.items()}
        return type(value)(self._fill(part, results) for part in value)


def _pack(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def _parts(value: Any) -> Iterable[Any]:
    return [*value.keys(), *value.values()] if type(value) is dict else value


def check_result(key: str, result: Any) -> Any:
    """Refuse a result that consumers cannot share."""
    if type(result) in (GeneratorType, CoroutineType, AsyncGeneratorType):
        from headrace.worker import result_error

        raise result_error(key, TypeError(f"cannot share {type(result).__name__!r} object"), result)
    return result

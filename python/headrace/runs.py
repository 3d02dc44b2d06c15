"""A submitted graph: its results, its end, its state."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace._core import Node, RunCore
from headrace.errors import CancelledError, UpstreamFailed, UsageError
from headrace.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from headrace._core import ClientCore
    from headrace.client import Client, Keep
    from headrace.completions import Completions
    from headrace.graph import Graph
    from headrace.refs import Ref
    from headrace.statistics import Progress, RunStatistics
    from headrace.why import Why

T = TypeVar("T")

#: Of a run of which nothing is said beyond its graph.
DEFAULT_TERMS = Terms()


class Run(RunCore):
    """A submitted graph, from `client.submit`. The graph was copied: what is added to it later belongs to later runs.

    Results can be read until `release` or until the run is collected; its tasks run in any case. `result`, `results`,
    `done` and `release` are native and inherited.
    """

    __slots__ = ("_client", "_last", "_terms")

    def __init__(
        self,
        client: Client,
        core: ClientCore,
        graph: Graph,
        keep: Any,
        terms: Terms = DEFAULT_TERMS,
        anew: Graph | None = None,
    ) -> None:
        self._client = client
        self._terms = terms
        self._last: RunStatistics | None = None

    def wait(self, timeout: float | None = None, progress: bool = False) -> bool:
        """Wait until every task has ended, however: errors of tasks are not raised here.

        Args:
            timeout: seconds to wait at most; None waits for ever.
            progress: show live progress meanwhile, in a terminal or notebook.

        Returns:
            Whether the run has ended.
        """
        if not progress:
            return self._wait_end(timeout)
        from headrace.progress import wait_and_show

        return wait_and_show(self, timeout)

    def as_completed(self, errors: Literal["raise", "return"] = "raise", release: bool = False) -> Completions:
        """Give `(node, value)` of each kept task as it ends; to be iterated with `for` or `async for`.

        Args:
            errors: "raise" raises the error of a failed task in its turn (the next step goes on with the next task);
                "return" gives the exception in place of the value.
            release: let go of each result once it was given, so that a long run needs no memory for all.

        Cost: linear in the kept tasks, whatever the order in which they end.
        """
        from headrace.completions import Completions

        return Completions(self, errors, release)

    def cancel(self, nodes: Keep | None = None) -> None:
        """Cancel tasks that have not ended, with all that depends on them.

        Their results are settled at once, so `wait` returns soon. What was running is interrupted, and may go on for a
        while: in worker processes until it lets the interrupt through or its worker is ended after `Client(grace_s=…)`,
        on threads until it returns.

        Args:
            nodes: a node, a key, or any nesting of sequences of them; kept or not. By default every task of the run.

        Raises:
            GraphError: the run has no such task. Nothing was cancelled.
        """
        indices = None if nodes is None else [self._index(node) for node in flat(nodes)]
        self._client._engine.cancel(self.number, indices)

    def gather(
        self,
        *nodes: Keep,
        errors: Literal["raise", "return"] = "raise",
        timeout: float | None = None,
    ) -> list[Any]:
        """Wait for kept tasks, and give their results in order.

        Args:
            *nodes: nodes or keys; a sequence of them stands for the list of their results. By default all kept ones.
            errors: "raise" raises the exception of the first of them that gave no value; the others go on. "return"
                gives exceptions in the places of values.
            timeout: seconds to wait at most for all of them; None waits for ever.

        Raises:
            NotKept: the run does not keep one of these results.
            ResultReleased: it was let go of.
            TimeoutError: they have not all ended in time; they go on.
        """
        from headrace.gathering import check_errors, countdown

        check_errors(errors)
        left_s = countdown(timeout)

        def read(wanted: Any) -> Any:
            if not isinstance(wanted, Node | str) and hasattr(wanted, "__iter__"):
                return [read(part) for part in wanted]
            value, error = self._wait_outcome(self._index(wanted), left_s())
            if error is not None and errors == "raise":
                raise error
            return value if error is None else error

        return [read(node) for node in (nodes or map(self._node, self._keep))]

    def failure(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end of the run, and tell what went wrong in it first.

        That is the exception of the first task that failed by itself, kept or not, and not what others ended with
        because of that. Where tasks were only skipped, it is that of the task of another run for which they were.

        Args:
            timeout: seconds to wait at most; None waits for ever.

        Returns:
            The exception; None if no task failed. A task that was cancelled has not failed, and of one that was let go
            of nothing is known.

        Raises:
            TimeoutError: the run has not ended in time; it goes on.
            ResultReleased: this run was released.
        """
        if not self._wait_end(timeout):
            raise TimeoutError(f"run {self.number} has not ended within {timeout} s")
        found: BaseException | None = None
        for error in map(self._ending, self._ended_badly()):
            if isinstance(error, UpstreamFailed):
                found = found or error.__cause__ or error
            elif not isinstance(error, CancelledError):
                return error
        return found

    def resubmit(self, failed_only: bool = True) -> Run:
        """Submit the graph of this run once more, to make good what did not end well.

        Args:
            failed_only: run only the tasks that failed, were skipped or cancelled, or whose results were let go of, and
                what these need and this run does not keep. All other kept results are those of this run. False runs
                every task again.

        Returns:
            A run of the same graph, with the same nodes, keep set, priority and failure policy; a deadline counts anew.
            Tasks that need not run count as done in it. It keeps its results by itself: this run may be released.

        Raises:
            ResultReleased: this run was released.
            UsageError: it has not ended; wait for it, or cancel it.

        Cost: linear in the tasks of the graph; those that need not run are small tasks that do nothing.
        """
        if not self.done():
            raise UsageError(f"run {self.number} has not ended; wait for it or cancel it, then resubmit it")
        again, taken = self._plan_again() if failed_only else (list(range(self._tasks)), [])
        graph = self.graph
        anew = type(graph)(by_reference=graph.by_reference)
        anew._again(graph, self._tasks, again, [(index, self.ref(self._node(index))) for index in taken])
        return self._client._submit(graph, [self._node(index) for index in self._keep], self._terms, anew)

    def ref(self, node: Node[T]) -> Ref[T]:
        """Name a kept result, to be an argument of any graph or call of the same client.

        Raises:
            NotKept: the run does not keep this result.
            ResultReleased: the run was released.
        """
        from headrace.refs import Ref

        index, key = self._hold(node)
        return Ref(self._client._core, self.number, index, self._client, key)

    def why(self, node: Node[Any] | str, *, stacks: bool = False) -> Why:
        """Tell where a task is and what it waits for: tasks, resources and tags with their holders, a worker, memory.

        Args:
            node: the task, or its key; it need not be kept.
            stacks: add the Python stacks of the process that runs it, which answers even if it hangs in native code.

        Returns:
            A record; `str` of it is a text for people.

        Raises:
            GraphError: the run has no such task.

        Cost: one message to the broker and its answer; with `stacks` some 30 ms more.
        """
        from headrace.why import ended

        index = self._index(node)
        key = self.graph._key(index)
        found = self._client._engine.why(self.number, index, stacks)
        return ended(key, lambda: self._ending(index)) if found is None else found._replace(key=key)

    def logs(self, node: Node[Any] | str) -> str:
        """Give what a task has written so far to standard output and error, while it runs or however it ended.

        All that Python code of the task writes is here, of all its attempts, complete once its end is known. What
        native code and child processes write counts as that of the task that executes when it comes.

        Args:
            node: the task, or its key; it need not be kept.

        Returns:
            The last 64 KiB, both streams as they came; a first line says how much came before. A client keeps 64 MiB of
            all tasks together, of which whole logs go first, the oldest. They are kept until `release`.

        Raises:
            GraphError: the run has no such task.
            ResultReleased: the run was released.
            UsageError: tasks run in this process (modes "threads" and "sync") and write to its own streams.

        Cost: a copy of the log.
        """
        from headrace.logs import read_log

        index = self._index(node)
        return read_log(self._client._core, self.number, index, self.graph._key(index))

    def rerun_local(self, node: Node[T] | str, *, pdb: bool = False) -> T:
        """Run one task again in this process, with the inputs that it had: to debug it, or to see it fail here.

        The inputs are the results that the run keeps, and those of refs and futures; nothing else is computed again.
        The run itself stays as it is.

        Args:
            node: the task, or its key; it need not be kept, and need not have failed.
            pdb: stop in the debugger before the first line of its function.

        Returns:
            What its function returns.

        Raises:
            NotKept: an input is not here. The text says what to keep.
            UpstreamFailed: an input failed, so there is nothing to run the task with.
            Exception: whatever the function raises, with its traceback.

        Cost: waits for inputs that have not ended; their values as by `result`.
        """
        from headrace.rerun import rerun_local

        value: T = rerun_local(self, node, pdb)
        return value

    def statistics(self) -> RunStatistics:
        """Give a snapshot: tasks by state, times, workers. Cost: one message to the broker and its answer."""
        found = self._client._engine.statistics(self.number)
        if found is None or found.progress.total < self._tasks:
            # The broker is gone, or has forgotten a run of which nothing is left.
            found = self._last_known(found)
        self._last = found
        return found

    def progress(self) -> Progress:
        """Give the tasks by state, now. Cost: as `statistics`."""
        return self.statistics().progress

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """Wait for the end within an event loop, and give the kept results as `results` does."""
        yield from self._event().__await__()
        return self.results()

    async def _event(self, seen: int | None = None) -> None:
        """Wait within an event loop for the run's end or, given `seen`, for more than that many kept results."""
        import asyncio  # 30 ms, and loaded already by whoever awaits

        loop = asyncio.get_running_loop()
        happened = loop.create_future()

        def tell() -> None:
            if not happened.done():
                happened.set_result(None)

        self._client._dispatcher.watch(safely(loop.call_soon_threadsafe, tell), self.number, seen=seen)
        await happened

    def _last_known(self, found: RunStatistics | None) -> RunStatistics:
        """Give what was told of the run, and for the rest what the broker said last."""
        from headrace.statistics import RunStatistics

        last = found or self._last or RunStatistics(0, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
        told = self._counts()
        if told is None:
            return last
        tasks, ended, failed, skipped, cancelled = told
        done = ended - failed - skipped - cancelled
        return last._replace(
            waiting=tasks - ended, ready=0, leased=0, done=done, failed=failed, skipped=skipped, cancelled=cancelled
        )

    def __repr__(self) -> str:
        from headrace.progress import describe

        if self._client._core.forked:
            return f"<Run {self.number}: of the parent process>"
        statistics = self.statistics()
        state = "released" if statistics.progress.total < self._tasks else describe(statistics)
        return f"<Run {self.number}: {state}>"

    def _repr_html_(self) -> str:
        from headrace.progress import html

        return html(f"Run {self.number}", self.statistics())


def flat(nodes: Keep) -> Iterator[Node[Any] | str]:
    """Give the nodes and keys in any nesting of sequences of them."""
    if isinstance(nodes, Node | str) or not hasattr(nodes, "__iter__"):
        yield nodes  # type: ignore[misc]  # what is neither is found out by whoever looks for it
    else:
        for part in nodes:
            yield from flat(part)


def safely(call_soon: Callable[[Callable[[], None]], object], fn: Callable[[], None]) -> Callable[[], None]:
    """Let a loop that was closed meanwhile not disturb the thread that calls it."""

    def call() -> None:
        with suppress(RuntimeError):
            call_soon(fn)

    return call

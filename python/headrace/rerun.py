"""A task of a run once more, in this process: for a debugger, or a look at its exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.current import Current, running
from headrace.errors import NotKept, ResultReleased, UsageError
from headrace.failures import skipped
from headrace.futures import Future
from headrace.steps import constant, item

if TYPE_CHECKING:
    from headrace._core import ExternalRef
    from headrace.runs import Run

#: Missing inputs that are named.
NAMED_MAX = 5


def rerun_local(run: Run, node: object, pdb: bool) -> Any:
    """Run a task of a run here; see `Run.rerun_local`."""
    index = run._index(node)
    key = run.graph._key(index)
    inputs = Inputs(run, key)
    values = inputs.of(index)
    inputs.check()
    fn, (args, kwargs) = run.graph._bind(index, values, _pack)
    with running(Current(key, 0, 0, 0, lambda: False, lambda: run._client)):
        if not pdb:
            return fn(*args, **kwargs)
        from pdb import runcall

        return runcall(fn, *args, **kwargs)


class Inputs:
    """Fetches what a task takes."""

    def __init__(self, run: Run, key: str) -> None:
        self._run = run
        self._key = key
        #: Keys of tasks whose results are not here.
        self.missing: list[str] = []

    def of(self, index: int) -> list[Any]:
        """Give the results that a task cites, in that order; waits for those that have not ended."""
        return [
            self._result(cited) if isinstance(cited, int) else self._external(cited)
            for cited in self._run.graph._inputs(index)
        ]

    def check(self) -> None:
        """Raise `NotKept` if results are missing."""
        if self.missing:
            named = ", ".join(map(repr, self.missing[:NAMED_MAX]))
            more = len(self.missing) - NAMED_MAX
            raise NotKept(
                f"task {self._key!r} cannot run here without its inputs: the run does not keep {named}"
                + (f" and {more} more" if more > 0 else "")
                + "; name them in submit(graph, keep=[...]) and run the graph again"
            )

    def _result(self, index: int) -> Any:
        graph = self._run.graph
        try:
            return self._run.result(self._run._node(index))
        except (NotKept, ResultReleased):
            # What takes a tuple apart, or carries a constant, is no task of the user's: it costs nothing to do again.
            cited = graph._inputs(index)
            fn, _ = graph._bind(index, [None] * len(cited), _pack)
            if fn not in (constant, item):
                self.missing.append(graph._key(index))
                return None
            values = self.of(index)
            if self.missing:
                return None
            fn, (args, kwargs) = graph._bind(index, values, _pack)
            return fn(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise skipped(self._key, graph._key(index), error) from error

    def _external(self, ref: ExternalRef) -> Any:
        key: str = ref.key  # type: ignore[attr-defined]  # futures and refs have one
        try:
            # The value of a ref may be with the broker alone: a task brings it.
            future = ref if isinstance(ref, Future) else self._run._client.call(constant, ref)
            return future.result()
        except (UsageError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise skipped(self._key, key, error) from error


def _pack(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs

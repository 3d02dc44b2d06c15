"""Results of a run in the order in which they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError, UsageError

if TYPE_CHECKING:
    from headrace._core import Node
    from headrace.runs import Run


class Completions:
    """What `run.as_completed` gives: an iterator, in both kinds of loops. It goes on after an error."""

    def __init__(self, run: Run, errors: str, release: bool) -> None:
        if errors not in ("raise", "return"):
            raise UsageError(f"errors takes 'raise' or 'return', not {errors!r}")
        self._run = run
        self._raise = errors == "raise"
        self._release = release
        self._left = run._kept
        self._position = 0

    def __iter__(self) -> Completions:
        return self

    def __next__(self) -> tuple[Node[Any], Any]:
        if not self._left:
            raise StopIteration
        arrival = self._next_arrival(None)
        assert arrival is not None
        return self._take(arrival)

    def __aiter__(self) -> Completions:
        return self

    async def __anext__(self) -> tuple[Node[Any], Any]:
        if not self._left:
            raise StopAsyncIteration
        while (arrival := self._next_arrival(0)) is None:
            await self._run._event(self._position)
        return self._take(arrival)

    def _next_arrival(self, timeout: float | None) -> tuple[int, int] | None:
        try:
            return self._run._next_arrival(self._position, timeout)
        except HeadraceError:
            self._left = 0  # nothing more will come
            raise

    def _take(self, arrival: tuple[int, int]) -> tuple[Node[Any], Any]:
        self._position, index = arrival
        self._left -= 1
        value, error = self._run._outcome(index)
        if self._release:
            self._run._release_one(index)
        if isinstance(error, StopIteration | StopAsyncIteration) and self._raise:
            # Raised as it is, it would end the loop over the results in silence (PEP 479 treats generators alike).
            raise RuntimeError(f"a task raised {type(error).__name__}") from error
        if error is not None and self._raise:
            raise error
        return self._run._node(index), value if error is None else error

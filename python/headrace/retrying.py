"""Which failures are worth a retry: the option `retry_on`, asked where the task runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.pickling import describe_error, dump_function, function_name, load_function

if TYPE_CHECKING:
    from collections.abc import Callable

    RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], object]


class Retried:
    """A function, and which of its failures are worth another attempt.

    Both travel together. The function's pickle is read at the first call, so that `retry_on` is asked about failures of
    that as well.
    """

    def __init__(self, fn: Callable[..., Any] | None, retry_on: RetryOn, pickle: bytes = b"") -> None:
        self.fn = fn
        self.retry_on = retry_on
        self._pickle = pickle
        if fn is not None:
            self.__name__ = function_name(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        if self.fn is None:
            try:
                self.fn = load_function(self._pickle)
            except Exception as error:
                error.add_note("raised while headrace loaded the function in the worker")
                raise
        return self.fn(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._pickle if self.fn is None else dump_function(self.fn), self.retry_on)


def _restore(pickle: bytes, retry_on: RetryOn) -> Retried:
    return Retried(None, retry_on, pickle)


def is_worth_a_retry(fn: object, error: BaseException) -> bool:
    """Say whether a failure of a task that calls `fn` is worth another attempt, should there be one left.

    What the option `retry_on` raises itself is noted on the failure, which is final then.
    """
    if type(fn) is not Retried:
        return True
    try:
        if isinstance(fn.retry_on, (type, tuple)):
            return isinstance(error, fn.retry_on)
        return bool(fn.retry_on(error))
    except BaseException as problem:
        from headrace.notes import add_note

        text = f"{type(problem).__name__}: {describe_error(problem)}"
        add_note(error, f"headrace: not tried again, because retry_on itself raised {text}")
        return False

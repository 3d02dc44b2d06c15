"""Task objects: an ordinary function, and how its tasks are to be run."""

from __future__ import annotations

from types import GenericAlias, MethodType

from headrace.errors import UsageError
from headrace.options import check_options

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, ParamSpec, TypeVar, overload

    P = ParamSpec("P")
    R = TypeVar("R")
else:
    P = R = None

    class Generic:
        """Stands in for the one of typing."""

        __class_getitem__ = classmethod(GenericAlias)


class Task(Generic[P, R]):
    """A function with options for its tasks. Called, it is the function.

    Made by `hr.task`; `task.__wrapped__` is the function.
    """

    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        from functools import update_wrapper

        check_options(options)
        if "writable" in options:
            from headrace.writable import checked_names

            options = {**options, "writable": checked_names(fn, options["writable"])}
        update_wrapper(self, fn)
        if not hasattr(self, "__name__"):  # a partial, or an instance with `__call__`
            self.__name__ = type(fn).__name__
        self._options = options
        self._called: Callable[P, R] | None = None

    def options(self, **options: Any) -> Task[P, R]:
        """Give a copy of this task object with some options changed.

        Args:
            **options: any of these.
                key: key of the task, unique in its graph; by default `name-index`.
                priority: tasks with a higher one run first; by default 0.
                worker: number of the worker that must run it; by default any may.
                nout: number of items into which unpacking its node splits the result.
                writable: name of a parameter, or a tuple of names. The task may write to what it gets there, in place,
                    and nobody else sees it; of shared memory only the pages that it writes to are copied.
                retries: how often a failed attempt is followed by another one; by default 0.
                retry_on: which failures are worth it: a class of exceptions, a tuple of them, or a function of the
                    exception that says so. By default any.
                backoff: seconds before the first retry; each further pause is twice as long, up to a minute. Or a pair:
                    the first and the longest pause. By default 0.
                timeout_s: seconds that an attempt may run.
                queue_timeout_s: seconds that the task may stand ready until a worker takes it.
                speculative: whether an idle worker may try the task, too, once it has been running for long; the first
                    attempt that ends well counts, and the other is cancelled. By default False.
                resources: how much it needs of what while it runs, such as `{"gpu": 1, "memory": "4GiB"}`.
                tags: a name, or a tuple of names, whose limits it counts against.

        Raises:
            UsageError: an option is unknown or has a value that it cannot have, such as a name that is no parameter.
        """
        changed = Task(self.__wrapped__, {**self._options, **options})
        if not options.keys() & AROUND:
            changed._called = self._called = around(self)  # one object, to be captured once
        return changed

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now."""
        return self.__wrapped__(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> tuple[Any, ...] | str:
        from headrace.pickling import importable, is_importable

        if is_importable(self):
            return str(self.__qualname__)
        fn = importable(self.__wrapped__)
        return _restore, (self.__wrapped__ if fn is None else fn, self._options)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"<Task {self.__name__}({options})>" if options else f"<Task {self.__name__}>"


#: Options that put something around the function.
AROUND = frozenset(("writable", "retry_on"))


def around(task: Task[P, R]) -> Callable[P, R]:
    """Give what is called for a task object: its function, with what its options put around it."""
    if task._called is None:
        task._called = wrapped(task.__wrapped__, task._options)
    return task._called


def wrapped(fn: Any, options: dict[str, Any]) -> Any:
    """Give a function with what options put around it."""
    if options.get("writable"):
        from headrace.writable import WritableArguments

        fn = WritableArguments(fn, options["writable"])
    if options.get("retry_on") is not None:
        from headrace.retrying import Retried

        fn = Retried(fn, options["retry_on"])
    return fn


def _restore(fn: Callable[P, R], options: dict[str, Any]) -> Task[P, R]:
    return Task(fn.__wrapped__ if isinstance(fn, Task) else fn, options)


if TYPE_CHECKING:

    @overload
    def task(fn: Callable[P, R], /, **options: Any) -> Task[P, R]: ...

    @overload
    def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a task object of a function; as a decorator with or without options, or by a call.

    Args:
        fn: the function. Any callable may be given to `add`, `map` and `call` as it is; only options need this.
        **options: see `Task.options`.

    Raises:
        UsageError: an option is unknown or has a value that it cannot have, or `fn` cannot be called.
    """
    if fn is None:
        from functools import partial

        check_options(options)
        return partial(task, **options)
    if isinstance(fn, Task):
        return fn.options(**options)
    if not callable(fn):
        raise UsageError(f"task() takes a function, not {type(fn).__name__}")
    return Task(fn, options)

"""Task objects: an ordinary function, and how its tasks are to be run."""

from __future__ import annotations

from types import GenericAlias, MethodType

from headrace.errors import UsageError

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


#: Options that are foreseen and not there yet.
LATER = ("retries", "retry_on", "backoff", "timeout_s", "queue_timeout_s", "resources", "tags")

#: Most items that a result can be split into.
NOUT_MAX = 65_535


def _check_key(value: object) -> None:
    if not isinstance(value, str) or not value:
        raise UsageError(f"option key must be a text that is not empty, not {value!r}")
    if not is_unicode(value):
        raise UsageError(f"option key must be a text without lone surrogates, not {value!a}")


def is_unicode(text: str) -> bool:
    """Say whether a text can be written as UTF-8, as every name that travels is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_int(name: str, value: object, lowest: int, highest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise UsageError(f"option {name} must be an int from {lowest:,} to {highest:,}, not {value!r}")


def _check_names(name: str, value: object) -> None:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (tuple, list)) or not all(isinstance(part, str) for part in names):
        raise UsageError(f"option {name} must be the name of a parameter, or a tuple of names, not {value!r}")


#: Every option with the check of its value.
KNOWN: dict[str, Callable[[object], None]] = {
    "key": _check_key,
    "priority": lambda value: _check_int("priority", value, -(2**31), 2**31 - 1),
    "worker": lambda value: _check_int("worker", value, 0, 65_535),
    "nout": lambda value: _check_int("nout", value, 1, NOUT_MAX),
    "writable": lambda value: _check_names("writable", value),
}


def check_options(options: dict[str, Any]) -> None:
    """Raise `UsageError` for an option that is unknown, not there yet, or has a value that it cannot have."""
    for name, value in options.items():
        if name in LATER:
            raise UsageError(f"option {name} comes with a later version; known options: {', '.join(KNOWN)}")
        if name not in KNOWN:
            raise UsageError(f"unknown option {name!r}; known options: {', '.join(KNOWN)}")
        KNOWN[name](value)


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

        Raises:
            UsageError: an option is unknown or has a value that it cannot have, such as a name that is no parameter.
        """
        return Task(self.__wrapped__, {**self._options, **options})

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

"""Arguments that a task may write to: private to it, whatever it does."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from headrace.errors import UsageError
from headrace.memory import copy, make_writable
from headrace.pickling import function_name, importable

if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Signature


class WritableArguments:
    """A function that gets arguments of its own for some of its parameters.

    In the client they are copies, for the modes "threads" and "sync". Unpickled in a worker, it leaves their bytes in
    shared memory until they are written to.
    """

    def __init__(
        self, fn: Callable[..., Any], names: tuple[str, ...], make: Callable[[list[Any]], list[Any]] = copy
    ) -> None:
        self.fn = fn
        self.names = names
        self.__name__ = function_name(fn)
        self._make = make
        self._signature = _checked_signature(fn, names)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; each argument is passed as it was, by position or by name."""
        places: dict[str, Any]
        try:
            places = self._signature.bind(*range(len(args)), **{name: name for name in kwargs}).arguments
        except TypeError:
            return self.fn(*args, **kwargs)  # it says itself what is wrong
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        chosen = [place for name in self.names if name in places for place in _each(places[name])]
        # All at once: what is one object for the function stays one.
        given.update(zip(chosen, self._make([given[place] for place in chosen]), strict=True))
        return self.fn(*[given.pop(position) for position in range(len(args))], **given)

    def __reduce__(self) -> tuple[Any, ...]:
        named = importable(self.fn)
        return type(self), (self.fn if named is None else named, self.names, make_writable)


def checked_names(fn: Callable[..., Any], writable: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Give the names of an option `writable`.

    Raises:
        UsageError: one is no parameter of the function, or that does not tell its parameters.
    """
    names = (writable,) if isinstance(writable, str) else tuple(writable)
    _checked_signature(fn, names)
    return names


def _checked_signature(fn: Callable[..., Any], names: tuple[str, ...]) -> Signature:
    try:
        found = signature(fn)
    except Exception as error:  # besides its own, whatever the evaluation of annotations raises
        raise UsageError(
            f"option writable: {function_name(fn)} does not tell its parameters ({error}); "
            "let a function of yours call it with headrace.copy(x)"
        ) from error
    for name in names:
        if name not in found.parameters:
            known = ", ".join(found.parameters) or "none"
            raise UsageError(f"option writable: {name!r} is no parameter of {function_name(fn)}; it has {known}")
    return found


def _each(place: Any) -> Any:
    """Give the places of a parameter: one, or as many as there are for `*args` and `**kwargs`."""
    return place if isinstance(place, (tuple, dict)) else (place,)

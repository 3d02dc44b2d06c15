"""Functions, arguments and exceptions as pickles, and words for what cannot be one."""

from __future__ import annotations

import _pickle
import copyreg
import sys

from headrace._core import try_pickle
from headrace.errors import ArgumentNotPicklable, UsageError
from headrace.options import is_unicode, policy_of
from headrace.task import Task, around, wrapped

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from headrace.options import Policy

# -- functions ---------------------------------------------------------------------------------------------------------

#: Code flags of functions that return before they have done anything.
_CO_COROUTINE, _CO_ASYNC_GENERATOR = 0x80, 0x200


def is_importable(thing: Any) -> bool:
    """Say whether another process finds this very object by its module and qualified name."""
    return importable(thing) is thing


def importable(fn: Any) -> Any:
    """Give what other processes can import in place of a function: itself, or the task object that took its name.

    None if nothing of its name is there, or something else.
    """
    module = getattr(fn, "__module__", None)
    name = getattr(fn, "__qualname__", None)
    if not module or not name or module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if found is fn or (isinstance(found, Task) and found.__wrapped__ is fn) else None


def dump_function(fn: Callable[..., Any], verb: str = "call") -> bytes:
    """Pickle a function: by reference if other processes can import it, else by value.

    Raises:
        ArgumentNotPicklable: it holds something that cannot travel.
    """
    plain = fn.__wrapped__ if isinstance(fn, Task) else fn
    by_name = importable(plain)
    try:
        if by_name is not None:
            return _pickle.dumps(by_name, 5)
        from headrace.dynamic_code import dumps

        return dumps(plain)
    except UsageError as error:
        remedy = "the function itself holds what stands for a result; make that an argument"
        raise ArgumentNotPicklable(f"{verb}({function_name(fn)}): {remedy} ({error})") from error
    except Exception as error:
        path, reason = explain(plain) or ("", describe_error(error))
        at = f" -> {path.strip()}" if path else ""
        raise ArgumentNotPicklable(f"{verb}({function_name(fn)}): the function itself{at}: {reason}") from error


def load_function(blob: bytes) -> Callable[..., Any]:
    """Give the function of `dump_function`'s bytes."""
    fn: Callable[..., Any] = _pickle.loads(blob)
    return fn.__wrapped__ if isinstance(fn, Task) else fn


def call_pickled(pickle: bytes, /, *args: Any, **kwargs: Any) -> Any:
    """Call the function of `dump_function`'s bytes: one so long that no process should keep it for calls to come."""
    return load_function(pickle)(*args, **kwargs)


def function_name(fn: Callable[..., Any]) -> str:
    """Give the name by which the tasks of a function go."""
    while hasattr(fn, "func") and not hasattr(fn, "__name__"):  # functools.partial
        fn = fn.func
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return str(name).strip("<>")


def describe(
    fn: Any, verb: str
) -> tuple[Callable[..., Any], str, str | None, int, int | None, int | None, Policy | None]:
    """Say what a graph has to know of a callable: what is called and captured, its name, the options of its tasks."""
    if not callable(fn):
        raise UsageError(f"{verb}() takes a function to run, not {type(fn).__name__}: {_short(fn)}")
    if _is_async(fn):
        raise UsageError(
            f"{verb}({function_name(fn)}): an async function cannot be a task; give a plain one that calls asyncio.run"
        )
    name = function_name(fn)
    if not is_unicode(name):
        raise UsageError(f"{verb}(): the function's name {name!a} has lone surrogates; give it another one")
    inner = getattr(fn, "__func__", fn)  # what a bound method calls
    options = inner._options if isinstance(inner, Task) else {}
    called = around(fn) if isinstance(fn, Task) else wrapped(fn, options)
    priority, worker, nout = options.get("priority", 0), options.get("worker"), options.get("nout")
    return called, name, options.get("key"), priority, worker, nout, policy_of(options)


def _is_async(fn: Any) -> bool:
    while hasattr(fn, "func") and not hasattr(fn, "__code__"):
        fn = fn.func
    fn = getattr(fn, "__wrapped__", fn) if isinstance(fn, Task) else fn
    fn = getattr(fn, "__func__", fn)
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    return bool(code and code.co_flags & (_CO_COROUTINE | _CO_ASYNC_GENERATOR))


# -- arguments and results ---------------------------------------------------------------------------------------------

#: Most pickles that are tried to find the part at fault.
_TRIALS_MAX = 2_000

#: A longer path to the part at fault loses its middle.
_PATH_CHARS_MAX = 200


def argument_error(
    verb: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None, error: BaseException
) -> ArgumentNotPicklable:
    """Name the argument, and the part of it, that made encoding the arguments of `fn` fail with `error`."""
    where = f"{verb}({function_name(fn)})"
    for name, value in _named_arguments(fn, args, kwargs or {}):
        found = explain(value)
        if found is not None:
            path, reason = found
            at = f" -> {path.strip()}" if path else ""
            named = ArgumentNotPicklable(f"{where}: argument {name!r}{at}: {reason}")
            break
    else:
        named = ArgumentNotPicklable(f"{where}: {describe_error(error)}")
    named.__cause__ = error
    return named


def reducers_of(pickler: Any) -> Any:
    """Give what a class of picklers knows of classes, without what tblib makes of exceptions, which Dask loads.

    That takes causes and tracebacks along, and wants tblib where the exception arrives.
    """
    table = copyreg.dispatch_table if pickler is _pickle.Pickler else pickler.dispatch_table
    if "tblib" not in sys.modules:
        return table
    return {kind: reduce for kind, reduce in table.items() if not _is_of_tblib(reduce)}


def _is_of_tblib(reduce: Any) -> bool:
    return str(getattr(getattr(reduce, "func", reduce), "__module__", "")).startswith("tblib.")


def explain(value: Any) -> tuple[str, str] | None:
    """Find the part of `value` that cannot be pickled: the path to it (empty if it is the whole) and the reason.

    None if the value can be pickled.
    """
    error = try_pickle(value)
    return None if error is None else _fault(value, error)


def _fault(value: Any, error: BaseException) -> tuple[str, str]:
    path = ""
    seen = {id(value)}
    trials = 0
    while True:
        for step, part in _parts(value):
            trials += 1
            if trials > _TRIALS_MAX:
                return _cut(path), describe_error(error)
            if id(part) in seen:
                continue
            inner = try_pickle(part)
            if inner is not None:
                seen.add(id(part))
                path, value, error = path + step, part, inner
                break
        else:
            return _cut(path), describe_error(error)


def _cut(path: str) -> str:
    half = _PATH_CHARS_MAX // 2
    return path if len(path) <= _PATH_CHARS_MAX else f"{path[:half]} … {path[-half:]}"


def describe_error(error: BaseException) -> str:
    """Give an exception's text, or its class if it has none."""
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__


def _named_arguments(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    names: list[str] = []
    try:
        from inspect import Parameter, signature

        for parameter in signature(fn).parameters.values():
            if parameter.kind is Parameter.VAR_POSITIONAL:
                names += [f"{parameter.name}[{position}]" for position in range(len(args) - len(names))]
            elif parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
                names.append(parameter.name)
    except (TypeError, ValueError):  # a builtin without a signature
        pass
    names += [f"number {position + 1}" for position in range(len(names), len(args))]
    yield from zip(names, args, strict=False)
    yield from kwargs.items()


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Give what a value consists of, each with the step that leads there."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"[{_short(key)}]", part
            yield f"[{_short(key)}] (the key)", key
    elif isinstance(value, (list, tuple)):
        for position, part in enumerate(value):
            yield f"[{position}]", part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield "{…}", part
    for name in ("func", "args", "keywords", "__self__", "__wrapped__"):  # partials, bound methods, wrappers
        if hasattr(value, name) and not isinstance(value, type):
            yield f".{name}", getattr(value, name)
    code = getattr(value, "__code__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(value, "__closure__", None) or (), strict=False):
        try:
            yield f" (closes over {name!r})", cell.cell_contents
        except ValueError:  # the cell is empty
            continue
    if code is not None and getattr(value, "__module__", None) == "__main__":
        for name in code.co_names:
            if name in value.__globals__:
                yield f" (uses the global {name!r})", value.__globals__[name]
    if isinstance(value, type):
        return
    try:
        attributes = dict(vars(value))
    except TypeError:
        attributes = {}
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                attributes.setdefault(name, getattr(value, name))
    for name, part in attributes.items():
        yield f".{name}", part


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "…"

"""The options of tasks: what each may be, and what they come to on the wire."""

from __future__ import annotations

import math

from headrace.errors import UsageError

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    #: retries, flags, backoff_ms, backoff_max_ms, timeout_ms, queue_timeout_ms, resources, tags.
    Policy = tuple[int, int, int, int, int, int, list[tuple[str, int]], list[str]]

#: Most items that a result can be split into.
NOUT_MAX = 65_535

#: The longest time that an option can name: milliseconds in 32 bits.
SECONDS_MAX = (2**32 - 1) / 1_000

#: The longest pause before a retry, unless `backoff` says another one.
BACKOFF_MAX_S = 60.0

#: Most retries.
RETRIES_MAX = 1_000_000

#: Flag of a policy: the worker says of each exception whether it is worth a retry.
RETRY_ON = 1

#: Flag of a policy: two attempts may run at once.
SPECULATIVE = 2

#: Bytes in the units that an amount of memory may be given in.
UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def is_unicode(text: str) -> bool:
    """Say whether a text can be written as UTF-8, as every name that travels is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_options(options: dict[str, Any]) -> None:
    """Raise `UsageError` for an option that is unknown or has a value that it cannot have."""
    for name, value in options.items():
        if name not in KNOWN:
            raise UsageError(f"unknown option {name!r}; known options: {', '.join(KNOWN)}")
        KNOWN[name](value)
    if "retry_on" in options and not options.get("retries"):
        raise UsageError("option retry_on says which failures are worth a retry; say how many by option retries")


def policy_of(options: dict[str, Any]) -> Policy | None:
    """Give what the broker has to know of options beyond priority and worker; None where they say nothing of it."""
    if POLICY.isdisjoint(options):
        return None
    backoff = options.get("backoff", 0)
    first_s, longest_s = backoff if isinstance(backoff, (tuple, list)) else (backoff, max(backoff, BACKOFF_MAX_S))
    return (
        options.get("retries", 0),
        (RETRY_ON if options.get("retry_on") is not None else 0) | (SPECULATIVE if options.get("speculative") else 0),
        milliseconds(first_s),
        milliseconds(longest_s),
        milliseconds(options.get("timeout_s", 0)),
        milliseconds(options.get("queue_timeout_s", 0)),
        sorted(amounts_of("option resources", options.get("resources", {})).items()),
        sorted(set(_as_names(options.get("tags", ())))),
    )


def milliseconds(seconds: float) -> int:
    """Round seconds up to milliseconds, so that what is more than nothing stays so."""
    return math.ceil(seconds * 1_000)


def amounts_of(where: str, resources: Mapping[str, object]) -> dict[str, int]:
    """Give amounts of resources as numbers; `where` names them in errors.

    Raises:
        UsageError: it is no mapping of names to whole numbers, or to sizes like "4GiB".
    """
    if not hasattr(resources, "items"):
        raise UsageError(
            f"{where} must map names to amounts, such as {{'gpu': 1, 'memory': '4GiB'}}, not {resources!r}"
        )
    amounts = {}
    for name, amount in resources.items():
        if not _is_name(name):
            raise UsageError(f"{where}: a resource's name must be a text that is not empty, not {name!r}")
        amounts[name] = _amount(f"{where}: {name!r}", amount)
    return amounts


def _amount(where: str, amount: object) -> int:
    number: object = amount
    if isinstance(amount, str):
        text = amount.replace(" ", "").replace("_", "")
        digits = text.rstrip("".join({letter for unit in UNITS for letter in unit}))
        unit = text[len(digits) :] or "B"
        try:
            number = float(digits) * UNITS[unit]
        except (ValueError, KeyError):
            raise UsageError(f"{where} must be a number or a size such as '4GiB', not {amount!r}") from None
        number = math.ceil(number) if math.isfinite(number) else number
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63:
        raise UsageError(f"{where} must be a whole number of at least 0, or a size such as '4GiB', not {amount!r}")
    return number


def _check_key(value: object) -> None:
    if not isinstance(value, str) or not value:
        raise UsageError(f"option key must be a text that is not empty, not {value!r}")
    if not is_unicode(value):
        raise UsageError(f"option key must be a text without lone surrogates, not {value!a}")


def check_int(where: str, value: object, lowest: int, highest: int) -> None:
    """Raise `UsageError` for what is no whole number from `lowest` to `highest`; `where` names it."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise UsageError(f"{where} must be an int from {lowest:,} to {highest:,}, not {value!r}")


def _check_names(name: str, value: object) -> None:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (tuple, list)) or not all(isinstance(part, str) for part in names):
        raise UsageError(f"option {name} must be the name of a parameter, or a tuple of names, not {value!r}")


def check_seconds(where: str, value: object, *, lowest: float = 0.001) -> None:
    """Raise `UsageError` for what is no time in seconds; `where` names it."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not lowest <= value <= SECONDS_MAX:
        raise UsageError(f"{where} must be seconds from {lowest} to {SECONDS_MAX:,.0f}, not {value!r}")


def _check_backoff(value: object) -> None:
    parts = value if isinstance(value, (tuple, list)) else (value,)
    if len(parts) not in (1, 2) or (isinstance(value, (tuple, list)) and len(parts) != 2):
        raise UsageError(f"option backoff must be seconds, or a pair of the first and the longest pause, not {value!r}")
    for seconds in parts:
        check_seconds("option backoff", seconds, lowest=0)
    if len(parts) == 2 and parts[0] > parts[1]:
        raise UsageError(f"option backoff: the first pause is longer than the longest: {value!r}")


def _check_retry_on(value: object) -> None:
    kinds = value if isinstance(value, tuple) else (value,)
    are_classes = bool(kinds) and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
    if not are_classes and (isinstance(value, (tuple, type)) or not callable(value)):
        raise UsageError(
            "option retry_on must be a class of exceptions, a tuple of them, or a function of the exception that says "
            f"whether to try again, not {value!r}"
        )


def _check_speculative(value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"option speculative must be True or False, not {value!r}")


def _check_tags(value: object) -> None:
    if not isinstance(value, (str, tuple, list)) or not all(map(_is_name, _as_names(value))):
        raise UsageError(f"option tags must be a name, or a tuple of names, not {value!r}")


def _as_names(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and is_unicode(value)


#: Every option with the check of its value.
KNOWN: dict[str, Callable[[Any], object]] = {
    "key": _check_key,
    "priority": lambda value: check_int("option priority", value, -(2**31), 2**31 - 1),
    "worker": lambda value: check_int("option worker", value, 0, 65_535),
    "nout": lambda value: check_int("option nout", value, 1, NOUT_MAX),
    "writable": lambda value: _check_names("writable", value),
    "retries": lambda value: check_int("option retries", value, 0, RETRIES_MAX),
    "retry_on": _check_retry_on,
    "backoff": _check_backoff,
    "timeout_s": lambda value: check_seconds("option timeout_s", value),
    "queue_timeout_s": lambda value: check_seconds("option queue_timeout_s", value),
    "speculative": _check_speculative,
    "resources": lambda value: amounts_of("option resources", value),
    "tags": _check_tags,
}

#: Those that the broker acts on, beyond priority and worker.
POLICY = frozenset(
    {"retries", "retry_on", "backoff", "timeout_s", "queue_timeout_s", "speculative", "resources", "tags"}
)

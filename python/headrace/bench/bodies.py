"""What tasks do: module functions that every engine calls alike, `body(number, *constants, *values)`.

Whatever a task does meanwhile, its result holds the same number: one that is right only if all inputs were, and came
in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

_MASK = 0xFFFFFFFF
#: Results with a payload begin with four numbers: theirs, when their task began and ended, when its last input ended.
HEADER_BYTES = 32
_PAGE_BYTES = 4096


def noop(number: int, *values: int) -> int:
    """Do nothing but the sum that proves the inputs."""
    for value in values:
        number = (31 * number + value) & _MASK
    return number


def spin(number: int, microseconds: float, *values: int) -> int:
    """Take that much processor time. Waiting for a core does not count, so that a stolen core shows."""
    end_ns = time.thread_time_ns() + int(microseconds * 1000)
    while time.thread_time_ns() < end_ns:
        pass
    return noop(number, *values)


def sleep(number: int, microseconds: float, *values: int) -> int:
    """Take that long, and no processor."""
    time.sleep(microseconds / 1e6)
    return noop(number, *values)


def memory(number: int, kib: int, *values: int) -> int:
    """Copy that many KiB: a task that is bound by memory."""
    block = _block(kib)
    block[: len(block) // 2] = block[len(block) // 2 :]
    return noop(number, *values)


def stamp(number: int, *values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Say when it began and ended, by the clock that all processes of a machine share."""
    begin_ns = time.monotonic_ns()
    value = noop(number, *(item[0] for item in values))
    return value, begin_ns, time.monotonic_ns()


def payload(number: int, size: int, *values: Any) -> Any:
    """Read a byte of each page of every input, and return a new array of `size` bytes, all of them written.

    It begins once the inputs are read, so the time from an input's end to its beginning is that of the hand-over.
    """
    import numpy as np

    for item in values:
        np.add.reduce(item[::_PAGE_BYTES])
    begin_ns = time.monotonic_ns()
    headers = [header_of(item) for item in values]
    result = np.ones(max(size, HEADER_BYTES), np.uint8)
    value = noop(number, *(header[0] for header in headers))
    ended_ns = max((header[2] for header in headers), default=0)
    result[:HEADER_BYTES].view(np.int64)[:] = (value, begin_ns, time.monotonic_ns(), ended_ns)
    return result


def untouched(number: int, size: int, *values: Any) -> Any:
    """Return the first input as it is; a task without one makes it, as `payload` does."""
    return values[0] if values else payload(number, size)


def header_of(array: Any) -> tuple[int, int, int, int]:
    """What the first bytes of an array with a payload say."""
    value, begin_ns, end_ns, inputs_ns = memoryview(array[:HEADER_BYTES]).cast("B").cast("q")
    return value, begin_ns, end_ns, inputs_ns


def value_of(result: Any) -> int:
    """The number in a result, whatever body made it."""
    if isinstance(result, int):
        return result
    if isinstance(result, tuple | list):
        return int(result[0])
    return header_of(result)[0]


class Body(NamedTuple):
    """One kind of task."""

    function: Callable[..., Any]
    unit: str
    """What its constant is: `us` of time, `kib` copied, `payload` bytes returned; none if empty."""
    default: float
    meaning: str


BODIES = {
    "noop": Body(noop, "", 0, "returns at once"),
    "spin": Body(spin, "us", 100, "takes us=100 microseconds of processor time"),
    "sleep": Body(sleep, "us", 1000, "waits us=1000 microseconds"),
    "memory": Body(memory, "kib", 1024, "copies kib=1024 KiB"),
    "stamp": Body(stamp, "", 0, "returns when it began and ended"),
    "payload": Body(payload, "payload", 1 << 20, "returns a new array of payload=1048576 bytes (needs numpy)"),
    "untouched": Body(untouched, "payload", 1 << 20, "returns the array that it was given (needs numpy)"),
}

_blocks: dict[int, memoryview] = {}


def _block(kib: int) -> memoryview:
    """The memory that this process copies."""
    if kib not in _blocks:
        _blocks[kib] = memoryview(bytearray(kib * 2048))
    return _blocks[kib]

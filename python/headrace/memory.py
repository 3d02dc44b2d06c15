"""Large values in shared memory: made in place, and copied on demand."""

from __future__ import annotations

import operator

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    import numpy
    from typing_extensions import Buffer

    from headrace._core import Worker

    T = TypeVar("T")


def empty(shape: int | tuple[int, ...], dtype: Any = float) -> numpy.ndarray[Any, Any]:
    """Make an array whose memory can be the result of a task without being copied.

    In a task of a worker process the array lies in shared memory: fill it, and return it (or a view of it).
    Anywhere else, and for arrays of Python objects, it is `numpy.empty`.

    Args:
        shape: as for `numpy.empty`.
        dtype: as for `numpy.empty`.

    Returns:
        A writable array in C order. What it holds is undefined.

    Raises:
        StoreFull: the budget of shared memory is used up.

    Note:
        Do not write to it after the task has returned it: others read it then.
    """
    import numpy

    if _worker is None or not _worker.shares_memory:
        return numpy.empty(shape, dtype)
    return array_in(_worker.allocate, shape, dtype)


def array_in(allocate: Callable[[int], Buffer], shape: Any, dtype: Any) -> numpy.ndarray[Any, Any]:
    """Make an array like `numpy.empty` in memory from `allocate`, unless it has no bytes, or holds Python objects."""
    import math

    import numpy

    item = numpy.dtype(dtype)
    if item.hasobject:
        return numpy.empty(shape, dtype)
    lengths = _lengths_of(shape)
    size = math.prod(lengths) * item.itemsize
    if size == 0 or min(lengths, default=0) < 0:
        return numpy.empty(shape, dtype)  # or an error of numpy's
    return numpy.ndarray(lengths, item, memoryview(allocate(min(size, _BYTES_MAX))))


#: More than any memory has.
_BYTES_MAX = (1 << 63) - 1


def _lengths_of(shape: Any) -> tuple[int, ...]:
    """Give the lengths of a shape, as numpy reads it: one integer, or anything that yields integers."""
    try:
        return (operator.index(shape),)
    except TypeError:
        return tuple(map(operator.index, shape))


def copy(value: T) -> T:
    """Copy a value that is a read-only view of a result, so that it can be changed.

    As `copy.deepcopy`; arrays and frames in it are writable afterwards, and so is a `memoryview` (but none within other
    objects, which Python cannot copy). The option `writable` of a task copies less.
    """
    from copy import deepcopy

    return _copy_view(value) if type(value) is memoryview else deepcopy(value)  # type: ignore[return-value]


def _copy_view(view: Any) -> memoryview:
    """Copy the bytes of a view, which keeps its format and shape where Python can write such items."""
    copied: memoryview = memoryview(bytearray(view.tobytes()))
    try:
        return copied.cast(view.format, view.shape) if view.nbytes else copied
    except (TypeError, ValueError):
        return copied


def make_writable(value: T) -> T:
    """Give a value that can be changed while nobody else sees it.

    In a worker process only those pages of shared memory are copied that are written to; elsewhere it is `copy`.
    """
    return copy(value) if _worker is None else _worker.make_writable(value)


def set_worker(worker: Worker | None) -> None:
    """Use the shared memory of a worker, or none. For worker processes, and the children of their tasks."""
    global _worker
    _worker = worker


_worker: Worker | None = None

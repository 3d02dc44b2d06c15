"""Pickles that leave the memory of arrays aside, where numpy's own pickles would copy it.

A pickle of protocol 5 leaves aside what has a buffer. Arrays of `datetime64` and `timedelta64`, and of other types that
the buffer protocol has no word for, have none: they travel as arrays of bytes, and are viewed as what they were.
"""

from __future__ import annotations

import _pickle
import io
import sys
from copyreg import dispatch_table
from pickle import PickleBuffer

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import numpy

    #: Gives a buffer for a buffer.
    Private = Callable[[PickleBuffer], Any]


def dumps(
    value: object, protocol: int, buffer_callback: Callable[[PickleBuffer], object], private: Private | None = None
) -> bytes:
    """Pickle as `pickle.dumps` does, but with the buffers of all contiguous arrays out of band.

    `private`, if given, is asked for the buffer to be put in the place of each array's.
    """
    out = io.BytesIO()
    pickler = _pickle.Pickler(out, protocol, buffer_callback=buffer_callback)
    pickler.dispatch_table = {**dispatch_table, **reducers(private)}
    pickler.dump(value)
    return out.getvalue()


def reducers(private: Private | None) -> dict[type, Callable[[Any], Any]]:
    """Give what reduces objects of a class, subclasses apart. Nothing is imported for it."""
    array = getattr(sys.modules.get("numpy"), "ndarray", None)
    return {} if array is None else {array: privately(reduce_array, private)}


def privately(reduce: Callable[[Any], Any], private: Private | None) -> Callable[[Any], Any]:
    """Have other buffers put in the places of those that a reducer gives."""
    if private is None:
        return reduce

    def replace(part: Any) -> Any:
        return PickleBuffer(private(part)) if isinstance(part, PickleBuffer) else part

    def reduce_privately(thing: Any) -> Any:
        function, arguments, *state = reduce(thing)
        return function, tuple(map(replace, arguments)), *state

    return reduce_privately


def reduce_array(array: numpy.ndarray[Any, Any]) -> Any:
    """Reduce an array as numpy does, or as one of bytes where its type has no buffer."""
    dtype = array.dtype
    if dtype.kind in "mMV" and dtype.itemsize and not dtype.hasobject and not _has_buffer(array):
        return restore_array, (array.view(f"V{dtype.itemsize}"), dtype)
    return array.__reduce_ex__(5)


def restore_array(array: numpy.ndarray[Any, Any], dtype: numpy.dtype[Any]) -> numpy.ndarray[Any, Any]:
    """View an array of bytes as what it was."""
    return array.view(dtype)


def _has_buffer(array: Any) -> bool:
    try:
        PickleBuffer(array)
    except (BufferError, ValueError):
        return False
    return True

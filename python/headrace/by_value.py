"""Results that the C pickler cannot do.

A class that cannot be imported elsewhere comes along, and gives way to its original.
"""

from __future__ import annotations

import _pickle
import io
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

from cloudpickle import cloudpickle

from headrace import dynamic_code
from headrace.out_of_band import privately, reducers
from headrace.pickling import is_importable


def dumps(
    value: object,
    protocol: int,
    buffer_callback: Callable[[PickleBuffer], object] | None = None,
    private: Callable[[PickleBuffer], Any] | None = None,
) -> bytes:
    """Pickle a result, with the classes in it that cannot be imported; for `private`, see `headrace.out_of_band`.

    By cloudpickle alone, a class that came from the client would be filled anew there: its methods replaced by copies
    with other globals, its counters set to what they are here.
    """
    out = io.BytesIO()
    _Pickler(out, protocol, buffer_callback, private).dump(value)
    return out.getvalue()


class _Pickler(dynamic_code.Pickler):
    def __init__(self, out: io.BytesIO, protocol: int, buffer_callback: Any, private: Any) -> None:
        arrays = {memoryview: privately(reduce_memory, private), **reducers(private)}
        self.dispatch_table = {**dynamic_code.Pickler.dispatch_table, **arrays}  # which `__init__` takes
        super().__init__(out, protocol, buffer_callback)

    def reducer_override(self, thing: Any) -> Any:
        if issubclass(type(thing), type) and not is_importable(thing):
            return class_of, (cloudpickle._get_or_create_tracker_id(thing), dynamic_code.dumps(thing))
        return super().reducer_override(thing)


def class_of(number: str, pickle: bytes) -> Any:
    """Give the class that cloudpickle knows by that number here, or make it of its pickle."""
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(number)
    return _pickle.loads(pickle) if known is None else known


#: Formats that `memoryview.cast` knows.
_FORMATS = frozenset("bBhHiIlLqQnNfdc?")


def reduce_memory(view: memoryview) -> Any:
    """Reduce a view to its buffer; to `bytes`, as cloudpickle does, where nobody could make it again from that."""
    if view.nbytes and view.c_contiguous and view.format in _FORMATS:
        return restore_memory, (PickleBuffer(view), view.format, view.shape)
    return bytes, (view.tobytes(),)


def restore_memory(buffer: Any, form: Any, shape: tuple[int, ...]) -> memoryview:
    """View the bytes of a buffer as what they were."""
    return memoryview(buffer).cast("B").cast(form, shape)

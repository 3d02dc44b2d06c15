"""Results whose classes cannot be imported elsewhere: such a class comes along, and gives way to its original."""

from __future__ import annotations

import _pickle
import io
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

from cloudpickle import cloudpickle

from headrace.pickling import is_importable


def dumps(value: object, protocol: int, buffer_callback: Callable[[PickleBuffer], object] | None = None) -> bytes:
    """Pickle a result, with the classes in it that cannot be imported.

    By cloudpickle alone, a class that came from the client would be filled anew there: its methods replaced by copies
    with other globals, its counters set to what they are here.
    """
    out = io.BytesIO()
    _Pickler(out, protocol, buffer_callback).dump(value)
    return out.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, thing: Any) -> Any:
        if issubclass(type(thing), type) and not is_importable(thing):
            return class_of, (cloudpickle._get_or_create_tracker_id(thing), cloudpickle.dumps(thing, protocol=5))
        return super().reducer_override(thing)


def class_of(number: str, pickle: bytes) -> Any:
    """Give the class that cloudpickle knows by that number here, or make it of its pickle."""
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(number)
    return _pickle.loads(pickle) if known is None else known

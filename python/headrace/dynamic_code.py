"""cloudpickle, but functions keep the names of their files.

cloudpickle 3.1.2 and later write `<dynamic-code>` in their place, so that equal functions have equal pickles. A
traceback from a worker then names no file and shows no line of it.
"""

from __future__ import annotations

import io
from collections import ChainMap
from collections.abc import Callable, MutableMapping
from pickle import PickleBuffer
from types import CodeType
from typing import Any

from cloudpickle import cloudpickle


def reduce_code(code: CodeType) -> Any:
    """Reduce code as cloudpickle does, with its file."""
    make, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return make, tuple(code.co_filename if part == "<dynamic-code>" else part for part in arguments)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, but for code."""

    dispatch_table: MutableMapping[Any, Any]


Pickler.dispatch_table = ChainMap({CodeType: reduce_code}, cloudpickle.Pickler.dispatch_table)


def dumps(value: object, protocol: int = 5, buffer_callback: Callable[[PickleBuffer], object] | None = None) -> bytes:
    """Pickle anything, functions and classes that cannot be imported by value."""
    out = io.BytesIO()
    Pickler(out, protocol, buffer_callback).dump(value)
    return out.getvalue()

"""Pickles that leave the memory of arrays aside, where their own pickles would copy it.

A pickle of protocol 5 leaves aside what has a buffer. Arrays of `datetime64` and `timedelta64`, and of other types that
the buffer protocol has no word for, have none: they travel as arrays of bytes, and are viewed as what they were. Frames
of polars travel as Arrow tables, tensors of torch as their bytes.
"""

from __future__ import annotations

import _pickle
import io
import sys
from copyreg import dispatch_table
from importlib import import_module
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
    return _dumps(value, protocol, buffer_callback, reducers(private))


def dumps_argument(value: object, protocol: int, buffer_callback: Callable[[PickleBuffer], object]) -> bytes:
    """The same for an argument, whose buffers must not be copies that are gone when the task is submitted."""
    arrays = {kind: reduce_argument if reduce is reduce_array else reduce for kind, reduce in reducers(None).items()}
    return _dumps(value, protocol, buffer_callback, arrays)


def _dumps(value: object, protocol: int, buffer_callback: Any, reduced: dict[type, Callable[[Any], Any]]) -> bytes:
    out = io.BytesIO()
    pickler = _pickle.Pickler(out, protocol, buffer_callback=buffer_callback)
    pickler.dispatch_table = {**dispatch_table, **reduced}
    pickler.dump(value)
    return out.getvalue()


def may_leave_more(pickle: bytes) -> bool:
    """Say whether a pickle names a package whose objects :func:`dumps` would have left aside."""
    return any(module in sys.modules and module.encode() in pickle for module, _, _ in _REDUCED)


def reducers(private: Private | None) -> dict[type, Callable[[Any], Any]]:
    """Give what reduces objects of a class, subclasses apart. Nothing is imported for it."""
    found = {}
    for module, name, reduce in _REDUCED:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None:
            found[kind] = privately(reduce, private)
    return found


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
    """Reduce an array as numpy does, or as one of bytes where its type has no buffer.

    One with gaps is made contiguous first, and one that repeats itself is reduced to what it repeats.
    """
    if array.flags.forc or array.dtype.hasobject:
        return reduce_argument(array)
    return _reduce_repeated(array) or reduce_argument(sys.modules["numpy"].ascontiguousarray(array))


def reduce_argument(array: numpy.ndarray[Any, Any]) -> Any:
    """Reduce an array in an argument: one with gaps is part of the pickle, a snapshot that tasks may share."""
    dtype = array.dtype
    if not (array.flags.forc or dtype.hasobject) and (repeated := _reduce_repeated(array)):
        return repeated
    if dtype.kind in "mMV" and dtype.itemsize and not dtype.hasobject and not _has_buffer(array):
        return restore_array, (array.view(f"V{dtype.itemsize}"), dtype)
    return array.__reduce_ex__(5)


def _reduce_repeated(array: Any) -> Any:
    """Reduce an array to what it repeats; None if it repeats nothing."""
    repeats = [step == 0 and length > 1 for step, length in zip(array.strides, array.shape, strict=True)]
    if not any(repeats):
        return None
    part = array[tuple(slice(1) if repeat else slice(None) for repeat in repeats)]
    small = part.nbytes <= _SMALL_BYTES
    return restore_repeated, (part.tobytes() if small else part, array.dtype, part.shape, array.shape)


def restore_repeated(
    part: bytes | numpy.ndarray[Any, Any], dtype: numpy.dtype[Any], shape: tuple[int, ...], repeated: tuple[int, ...]
) -> numpy.ndarray[Any, Any]:
    """Make an array that repeats a part of itself."""
    numpy: Any = import_module("numpy")
    if isinstance(part, bytes):
        part = numpy.frombuffer(part, dtype).reshape(shape)
    return numpy.broadcast_to(part, repeated)  # type: ignore[no-any-return]


def restore_array(array: numpy.ndarray[Any, Any], dtype: numpy.dtype[Any]) -> numpy.ndarray[Any, Any]:
    """View an array of bytes as what it was."""
    return array.view(dtype)


def reduce_polars(frame: Any) -> Any:
    """Reduce a frame or series of polars as an Arrow table, which shares its memory, or as polars does.

    That needs pyarrow, which is not imported for it, and types that Arrow has.
    """
    polars = sys.modules["polars"]
    table = frame if isinstance(frame, polars.DataFrame) else frame.to_frame()
    try:
        if "pyarrow" in sys.modules:
            arrow = table.to_arrow(compat_level=polars.CompatLevel.newest())
            return restore_polars, (arrow, table.columns, table is not frame)
    except Exception:  # of whatever kind, polars and pyarrow have words of their own for a type that Arrow has not
        pass
    return frame.__reduce_ex__(5)


def restore_polars(table: Any, names: list[str], is_series: bool) -> Any:
    """Make a frame or series of polars on the memory of an Arrow table."""
    frame = import_module("polars").from_arrow(table, rechunk=False)
    frame.columns = names  # Arrow's unnamed ones get names
    return frame.to_series() if is_series else frame


def reduce_tensor(tensor: Any) -> Any:
    """Reduce a tensor that is no more than its bytes, in order and in main memory, as these; others as torch does."""
    torch = sys.modules["torch"]
    is_plain = (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not (tensor.requires_grad or tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and tensor.untyped_storage().nbytes() == tensor.nbytes > 0
        and not getattr(tensor, "__dict__", None)
    )
    if not is_plain:
        return tensor.__reduce_ex__(5)
    return restore_tensor, (
        PickleBuffer(tensor.reshape(-1).view(torch.uint8).numpy()),
        tensor.dtype,
        tuple(tensor.shape),
    )


def restore_tensor(buffer: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    """Make a tensor on these bytes. Torch has no read-only tensors, so shared bytes get a private map."""
    private = getattr(buffer, "_private", None)
    if private is not None:
        buffer = private()
    elif memoryview(buffer).readonly:
        buffer = bytearray(buffer)
    return import_module("torch").frombuffer(buffer, dtype=dtype).reshape(shape)


#: What an array repeats is part of the pickle up to so many bytes.
_SMALL_BYTES = 4_096

#: What is reduced by what: module and class of it.
_REDUCED: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("numpy", "ndarray", reduce_array),
    ("polars", "DataFrame", reduce_polars),
    ("polars", "Series", reduce_polars),
    ("torch", "Tensor", reduce_tensor),
]


def _has_buffer(array: Any) -> bool:
    try:
        PickleBuffer(array)
    except (BufferError, ValueError):
        return False
    return True

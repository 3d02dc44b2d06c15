"""Shared memory by itself: made here, passed to other processes, read there. No client, broker or worker is needed.

    from headrace import store

    with store.Store() as shared:
        item = shared.put(table)                                # written once
        multiprocessing.Process(target=work, args=(item,)).start()  # where item.get() is a read-only view of it

The memory is that of large results: a memfd, allocated before anybody writes and sealed against any change of its
size, so that no access to it can fail. It has no name, so nothing is left of it, whoever is killed: the system frees it
with the last map and descriptor in any process.

Each item costs a descriptor and at least a page in every process that has it; this is for large things. Many small
values are the business of a client.
"""

from __future__ import annotations

import _pickle
import gc
import operator
import os
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from headrace import out_of_band
from headrace._core import Segment
from headrace.errors import ArgumentNotPicklable, ResultLost, StoreFull, UsageError
from headrace.limits import checked_bytes, default_store_limit
from headrace.memory import array_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pickle import PickleBuffer

    import numpy

__all__ = ["Item", "Segment", "Store", "attach"]

T = TypeVar("T")

#: A segment, and where in it a part of a value starts and how long it is, in bytes.
_Place: TypeAlias = tuple[Segment, int, int]
#: A part of a value: by its place, or the bytes themselves.
_Part: TypeAlias = _Place | bytes

#: Values up to this many bytes travel within their item, as in frames.
_INLINE_BYTES_MAX = 64 << 10
#: Where parts of a value begin, for vector instructions.
_ALIGN = 64
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: How many holders the text of `StoreFull` names.
_NAMED = 3


class Store:
    """A budget of shared memory, for what this process makes of it.

    Args:
        limit: bytes that may be in use at once; by default half of what the process's control group, or the machine,
            has. What was made counts, in whole pages, while this process has a reference to it, or to a view of it.
            What only other processes hold, or is on its way to them, does not count.

    Raises:
        UsageError: the limit is no number of bytes.

    The store holds nothing itself: items and views live as long as somebody refers to them, also after `close`. It may
    be used by several threads at once. A forked child shares what it inherited, and counts for itself from then on.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = default_store_limit() if limit is None else checked_bytes("limit", limit)
        self._open = True
        _register()

    @property
    def limit(self) -> int:
        """Bytes that may be in use at once."""
        return self._limit

    @property
    def used(self) -> int:
        """Bytes in use: of what was made here and is still referred to in this process."""
        return sum(size for size, _ in self._holders())

    def create(self, nbytes: int) -> Segment:
        """Make a segment of so many zeroed bytes, which this process may write to by `memoryview`.

        Raises:
            StoreFull: it does not fit into the limit, or the system has no memory or descriptor for it.
            UsageError: `nbytes` is not positive, or the store is closed.

        Cost: the system clears the pages, about a second for 1.5 GB.
        """
        if operator.index(nbytes) <= 0:
            raise UsageError(f"a segment has at least one byte, not {nbytes}")
        return self._make(operator.index(nbytes), "create()")

    def empty(self, shape: int | tuple[int, ...], dtype: Any = float) -> numpy.ndarray[Any, Any]:
        """Make an array in shared memory: fill it, and `put` it, or what has it as a part. Nothing is copied.

        Args:
            shape: as for `numpy.empty`.
            dtype: as for `numpy.empty`, but no Python objects.

        Returns:
            A writable array in C order, all zero. Do not write to it once it was put: others read it then.

        Raises:
            StoreFull: as `create`.
            UsageError: the array would be of Python objects, or the store is closed.
        """
        import numpy

        self._check_open()
        if numpy.dtype(dtype).hasobject:
            raise UsageError("an array of Python objects cannot lie in shared memory; make it elsewhere and put() it")
        return array_in(lambda nbytes: self._make(nbytes, "empty()"), shape, dtype)

    def put(self, value: T, /) -> Item[T]:
        """Make an item of any value that pickles.

        Its large buffers (numpy arrays, Arrow tables, whatever pickles out of band) are copied into one new segment,
        except those that lie in segments already: arrays of `empty`, and views of other items. What has no more than
        64 KiB altogether takes no segment.

        Raises:
            ArgumentNotPicklable: the value cannot travel.
            StoreFull: as `create`.
            UsageError: the store is closed.
        """
        self._check_open()
        pickle, buffers = _dump(value)
        contents = [memoryview(pickle), *(buffer.raw() for buffer in buffers)]
        short = sum(part.nbytes for part in contents) <= _INLINE_BYTES_MAX
        places = [None if short else _place(part) for part in contents]
        size = sum(_aligned(part.nbytes) for part, place in zip(contents, places, strict=True) if place is None)
        segment = self._make(size, f"put({type(value).__name__})") if size > _INLINE_BYTES_MAX else None
        parts: list[_Part] = []
        start = 0
        for part, place in zip(contents, places, strict=True):
            if place is None and segment is not None:
                segment._write(start, part)
                place = segment, start, part.nbytes
                start += _aligned(part.nbytes)
            parts.append(place or bytes(part))
        return Item(tuple(parts))

    def close(self) -> None:
        """Make nothing more. What was made stays for whoever refers to it."""
        self._open = False

    def __enter__(self) -> Store:
        self._check_open()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a store is the budget of one process: pass its items on, and make another store there")

    def _check_open(self) -> None:
        if not self._open:
            raise UsageError("the store is closed")

    def _make(self, nbytes: int, by: str) -> Segment:
        self._check_open()
        if self.used + _in_pages(nbytes) > self._limit:
            gc.collect()  # cycles may keep views
        with _making:
            holders = self._holders()
            used = sum(size for size, _ in holders)
            if used + _in_pages(nbytes) > self._limit:
                largest = [f"{size} bytes of {by}" for size, by in sorted(holders, reverse=True)[:_NAMED]]
                raise StoreFull(
                    f"{by} needs {nbytes} bytes of shared memory; {used} of {self._limit} are taken"
                    f" (largest: {', '.join(largest) or 'none'})"
                )
            segment = Segment._create(nbytes)
            _segments[segment] = (self, by)
        segment._commit()
        return segment

    def _holders(self) -> list[tuple[int, str]]:
        """Give size and maker of each segment that counts."""
        with _making:
            return [(_in_pages(len(segment)), by) for segment, (store, by) in _segments.items() if store is self]


class Item(Generic[T]):
    """A value in shared memory, from `Store.put`. Processes pass it on through `multiprocessing`, and `get` it.

    It may be an argument of a `Process`, of whatever start method, and may be sent through a `Pipe` or `Queue`, or by a
    `ProcessPoolExecutor`. The descriptors of its segments travel along; what passed through a pipe or queue is fetched
    from the sender, which must live until then, and holds the memory until then.
    """

    __slots__ = ("__weakref__", "_parts")

    def __init__(self, parts: tuple[_Part, ...]) -> None:
        # The pickle, then its buffers.
        self._parts = parts

    def get(self) -> T:
        """Give the value: its buffers are read-only views, which keep the memory; the rest is unpickled anew.

        Cost: no copy of what pickles out of band, at any size.
        """
        pickle, *buffers = (part if isinstance(part, bytes) else _view(*part) for part in self._parts)
        value: T = _pickle.loads(pickle, buffers=buffers)
        return value

    @property
    def nbytes(self) -> int:
        """The size of the value: of its pickle and its buffers."""
        return sum(len(part) if isinstance(part, bytes) else part[2] for part in self._parts)

    def __repr__(self) -> str:
        return f"<Item of {self.nbytes} bytes>"

    def __reduce__(self) -> tuple[Callable[..., Item[T]], tuple[tuple[_Part, ...]]]:
        return Item, (self._parts,)


def attach(fd: int, *, writable: bool = False) -> Segment:
    """Map the segment of another process by its descriptor, which came over a Unix socket, or by `pass_fds`.

    Args:
        fd: the descriptor. It stays the caller's, to be closed.
        writable: whether this process may write to it. Who shares memory for writing must take turns by other means.

    Raises:
        OSError: the descriptor is not open, or the process has no room for another one, or for the map.
        UsageError: it is no memory of a store.
    """
    _register()
    segment = Segment._attach(fd, writable)
    with _making:
        _segments[segment] = (None, "attach()")
    return segment


#: Every segment of this process, with its store, if one here made it, and how it came to be.
_segments: WeakKeyDictionary[Segment, tuple[Store | None, str]] = WeakKeyDictionary()
#: Guards the table above. Memory is not cleared under it, so a fork can wait until no other thread holds it.
_making = threading.RLock()
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


def _place(part: memoryview) -> _Place | None:
    """Find the segment that has these very bytes."""
    for reference in _segments.keyrefs():
        segment = reference()
        if segment is not None and (start := segment._offset_of(part)) is not None:
            return segment, start, part.nbytes
    return None


def _view(segment: Segment, start: int, nbytes: int) -> memoryview:
    return memoryview(segment).toreadonly()[start : start + nbytes]


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGN) * _ALIGN


def _in_pages(nbytes: int) -> int:
    return -(-nbytes // _PAGE_BYTES) * _PAGE_BYTES


def _dump(value: object) -> tuple[bytes, list[PickleBuffer]]:
    """Pickle as `multiprocessing` does, so that classes of `__main__` are what they are; by value what cannot be so."""
    buffers: list[PickleBuffer] = []
    try:
        pickle = _pickle.dumps(value, 5, buffer_callback=buffers.append)
        if len(pickle) > _INLINE_BYTES_MAX and out_of_band.may_leave_more(pickle):
            buffers.clear()
            pickle = out_of_band.dumps(value, 5, buffers.append)
        return pickle, buffers
    except Exception:
        buffers.clear()
    from headrace import dynamic_code

    try:
        return dynamic_code.dumps(value, 5, buffers.append), buffers
    except Exception as error:
        from headrace.pickling import describe_error, explain

        path, reason = explain(value) or ("", describe_error(error))
        at = f"value{path}: " if path else ""
        raise ArgumentNotPicklable(f"put(): {at}{reason}") from error


# -- travelling --------------------------------------------------------------------------------------------------------


def _register() -> None:
    """Let segments pass through multiprocessing's pickler, which asks a table of its own before their `__reduce__`."""
    from multiprocessing.reduction import ForkingPickler

    ForkingPickler.register(Segment, _reduce)


def _reduce(segment: Segment) -> tuple[Callable[[Any], Segment], tuple[Any]]:
    from multiprocessing.reduction import DupFd

    return _receive, (DupFd(segment.fileno()),)


def _receive(parcel: Any) -> Segment:
    try:
        fd = parcel.detach()
    except (OSError, EOFError) as error:
        raise ResultLost("whoever sent this shared memory has ended, or somebody else has received it") from error
    try:
        return attach(fd)
    finally:
        os.close(fd)

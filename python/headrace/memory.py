"""Large values in shared memory: made in place, copied on demand, and how much of it there may be."""

from __future__ import annotations

import operator

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from typing import Any, TypeVar

    import numpy

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
    import math

    import numpy

    item = numpy.dtype(dtype)
    if _worker is None or item.hasobject:
        return numpy.empty(shape, dtype)
    lengths = [operator.index(length) for length in (shape if isinstance(shape, tuple | list) else (shape,))]
    size = math.prod(lengths) * item.itemsize
    if size <= 0:
        return numpy.empty(shape, dtype)
    return numpy.ndarray(lengths, item, memoryview(_worker.allocate(size)))


def copy(value: T) -> T:
    """Copy a value that is a read-only view of a result, so that it can be changed.

    As `copy.deepcopy`; arrays and frames in it are writable afterwards. The option `writable` of a task copies less.
    """
    from copy import deepcopy

    return deepcopy(value)


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


def default_store_limit() -> int:
    """Give half of the memory that this process may use: of its control group's limit, or of what is available."""
    return min(_available(), *_group_limits()) // 2


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    return 1 << 62


def _group_limits() -> list[int]:
    """Give the limits of this process's control groups, of version 1 or 2; at least one number."""
    limits = [1 << 62]
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as lines:
            groups = [line.rstrip("\n").split(":", 2) for line in lines]
    except OSError:
        return limits
    for _, controllers, path in groups:
        if controllers == "":
            root, name = "/sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # A limit further up holds, too; in a container the path may not exist, and the root is the group's own.
        parts = path.strip("/").split("/") if path.strip("/") else []
        for depth in range(len(parts), -1, -1):
            try:
                with open("/".join([root, *parts[:depth], name]), encoding="ascii") as file:
                    text = file.read().strip()
            except OSError:
                continue
            if text.isdecimal():
                limits.append(int(text))
    return limits

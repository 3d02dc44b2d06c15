"""The functions that the benchmarks of large values run as tasks, or in this process for comparison."""

import functools
import mmap

import numpy as np

import headrace


def ones(items):
    """Make an array in shared memory."""
    array = headrace.empty(items)
    array[:] = 1.0
    return array


def untouched(array):
    """Return what came."""
    return array


def pages_read(array):
    """Read one byte of every page, and return the array."""
    np.add.reduce(array.view(np.uint8)[:: mmap.PAGESIZE])
    return array


def added_in_place(array):
    """Add 1, into shared memory."""
    result = headrace.empty(array.shape, array.dtype)
    np.add(array, 1.0, out=result)
    return result


def added(array):
    """Add 1, as one writes it."""
    return array + 1.0


def anonymous_bytes(array=None):
    """Return the memory that this process has for itself, after it has read the array."""
    if array is not None:
        pages_read(array)
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def ends(array):
    """Return the first and the last item."""
    return float(array[0]), float(array[-1])


@functools.cache
def _bytes(size):
    return np.zeros(size, np.uint8)


def made_anew(size, token):
    """Give an array of bytes that lies in this process's own memory, and has to be handed over as if it were new."""
    array = _bytes(size)
    array[0] = token
    return array


def paged(array, token):
    """Read one byte of every page; the number behind the token."""
    return token + 1 + int(np.add.reduce(array[:: mmap.PAGESIZE])) - int(array[0])


def handed(array, token):
    """Read nothing; the number behind the token."""
    return token + 1

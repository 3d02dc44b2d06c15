"""What the tests of the store by itself run in child processes, and how they see where memory lies."""

import os
from pathlib import Path

import numpy as np

from headrace import store


def place(array):
    """(inode, offset, permissions) of the mapped memory in which an array starts."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, offset, _device, inode, *name = line.split()
        start, end = (int(end, 16) for end in span.split("-"))
        if start <= address < end:
            assert name[:1] == ["/memfd:headrace"], line
            return int(inode), address - start + int(offset, 16), permissions
    raise AssertionError("not mapped")


def describe(array):
    return place(array)[:2], array.flags.writeable, array.dtype.str, float(array.sum())


def report(item, connection):
    connection.send(describe(item.get()))


def report_both(first, second, segment, connection):
    connection.send((describe(first.get()), describe(second.get()[0]), len(segment)))


def report_all(inbox, outbox):
    """Report on the items of a queue until there comes None."""
    while (item := inbox.get()) is not None:
        outbox.put(describe(item.get()))


def hold(item, connection):
    """Look at an item until killed."""
    view = item.get()
    connection.send(float(view[0]))
    connection.recv()


def produce(connection, value, items):
    """Send an item, and stay until it was received."""
    connection.send(store.Store().put(np.full(items, value)))
    connection.recv()


def produce_and_leave(connection, items):
    connection.send(store.Store().put(np.ones(items)))
    connection.close()
    os._exit(0)


def pass_slice_on(item, connection):
    """Send back, as an item, a part of what came."""
    view = item.get()
    connection.send((place(view), store.Store(limit=1 << 16).put({"part": view[100:], "number": 7})))
    connection.recv()


def fill(segment, value):
    np.frombuffer(segment, dtype=float)[:] = value


def scaled(item, factor):
    """For a pool: an item of an item."""
    return store.Store().put(item.get() * factor)

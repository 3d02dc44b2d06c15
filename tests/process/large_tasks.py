"""Functions that the tests of shared memory run, and how these tests see into arrays."""

import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import headrace as hr

#: Arrays that tasks of this worker have put aside.
shelf = []


@dataclass
class Measurement:
    """A dataclass with arrays in it."""

    name: str
    values: np.ndarray
    errors: np.ndarray


def filled(value, items):
    return np.full(items, value, dtype=float)


def filled_in_place(value, items):
    array = hr.empty(items)
    array[:] = value
    return array


def exhaust_descriptors():
    """Open files until this process may open no more, few being allowed."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
    before = len(shelf)
    try:
        while True:
            shelf.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return len(shelf) - before


def free_descriptors():
    while shelf:
        os.close(shelf.pop())


def touch_and_fill(path, items):
    Path(path).touch()
    return filled_in_place(1.0, items)


def fill_for_ever(started, value, items):
    """Fill new arrays wherever there is room, whoever interrupts that, until the process is killed."""
    arrays = []
    while True:
        try:
            arrays = arrays[-2:]
            arrays.append(filled_in_place(value, items))
            Path(started).touch()
        except (KeyboardInterrupt, hr.StoreFull):
            pass


def written_once(value, items):
    """Fill an array of `hr.empty`, show that this is its address, and put it aside."""
    array = hr.empty(items)
    array[:] = value
    shelf.append(array)
    return [address(array), array]


def same(value, *_after):
    return value


def middle(array):
    return array[len(array) // 8 : -len(array) // 8]


def transposed(array):
    return array.T


def in_new_containers(value):
    return [value, (value,)] if isinstance(value, np.ndarray) else [arrays_in(value)[0][5:], {"a": value[1]}]


def empty_of(items):
    return hr.empty(items)


def plus_one(array):
    return array + 1


def total(array, *_after):
    return float(array.sum())


def address_and_total(array):
    return address(array), float(array.sum())


def combine(seed, items, *arrays):
    """Give an array that tells whether each byte of every input was right."""
    result = np.arange(seed, seed + items, dtype=np.int64)
    for array in arrays:
        result += int(array.sum()) % 1_000_003 + len(array)
    return result


def put_aside(array):
    shelf.append(array)
    return len(shelf)


def take_totals():
    """The totals of what was put aside, which is let go."""
    totals = [float(array.sum()) for array in shelf]
    shelf.clear()
    return totals


def look(value):
    """How the arrays in a value appear here: whether they can be written to, and whether they lie in a block."""
    return [(array.flags.writeable, lies_in_block(array)) for array in arrays_in(value)]


def sum_once_per_marker(array, marker):
    """Kill this worker in the first attempt."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(array.sum())


def kill_with(array):
    os.kill(os.getpid(), signal.SIGKILL)
    return array


def fork_reader(array, gate, answer):
    """Leave a child behind that reads the array once somebody writes to the named pipe `gate`."""
    pid = os.fork()
    if pid == 0:
        try:
            Path(gate).read_bytes()
            Path(answer).write_text(f"{array.min()} {array.max()}")
        finally:
            os._exit(0)
    shelf.append(pid)
    return pid


def reap_children():
    for pid in shelf:
        os.waitpid(pid, 0)
    shelf.clear()


def empty_in_a_child(items):
    """Let a forked child fill an array of its own; least and greatest item of ours, and its status."""
    may_go, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(5)  # should it hang, it ends
            os.read(may_go, 1)
            hr.empty(items)[:] = 7
        finally:
            os._exit(0)
    ours = hr.empty(items)
    ours[:] = 2
    os.write(go, b"!")
    _, status = os.waitpid(pid, 0)
    return float(ours.min()), float(ours.max()), status


def arrays_in(value):
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        return arrays_in(list(value.values()))
    if isinstance(value, Measurement):
        return [value.values, value.errors]
    return [array for part in value for array in arrays_in(part)] if isinstance(value, (list, tuple)) else []


def owner(array):
    """What has the bytes of an array in the end."""
    while isinstance(array, (np.ndarray, memoryview)):
        array = array.obj if isinstance(array, memoryview) else array.base
    return array


def map_at(address):
    """The map of memory that has an address: what it maps and may do, and the bytes of the kernel's account of it."""
    with open("/proc/self/smaps") as lines:
        found = {}
        for line in lines:
            words = line.split()
            if not words[0].endswith(":"):
                if found:
                    break
                start, end = (int(number, 16) for number in words[0].split("-"))
                if start <= address < end:
                    found = {"permissions": words[1], "path": words[5] if len(words) > 5 else ""}
            elif found and words[-1] == "kB":
                found[words[0][:-1]] = int(words[1]) << 10
    return found


def is_shared(address):
    """Whether the byte at an address lies in a segment, not to be written to here."""
    found = map_at(address)
    return (found["path"], found["permissions"]) in {("/memfd:headrace", "r--s"), ("/memfd:headrace", "rw-s")}


def lies_in_block(array):
    return type(owner(array)).__name__ == "Block"


def address(array):
    return array.__array_interface__["data"][0]


def both(left, right):
    return left + right


def look_closely(array):
    """What file an array lies in, whether it can be written to, and its sum."""
    from store_watch import backing

    return backing(array), array.flags.writeable, float(array.sum())


def digits(number, size=10_240):
    """Text of so many bytes, of which each number has another."""
    return f"{number:010}" * (size // 10)

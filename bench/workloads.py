"""The functions that the benchmarks run as tasks: ordinary module functions, imported by every worker."""

import os
import time


def inc(value):
    """Return the next number."""
    return value + 1


def add(left, right):
    """Return the sum of two numbers."""
    return left + right


def cell(left, middle, right):
    """Return one cell of the stencil."""
    return (31 * left + 17 * middle + right) & 0xFFFFFFFF


def spin(seconds):
    """Keep a core busy for `seconds`."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


def count_to(number, tag):
    """Count in pure Python, a fixed amount of work however often the scheduler interrupts it; returns `tag`."""
    for _ in range(number):
        pass
    return tag


def started_ns(tag):
    """Return when the task ran, by the clock that all processes of a machine share, and its `tag`."""
    return time.monotonic_ns(), tag


def nap(seconds, value):
    """Take a while, but no processor."""
    time.sleep(seconds)
    return value


def tell_and_stay(pipe, gate):
    """Tell who runs and when that began; stay until somebody ends this process, unless the gate is open."""
    now_ns, is_open = time.monotonic_ns(), os.path.exists(gate)
    fd = os.open(pipe, os.O_WRONLY)
    os.write(fd, b"%d %d\n" % (os.getpid(), now_ns))
    os.close(fd)
    if not is_open:
        time.sleep(10)
    return os.getpid()

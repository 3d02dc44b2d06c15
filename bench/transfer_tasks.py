"""Tasks for the transfer of a large result."""

import time

import headrace


def make(megabytes, _round):
    """An array that is written where it will be read, and when that was done."""
    array = headrace.empty(megabytes * 125_000, dtype="f8")
    array[:] = _round
    return array


def ended(array):
    """When this started; to run beside what made the array."""
    return time.monotonic(), float(array[-1])


def arrived(array):
    """When this started; to run elsewhere."""
    return time.monotonic(), float(array[0]) + float(array[-1])

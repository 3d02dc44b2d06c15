"""Tasks that make and read large arrays, and say where they are."""

import hashlib
import os
import time

import numpy as np


def make(megabytes, seed=0, path=None):
    """An array of so many MB that nobody would guess."""
    if path:
        with open(path, "a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1 << 63, size=megabytes * 125_000, dtype=np.int64)


def digest(array):
    return hashlib.sha256(memoryview(array).cast("B")).hexdigest()


def look(array, seconds=0.0):
    """What the array is, where this is, and whether the array lies in shared memory here."""
    time.sleep(seconds)
    return digest(array), os.getpid(), os.stat("/proc/self/ns/net").st_ino, is_shared(array)


def is_shared(array):
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps", encoding="ascii") as maps:
        for line in maps:
            place, *_, name = line.split(maxsplit=5)
            start, end = (int(word, 16) for word in place.split("-"))
            if start <= address < end:
                return "memfd:headrace" in name
    return False


def first(array):
    return int(array[0])


def both(left, right):
    return int(left[0]) + int(right[-1])

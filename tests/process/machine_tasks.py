"""Tasks that say where they run."""

import os
import time
from pathlib import Path

import headrace as hr


def place(_=None):
    """The network namespace and the process of the task."""
    return os.stat("/proc/self/ns/net").st_ino, os.getpid()


def slowly(seconds, path=None, number=0):
    """Note the start, sleep, and note the end."""
    note(path, f"start {number}")
    time.sleep(seconds)
    note(path, f"end {number}")
    return number, *place()


def note(path, text):
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{text}\n".encode())
        os.close(descriptor)


def spin(path):
    """Run until interrupted, and say so."""
    Path(path).touch()
    try:
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        Path(f"{path}-interrupted").touch()
        raise


def die():
    os.kill(os.getpid(), 9)


def say(text):
    print(text)
    return text


def tree(depth):
    if depth == 0:
        return 1
    client = hr.current_client()
    return sum(future.result() for future in [client.call(tree, depth - 1) for _ in range(2)])

"""Functions that the client tests run, and what several of them ask a client."""

import os
import signal
import sys
import time
from pathlib import Path

import headrace as hr


class Sour(Exception):
    """An exception with state, that pickles."""

    def __init__(self, degree):
        super().__init__(degree)
        self.degree = degree


def inc(number):
    return number + 1


def add(left, right):
    return left + right


def total(*numbers):
    return sum(numbers)


def double_all(numbers):
    return [2 * number for number in numbers]


def dig(tree):
    """Sum the numbers in a tree of lists and dicts."""
    if isinstance(tree, dict):
        return dig(list(tree.values()))
    return sum(map(dig, tree)) if isinstance(tree, (list, tuple)) else tree


def fail(degree):
    raise Sour(degree)


def slowly(seconds, value=None):
    time.sleep(seconds)
    return value


def wait_for(path):
    """Return once the file is there."""
    while not Path(path).exists():
        time.sleep(0.002)
    return path


def touch(path, *_after):
    Path(path).touch()
    return path


def generate():
    yield 1


def who_am_i(*_):
    from headrace import current

    task = current()
    return task.key, task.worker, task.cancelled


def leave(code):
    os._exit(code)


def kill_itself(words):
    print(words, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def speak(text):
    print(text)
    print(text.upper(), file=sys.stderr)


def big(size):
    return bytes(size)


def worker_pids(client):
    """Process ids of the workers, once all are up."""
    run = client.submit(hr.Graph())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pids = [worker.pid for worker in run.statistics().workers]
        if all(pids):
            return pids
        time.sleep(0.002)  # they need the processor to come up
    raise AssertionError("not all workers came up")

"""Functions with effects that are counted outside: each call appends a line to a file."""

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

from client_tasks import Sour

import headrace as hr


def note(path, line=""):
    """Append a line at once, whoever else does, and say how many there are now."""
    with open(path, "ab") as file:
        file.write(f"{line or time.monotonic()}\n".encode())
    return len(lines(path))


def lines(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def times(path):
    return [float(line) for line in lines(path)]


def fail_first(path, failures, value=None, *_after):
    """Fail so many times, then return the value."""
    if note(path) <= failures:
        raise Sour(len(lines(path)))
    return value


def fail_as(path, error, *_after):
    note(path)
    raise error


def succeed(path, *_after):
    note(path)
    return len(lines(path))


def say_failures(path, failures):
    """Fail so many times, then say what the task was told of that."""
    found = hr.current().failures
    note(path, str(found))
    if found < failures:
        raise Sour(found)
    return found


def die_first(path, *_after):
    """Kill the worker at the first call, fail at the second, return at the third."""
    call = note(path)
    if call == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if call == 2:
        raise Sour(2)
    return call


def is_mild(error):
    return error.degree < 3


def is_broken(error):
    raise RuntimeError("the question itself")


class Unloadable:
    """A function that raises when it is unpickled in another process."""

    def __init__(self, path):
        self.path = path
        self.home = os.getpid()

    def __call__(self):
        return fail_as(self.path, KeyError("called"))

    def __reduce__(self):
        return _load, (self.path,)


def _load(path):
    note(path)
    raise KeyError("loaded")


# -- time limits -------------------------------------------------------------------------------------------------------


def sleep(path, seconds, value=None, *_after):
    note(path)
    time.sleep(seconds)
    return value


def sleep_first(path, seconds, value=None):
    """Take long at the first call alone."""
    time.sleep(seconds if note(path) == 1 else 0)
    return value


def ignore_interrupts(path, seconds):
    """Let no interrupt through, as code does that catches everything."""
    until_s = time.monotonic() + seconds
    noted = False
    while time.monotonic() < until_s:
        try:
            if not noted:
                noted = True
                note(path)  # whoever has read it may interrupt
            time.sleep(0.01)
        except BaseException:
            note(path + ".interrupts")


def hold_interpreter(path, _seconds):
    """Run native code that neither lets go of the interpreter nor looks for signals."""
    note(path)
    return sum(range(10**12))


def hold_alone(path, seconds):
    """Hold a lock that goes with the process, and note when another attempt has it."""
    note(path)
    with open(path + ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            note(path + ".overlaps")
        ignore_interrupts(path, seconds)


def wait_until_unwanted(path):
    note(path)
    while not hr.current().cancelled:
        time.sleep(0.001)
    note(path + ".ended")
    return "late"


def worker_process(*_after):
    return os.getpid()


# -- cancellation ------------------------------------------------------------------------------------------------------


def hold(path, gate, value=None, *_after):
    """Note the start, and return once the gate is there; note an interrupt."""
    note(path)
    try:
        while not Path(gate).exists():
            time.sleep(0.002)
    except KeyboardInterrupt:
        note(path + ".interrupts")
        raise
    return value


# -- second attempts ---------------------------------------------------------------------------------------------------


def hang_first(path, gate, value=None, *_after):
    """Hang in the first attempt until the gate is there, note an interrupt, and return at once in any other."""
    if note(path, os.getpid()) > 1:
        return value
    try:
        while not Path(gate).exists():
            time.sleep(0.002)
    except KeyboardInterrupt:
        note(path + ".interrupts")
        raise
    return "late"


def ignore_first(path, gate, value=None):
    """The same, and let no interrupt through."""
    if note(path, os.getpid()) > 1:
        return value
    while not Path(gate).exists():
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(0.002)
    return "late"


def fail_beside(path, gate, value=None):
    """Fail in the first attempt once there is a second one, which goes on until the gate is there."""
    first = note(path) == 1
    while not (len(lines(path)) > 1 if first else Path(gate).exists()):
        time.sleep(0.002)
    if first:
        note(path + ".failed")
        raise Sour(1)
    return value


def fail_both(path):
    """Fail once there are two attempts."""
    note(path)
    while len(lines(path)) < 2:
        time.sleep(0.002)
    raise Sour(2)


def die_beside(path, gate, value=None):
    """The same, by a crash."""
    try:
        return fail_beside(path, gate, value)
    except Sour:
        os.kill(os.getpid(), signal.SIGKILL)

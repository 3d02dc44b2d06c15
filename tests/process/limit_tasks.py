"""Functions that the tests of limits run, and what they look at."""

import fcntl
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import headrace as hr


def hold(folder, name):
    """Say that the task runs, and return once the gate is open. Gives its worker."""
    Path(folder, f"runs-{name}").touch()
    while not Path(folder, "gate").exists():
        time.sleep(0.002)
    return hr.current().worker


def spend(folder, name, amount=1):
    """Note begin and end of the task, between which it takes a few milliseconds."""
    note(folder, f"begin {name} {amount}")
    time.sleep(0.005)
    note(folder, f"end {name} {amount}")
    return name


def note(folder, line):
    fd = os.open(Path(folder, "notes"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def notes(folder):
    path = Path(folder, "notes")
    return path.read_text().splitlines() if path.exists() else []


def most_at_once(folder):
    """The most that the tasks of `spend` took together."""
    now = most = 0
    for line in notes(folder):
        what, _, amount = line.split()
        now += int(amount) if what == "begin" else -int(amount)
        most = max(most, now)
    assert now == 0
    return most


def running(folder):
    """Names of the tasks of `hold` that have begun."""
    return {path.name.removeprefix("runs-") for path in Path(folder).glob("runs-*")}


def die(folder, name):
    note(folder, f"died {name}")
    os.kill(os.getpid(), signal.SIGKILL)


def lock(folder, number):
    """Have the one lock for a moment, which nobody else may have at the time; it goes with its process."""
    fd = os.open(Path(folder, "lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.002)
    except BlockingIOError:
        note(folder, f"violation {number}")
    finally:
        os.close(fd)
    return number


def gpus():
    return hr.current().worker, os.environ.get("CUDA_VISIBLE_DEVICES")


def nothing(*_):
    return None


def until(condition, timeout_s=20):
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)


@contextmanager
def opened(folder):
    """Open the gate at the end, whatever happens: nothing may hang for it."""
    try:
        yield
    finally:
        Path(folder, "gate").touch()

"""Functions and objects that end the process they run in, or stop it."""

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np


def blow(kind):
    """Go off in one of four ways."""
    match kind:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit(3)
        case "exception":
            raise RuntimeError("blown")
        case "abort":
            os.abort()
        case "exit 0":
            os._exit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError(kind)


def blow_elsewhere(kind, pid):
    if os.getpid() != pid:
        blow(kind)
    return "dud"


class OnPickle:
    """Goes off when it is pickled."""

    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return blow(self.kind)


class OnUnpickle:
    """Goes off when it is unpickled in another process than the one that pickled it."""

    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return blow_elsewhere, (self.kind, os.getpid())


def take(_value):
    return "taken"


def make(bomb, kind):
    return bomb(kind)


def inc(number):
    return number + 1


def add(left, right):
    return left + right


def work(number, poison, path):
    """A short task that leaves a trace; one number kills."""
    note(path, number)
    if number == poison:
        os.kill(os.getpid(), signal.SIGKILL)
    return number + 1


def note(path, text):
    """Append a line, whole, whatever others write."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def pid_of(*_):
    return os.getpid()


def blow_in_thread(kind):
    """Let a thread go off; wait until it has."""
    thread = threading.Thread(target=blow, args=(kind,))
    thread.start()
    thread.join()
    return os.getpid()


def blow_soon(kind, seconds):
    """Let a thread go off when nothing runs any more."""
    threading.Timer(seconds, blow, args=(kind,)).start()
    return os.getpid()


def blow_at_exit(kind):
    atexit.register(blow, kind)
    return os.getpid()


def ones(count):
    return np.ones(count)


def total(*arrays):
    return float(sum(array.sum() for array in arrays))


def blow_with(_array, kind):
    """Hold a view of shared memory, and something large of one's own, while it goes off."""
    own = np.ones(1_000_000)
    blow(kind)
    return own


def take_memory(mib):
    """Use so much memory."""
    block = bytearray(mib << 20)
    block[::4096] = b"x" * len(block[::4096])
    return len(block)


def raise_memory_error():
    raise MemoryError("of its own")


def stay(path, seconds):
    """Note where this begins and ends."""
    note(path, f"began {os.getpid()}")
    time.sleep(seconds)
    note(path, f"ended {os.getpid()}")
    return os.getpid()


def stay_once(path, seconds):
    """Stay for long the first time, and not at all the second."""
    first = not Path(path).exists()
    note(path, f"began {os.getpid()}")
    if first:
        time.sleep(seconds)
    note(path, f"ended {os.getpid()}")
    return os.getpid()


def hold_interpreter(seconds):
    """Keep the interpreter lock in native code for so long."""
    ctypes.PyDLL(None).sleep(seconds)
    return os.getpid()


def be_the_only_one(path):
    """Of all processes that do this, only the first lives."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        print("there is one already", file=sys.stderr, flush=True)
        os._exit(7)

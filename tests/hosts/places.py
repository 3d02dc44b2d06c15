"""What tests on other engines' clusters ask about processes: those of one test are known by a variable they inherit."""

import contextlib
import os
import time
import uuid
from pathlib import Path

TIMEOUT_S = 30

_MARK = "HEADRACE_TEST_MARK"


def mark():
    """Have all processes that this one starts be known."""
    os.environ[_MARK] = str(uuid.uuid4())


def of_this_test(word):
    """Processes that this one has started, itself or others for it, with a word in their command line."""
    found, own = [], f"{_MARK}={os.environ[_MARK]}".encode()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            if word.encode() in command and own in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def wait_until(true, timeout_s=TIMEOUT_S):
    """Wait for a condition."""
    until_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until_s, "that has not happened in time"
        time.sleep(0.02)

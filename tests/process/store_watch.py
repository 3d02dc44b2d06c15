"""How tests look at the store from outside: what processes have of it, and what the machine and a disk give to it.

Memory is measured by the pages of the segments, whose descriptors the embedded broker has in this process.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import headrace as hr

TIMEOUT_S = 30
HERE = Path(__file__).parent
MIB = 1 << 20
#: How a segment is called in /proc.
SEGMENT = "/memfd:headrace (deleted)"


def shared_bytes():
    """Pages of all segments that this process has a descriptor of."""
    segments = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if os.readlink(descriptor) == SEGMENT:
                status = descriptor.stat()
                segments[status.st_ino] = 512 * status.st_blocks
        except FileNotFoundError:
            pass  # that was the descriptor of the listing, or another thread's
    return sum(segments.values())


def machine_bytes():
    """Shared memory of the whole machine."""
    return _meminfo("Shmem")


def available_bytes():
    """Memory that the machine could give."""
    return _meminfo("MemAvailable")


def _meminfo(name):
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def private_bytes():
    """Memory of this process that no file and no segment stands for."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def files_of(pid, directory=None):
    """Inodes of the segments, and of the unnamed files in a directory, that a process has open or mapped."""
    found = set()
    proc = Path(f"/proc/{pid}")
    try:
        for descriptor in (proc / "fd").iterdir():
            with contextlib.suppress(OSError):
                if _is_ours(os.readlink(descriptor), directory):
                    found.add(descriptor.stat().st_ino)
        for line in (proc / "maps").read_text().splitlines():
            words = line.split(maxsplit=5)
            if len(words) == 6 and _is_ours(words[5], directory):
                found.add(int(words[4]))
    except OSError:
        pass  # it has ended, or belongs to somebody else
    return found


def _is_ours(name, directory):
    in_directory = directory is not None and name.startswith(f"{directory}/") and name.endswith(" (deleted)")
    return name == SEGMENT or in_directory


def holders_of(inodes, directory=None):
    """Processes of the whole machine that have one of these files."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if files_of(pid, directory) & inodes]


def backing(array):
    """What file the memory of an array belongs to, by name; empty for private memory."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in words[0].split("-"))
        if start <= address < end:
            return words[5] if len(words) == 6 else ""
    raise AssertionError("the address is not mapped")


def eventually(condition, timeout_s=TIMEOUT_S):
    """Wait until something that nobody announces is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Names:
    """Every name that appears in a directory, however shortly; to be used in a `with` statement."""

    IN_CREATE_OR_MOVED_TO = 0x100 | 0x80

    def __init__(self, directory):
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch = libc.inotify_add_watch(self._fd, os.fsencode(directory), self.IN_CREATE_OR_MOVED_TO)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        assert watch >= 0, os.strerror(ctypes.get_errno())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._fd)

    def appeared(self):
        """Whether one has appeared."""
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._fd, 4096))
        return False


def flush(client):
    """Let the broker know which results were let go of."""
    gc.collect()
    client.submit(hr.Graph()).statistics()


def store_of(client):
    return client.statistics().store


def value_of(client, fn, *args, worker=None):
    return client.call(fn if worker is None else hr.task(fn, worker=worker), *args).result(timeout=TIMEOUT_S)


def kill(pid):
    """Kill a process and return once it is gone."""
    with Process(pid) as process:
        os.kill(pid, signal.SIGKILL)
        assert process.ends(), "it does not die"


class Process:
    """A process that may end at any time; in a `with` statement its number stays its own."""

    def __init__(self, pid):
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._fd)

    def ends(self, timeout_s=TIMEOUT_S):
        """Wait for its end; whether it came."""
        return bool(select.select([self._fd], [], [], timeout_s)[0])


def script_of(text, timeout_s=2 * TIMEOUT_S):
    """A program of its own, with this folder on its path. One that hangs says where, and ends."""
    head = f"import faulthandler, sys; faulthandler.dump_traceback_later({timeout_s}, exit=True)\n"
    text = f"{head}sys.path.insert(0, {str(HERE)!r})\n" + textwrap.dedent(text)
    return [sys.executable, "-W", "error", "-c", text]


def run_script(text, timeout_s=2 * TIMEOUT_S, before=(), arguments=(), **options):
    """Run a program with arguments, behind the words of another command if there are any."""
    command = [*before, *script_of(text, timeout_s), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s + 10, check=False, **options)


@contextlib.contextmanager
def program(text, arguments=(), **options):
    """Start a program, and see to it that it ends with the block."""
    command = [*script_of(text), *arguments]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()

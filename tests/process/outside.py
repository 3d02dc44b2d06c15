"""A program with all that it started, seen from outside: found by a variable of its environment, never by name."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

from store_watch import eventually

TIMEOUT_S = 30


def wait_until(true, timeout_s=TIMEOUT_S):
    """Wait for a condition, so many seconds at most."""
    assert eventually(true, timeout_s)


HERE = Path(__file__).parent
#: Where programs of tests look for modules besides: for tasks, and for what watches brokers.
PATH = f"{HERE}{os.pathsep}{HERE.parent / 'audit'}"
#: What a program may take to end after it was told to, on a machine with nothing else to do; CI's gets more.
END_S = 2.0 if "HEADRACE_STRICT_TIMING" in os.environ else 10.0
#: What a program may leave in its run directory.
RUN_DIR_BYTES_MAX = 16 << 10


class Home:
    """A private folder for run directories. Programs that share it reap what others left."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="hr-"))  # short: sockets lie below it

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def run_dirs(self):
        """What brokers have left, or have now."""
        return list(self.path.iterdir())

    def bytes(self):
        """What that takes on disk; what goes meanwhile counts for nothing."""
        total = 0
        for directory in self.run_dirs():
            for path in (directory, *directory.glob("*")):
                with contextlib.suppress(FileNotFoundError):
                    total += 512 * path.lstat().st_blocks
        return total


class Program:
    """A program that runs in a session of its own, as if a terminal had started it in the foreground."""

    def __init__(self, home, *command, **options):
        self.home = home
        self._mark = f"HEADRACE_TEST_MARK={uuid.uuid4()}"
        environment = os.environ | dict([self._mark.split("=")]) | {"XDG_RUNTIME_DIR": str(home.path)}
        pipe = subprocess.PIPE
        streams = {"stdin": pipe, "stdout": pipe, "stderr": pipe} | options
        self.process = subprocess.Popen(command, env=environment, text=True, start_new_session=True, **streams)
        self.output = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self):
        return self.process.pid

    def line(self):
        """The next line of standard output."""
        line = b""
        # Byte by byte: what a buffer had read ahead, `communicate` would not see.
        while not line.endswith(b"\n") and (byte := os.read(self.process.stdout.fileno(), 1)):
            line += byte
        self.output += line.decode()
        return line.decode()

    def pids(self):
        """Its processes: itself, its workers, and what these started."""
        mark, found = self._mark.encode(), []
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                    if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                        found.append(int(name))
        return found

    def children(self):
        """Its processes without itself."""
        return [pid for pid in self.pids() if pid != self.pid]

    def memory(self):
        """Inodes of all memory without a name that any of its processes has."""
        return set().union(*map(memory_of, self.pids()))

    def signal_group(self, number=signal.SIGINT):
        """What a terminal does at Ctrl-C: the program gets the signal, and its workers, each in a session, do not."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, timeout=TIMEOUT_S):
        """Wait for its end; give its exit code as a shell would, its output and its errors."""
        output, errors = self.process.communicate(timeout=timeout)
        code = self.process.returncode
        return (128 - code if code < 0 else code), self.output + output, errors

    def ended_within(self, seconds, since):
        """Whether neither it nor anything that it started is there so many seconds after a time."""
        return eventually(lambda: not self.pids(), seconds - (time.monotonic() - since))


def memory_of(pid):
    """Inodes of the memory without a name that a process has open or mapped, as far as it is headrace's."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor).startswith("/memfd:headrace"):
                    found.add(descriptor.stat().st_ino)
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            words = line.split(maxsplit=5)
            if len(words) == 6 and words[5].startswith("/memfd:headrace"):
                found.add(int(words[4]))
    return found


def is_gone(inodes, timeout_s=END_S):
    """Whether no process of the machine has any of this memory, soon: one that ends lets go of descriptors last."""

    def holders():
        return [name for name in os.listdir("/proc") if name.isdecimal() and memory_of(name) & inodes]

    return eventually(lambda: not holders(), timeout_s)


def script(*texts):
    """The command for a program of its own, with this folder on its path."""
    text = "\n".join([f"import sys; sys.path.insert(0, {str(HERE)!r})", *map(textwrap.dedent, texts)])
    return [sys.executable, "-W", "error", "-c", text]


def command_line(*words):
    """The command line as it is installed."""
    return [str(Path(sys.executable).with_name("headrace")), *map(str, words)]

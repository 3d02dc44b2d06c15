"""What tasks print, on this process's own standard output and error."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace._core import ClientCore

    #: Takes lines: of which worker, of which stream, the text.
    Log = Callable[[int | None, str, str], object]

#: Standard output and error by the numbers under which lines travel.
STREAMS = {1: "stdout", 2: "stderr"}

#: The number that stands for none: headrace's own lines.
NO_WORKER = 0xFFFF_FFFF

#: Seconds that the end of a client waits for lines that are still to be written.
FLUSH_S = 1.0


class Printer:
    """Writes the lines of one client's workers, on a thread of its own.

    The thread sleeps in native code until the broker sends lines, so it costs nothing where no task prints; and nobody
    who waits for a result waits for whoever reads the output.

    Args:
        core: whose workers.
        log: what takes the lines in place of the streams: the number of the worker, None for headrace's own lines; the
            name of the stream; and the text.
    """

    def __init__(self, core: ClientCore, log: Log | None = None) -> None:
        self._core = core
        self._log = log
        #: Whether lines say which worker wrote them.
        self.marks = True
        self._streams = {number: Stream(name) for number, name in STREAMS.items()}
        self._dropped = 0
        self.thread = threading.Thread(target=self._run, name="headrace-output", daemon=True)
        self.thread.start()

    def finish(self, timeout: float = FLUSH_S) -> None:
        """Wait, after the end of the session, until everything was written."""
        if self.thread is not threading.current_thread():
            self.thread.join(timeout)

    def _run(self) -> None:
        lines: list[tuple[int, int, bytes]] | None = []
        while lines is not None:
            lines, dropped = self._core.wait_logs()
            if dropped > self._dropped:
                missing, self._dropped = dropped - self._dropped, dropped
                self._write(NO_WORKER, 2, f"[headrace] {missing:,} bytes of output dropped\n".encode())
            for worker, stream, text in lines or ():
                self._write(worker, stream, text)

    def _write(self, worker: int, stream: int, text: bytes) -> None:
        if self._log is None:
            self._streams[stream].write(mark(worker if self.marks else NO_WORKER, text))
            return
        with contextlib.suppress(Exception):  # it is not ours
            self._log(None if worker == NO_WORKER else worker, STREAMS[stream], text.decode(errors="replace"))


def mark(worker: int, text: bytes) -> str:
    """Mark each of a worker's lines with its number; headrace's own stand as they are."""
    whole = text.decode(errors="replace")
    if worker == NO_WORKER:
        return whole
    lines = whole.splitlines(keepends=True)
    return "".join(f"[worker {worker}] {line}" for line in lines)


class Stream:
    """Standard output or error, whatever that is when something is written. What failed once is not tried again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failed: object = None

    def write(self, text: str) -> None:
        """Write a text. Never raises: the first failure is told on standard error."""
        file = getattr(sys, self._name, None)
        if file is None or file is self._failed:
            return
        try:
            write_to(file, text)
        except BaseException as error:  # a file of the user's may raise anything
            self._failed = file
            reason = f"{type(error).__name__}: {error}" if isinstance(error, OSError | ValueError) else repr(error)
            if self._name != "stderr":
                Stream("stderr").write(f"headrace: sys.{self._name} takes no more of what tasks print ({reason})\n")


def write_to(file: TextIO, text: str) -> None:
    """Write a text to a file at once.

    A file of the system is written past its buffer, and only when it takes something: whoever else wants the buffer,
    such as the interpreter at its end, must not find this thread asleep in it.
    """
    try:
        descriptor = file.fileno() if type(file) is io.TextIOWrapper else None
    except OSError:  # a buffer in memory
        descriptor = None
    if descriptor is None:
        file.write(text)
        file.flush()
        return
    left = text.encode(file.encoding, "backslashreplace")
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
    file.flush()
    while left:
        poll.poll()
        end = left.rfind(b"\n", 0, select.PIPE_BUF) + 1 or select.PIPE_BUF
        try:
            left = left[os.write(descriptor, left[:end]) :]
        except BlockingIOError:  # somebody else was faster
            continue

"""Looks from outside at the brokers of this user on this machine. `headrace top` shows what it sees.

A broker listens in a private directory (`rust/runtime/src/run_dir.rs`), where a peer that calls itself an observer may
ask how all runs stand. A broker may be stopped, busy, of another version or gone: a look ends at its deadline all the
same, and tells of the others.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import stat
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack
import zmq

from headrace._core import __version__
from headrace.statistics import LargeResult, RunStatistics, Shared, StoreStatistics, WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from headrace.why import Parts

#: Seconds that brokers get for an answer; they take about a millisecond.
ANSWER_S = 1.0

#: The same where stacks may be asked for: a process gets a second for them.
STACKS_S = 2.0

#: A broker forgets an observer that says nothing for a minute: who comes back later says HELLO again.
_REMEMBERED_S = 30.0

#: Milliseconds in which a goodbye has to be out.
_LINGER_MS = 200

#: Message types, and numbers in them, as in `rust/wire`.
_HELLO, _WELCOME, _GOODBYE, _QUERY, _STATE, _WHY, _BECAUSE = 1, 2, 3, 14, 15, 40, 41
_PROTOCOL_VERSION = 1
_OBSERVER = 3
_NO_WORKER = 0xFFFF_FFFF

_RUN_DIR_NAME = re.compile("headrace-[0-9a-f]{8}")


class Seen(NamedTuple):
    """One broker at one moment."""

    directory: str
    """Where it listens."""
    pid: int
    """Process id of its client; 0 if that cannot be told from here."""
    command: tuple[str, ...]
    """That process's command; empty if it cannot be told."""
    state: RunStatistics | None
    """All its runs since its start, whose two times are 0; None if it did not say."""
    problem: str
    """Why it did not say."""
    because: Parts | None = None
    """Where the task is that was asked for, as `headrace.why.why` takes it."""


class Observer:
    """A look at all brokers, over and over, by connections that stay open in between.

    Args:
        place: the directory of the one broker to look at, or its endpoint in the network; by default all of this
            user's on this machine.
        keys: for a broker in the network: own public, own secret, the broker's public key.
    """

    def __init__(self, place: str | None = None, keys: tuple[str, str, str] | None = None) -> None:
        self.base = run_dir_base() if place is None else place
        self._place = place
        self._keys = keys
        self._context = zmq.Context()
        self._links: dict[str, _Link] = {}

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def look(self, timeout_s: float = ANSWER_S) -> list[Seen]:
        """Ask every broker how things stand.

        Args:
            timeout_s: seconds until those that have not answered are given up on for this time. They are asked nothing
                new, and are not waited for again, before they have answered.

        Returns:
            What each said, in the order of their starts; an answer that came late counts as well. Directories that
            nobody listens in are left out.

        Cost: A round trip; for the broker also a look at each result that it holds.
        """
        return self._ask([_QUERY, 0, 0], timeout_s)

    def why(self, key: str, *, stacks: bool = False, timeout_s: float = STACKS_S) -> list[Seen]:
        """Ask every broker where the tasks of a key are and what they wait for; otherwise as `look`.

        Args:
            key: of the task.
            stacks: whether the Python stacks of the process that runs it are wanted.
            timeout_s: as for `look`.
        """
        return self._ask([_WHY, 0, 0, 0, key, stacks], timeout_s)

    def _ask(self, question: list[Any], timeout_s: float) -> list[Seen]:
        deadline_s = time.monotonic() + timeout_s
        self._connect(run_directories(self.base) if self._place is None else [self._place])
        waiting = [link for link in self._links.values() if link.ask(question)]
        while waiting and (left_s := deadline_s - time.monotonic()) > 0:
            zmq.select([link.socket for link in waiting], [], [], left_s)
            waiting = [link for link in waiting if not link.is_settled()]
        seen = {directory: link.describe() for directory, link in self._links.items()}
        for directory, broker in seen.items():
            if broker is None:
                self._links.pop(directory).close()
        return [broker for broker in seen.values() if broker is not None]

    def close(self) -> None:
        """Say goodbye to every broker. Calling it again does nothing."""
        while self._links:
            self._links.popitem()[1].close()
        # An interrupt may have left a socket that is in no link: it would be waited for.
        self._context.destroy(_LINGER_MS)

    def _connect(self, directories: list[str]) -> None:
        """Have one connection to each broker, in this order."""
        before, self._links = self._links, {}
        for directory in directories:
            link = before.get(directory)
            if link is not None and not link.is_forgotten():
                self._links[directory] = before.pop(directory)
            elif (pid := _listener(directory)) is not None:
                self._links[directory] = _Link(self._context, directory, pid, self._keys)
        for link in before.values():
            link.close()


def run_dir_base() -> str:
    """Give the folder in which a broker that this user starts here makes its directory."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return base if os.path.isabs(base) and os.path.lexists(base) else f"/tmp/headrace-{os.geteuid()}"


def run_directories(base: str) -> list[str]:
    """List this user's own directories of brokers below `base`, oldest first, stale ones among them."""
    found = []
    for path in Path(base).glob("headrace-*"):
        try:
            status = path.lstat()
        except OSError:
            continue  # it has just gone
        if _RUN_DIR_NAME.fullmatch(path.name) and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            found.append((status.st_mtime_ns, str(path)))
    return [path for _, path in sorted(found)]


class _Link:
    """A connection to one broker."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        directory: str,
        pid: int,
        keys: tuple[str, str, str] | None,
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = _LINGER_MS
        if keys is not None:
            public, secret, broker = (key.encode() for key in keys)
            self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
            self.socket.curve_serverkey = broker
        self.socket.connect(directory if _is_far(directory) else f"ipc://{directory}/broker")
        self._directory = directory
        self._pid = pid
        self._command = _command(pid)
        self._welcome = False
        self._gone = False
        self._refusal = ""
        self._asked_s: float | None = None
        self._open_question = False
        self._state: RunStatistics | None = None
        self._because: Parts | None = None

    def ask(self, question: list[Any]) -> bool:
        """Ask something, unless it still owes an answer; say whether it was asked."""
        self.is_settled()
        if self._open_question or self._refusal or self._gone:
            return False
        if self._asked_s is None:
            versions = __version__, platform.python_version()
            self._send([_HELLO, _PROTOCOL_VERSION, _OBSERVER, *versions, 0, 0, 0, os.getpid()])
        self._send(question)
        self._asked_s = time.monotonic()
        self._open_question = True
        return True

    def is_settled(self) -> bool:
        """Take in what has arrived; say whether there is nothing to wait for."""
        try:
            while not (self._refusal or self._gone):
                self._receive(msgpack.unpackb(self.socket.recv(zmq.NOBLOCK)))
        except zmq.Again:
            pass
        except (ValueError, TypeError, LookupError, struct.error) as error:
            self._refusal = f"it says what cannot be understood: {error}"
        return not self._open_question or bool(self._refusal) or self._gone

    def describe(self) -> Seen | None:
        """Give what is known of the broker; None if there is none any more."""
        state, self._state = self._state, None
        because, self._because = self._because, None
        problem = ""
        has_said = state is not None or because is not None
        if not has_said and _is_stopped(self._pid):
            problem = f"process {self._pid} is stopped"
        elif not has_said:
            problem = self._refusal or "it does not answer"
            self._gone |= _listener(self._directory) is None
        seen = Seen(self._directory, self._pid, self._command, state, problem, because)
        return None if self._gone else seen

    def is_forgotten(self) -> bool:
        """Say whether the broker may not know this connection any more."""
        if self._asked_s is None or not self.is_settled() or self._refusal:
            return False
        return time.monotonic() - self._asked_s > _REMEMBERED_S

    def close(self) -> None:
        """Say goodbye, and wait for nothing."""
        self._send([_GOODBYE, 0, ""])
        self.socket.close()

    def _send(self, message: list[Any]) -> None:
        # The queue takes far more than the few frames that are sent to somebody who does not answer.
        self.socket.send(msgpack.packb(message), zmq.NOBLOCK)

    def _receive(self, message: list[Any]) -> None:
        number, *fields = message
        if number == _WELCOME:
            self._welcome = True
        elif number == _STATE:
            self._state, self._open_question = read_state(fields), False
        elif number == _BECAUSE:
            self._because, self._open_question = read_because(fields), False
        elif number == _GOODBYE and self._welcome:
            self._gone = True
        elif number == _GOODBYE:
            self._refusal = f"it refuses headrace {__version__}: {fields[1]}"


def read_because(fields: list[Any]) -> Parts:
    """Read the fields of a BECAUSE frame, in the order of `rust/wire/src/why.rs`."""
    _, state, worker, pid, attempt, since_ms, text, stacks = fields[:8]
    return state, None if worker == _NO_WORKER else worker, pid, attempt, since_ms, text, stacks


def read_state(fields: list[Any]) -> RunStatistics:
    """Read the fields of a STATE frame, in the order of `rust/wire/src/state.rs`."""
    tasks, times_ns, workers, broker = fields[2:9], fields[9:11], map(_words, fields[11:15]), fields[15:22]
    store, (lengths, names, sizes) = fields[22:28], fields[28:31]
    largest = [LargeResult(name, size) for name, (size,) in zip(_texts(lengths, names), _longs(sizes, 1), strict=True)]
    things = _texts(*fields[36:38]), fields[38], _longs(fields[39], 2)
    shared = [Shared(name, bool(is_tag), used, total) for name, is_tag, (used, total) in zip(*things, strict=True)]
    return RunStatistics._make(
        [
            *tasks,
            *(time_ns / 1e9 for time_ns in times_ns),
            tuple(
                WorkerStatistics(number, pid, finished, busy_ms / 1e3)
                for number, pid, finished, busy_ms in zip(*workers, strict=True)
            ),
            *broker,
            StoreStatistics._make([*store, tuple(largest)]),
            *fields[31:36],
            tuple(shared),
        ]
    )


def _texts(lengths: bytes, contents: bytes) -> Iterator[str]:
    """Read a column of texts."""
    start = 0
    for length in _words(lengths):
        yield contents[start : start + length].decode(errors="replace")
        start += length


def _longs(column: bytes, each: int) -> Iterator[tuple[int, ...]]:
    """Read a column of long numbers, so many at a time."""
    return struct.iter_unpack(f"<{each}Q", column)


def _words(column: bytes) -> tuple[int, ...]:
    """Read a column of numbers."""
    return struct.unpack(f"<{len(column) // 4}I", column)


def _is_far(place: str) -> bool:
    return place.startswith("tcp://")


def _listener(place: str) -> int | None:
    """Give the process of the broker in a directory: 0 if it cannot be told, None if there is none."""
    if _is_far(place):
        return 0
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(f"{place}/broker")
        except BlockingIOError:
            return 0  # others wait there already
        except OSError:
            return None
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _command(pid: int) -> tuple[str, ...]:
    """Give the command of a process."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(word.decode(errors="replace") for word in line.split(b"\0")[:-1])


def _is_stopped(pid: int) -> bool:
    """Say whether a process is stopped, by a signal or by a debugger."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return status.rpartition(") ")[2][:1] in ("T", "t")

"""A broker for one worker, played by the test: real process, real descriptors, real ZeroMQ, frames packed by msgpack.

Nothing of headrace's native side is used here, so the worker is held to the protocol and not to our own codec.
"""

import contextlib
import fcntl
import itertools
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack
import zmq

from headrace import launch
from headrace.pickling import dump_function

#: Far beyond what an answer takes, so that a busy machine does not fail a test.
PATIENCE_S = 30.0

HELLO, WELCOME, GOODBYE, HEARTBEAT = 1, 2, 3, 4
LEASE, REPORT, RECALL, REVOKE, FORGET = 20, 21, 22, 23, 24
REPORT_VALUE, HOLD_VALUE = 1, 2
DONE, DONE_HELD, FAILED, RETURNED, CANCELLED, VALUE, LOST = range(7)
CLOSED, VERSION_MISMATCH, PROTOCOL_ERROR, SHUTDOWN, WORKERS_FAILED = range(5)

NOTHING = 2**64 - 1

#: What stands before each piece that a task writes: magic, length of the text, task, attempt, number of the write.
MARK = struct.Struct("<6sHIII")
MAGIC = b"\xffhr\x00\xfe\x01"


class Piece(NamedTuple):
    task: int | None
    attempt: int | None
    text: str


def written(fd):
    """What a process wrote to a file, and for which attempts."""
    data = os.pread(fd, 1 << 20, 0)
    pieces = []
    while data:
        if data.startswith(MAGIC):
            _, length, task, attempt, _ = MARK.unpack_from(data)
            end = MARK.size + length
            pieces.append(Piece(task, attempt, data[MARK.size : end].decode()))
        else:
            end = data.find(MAGIC) if MAGIC in data else len(data)
            pieces.append(Piece(None, None, data[:end].decode()))
        data = data[end:]
    return pieces


class Dep(NamedTuple):
    """Stands in arguments for the value of the k-th predecessor."""

    k: int


class Entry(NamedTuple):
    task: int
    attempt: int
    verdict: int
    blob: bytes

    @property
    def value(self):
        return decode(self.blob)


class Timed(NamedTuple):
    function: int
    calls: int
    ns: int


@dataclass
class Report:
    entries: list[Entry]
    timed: list[Timed]

    def values(self):
        return [entry.value for entry in self.entries]

    def verdicts(self):
        return [(entry.task, entry.verdict) for entry in self.entries]


@dataclass
class Task:
    function: object
    args: tuple = ()
    deps: tuple = ()
    flags: int = REPORT_VALUE
    key: str | None = None
    slot: int | None = None


class Process:
    """A worker process as the broker starts it: descriptors 3 to 6, its own pipes, its own session."""

    def __init__(self, endpoint, *, boot=None, libzmq=None, number=0, incarnation=1):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.page_fd = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.page_fd, 4096)
        fcntl.fcntl(self.page_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self.page = mmap.mmap(self.page_fd, 4096)
        self.page[0:8] = struct.pack("<Q", 0x6865_6164_0000_0003)
        self._set_word(64, NOTHING)
        self._set_word(88, NOTHING)
        self._set_word(128, NOTHING)
        boot_fd = os.memfd_create("boot")
        os.write(boot_fd, boot if boot is not None else launch.boot_record([], None))
        self.stderr_fd = os.memfd_create("stderr")
        self.stdout_fd = os.memfd_create("stdout")

        prepared = launch.prepare()
        number_and_rest = [str(number), str(incarnation), libzmq or prepared.libzmq[0]]
        argv = [prepared.program, *prepared.arguments, "4", "3", "5", endpoint, *number_and_rest, "6"]
        stacks_fd = os.memfd_create("stacks")
        fds = self.stdout_fd, self.stderr_fd, theirs.fileno(), self.page_fd, boot_fd, stacks_fd
        targets = dict(enumerate(fds, 1))
        high = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for target, fd in targets.items()}
        self.pid = os.posix_spawn(
            prepared.program,
            argv,
            dict(prepared.environment),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in high.items()],
            setsid=True,
        )
        for fd in high.values():
            os.close(fd)
        theirs.close()
        os.close(boot_fd)
        os.close(stacks_fd)
        self.pidfd = os.pidfd_open(self.pid)
        self.exit_code = None

    def executing(self):
        """(task, attempt) of the status page."""
        word = struct.unpack("<Q", self.page[64:72])[0]
        return None if word == NOTHING else (word >> 32, word & 0xFFFF_FFFF)

    def set_cancel(self, task, attempt):
        self._set_word(128, task << 32 | attempt)

    def interrupt(self):
        signal.pidfd_send_signal(self.pidfd, signal.SIGINT)

    def wait(self):
        """Exit code, or minus the signal."""
        if self.exit_code is None:
            ready, _, _ = select.select([self.pidfd], [], [], PATIENCE_S)
            assert ready, f"the worker does not end; it wrote:\n{self.stderr()}"
            self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.exit_code

    def stdout(self):
        return "".join(piece.text for piece in written(self.stdout_fd))

    def stderr(self):
        return "".join(piece.text for piece in written(self.stderr_fd))

    def close(self):
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.wait()
        self.control.close()
        self.page.close()
        for fd in (self.page_fd, self.stderr_fd, self.stdout_fd, self.pidfd):
            os.close(fd)

    def _set_word(self, at, word):
        self.page[at : at + 8] = struct.pack("<Q", word)


@dataclass
class Broker:
    """The broker's end, and the process that it started."""

    directory: object
    boot: bytes | None = None
    result_bytes_max: int = 1 << 20
    _slots: object = field(default_factory=itertools.count)
    _attempts: object = field(default_factory=lambda: itertools.count(1000))
    _functions: dict = field(default_factory=dict)

    def __enter__(self):
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        endpoint = f"ipc://{self.directory}/broker"
        self.router.bind(endpoint)
        self.started = time.monotonic()
        self.process = Process(endpoint, boot=self.boot)
        self.peer = None
        return self

    def __exit__(self, *error):
        stderr = self.process.stderr()
        self.process.close()
        self.context.destroy()
        if error[0] is not None and stderr:
            print(f"--- the worker's stderr ---\n{stderr}", file=sys.stderr)

    # -- frames ------------------------------------------------------------------------------------------------------

    def hear(self):
        """The next frame, as a list."""
        assert self.router.poll(PATIENCE_S * 1000), f"the worker is silent; it wrote:\n{self.process.stderr()}"
        self.peer, frame = self.router.recv_multipart()
        return msgpack.unpackb(frame)

    def say(self, *fields):
        self.router.send_multipart([self.peer, msgpack.packb(fields)])

    def hears_nothing(self):
        """Nothing lies here unread. Ask after something that comes last."""
        return not self.router.poll(0)

    def greet(self):
        """Hear HELLO and say WELCOME."""
        hello = self.hear()
        assert hello[0] == HELLO
        self.say(WELCOME, hello[1], hello[3], 0, 1, self.result_bytes_max)
        return hello

    def lease(self, *tasks, values=(), dead=(), raw_function=None):
        """Lease tasks in one frame; give their (task, attempt) pairs."""
        new = {}
        for task in tasks:
            if task.slot is None:
                task.slot = next(self._slots)
            if task.function not in self._functions:
                number = new[task.function] = self._functions[task.function] = len(self._functions) + 7
                assert number
        names = [getattr(function, "__name__", "function").strip("<>").encode() for function in new]
        blobs = [raw_function or dump_function(function) for function in new]
        attempts = [next(self._attempts) for _ in tasks]
        keyed = [(position, task.key.encode()) for position, task in enumerate(tasks) if task.key]
        self.say(
            LEASE,
            1,
            u32s(dead),
            u32s(new.values()),
            *blobs_of(names),
            *blobs_of(blobs),
            u32s(task for task, _ in values),
            *blobs_of([encode(value) for _, value in values]),
            u32s(task.slot for task in tasks),
            u32s(attempts),
            u32s(self._functions[task.function] for task in tasks),
            bytes(task.flags for task in tasks),
            u32s(task.slot + 500 for task in tasks),
            u32s(len(task.deps) for task in tasks),
            u32s(dep for task in tasks for dep in task.deps),
            *blobs_of([encode_args(*task.args) for task in tasks]),
            u32s(position for position, _ in keyed),
            *blobs_of([key for _, key in keyed]),
        )
        return [(task.slot, attempt) for task, attempt in zip(tasks, attempts, strict=True)]

    def recall(self, leases, fetch=()):
        self.say(RECALL, u32s(task for task, _ in leases), u32s(attempt for _, attempt in leases), u32s(fetch))

    def revoke(self, leases):
        self.say(REVOKE, u32s(task for task, _ in leases), u32s(attempt for _, attempt in leases))

    def report(self):
        frame = self.hear()
        assert frame[0] == REPORT, frame
        task, attempt, verdict, lens, blobs, function, calls, ns = frame[1:9]
        entries = zip(words(task), words(attempt), verdict, split(lens, blobs), strict=True)
        timed = zip(words(function), words(calls), words(ns), strict=True)
        return Report([Entry(*entry) for entry in entries], [Timed(*row) for row in timed])

    def reports(self, count):
        """The next `count` entries, as one report. A busy machine may send them in several."""
        whole = Report([], [])
        while len(whole.entries) < count:
            report = self.report()
            whole.entries += report.entries
            whole.timed += report.timed
        assert len(whole.entries) == count
        return whole

    def entries(self, count):
        return self.reports(count).entries

    def run(self, function, *args, **options):
        """Lease one task and give the entry that it ends with."""
        self.lease(Task(function, args, **options))
        (entry,) = self.entries(1)
        return entry

    def shut_down(self):
        """Say GOODBYE and give the exit code."""
        self.say(GOODBYE, SHUTDOWN, "the broker shuts down")
        return self.process.wait()


def failure(entry):
    """What the record of a failed task holds."""
    assert entry.verdict == FAILED, entry
    return pickle.loads(entry.blob)


# -- columns and values ------------------------------------------------------------------------------------------------


def u32s(values):
    values = list(values)
    return struct.pack(f"<{len(values)}I", *values)


def words(column):
    return struct.unpack(f"<{len(column) // 4}I", column)


def blobs_of(blobs):
    return u32s(map(len, blobs)), b"".join(blobs)


def split(lens, blobs):
    at = 0
    for length in words(lens):
        yield blobs[at : at + length]
        at += length


def encode(value):
    match value:
        case Dep(k):
            return b"\x0d" + struct.pack("<I", k)
        case None:
            return b"\x00"
        case bool():
            return b"\x01" if value else b"\x02"
        case int() if -128 <= value < 128:
            return b"\x03" + struct.pack("<b", value)
        case int() if -(2**31) <= value < 2**31:
            return b"\x04" + struct.pack("<i", value)
        case float():
            return b"\x06" + struct.pack("<d", value)
        case str():
            return b"\x07" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"\x08" + struct.pack("<I", len(value)) + value
        case list():
            return b"\x09" + struct.pack("<I", len(value)) + b"".join(map(encode, value))
        case _:
            blob = pickle.dumps(value, 5)
            return b"\x0c" + struct.pack("<I", len(blob)) + blob


def encode_args(*args):
    return bytes([len(args), 0]) + b"".join(map(encode, args))


def decode(blob):
    value, rest = _decode(blob)
    assert not rest
    return value


def _decode(blob):
    tag, rest = blob[0], blob[1:]
    if tag <= 2:
        return (None, True, False)[tag], rest
    if tag <= 6:
        form = {3: "<b", 4: "<i", 5: "<q", 6: "<d"}[tag]
        size = struct.calcsize(form)
        return struct.unpack(form, rest[:size])[0], rest[size:]
    length, rest = struct.unpack("<I", rest[:4])[0], rest[4:]
    if tag in (7, 8, 12):
        body = rest[:length]
        return {7: bytes.decode, 8: bytes, 12: pickle.loads}[tag](body), rest[length:]
    items = []
    for _ in range(length * (2 if tag == 11 else 1)):
        item, rest = _decode(rest)
        items.append(item)
    return {9: list, 10: tuple, 11: lambda pairs: dict(zip(pairs[::2], pairs[1::2], strict=True))}[tag](items), rest

"""What the machine itself charges, measured on the spot: who falls below these lines has avoided the work."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from concurrent.futures import Future

_ROUND_TRIPS = 300
_COPY_BYTES = 64 << 20
#: Takes a process to its core.
Place = Callable[[], object]


def floors_us() -> dict[str, float]:
    """Microseconds by name: half a round trip between two processes, p50; copying a MiB; a call.

    With one core for each process, where there are two: that is where workers are.
    """
    with _own_core() as place:
        return {
            "pipe, one way": _pipe_us(place),
            "futex, one way": _futex_us(place),
            "libzmq ipc, one way": _zmq_us(place, "ipc"),
            "memcpy of 1 MiB": _memcpy_us(),
            "a call in Python": _call_us(),
        }


def primitives_us() -> dict[str, float]:
    """More of the kind, for a table."""

    def same_core() -> None:
        """The other process stays where this one is."""

    with _own_core() as place:
        found = {
            "futex, one way, both on one core": _futex_us(same_core),
            "libzmq tcp, one way": _zmq_us(place, "tcp"),
            "Unix SEQPACKET, one way": _seqpacket_us(place),
        }
    return found | _memory_us() | _python_us() | _starts_us()


@contextlib.contextmanager
def _own_core() -> Iterator[Callable[[], None]]:
    """This process on its first core; gives what brings another one to its last core."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    try:
        yield lambda: os.sched_setaffinity(0, {cores[-1]})
    finally:
        os.sched_setaffinity(0, cores)


def _half_round_trip_us(once: Callable[[], object]) -> float:
    samples = []
    for _ in range(_ROUND_TRIPS):
        start = time.perf_counter()
        once()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples) / 2 * 1e6


def _pipe_us(place: Place) -> float:
    """Two processes hand a byte to and fro."""
    there, back = os.pipe(), os.pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_echo_pipe, args=(place, there[0], back[1]), daemon=True
    )
    process.start()

    def once() -> None:
        os.write(there[1], b"x")
        os.read(back[0], 1)

    median_us = _half_round_trip_us(once)
    os.write(there[1], b"q")
    process.join()
    for end in (*there, *back):
        os.close(end)
    return median_us


def _echo_pipe(place: Place, source: int, sink: int) -> None:
    place()
    while os.read(source, 1) != b"q":
        os.write(sink, b"x")


def _futex_us(place: Place) -> float:
    """The same through two semaphores of libc, which sleep on a futex."""
    context = multiprocessing.get_context("fork")
    there, back = context.Semaphore(0), context.Semaphore(0)
    process = context.Process(target=_echo_futex, args=(place, there, back), daemon=True)
    process.start()

    def once() -> None:
        there.release()
        back.acquire()

    median_us = _half_round_trip_us(once)
    process.terminate()
    process.join()
    return median_us


def _echo_futex(place: Place, there: threading.Semaphore, back: threading.Semaphore) -> None:
    place()
    while there.acquire():
        back.release()


def _zmq_us(place: Place, transport: str) -> float:
    """The same through libzmq, blocking."""
    import zmq

    with tempfile.TemporaryDirectory(prefix="hrb-") as folder:
        there, back = os.pipe()
        process = multiprocessing.get_context("fork").Process(target=_echo_zmq, args=(place, there), daemon=True)
        process.start()
        with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
            pair.bind(f"ipc://{folder}/floor" if transport == "ipc" else "tcp://127.0.0.1:*")
            os.write(back, pair.get_string(zmq.LAST_ENDPOINT).encode())
            os.close(back)
            os.close(there)

            def once() -> None:
                pair.send(b"x")
                pair.recv()

            once()
            median_us = _half_round_trip_us(once)
            pair.send(b"q")
            process.join()
    return median_us


def _echo_zmq(place: Place, address: int) -> None:
    import zmq

    place()
    with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
        pair.connect(os.read(address, 4096).decode())
        while pair.recv() != b"q":
            pair.send(b"x")


def _seqpacket_us(place: Place) -> float:
    """The same through a socketpair of packets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = multiprocessing.get_context("fork").Process(target=_echo_socket, args=(place, theirs), daemon=True)
    process.start()

    def once() -> None:
        ours.send(b"x")
        ours.recv(64)

    median_us = _half_round_trip_us(once)
    ours.send(b"q")
    process.join()
    ours.close()
    theirs.close()
    return median_us


def _echo_socket(place: Place, theirs: socket.socket) -> None:
    place()
    while theirs.recv(64) != b"q":
        theirs.send(b"x")


def _memory_us() -> dict[str, float]:
    """A MiB into new pages of shared memory, and into warm ones."""
    source = bytes(_COPY_BYTES)
    file = os.memfd_create("floor")
    os.ftruncate(file, _COPY_BYTES)
    found = {}
    with mmap.mmap(file, _COPY_BYTES) as target:
        for name in ("first", "again"):
            start = time.perf_counter()
            target[:] = source
            found[f"memcpy of 1 MiB into a memfd, {name}"] = (time.perf_counter() - start) / (_COPY_BYTES >> 20) * 1e6
    os.close(file)
    return found


def _python_us() -> dict[str, float]:
    """What engines in Python do for each task."""
    import pickle

    import cloudpickle

    packed = pickle.dumps((1,))
    acts: dict[str, Callable[[], object]] = {
        "pickle.dumps of (1,)": lambda: pickle.dumps((1,)),
        "pickle.loads of (1,)": lambda: pickle.loads(packed),
        "cloudpickle of a lambda": lambda: cloudpickle.dumps(lambda: 0),
        "cloudpickle of a module's function": lambda: cloudpickle.dumps(_python_us),
        "life of a concurrent.futures.Future": _future,
    }
    return {name: min(timeit.repeat(act, number=300, repeat=5)) / 300 * 1e6 for name, act in acts.items()}


def _future() -> object:
    future: Future[int] = Future()
    future.set_result(1)
    return future.result()


def _starts_us() -> dict[str, float]:
    """Starts of interpreters."""
    found = {}
    for name, text in (("python -c ''", ""), ("python -c 'import zmq'", "import zmq")):
        samples = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", text], check=True)
            samples.append(time.perf_counter() - start)
        found[name] = statistics.median(samples) * 1e6
    return found


def _memcpy_us() -> float:
    source, target = memoryview(bytes(_COPY_BYTES)), memoryview(bytearray(_COPY_BYTES))
    samples = []
    for _ in range(5):
        start = time.perf_counter()
        target[:] = source
        samples.append(time.perf_counter() - start)
    return min(samples) / (_COPY_BYTES >> 20) * 1e6


def _call_us() -> float:
    from headrace.bench.bodies import noop

    count = 10_000
    start = time.perf_counter()
    for number in range(count):
        noop(number)
    return (time.perf_counter() - start) / count * 1e6

"""What the machine itself charges, measured on the spot: who falls below these lines has avoided the work."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable

_ROUND_TRIPS = 300
_COPY_BYTES = 64 << 20


def floors_us() -> dict[str, float]:
    """Microseconds by name: half a round trip between two processes, p50; copying a MiB; a call."""
    return {
        "pipe, one way": _pipe_us(),
        "futex, one way": _futex_us(),
        "libzmq ipc, one way": _zmq_us(),
        "memcpy of 1 MiB": _memcpy_us(),
        "a call in Python": _call_us(),
    }


def _half_round_trip_us(once: Callable[[], object]) -> float:
    samples = []
    for _ in range(_ROUND_TRIPS):
        start = time.perf_counter()
        once()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples) / 2 * 1e6


def _pipe_us() -> float:
    """Two processes hand a byte to and fro."""
    there, back = os.pipe(), os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_echo_pipe, args=(there[0], back[1]), daemon=True)
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


def _echo_pipe(source: int, sink: int) -> None:
    while os.read(source, 1) != b"q":
        os.write(sink, b"x")


def _futex_us() -> float:
    """The same through two semaphores of libc, which sleep on a futex."""
    context = multiprocessing.get_context("fork")
    there, back = context.Semaphore(0), context.Semaphore(0)
    process = context.Process(target=_echo_futex, args=(there, back), daemon=True)
    process.start()

    def once() -> None:
        there.release()
        back.acquire()

    median_us = _half_round_trip_us(once)
    process.terminate()
    process.join()
    return median_us


def _echo_futex(there: threading.Semaphore, back: threading.Semaphore) -> None:
    while there.acquire():
        back.release()


def _zmq_us() -> float:
    """The same through libzmq, blocking."""
    import zmq

    with tempfile.TemporaryDirectory(prefix="hrb-") as folder:
        address = f"ipc://{folder}/floor"
        process = multiprocessing.get_context("fork").Process(target=_echo_zmq, args=(address,), daemon=True)
        process.start()
        with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
            pair.bind(address)

            def once() -> None:
                pair.send(b"x")
                pair.recv()

            once()
            median_us = _half_round_trip_us(once)
            pair.send(b"q")
            process.join()
    return median_us


def _echo_zmq(address: str) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
        pair.connect(address)
        while pair.recv() != b"q":
            pair.send(b"x")


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

"""What do large values cost: through chains of tasks, into the store, out of it, and in memory?

Arrays of 200 MB, unless a figure says otherwise. Beside each figure stands the same work in one process, measured in
turn with it: copies and additions there go to pages that have been touched, as they are in the store's warm pool.
"""

import mmap
import os
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import headrace
from figures import Figure, at_most
from large_turns import BYTES, HOPS, ITEMS, chain, check_ends, in_turn, milliseconds, settle, timed
from large_workloads import added, added_in_place, anonymous_bytes, ends, ones, pages_read, untouched
from workloads import inc

CONSUMERS = 8
#: With less to spare, the largest figures would measure the machine's swap.
MEMORY_NEEDED = 6 << 30


@pytest.fixture(scope="module")
def store():
    """A client whose shared memory is this module's own."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if available < MEMORY_NEEDED:
        pytest.skip(f"{available / 2**30:.1f} GiB of free memory are too few")
    with headrace.Client(workers=2, store_limit=5 << 30) as client:
        yield client


@pytest.fixture
def source(store):
    """The array in the store, to be the first input of chains."""
    ref = store.put(np.ones(ITEMS))
    yield ref
    del ref
    settle(store)


# -- chains ------------------------------------------------------------------------------------------------------------


def test_an_untouched_array_travels_like_a_number(store, source, rounds, record):
    touched = np.ones(ITEMS)
    copied = np.ones(ITEMS)
    ours_s, hops_s, copies_s = in_turn(
        3 * rounds,
        lambda: chain(store, untouched, source, check_ends(1.0)),
        lambda: chain(store, inc, 0, lambda value: value == HOPS),
        lambda: timed(lambda: np.copyto(copied, touched)),
    )
    extra_ms = [(mine - bare) * 1e3 for mine, bare in zip(ours_s, hops_s, strict=True)]
    record(
        at_most(
            f"200 MB through {HOPS} pinned tasks that return it, above as many hops of a number",
            extra_ms,
            "ms",
            bar=1.0,
            measured=f"{milliseconds(ours_s)} in all",
            reference=f"hops {milliseconds(hops_s)}; one np.copyto {milliseconds(copies_s)}",
        )
    )


def test_reading_each_page_costs_what_it_costs_in_one_process(store, source, rounds, record):
    array, small = np.ones(ITEMS), in_small_pages()
    ours_s, alone_s, small_s = in_turn(
        rounds,
        lambda: chain(store, pages_read, source, check_ends(1.0)),
        lambda: timed(lambda: [pages_read(array) for _ in range(HOPS)]),
        lambda: timed(lambda: [pages_read(small) for _ in range(HOPS)]),
    )
    question = f"200 MB through {HOPS} pinned tasks that read a byte of each page, against one process"
    record(slower(question, ours_s, alone_s, bar=1.5, aim=1.1, detail=beside_small_pages(ours_s, small_s)))


def test_reading_each_page_of_a_new_array(store, rounds, record):
    array, small = np.ones(ITEMS), in_small_pages()

    def ours():
        fresh = store.put(array)
        seconds = chain(store, pages_read, fresh, check_ends(1.0))
        del fresh
        settle(store)
        return seconds

    ours_s, alone_s, small_s = in_turn(
        rounds,
        ours,
        lambda: timed(lambda: [pages_read(array) for _ in range(HOPS)]),
        lambda: timed(lambda: [pages_read(small) for _ in range(HOPS)]),
    )
    question = f"the same, of an array that was put just before each of the {rounds} chains"
    record(slower(question, ours_s, alone_s, bar=1.5, aim=1.1, detail=beside_small_pages(ours_s, small_s)))


def in_small_pages():
    """An array of ones in pages of 4 KiB, which shared memory has; private memory has huge ones for large arrays."""
    memory = mmap.mmap(-1, BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    array = np.frombuffer(memory)
    array[:] = 1.0
    return array


def beside_small_pages(ours_s, small_s):
    """What a figure is where the one process has pages of the same size."""
    ratio = statistics.median(mine / small for mine, small in zip(ours_s, small_s, strict=True))
    return f"{ratio:.2f}× one process with pages of 4 KiB ({milliseconds(small_s)})"


@pytest.mark.parametrize(
    ("step", "name", "bar", "aim"),
    [(added_in_place, "add 1 into headrace.empty", 1.3, 1.1), (added, "return a + 1", 3.0, 2.0)],
    ids=["in place", "plain"],
)
def test_adding_costs_little_more_than_in_one_process(store, source, rounds, record, step, name, bar, aim):
    buffers = [np.ones(ITEMS), np.ones(ITEMS)]

    def alone():
        for hop in range(HOPS):
            np.add(buffers[hop % 2], 1.0, out=buffers[1 - hop % 2])

    def ours():
        seconds = chain(store, step, source, check_ends(HOPS + 1.0))
        settle(store)
        return seconds

    ours_s, alone_s = in_turn(rounds, ours, lambda: timed(alone), warm_up_rounds=2)
    question = f"200 MB through {HOPS} pinned tasks that {name}, against np.add(out=) on warm pages in one process"
    record(slower(question, ours_s, alone_s, bar=bar, aim=aim, detail=f"slowest {max(ours_s) * 1e3:.0f} ms"))


# -- in and out --------------------------------------------------------------------------------------------------------


def test_the_second_put_of_a_size_is_a_copy(store, rounds, record):
    array, touched = np.arange(float(ITEMS)), np.ones(ITEMS)
    refs = []

    def ours():
        refs.clear()
        settle(store)
        seconds = timed(lambda: refs.append(store.put(array)))
        assert store.call(ends, refs[0]).result() == (0.0, ITEMS - 1.0)
        return seconds

    ours_s, copy_s = in_turn(3 * rounds, ours, lambda: timed(lambda: np.copyto(touched, array)), warm_up_rounds=2)
    refs.clear()
    settle(store)
    aim = max(4.0, 0.8 * BYTES / statistics.median(copy_s) / 1e9)
    record(throughput("put of 200 MB, second of the same size", ours_s, "np.copyto", copy_s, bar=4.0, aim=aim))


def test_a_cold_put(rounds, record):
    array = np.arange(float(ITEMS))

    def ours():
        with headrace.Client(workers=1) as client:
            assert client.call(inc, 1).result() == 2
            start = time.perf_counter()
            ref = client.put(array)
            seconds = time.perf_counter() - start
            assert client.call(ends, ref).result() == (0.0, ITEMS - 1.0)
        return seconds

    def fresh():
        target = np.empty(ITEMS)
        return timed(lambda: np.copyto(target, array))

    ours_s, copy_s = in_turn(max(3, rounds // 2), ours, fresh)
    question = "put of 200 MB, the first of a client"
    record(throughput(question, ours_s, "np.copyto to new pages", copy_s, bar=0.9, aim=1.2))


def test_a_result_reaches_the_client_without_a_copy(store, rounds, record):
    samples_ms = []
    for _ in range(rounds + 1):
        graph = headrace.Graph()
        node = graph.add(ones, ITEMS)
        run = store.submit(graph)
        assert run.wait()
        start = time.perf_counter()
        array = run.result(node)
        samples_ms.append((time.perf_counter() - start) * 1e3)
        assert array[0] == array[-1] == 1.0
        assert not array.flags.writeable
        del array, run
        settle(store)
    question = "run.result of 200 MB in the client"
    record(at_most(question, samples_ms[1:], "ms", bar=2.0, aim=0.3))


# -- memory ------------------------------------------------------------------------------------------------------------


def test_consumers_share_one_array(record):
    with headrace.Client(workers=2) as client:
        idle = max(client.call(headrace.task(anonymous_bytes, worker=worker)).result() for worker in (0, 1))
        before = shared_bytes()
        graph = headrace.Graph()
        node = graph.add(headrace.task(ones, worker=0), ITEMS)
        tasks = [graph.add(headrace.task(anonymous_bytes, worker=number % 2), node) for number in range(CONSUMERS)]
        private = client.submit(graph, keep=tasks).results()
        grown = (shared_bytes() - before) / BYTES
    own = max(private) - idle
    assert own < BYTES / 10, "a consumer has made a copy"
    detail = f"private memory of a consumer grew by {own / 2**20:.1f} MiB at most"
    record(
        at_most(f"shared memory for one array and {CONSUMERS} consumers", [grown], "arrays", bar=1.01, detail=detail)
    )


def test_an_array_handed_on_is_there_once(record):
    items = 125_000_000
    with headrace.Client(workers=2, store_limit=5 << 30) as client:
        before = shared_bytes()
        with Peak() as peak:
            graph = headrace.Graph()
            node = graph.add(headrace.task(ones, worker=0), items)
            for hop in range(HOPS):
                node = graph.add(headrace.task(untouched, worker=hop % 2), node)
            array = client.submit(graph).result(node)
            assert array[0] == array[-1] == 1.0
        grown = (peak.bytes - before) / 1e9
        del array
    assert grown > 0.9, "nobody saw the array"
    record(at_most(f"peak shared memory for 1 GB that {HOPS} tasks return in turn", [grown], "GB", bar=1.1))


class Peak:
    """The most shared memory that was there within a `with` block."""

    def __enter__(self):
        self.bytes = 0
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._watch.join()

    def _look(self):
        over = False
        while not over:
            over = self._over.wait(0.002)
            self.bytes = max(self.bytes, shared_bytes())


def shared_bytes():
    """Pages of all segments: the embedded broker has their descriptors."""
    segments = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if os.readlink(descriptor) == "/memfd:headrace (deleted)":
                status = descriptor.stat()
                segments[status.st_ino] = 512 * status.st_blocks
        except OSError:  # it was closed just now
            pass
    return sum(segments.values())


# -- how it is judged --------------------------------------------------------------------------------------------------


def slower(question, ours_s, alone_s, *, bar, aim, detail=""):
    """How many times slower ours is, pair by pair."""
    ratios = [mine / alone for mine, alone in zip(ours_s, alone_s, strict=True)]
    measured, reference = milliseconds(ours_s), f"one process {milliseconds(alone_s)}"
    return at_most(question, ratios, "×", bar=bar, aim=aim, measured=measured, reference=reference, detail=detail)


def throughput(question, ours_s, name, reference_s, *, bar, aim):
    """How many bytes a second ours takes."""
    samples = [BYTES / seconds / 1e9 for seconds in ours_s]
    against = BYTES / statistics.median(reference_s) / 1e9
    score = statistics.median(samples)
    return Figure(
        question=question,
        measured=milliseconds(ours_s),
        reference=f"{name} {against:.3g} GB/s",
        score=score,
        unit="GB/s",
        bar=bar,
        aim=aim,
        at_least=True,
        samples=samples,
        detail=f"{score / against:.2f} × {name}",
    )

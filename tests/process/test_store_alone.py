"""The store by itself, between real processes: the same pages everywhere, nothing with a name, nothing left behind."""

import gc
import multiprocessing
import multiprocessing.util
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from store_tasks import (  # noqa: E402
    fill,
    hold,
    pass_slice_on,
    place,
    produce,
    produce_and_leave,
    report,
    report_all,
    report_both,
    scaled,
)

import headrace as hr  # noqa: E402
from headrace import store  # noqa: E402

# From Python 3.12 on, a fork in a process with threads is worth a warning: the pipes of multiprocessing start one.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

TIMEOUT_S = 30
MIB = 1 << 20
PAGE = resource.getpagesize()
#: 8 MiB of float64.
ITEMS = MIB


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    return multiprocessing.get_context(request.param)


@pytest.fixture
def start():
    """Start a child of a context, and let none outlive the test."""
    multiprocessing.util.get_temp_dir()  # children take it, too, and those that are killed leave none of their own
    children = []

    def start_child(context, target, *args):
        children.append(context.Process(target=target, args=args))
        children[-1].start()
        return children[-1]

    yield start_child
    for child in children:
        child.kill()
        child.join()


@pytest.fixture
def shared():
    with store.Store(limit=256 * MIB) as made:
        yield made


def received(connection):
    assert connection.poll(TIMEOUT_S), "nothing came"
    return connection.recv()


def memories_of(process):
    """Inodes and allocated bytes of the shared memory that a process has a descriptor of."""
    found = {}
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            if os.readlink(descriptor) == "/memfd:headrace (deleted)":
                status = descriptor.stat()
                found[status.st_ino] = 512 * status.st_blocks
        except FileNotFoundError:
            pass  # that was the descriptor of the listing, or another thread's
    return found


def memories():
    """Those of this process, without what nobody refers to."""
    gc.collect()
    return memories_of("self")


def holders(inode):
    """Every process that has a map or a descriptor of a memory."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            maps = [line.split() for line in (process / "maps").read_text().splitlines() if "memfd:headrace" in line]
            if inode in {int(words[4]) for words in maps} | memories_of(process.name).keys():
                found.add(int(process.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass  # it has ended, or is another user's
    return found


def script_of(text):
    return [sys.executable, "-c", textwrap.dedent(text)]


def run_script(text):
    return subprocess.run(script_of(text), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


# -- passed on by multiprocessing --------------------------------------------------------------------------------------


def test_a_child_sees_the_very_pages_of_its_argument(context, start, shared):
    value = np.arange(ITEMS, dtype=float)
    item = shared.put(value)
    here, there = context.Pipe()
    start(context, report, item, there)
    at = place(item.get())
    assert received(here) == (at[:2], False, "<f8", value.sum())
    assert holders(at[0]) >= {os.getpid()}


def test_what_shares_memory_travels_together(context, start, shared):
    array = shared.empty(ITEMS)
    array[:] = 2.0
    here, there = context.Pipe()
    start(context, report_both, shared.put(array), shared.put([array[8:]]), shared.create(5), there)
    (whole, *_), (part, *_), size = received(here)
    assert whole == place(array)[:2]
    assert part == (whole[0], whole[1] + 64)
    assert size == 5


def test_items_travel_through_pipes_in_both_directions(context, start, shared):
    here, there = context.Pipe()
    start(context, produce, there, 3.0, ITEMS)
    item = received(here)
    here.send("received")
    view = item.get()
    assert (view.shape, view.flags.writeable) == ((ITEMS,), False)
    assert (view == 3.0).all()
    assert place(view)[2] == "r--s"

    here, there = context.Pipe()
    child = start(context, pass_slice_on, shared.put(view), there)
    at, parts = received(here)
    here.send("received")
    part = parts.get()
    assert place(part["part"])[:2] == (at[0], at[1] + 800), "what came as shared memory goes on as such"
    assert (part["part"].shape, part["number"]) == ((ITEMS - 100,), 7)
    child.join(TIMEOUT_S)
    assert child.exitcode == 0


def test_items_travel_through_queues(context, start, shared):
    inbox, outbox = context.Queue(), context.Queue()
    child = start(context, report_all, inbox, outbox)
    for number in range(1, 6):
        item = shared.put(np.full(100_000, number, dtype=np.int32))
        inbox.put(item)
        assert outbox.get(timeout=TIMEOUT_S) == (place(item.get())[:2], False, "<i4", 100_000.0 * number)
    inbox.put(None)
    child.join(TIMEOUT_S)
    assert child.exitcode == 0


def test_a_pool_takes_and_gives_items(shared):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        item = shared.put(np.ones(ITEMS))
        futures = [pool.submit(scaled, item, factor) for factor in (2.0, 3.0, 4.0)]
        values = [future.result(timeout=TIMEOUT_S).get() for future in futures]
    assert [value.sum() for value in values] == [factor * ITEMS for factor in (2.0, 3.0, 4.0)]


def test_a_forked_child_shares_what_it_inherited(start, shared):
    segment = shared.create(8 * ITEMS)
    array = shared.empty(ITEMS)
    child = start(multiprocessing.get_context("fork"), fill, segment, 6.0)
    child.join(TIMEOUT_S)
    assert (np.frombuffer(segment) == 6.0).all()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            array[:] = 7.0
            own = shared.put(np.ones(ITEMS))  # counts in this process alone
            os.write(write, f"{shared.used // MIB} {own.get().sum():.0f}".encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100).decode() == f"24 {ITEMS}"
    os.close(read)
    os.close(write)
    assert (array == 7.0).all()
    assert shared.used == 16 * MIB


def test_a_sender_that_has_ended_is_named(start):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    start(context, produce_and_leave, there, ITEMS).join(TIMEOUT_S)
    with pytest.raises(hr.ResultLost, match="has ended"):
        received(here)


def test_a_store_does_not_travel(shared):
    child = multiprocessing.get_context("spawn").Process(target=report, args=(shared, None))
    with pytest.raises(TypeError, match="budget of one process"):
        child.start()


def test_an_item_is_no_argument_of_a_task(shared):
    item = shared.put(np.ones(ITEMS))
    with pytest.raises(hr.ArgumentNotPicklable, match=r"'item'.*travels by multiprocessing alone.*client\.put"):
        hr.Graph().add(report, item, None)


# -- nothing is left behind --------------------------------------------------------------------------------------------


def test_memory_goes_with_a_killed_child(context, start, shared):
    item = shared.put(np.full(ITEMS, 2.0))
    inode = place(item.get())[0]
    here, there = context.Pipe()
    child = start(context, hold, item, there)
    assert received(here) == 2.0
    del item
    assert inode not in memories()
    assert shared.used == 0
    assert holders(inode) == {child.pid}
    child.kill()
    child.join()
    assert holders(inode) == set()


def test_what_a_killed_process_made_stays_for_whoever_looks_at_it(start):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = start(context, produce, there, 5.0, ITEMS)
    view = received(here).get()
    inode = place(view)[0]
    child.kill()
    child.join()
    assert (view == 5.0).all()
    assert holders(inode) == {os.getpid()}
    del view
    gc.collect()
    assert holders(inode) == set()


def test_memory_has_no_name_and_no_keeper():
    script = run_script("""
        import os, signal, sys
        from headrace import store
        shared = store.Store()
        item, segment = shared.put(list(range(100_000))), shared.create(1 << 20)
        descriptor = segment.fileno()
        print(os.fstat(descriptor).st_ino, os.readlink(f"/proc/self/fd/{descriptor}"))
        print("multiprocessing.resource_tracker" in sys.modules, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert (script.returncode, script.stderr) == (-signal.SIGKILL, "")
    inode, place, has_keeper = script.stdout.split(maxsplit=1)[0], *script.stdout.split(" ", 1)[1].splitlines()
    assert (place, has_keeper) == ("/memfd:headrace (deleted)", "False")
    assert holders(int(inode)) == set()


def test_a_view_outlives_item_and_store():
    before = memories()
    with store.Store(limit=16 * MIB) as shared:
        item = shared.put({"values": np.arange(ITEMS)})
        view = item.get()["values"][5:10]
        del item
    gc.collect()
    assert view.tolist() == [5, 6, 7, 8, 9]
    with pytest.raises(hr.UsageError, match="closed"):
        shared.put(1)
    assert shared.used > 8 * ITEMS
    del view
    assert memories() == before
    assert shared.used == 0


# -- what is copied, and what is not -----------------------------------------------------------------------------------


def test_an_array_made_in_place_is_not_copied(shared):
    array = shared.empty((1_000, 1_000), "float64")
    array[:] = np.arange(1_000)
    before = memories()
    matrix, parts = shared.put(array), shared.put([array[10:], array.T, {"row": array[3]}, "text"])
    assert memories() == before
    assert place(matrix.get())[:2] == place(array)[:2]
    rows, transposed, row, text = (*parts.get()[:2], parts.get()[2]["row"], parts.get()[3])
    assert place(rows)[1] == place(array)[1] + 80_000
    assert place(transposed)[:2] == place(array)[:2]
    assert transposed.flags.f_contiguous
    assert place(row)[1] == place(array)[1] + 24_000
    assert text == "text"
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        rows.flags.writeable = True


def test_only_what_lies_elsewhere_is_copied(shared):
    array = shared.empty(ITEMS)
    array[:] = 1.0
    before = shared.used
    item = shared.put([array, np.full(ITEMS // 2, 2.0)])
    own, copied = item.get()
    assert place(own)[:2] == place(array)[:2]
    assert shared.used - before == 4 * ITEMS + PAGE
    assert copied.sum() == ITEMS
    assert copied.__array_interface__["data"][0] % 64 == 0


def test_pages_are_there_before_anybody_writes(shared):
    segment = shared.create(ITEMS + 1)
    status = os.fstat(segment.fileno())
    assert status.st_size == ITEMS + 1
    assert status.st_blocks * 512 == ITEMS + PAGE
    assert bytes(memoryview(segment)[-10:]) == bytes(10)


@pytest.mark.parametrize("size", [0, 1, 8 * ITEMS - 1, 8 * ITEMS + 1])
def test_nobody_changes_the_size(shared, size):
    segment = shared.create(8 * ITEMS)
    for fd in (segment.fileno(), (attached := store.attach(segment.fileno())).fileno()):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    assert len(attached) == len(segment)


# -- descriptors by other means ----------------------------------------------------------------------------------------


def test_a_descriptor_may_be_inherited(shared):
    segment = shared.create(ITEMS)
    memoryview(segment)[:5] = b"there"
    script = script_of(f"""
        import sys
        from headrace import store
        segment = store.attach({segment.fileno()})
        print(len(segment), bytes(memoryview(segment)[:5]), memoryview(segment).readonly, segment)
        other = store.attach(segment.fileno(), writable=True)
        memoryview(other)[:5] = b"and b"
        print(bytes(memoryview(segment)[:5]), "numpy" in sys.modules)
    """)
    child = subprocess.run(
        script, pass_fds=[segment.fileno()], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    expected = f"{ITEMS} b'there' True <Segment of {ITEMS} bytes, read-only>\nb'and b' False\n"
    assert (child.stdout, child.stderr) == (expected, "")
    assert bytes(memoryview(segment)[:5]) == b"and b"


def test_a_descriptor_may_come_over_a_socket(shared):
    segment = shared.create(ITEMS)
    memoryview(segment)[:5] = b"there"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [segment.fileno()])
        _, (fd,), *_ = socket.recv_fds(theirs, 1, 1)
    attached = store.attach(fd)
    os.close(fd)
    assert bytes(memoryview(attached)[:5]) == b"there"
    assert attached.fileno() != segment.fileno()
    assert not os.get_inheritable(attached.fileno())
    array = np.frombuffer(attached, dtype=np.uint8)
    before = memories()
    item = shared.put(array)
    assert memories() == before
    del attached, array, segment
    assert bytes(item.get()[:5]) == b"there"


def test_what_is_no_memory_of_a_store_is_refused(tmp_path):
    loose = os.memfd_create("loose", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(loose, MIB)
    plain = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.truncate(plain, MIB)
    ends = os.pipe()
    for fd in (loose, plain, ends[0]):
        with pytest.raises(hr.UsageError, match=f"descriptor {fd} is no memory of a store"):
            store.attach(fd)
        os.fstat(fd)  # it stays open
    for fd in (loose, plain, *ends):
        os.close(fd)
    for fd in (loose, -1):
        with pytest.raises(OSError, match="Bad file descriptor"):
            store.attach(fd)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_full_store_names_need_use_and_the_largest():
    shared = store.Store(limit=32 * MIB)
    array, segment = shared.empty(ITEMS), shared.create(4 * MIB)
    view = shared.put({"a": np.ones(2 * ITEMS)}).get()["a"]
    wanted = (
        rf"^put\(ndarray\) needs {8 * MIB + 128} bytes .*; {28 * MIB + PAGE} of {32 * MIB} are taken \(largest: "
        rf"{16 * MIB + PAGE} bytes of put\(dict\), {8 * MIB} bytes of empty\(\), {4 * MIB} bytes of create\(\)\)$"
    )
    with pytest.raises(hr.StoreFull, match=wanted):
        shared.put(np.ones(ITEMS))
    with pytest.raises(MemoryError):
        shared.create(5 * MIB)
    assert shared.create(4 * MIB - PAGE)
    assert shared.put(array).get().sum() == 0.0, "what is there already needs no room"
    assert (len(segment), view.sum()) == (4 * MIB, 2 * ITEMS)
    del view
    gc.collect()
    assert shared.used == 12 * MIB
    assert shared.put(np.ones(2 * ITEMS)).get().sum() == 2 * ITEMS


def test_stores_count_by_themselves():
    first, second = store.Store(limit=8 * MIB), store.Store(limit=8 * MIB)
    segments = [first.create(8 * MIB), second.create(8 * MIB)]
    assert (first.used, second.used) == (8 * MIB, 8 * MIB)
    attached = store.attach(segments[0].fileno())
    del segments[0]
    gc.collect()
    assert (first.used, second.used, len(attached)) == (0, 8 * MIB, 8 * MIB)


def test_threads_never_get_more_than_the_limit():
    shared = store.Store(limit=16 * MIB)
    made, refused = [], []

    def make():
        for _ in range(8):
            try:
                made.append(shared.create(MIB))
            except hr.StoreFull:
                refused.append(1)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (16, 16)


def test_a_process_without_descriptors_says_so():
    script = run_script("""
        import resource
        from headrace import store
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        shared, made = store.Store(limit=1 << 30), []
        try:
            while True:
                made.append(shared.create(1))
        except MemoryError as error:
            print(type(error).__name__, error)
        del made
        print(shared.used, bytes(memoryview(shared.create(1))))
    """)
    text = "StoreFull 1 bytes of shared memory cannot be had: Too many open files (os error 24)\n0 b'\\x00'\n"
    assert (script.stdout, script.stderr) == (text, "")


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_FSIZE"])
def test_a_process_without_room_says_so(limit):
    script = run_script(f"""
        import resource
        from headrace import store
        shared = store.Store(limit=1 << 40)
        resource.setrlimit(resource.{limit}, (1 << 28, resource.RLIM_INFINITY))
        for _ in range(2):
            try:
                shared.create(1 << 32)
            except MemoryError as error:
                print(type(error).__name__, shared.used)
        print(len(shared.create(1 << 20)))
    """)
    assert (script.stdout, script.stderr) == ("StoreFull 0\nStoreFull 0\n1048576\n", "")


def test_an_interrupt_gets_through_and_leaves_nothing(shared):
    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    huge = store.Store(limit=1 << 30)
    before = memories()
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Interrupted):
            [huge.create(300 * MIB) for _ in range(3)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert memories() == before
    assert huge.used == 0

"""Large values in shared memory, with real processes: written once, seen by all, and never changed while seen (S1).

Memory is measured by the pages of the segments, whose descriptors the embedded broker has in this process. That counts
what tests before have left, so each test looks at differences, or has a client of its own.
"""

import functools
import gc
import multiprocessing
import os
import pickle
import random
import select
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from client_tasks import wait_for, worker_pids  # noqa: E402
from large_tasks import (  # noqa: E402
    Measurement,
    address,
    address_and_total,
    arrays_in,
    combine,
    empty_in_a_child,
    empty_of,
    exhaust_descriptors,
    fill_for_ever,
    filled,
    filled_in_place,
    fork_reader,
    free_descriptors,
    in_new_containers,
    kill_with,
    lies_in_block,
    look,
    middle,
    owner,
    plus_one,
    put_aside,
    reap_children,
    same,
    sum_once_per_marker,
    take_totals,
    total,
    touch_and_fill,
    transposed,
    written_once,
)
from store_watch import (  # noqa: E402
    MIB,
    TIMEOUT_S,
    eventually,
    flush,
    kill,
    machine_bytes,
    run_script,
    script_of,
    shared_bytes,
    value_of,
)

import headrace as hr  # noqa: E402

#: One array of the tests that measure memory: 8 MiB of float64.
ITEMS = MIB
ARRAY_BYTES = 8 * ITEMS
#: Pages beside the arrays: whatever else was committed for them.
SLACK_BYTES = 256 << 10


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=2) as client:
        yield client


@pytest.fixture
def own_client():
    """A client whose memory nobody else has used."""
    with hr.Client(workers=2) as client:
        yield client


def churn(client, runs=20, items=ITEMS):
    """Run graphs that use memory again wherever they may."""
    for number in range(runs):
        graph = hr.Graph()
        made = [graph.add(hr.task(filled_in_place, worker=worker), -1.0 - number, items) for worker in (0, 1)]
        nodes = [graph.add(hr.task(plus_one, worker=1 - worker), node) for worker, node in enumerate(made)]
        run = client.submit(graph, keep=nodes)
        assert all(array[0] == array[-1] == -number for array in run.results(timeout=TIMEOUT_S))
        run.release()
        flush(client)


def is_view(array):
    return lies_in_block(array) and not array.flags.writeable


# -- values ------------------------------------------------------------------------------------------------------------

ARRAYS = {
    "float64": lambda: np.arange(100_000, dtype=float),
    "uint8": lambda: np.arange(100_000, dtype=np.uint8),
    "bool": lambda: np.arange(100_000) % 3 == 0,
    "complex": lambda: np.arange(50_000) * (1 + 2j),
    "big-endian": lambda: np.arange(100_000, dtype=">i4"),
    "unicode": lambda: np.array([f"text {number}" for number in range(20_000)]),
    "structured": lambda: np.array(
        [(n, n / 2, b"x") for n in range(20_000)], dtype=[("a", "i4"), ("b", "f8"), ("c", "S3")]
    ),
    "nested structure": lambda: np.zeros(9_000, dtype=[("a", "i4"), ("b", [("c", "f8"), ("d", "u1", (3,))])]),
    "Fortran order": lambda: np.asfortranarray(np.arange(100_000.0).reshape(100, 1_000)),
    "three dimensions": lambda: np.arange(100_000.0).reshape(10, 100, 100),
    "three dimensions in Fortran order": lambda: np.arange(100_000.0).reshape((10, 100, 100), order="F"),
    "type with metadata": lambda: np.zeros(20_000, dtype=np.dtype("f8", metadata={"unit": "m"})),
    **{f"code {code}": functools.partial(np.ones, 90_000, np.dtype(code)) for code in "?bBhHiIlLqQefdgFDG"},
    "read-only": lambda: np.broadcast_to(np.arange(1.0), (1,)).repeat(50_000),
    "masked bytes of a page more": lambda: np.arange((64 << 10) + 1, dtype=np.uint8),
    "one page more than a MiB": lambda: np.arange(MIB + 4_096, dtype=np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_a_read_only_view_in_tasks_and_in_the_client(client, name):
    make = ARRAYS[name]
    made = client.call(make)
    assert value_of(client, look, made) == [(False, True)]
    view, expected = made.result(timeout=TIMEOUT_S), make()
    assert is_view(view)
    assert view.dtype == expected.dtype
    assert view.dtype.metadata == expected.dtype.metadata
    assert view.shape == expected.shape
    assert view.flags.f_contiguous == expected.flags.f_contiguous
    assert np.array_equal(view, expected)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = view[1]
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
        view.flags.writeable = True


def test_an_array_of_numbers_needs_no_pickle(client):
    """The pickles of arrays are loaded by functions in Python."""

    def calls_of(make):
        made, calls = client.call(make), []
        assert value_of(client, len, made)
        sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
        try:
            array = made.result(timeout=TIMEOUT_S)
        finally:
            sys.setprofile(None)
        assert is_view(array)
        return calls

    assert "_frombuffer" in calls_of(ARRAYS["big-endian"]), "so it would be seen"
    for name in ("float64", "Fortran order", "bool", "code l"):
        assert "_frombuffer" not in calls_of(ARRAYS[name])


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.array(3.5),
        lambda: np.empty((0, 5)),
        lambda: np.empty((3, 0), order="F"),
        lambda: np.arange(400_000.0)[::2],
        lambda: np.arange(400_000.0).reshape(400, 1_000)[:, 3:700],
        lambda: np.arange(400_000.0)[::-1],
        lambda: np.array([{"a": 1}, None, "text"] * 30_000, dtype=object),
        lambda: np.arange(100_000).astype("datetime64[s]"),
    ],
    ids=["0-d", "empty", "empty in Fortran order", "strided", "columns", "backwards", "objects", "dates"],
)
def test_other_arrays_arrive_right(client, make):
    made, expected = client.call(make), make()
    back = value_of(client, same, made)
    for array in (made.result(timeout=TIMEOUT_S), back):
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        assert np.array_equal(array, expected)


SHORT_ARRAYS = {
    **{f"code {code}": functools.partial(np.arange, 2, dtype=np.dtype(code)) for code in "bBhHiIlLqQefdgFDG"},
    "booleans": lambda: np.array([True, False]),
    "Fortran order": lambda: np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "0-d": lambda: np.array(3.5),
    "nothing": lambda: np.empty((3, 0), "i2"),
    "strided": lambda: np.arange(10.0)[::3],
    "read-only": lambda: np.broadcast_to(np.arange(1.0), (1,)),
    "just in a frame": lambda: np.arange((64 << 10) - 64, dtype="u1"),
    "big-endian": lambda: np.arange(5, dtype=">i4"),
    "text": lambda: np.array(["a", "bc"]),
}


@pytest.mark.parametrize("name", SHORT_ARRAYS)
def test_short_arrays_arrive_as_arrays_of_their_reader(client, name):
    make = SHORT_ARRAYS[name]
    made, expected = client.call(make), make()
    for array in (made.result(timeout=TIMEOUT_S), value_of(client, same, made)):
        assert type(array) is np.ndarray
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        assert array.flags.f_contiguous == expected.flags.f_contiguous or name == "strided"
        assert np.array_equal(array, expected)
        assert array.flags.writeable == expected.flags.writeable, "as it was"
        if array.flags.writeable:
            array[...] = 0

    @hr.task(writable="array")
    def change(array):
        array[...] = 1
        return array

    assert np.array_equal(client.call(change, made).result(timeout=TIMEOUT_S), np.ones_like(expected))
    assert np.array_equal(value_of(client, same, made), expected), "nobody else has seen it"


def test_a_part_with_gaps_takes_the_memory_of_the_part(own_client):
    whole = own_client.call(filled, 1.0, ITEMS)
    assert whole.result(timeout=TIMEOUT_S).nbytes == ARRAY_BYTES
    before = shared_bytes()
    every_fourth = value_of(own_client, lambda array: array[::4], whole)
    assert every_fourth.shape == (ITEMS // 4,)
    assert shared_bytes() - before <= ARRAY_BYTES // 4 + SLACK_BYTES


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytes(range(256)) * 4_000,
        lambda: bytearray(range(256)) * 4_000,
        lambda: "täxt – " * 150_000,
        lambda: "\ud800 alone" * 20_000,
        lambda: "\0" * 65_537,
        lambda: list(range(1_000_000)),
        lambda: {str(number): [number, bytes(20)] for number in range(50_000)},
        lambda: [b"x" * MIB, "y" * MIB, bytearray(MIB), None],
        lambda: 1 << 1_000_000,
    ],
    ids=["bytes", "bytearray", "str", "surrogates", "zeros", "integers", "dict", "texts", "integer"],
)
def test_large_values_without_buffers_arrive_right(client, make):
    made, expected = client.call(make), make()
    back = value_of(client, same, made)
    for value in (made.result(timeout=TIMEOUT_S), back):
        assert type(value) is type(expected)
        assert value == expected


def test_arrays_in_containers_are_views(client):
    def make():
        first = np.arange(30_000.0)
        return {
            "list": [first, first * 2, (first * 3, "text")],
            "again": first,
            "measured": Measurement("m", np.arange(50_000.0), np.arange(50_000.0)[:0]),
            "small": np.arange(3),
            "bytes": b"x" * 100_000,
        }

    made, expected = client.call(make), make()
    assert value_of(client, look, made) == [(False, True)] * 7
    value = made.result(timeout=TIMEOUT_S)
    assert all(map(is_view, arrays_in(value)))
    assert value["again"] is value["list"][0], "what was one object is one object"
    assert value["bytes"] == expected["bytes"]
    assert all(map(np.array_equal, arrays_in(value), arrays_in(expected)))


def test_many_arrays_in_one_result(client):
    made = client.call(lambda: [np.full(MIB, number, dtype=np.uint8) for number in range(256)] + [np.ones(MIB)] * 44)
    value = made.result(timeout=TIMEOUT_S)
    assert len(value) == 300
    assert all(is_view(array) for array in value)
    assert all(array[0] == array[-1] == number for number, array in enumerate(value[:256]))
    assert value_of(client, lambda arrays: [int(array[-1]) for array in arrays], made) == [*range(256), *[1] * 44]


def test_a_numeric_frame_is_a_view(client):
    pandas = pytest.importorskip("pandas")

    def make():
        return pandas.DataFrame({"a": np.arange(1e5), "b": np.arange(1e5) * 2, "c": np.arange(100_000)})

    made = client.call(make)
    blocks = lambda frame: [frame[name].to_numpy() for name in frame]  # noqa: E731
    assert value_of(client, lambda frame: [array.flags.writeable for array in blocks(frame)], made) == [False] * 3
    frame = made.result(timeout=TIMEOUT_S)
    assert all(map(is_view, blocks(frame)))
    pandas.testing.assert_frame_equal(frame, make())
    changed = hr.copy(frame)
    changed.loc[0, "a"] = -1.0
    assert frame.loc[0, "a"] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        frame.loc[0, "a"] = -2.0
    assert (frame + 1).loc[0, "a"] == 1.0


def test_an_arrow_table_is_a_view(own_client):
    arrow = pytest.importorskip("pyarrow")

    def make():
        return arrow.table({"number": np.arange(ITEMS), "text": [f"row {number % 1_000}" for number in range(ITEMS)]})

    made, expected = own_client.call(make), make()
    assert made.result(timeout=TIMEOUT_S).equals(expected)
    before = shared_bytes()
    assert value_of(own_client, lambda table: table.num_rows, made) == ITEMS
    back = value_of(own_client, same, made)
    assert back.equals(expected)
    assert shared_bytes() == before, "its buffers were cited"
    assert back["number"].chunk(0).buffers()[1].address == made.result()["number"].chunk(0).buffers()[1].address


def test_a_copy_can_be_written_to(client):
    made = client.call(filled, 3.0, 100_000)
    view = made.result(timeout=TIMEOUT_S)
    copied = hr.copy({"a": [view]})["a"][0]
    copied[:] = 4.0
    assert view[0] == view[-1] == 3.0
    assert value_of(client, lambda array: float(hr.copy(array).__iadd__(1.0).sum()), made) == 400_000.0
    assert value_of(client, total, made) == 300_000.0


def test_what_a_task_raises_for_a_write_is_numpys_error(client):
    def write(array):
        array[0] = 1.0

    with pytest.raises(ValueError, match="read-only"):
        value_of(client, write, client.call(filled, 1.0, 100_000))


# -- one copy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [same, transposed, middle, in_new_containers])
def test_a_task_that_returns_what_it_was_given_takes_no_memory(own_client, step):
    graph = hr.Graph()
    first = node = graph.add(filled, 2.0, (ITEMS // 16, 16))
    kept = [first, *(node := graph.add(hr.task(step, worker=hop % 2), node) for hop in range(4))]
    before = shared_bytes()
    results = own_client.submit(graph, keep=kept).results(timeout=TIMEOUT_S)
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES
    start = address(results[0])
    for array in arrays_in(results):
        assert start <= address(array) < start + ARRAY_BYTES
        assert (array == 2.0).all()


def test_workers_see_one_map_of_a_block(client):
    made = client.call(filled, 1.0, ITEMS)
    for worker in (0, 1):
        seen = {value_of(client, address_and_total, made, worker=worker) for _ in range(3)}
        assert len(seen) == 1
        assert seen.pop()[1] == ITEMS


def test_eight_consumers_share_one_array(own_client):
    graph = hr.Graph()
    node = graph.add(filled, 1.0, ITEMS)
    before = shared_bytes()
    run = own_client.submit(graph, keep=graph.map(total, [node] * 8))
    assert run.results(timeout=TIMEOUT_S) == [ITEMS] * 8
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES


def test_memory_is_used_again(own_client):
    before = shared_bytes()

    def run_once():
        graph = hr.Graph()
        node = graph.add(hr.task(filled, worker=0), 0.0, ITEMS)
        for hop in range(10):
            node = graph.add(hr.task(plus_one, worker=hop % 2), node)
        run = own_client.submit(graph)
        assert run.result(node, timeout=TIMEOUT_S)[7] == 10.0
        run.release()
        del run
        flush(own_client)
        return shared_bytes()

    sizes = [run_once() for _ in range(25)]
    # How many arrays are there at a time depends on how fast their ends are told; each run makes eleven.
    assert max(sizes) - before <= 11 * ARRAY_BYTES + SLACK_BYTES
    assert len(set(sizes)) <= 6, "the pool grows run by run"


def test_an_array_made_in_place_is_not_copied(own_client):
    before = shared_bytes()
    made = own_client.call(hr.task(written_once, worker=0), 5.0, ITEMS)
    where, view = made.result(timeout=TIMEOUT_S)
    assert is_view(view)
    assert (view == 5.0).all()
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES
    seen, _ = value_of(own_client, lambda pair: (address(pair[1]), pair[0]), made, worker=0)
    assert seen == where, "it is seen where it was written"
    assert value_of(own_client, take_totals, worker=0) == [5.0 * ITEMS]


def test_parts_and_shapes_of_an_array_made_in_place(client):
    def fill():
        array = hr.empty((300, 1_000), dtype="i4")
        array[:] = np.arange(300)[:, None]
        return [array[10:20], array.T, array.reshape(-1)[5:], array.view("u4")]

    parts = client.call(fill).result(timeout=TIMEOUT_S)
    assert all(map(is_view, parts))
    rows = np.repeat(np.arange(300), 1_000).reshape(300, 1_000)
    assert all(map(np.array_equal, parts, [rows[10:20], rows.T, rows.reshape(-1)[5:], rows]))


@pytest.mark.parametrize("shape", [5, (2, 3), [2, 3], (), 0, (0, 3), (np.int64(3), 2)])
def test_shapes_are_those_of_numpy(client, shape):
    made = value_of(client, lambda shape: hr.empty(shape, "i2"), shape)
    expected = np.empty(shape, "i2")
    assert (made.shape, made.dtype) == (expected.shape, expected.dtype)


def test_a_numpy_integer_is_a_shape(client):
    assert value_of(client, lambda: hr.empty(np.int64(5)).shape) == (5,)


@pytest.mark.parametrize("shape", [2**62, (2**31, 2**31), 10**20, (2**40, 2**40)])
def test_more_than_any_memory_has_is_refused(client, shape):
    with pytest.raises(hr.StoreFull):
        value_of(client, hr.empty, shape)


def test_an_array_made_in_place_may_be_dropped(own_client):
    def waste(times):
        for number in range(times):
            array = hr.empty(ITEMS)
            array[::512] = number
            del array
        return times

    before = shared_bytes()
    assert value_of(own_client, waste, 50, worker=0) == 50
    assert shared_bytes() - before <= 3 * ARRAY_BYTES + SLACK_BYTES


# -- put ---------------------------------------------------------------------------------------------------------------


def test_a_value_that_was_put_is_there_once_for_all_tasks(own_client):
    array = np.arange(float(ITEMS))
    before = shared_bytes()
    ref = own_client.put({"array": array})
    array[:] = 0.0
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES
    expected = float(np.arange(float(ITEMS)).sum())
    for _ in range(2):
        graph = hr.Graph()
        nodes = [graph.add(lambda value, number: (number, total(value["array"])), ref, number) for number in range(20)]
        assert own_client.submit(graph, keep=nodes).results(timeout=TIMEOUT_S) == [(n, expected) for n in range(20)]
    assert value_of(own_client, look, ref) == [(False, True)]
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES


def test_a_value_that_was_put_comes_back_as_a_view(client):
    ref = client.put(np.arange(100_000))
    back = value_of(client, same, ref)
    assert is_view(back)
    assert np.array_equal(back, np.arange(100_000))


@pytest.mark.parametrize("value", [None, 7, "text", b"x" * 100_000, [1, {"a": (2,)}], np.arange(3)])
def test_anything_can_be_put(client, value):
    assert str(value_of(client, same, client.put(value))) == str(value)


def test_a_ref_may_go_before_its_tasks_have_run(client, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    opened = [client.call(hr.task(lambda path: Path(path).read_text(), worker=worker), str(gate)) for worker in (0, 1)]
    ref = client.put(np.full(ITEMS, 4.0))
    after = [client.call(total, ref, held) for held in opened]
    del ref
    for number in range(3):
        client.put(np.full(ITEMS, float(number)))
    flush(client)
    for _ in opened:
        gate.write_text("go")
        # One reader at a time may get what is written; the next write opens anew.
        if eventually(lambda: any(future.done() for future in opened)) and all(future.done() for future in opened):
            break
    assert [future.result(timeout=TIMEOUT_S) for future in after] == [4.0 * ITEMS] * 2


def test_put_refuses_what_cannot_travel(client):
    with pytest.raises(hr.ArgumentNotPicklable):
        client.put({"lock": threading.Lock()})
    assert value_of(client, same, client.put(1)) == 1


def test_threads_may_put_at_once(client):
    wrong = []

    def put(number):
        for turn in range(10):
            ref = client.put(np.full(100_000 + turn, number))
            if value_of(client, total, ref) != float(number * (100_000 + turn)):
                wrong.append((number, turn))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("mode", ["threads", "sync"])
def test_in_this_process_values_are_shared_objects(mode):
    with hr.Client(workers=2, mode=mode) as client:
        array = np.arange(100_000)
        ref = client.put(array)
        assert value_of(client, same, ref) is array
        graph = hr.Graph()
        nodes = graph.map(same, [ref] * 5)
        assert all(value is array for value in client.submit(graph, keep=nodes).results(timeout=TIMEOUT_S))
        made = value_of(client, filled_in_place, 2.0, 100_000)
        assert made.flags.writeable
        assert not lies_in_block(made)
        assert (made == 2.0).all()


# -- views live as long as somebody has them (S1) ----------------------------------------------------------------------


def test_a_view_outlives_future_run_and_client():
    with hr.Client(workers=2) as client:
        graph = hr.Graph()
        nodes = [graph.add(filled_in_place, float(number), ITEMS) for number in range(3)]
        run = client.submit(graph, keep=nodes)
        views = [*run.results(timeout=TIMEOUT_S), value_of(client, middle, client.call(filled, 3.0, ITEMS))]
        run.release()
        del run
        churn(client)
        assert all((view == number).all() for number, view in enumerate(views))
    assert all((view == number).all() for number, view in enumerate(views))
    with hr.Client(workers=2) as client:
        churn(client, runs=5)
        assert all((view == number).all() for number, view in enumerate(views))


def test_memory_goes_with_the_last_view_of_a_closed_client():
    gc.collect()
    before = shared_bytes()
    with hr.Client(workers=1) as client:
        view = value_of(client, filled, 1.0, ITEMS)
        part = view[5:10]
        del view
    assert (part == 1.0).all()
    del part
    gc.collect()
    assert eventually(lambda: shared_bytes() <= before)


def test_results_that_were_not_read_yet_outlive_the_client():
    with hr.Client(workers=1) as client:
        graph = hr.Graph()
        node = graph.add(filled, 1.0, ITEMS)
        run = client.submit(graph)
        future = client.call(filled, 2.0, ITEMS)
        text = client.call(lambda: "x" * MIB)
    assert (run.result(node) == 1.0).all()
    assert (future.result() == 2.0).all()
    assert text.result() == "x" * MIB


@pytest.mark.parametrize("wait", [True, False])
def test_tasks_that_outstay_their_client_do_not_write_where_it_looks(tmp_path, wait):
    client = hr.Client(workers=1, store_limit=200 * MIB)
    futures = [client.call(filled_in_place, float(number), ITEMS) for number in range(2)]
    views = [future.result(timeout=TIMEOUT_S) for future in futures]
    graph = hr.Graph()
    run = client.submit(graph, keep=[graph.add(filled_in_place, 2.0, ITEMS)])
    assert run.wait(TIMEOUT_S)
    client.call(fill_for_ever, str(tmp_path / "started"), -1.0, ITEMS)
    assert eventually((tmp_path / "started").exists)
    del futures
    flush(client)
    client.close(wait=wait, cancel=True)
    views.append(run.result())
    assert [(view.min(), view.max()) for view in views] == [(number, number) for number in (0.0, 1.0, 2.0)]


def test_a_view_in_a_worker_outlives_its_task(client):
    for number in range(3):
        assert value_of(client, put_aside, client.call(filled, float(number), ITEMS), worker=0) == number + 1
    flush(client)
    churn(client)
    assert value_of(client, take_totals, worker=0) == [0.0, ITEMS, 2.0 * ITEMS]


def test_a_view_can_be_pickled(client):
    view = value_of(client, filled, 1.5, 100_000)
    buffers = []
    again = [
        pickle.loads(pickle.dumps(view)),
        pickle.loads(pickle.dumps(view, protocol=2)),
        pickle.loads(pickle.dumps(view, protocol=5, buffer_callback=buffers.append), buffers=buffers),
    ]
    assert all(np.array_equal(array, view) for array in again)
    assert not any(map(lies_in_block, again[:2]))
    assert value_of(client, total, view) == 150_000.0, "it is an argument like any other"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_view_passes_through_multiprocessing(client, method):
    view = value_of(client, filled, 1.5, 100_000)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(total, (view,)).get(TIMEOUT_S) == 150_000.0
        assert np.array_equal(pool.apply_async(plus_one, (view,)).get(TIMEOUT_S), view + 1)


def test_a_run_keeps_results_and_not_views(client):
    run = client.submit(graph := hr.Graph(), keep=[graph.add(filled, 3.0, ITEMS), graph.add(filled, 4.0, 10)])
    first, small = run.results()
    assert run.result("filled-0") is first, "as long as somebody has it"
    assert run.result("filled-1") is small
    before = weakref.ref(first)
    del first
    gc.collect()
    assert before() is None
    assert (run.result("filled-0") == 3.0).all()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_the_client_keeps_what_it_saw(client):
    view = value_of(client, filled, 6.0, ITEMS)
    run = client.submit(graph := hr.Graph(), keep=[graph.add(filled, 7.0, ITEMS)])
    assert run.wait(TIMEOUT_S)
    result = run.result()
    assert result[0] == 7.0
    may_go, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(go)
            os.read(may_go, 1)
            right = (view == 6.0).all() and (result == 7.0).all()
            del view, result
            gc.collect()
            code = 0 if right else 2
        finally:
            os._exit(code)
    os.close(may_go)
    del view, result, run
    flush(client)
    churn(client)
    os.close(go)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_child_of_a_task_keeps_what_it_saw(client, tmp_path):
    gates = []
    for number, make in enumerate((filled, filled_in_place)):
        gate, answer = tmp_path / f"gate-{number}", tmp_path / f"answer-{number}"
        os.mkfifo(gate)
        os.mkfifo(answer)
        made = client.call(hr.task(make, worker=number), 6.0 + number, ITEMS)
        assert value_of(client, fork_reader, made, str(gate), str(answer), worker=0) > 0
        del made
        gates.append((gate, answer))
    flush(client)
    churn(client)
    for number, (gate, answer) in enumerate(gates):
        gate.write_bytes(b"go")
        assert answer.read_text() == f"{6.0 + number} {6.0 + number}"
    assert value_of(client, reap_children, worker=0) is None


def test_a_child_of_a_task_makes_arrays_of_its_own(own_client):
    assert value_of(own_client, empty_in_a_child, 1 << 18) == (2.0, 2.0, 0)


def test_random_graphs_give_what_a_sequential_run_gives(client):
    for seed in range(200):
        dice = random.Random(seed)
        graph, expected, nodes = hr.Graph(), [], []
        for number in range(dice.randint(2, 12)):
            inputs = dice.sample(range(number), min(number, dice.randint(0, 3)))
            items = dice.choice([64 << 10, MIB, 4_096, dice.randint(1, 1 << 18)]) // 8 + dice.randint(-9, 9)
            kind = dice.random()
            if inputs and kind < 0.2:
                expected.append(expected[inputs[0]])
                task, arguments = same, [nodes[inputs[0]]]
            elif inputs and kind < 0.35:
                expected.append(middle(expected[inputs[0]]))
                task, arguments = middle, [nodes[inputs[0]]]
            else:
                items = max(1, items)
                expected.append(combine(number, items, *(expected[i] for i in inputs)))
                task, arguments = combine, [number, items, *(nodes[i] for i in inputs)]
            worker = dice.choice([None, 0, 1])
            nodes.append(graph.add(task if worker is None else hr.task(task, worker=worker), *arguments))
        kept = dice.sample(range(len(nodes)), dice.randint(1, len(nodes)))
        run = client.submit(graph, keep=[nodes[i] for i in kept])
        held[:] = [pair for pair in held if dice.random() < 0.8]
        for position in dice.sample(kept, len(kept)):
            held.append((run.result(nodes[position], timeout=TIMEOUT_S), expected[position]))
            if dice.random() < 0.3:
                held.pop(dice.randrange(len(held)))
        if dice.random() < 0.5:
            run.release()
        if dice.random() < 0.2:
            flush(client)
        assert all(np.array_equal(view, right) for view, right in held), f"seed {seed}"
    held.clear()


#: Views of random age, with what they must show.
held = []


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_values_survive_the_worker_that_made_them(own_client):
    made = own_client.call(hr.task(filled, worker=0), 3.0, ITEMS)
    in_place = own_client.call(hr.task(filled_in_place, worker=0), 4.0, ITEMS)
    view = made.result(timeout=TIMEOUT_S)
    assert in_place.exception(timeout=TIMEOUT_S) is None
    kill(worker_pids(own_client)[0])
    assert (view == 3.0).all()
    assert value_of(own_client, total, made) == 3.0 * ITEMS
    assert value_of(own_client, total, in_place) == 4.0 * ITEMS
    churn(own_client, runs=5)
    assert (view == 3.0).all()
    assert (in_place.result() == 4.0).all()
    before = shared_bytes()
    del view, made, in_place
    flush(own_client)
    assert eventually(lambda: shared_bytes() <= before - 2 * ARRAY_BYTES), "their segment went with them"


def test_a_consumer_that_dies_is_replaced_and_sees_the_same(own_client, tmp_path):
    made = own_client.call(filled, 3.0, ITEMS)
    for number in range(3):
        assert value_of(own_client, sum_once_per_marker, made, str(tmp_path / f"{number}")) == 3.0 * ITEMS


def test_consumers_that_die_leave_no_memory_behind(own_client):
    for _ in range(3):
        churn(own_client, runs=2)
    before = shared_bytes()
    for _ in range(3):
        with pytest.raises(hr.WorkerDied):
            value_of(own_client, kill_with, own_client.call(filled, 1.0, ITEMS))
        flush(own_client)
        churn(own_client, runs=2)
    assert eventually(lambda: shared_bytes() <= before + 3 * ARRAY_BYTES)


@pytest.mark.timeout(180)
def test_workers_killed_at_random_moments_spoil_nothing(own_client):
    dice = random.Random(4)
    before = None
    for number in range(20):
        graph = hr.Graph()
        node = graph.add(filled, 0.0, ITEMS)
        nodes = [node := graph.add(hr.task(plus_one, worker=hop % 2), node) for hop in range(10)]
        kept = dice.sample(nodes, 3)
        run = own_client.submit(graph, keep=kept)
        watched = run.as_completed()
        for _ in range(dice.randint(0, 2)):
            next(watched)
        kill(dice.choice(worker_pids(own_client)))
        for kept_node, view in zip(kept, run.results(timeout=TIMEOUT_S), strict=True):
            assert (view == nodes.index(kept_node) + 1.0).all(), f"round {number}"
        del view, watched
        run.release()
        flush(own_client)
        if number == 9:
            before = shared_bytes()
    assert eventually(lambda: shared_bytes() <= before + 6 * ARRAY_BYTES), "it grows with each death"


def test_nothing_is_left_of_a_client_that_was_killed():
    megabytes = 256
    program = subprocess.Popen(
        script_of(f"""
            import headrace as hr
            from large_tasks import filled, total
            client = hr.Client(workers=2)
            made = [client.call(filled, 1.0, {megabytes // 2} << 17) for _ in range(2)]
            views = [future.result() for future in made]
            ref = client.put(views[0][:1000000] * 2)
            assert client.call(total, ref).result() == 2000000.0
            print(*[worker.pid for worker in client.submit(hr.Graph()).statistics().workers], flush=True)
            sys.stdin.read()
        """),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        pids = [int(pid) for pid in program.stdout.readline().split()]
        used = machine_bytes()
        descriptors = [os.pidfd_open(pid) for pid in pids if pid]
        program.kill()
        for descriptor in descriptors:
            assert select.select([descriptor], [], [], TIMEOUT_S)[0], "a worker outlived its client"
            os.close(descriptor)
    finally:
        program.kill()
        program.communicate()
    # Others use this machine as well.
    assert eventually(lambda: machine_bytes() <= used - (megabytes << 20) * 3 // 4)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_full_store_says_what_is_needed_and_taken():
    with hr.Client(workers=2, store_limit=64 * MIB) as client:
        first = client.call(filled, 1.0, 5 * MIB)
        view = first.result(timeout=TIMEOUT_S)
        for use in (
            lambda: value_of(client, filled, 2.0, 5 * MIB),
            lambda: value_of(client, filled_in_place, 2.0, 5 * MIB),
        ):
            with pytest.raises(hr.StoreFull, match=rf"{40 * MIB} bytes.* of {64 * MIB} are taken.*{40 * MIB}"):
                use()
        with pytest.raises(hr.StoreFull, match=f"{40 * MIB}"):
            client.put(np.ones(5 * MIB))
        with pytest.raises(MemoryError):
            value_of(client, filled_in_place, 2.0, 500 * MIB)
        assert (view == 1.0).all()
        assert value_of(client, total, first) == 5.0 * MIB
        assert (value_of(client, filled, 3.0, MIB) == 3.0).all()
        del view, first
        flush(client)
        churn(client, runs=3)
        flush(client)
        assert eventually(lambda: finds_room(client, 5 * MIB)), "what was released can be used again"


def finds_room(client, items):
    try:
        return (value_of(client, filled, 4.0, items) == 4.0).all()
    except hr.StoreFull:
        return False


def test_a_full_store_fails_the_task_that_needs_more_and_no_other():
    with hr.Client(workers=2, store_limit=64 * MIB, spill_limit=0) as client:
        graph = hr.Graph()
        nodes = [graph.add(filled, float(number), 2 * MIB) for number in range(8)]
        small = graph.map(total, nodes)
        run = client.submit(graph, keep=[nodes, small])
        right, full = 0, 0
        for node, sum_node in zip(nodes, small, strict=True):
            try:
                assert (run.result(node, timeout=TIMEOUT_S) == node.index).all()
                assert run.result(sum_node, timeout=TIMEOUT_S) == node.index * 2.0 * MIB
                right += 1
            except hr.StoreFull:
                full += 1
        assert right + full == 8
        assert right >= 2
        assert full >= 1


def test_a_busy_worker_does_not_keep_others_waiting_for_memory(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with hr.Client(workers=2, store_limit=64 * MIB) as client:
        assert value_of(client, filled, 1.0, 3 * MIB, worker=0).shape == (3 * MIB,)
        flush(client)
        held = client.call(hr.task(lambda path: Path(path).read_text(), worker=0), str(gate))
        try:
            value = client.call(hr.task(filled, worker=1), 2.0, 6 * MIB).result(timeout=TIMEOUT_S)
            assert (value == 2.0).all()
        finally:
            gate.write_text("go")
        assert held.result(timeout=TIMEOUT_S) == "go"


@pytest.mark.parametrize("use", ["call", "put"])
def test_values_that_were_let_go_of_leave_room_for_others(use):
    with hr.Client(workers=1, store_limit=64 * MIB) as client:
        for number in range(20):
            if use == "put":
                ref = client.put(np.full(2 * MIB, float(number)))
                assert value_of(client, total, ref) == number * 2.0 * MIB
                del ref
            else:
                assert (value_of(client, filled, float(number), 2 * MIB) == number).all()


@pytest.mark.timeout(240)  # five gigabytes of pages are cleared
def test_sizes_that_change_find_room_in_a_small_store():
    with hr.Client(workers=2, store_limit=64 * MIB) as client:
        for megabytes in (1, 20, 40, 60, 3) * 40:
            assert value_of(client, empty_of, megabytes << 17).nbytes == megabytes << 20
            flush(client)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1 GiB"])
def test_a_bad_limit_is_refused(limit):
    with pytest.raises(hr.UsageError, match="store_limit"):
        hr.Client(workers=1, store_limit=limit)


def test_two_thousand_blocks_need_few_descriptors():
    script = run_script("""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        import headrace as hr
        from large_tasks import filled, total
        with hr.Client(workers=2) as client:
            graph = hr.Graph()
            nodes = [graph.add(filled, float(number), 12_500) for number in range(2_000)]
            sums = graph.map(total, nodes)
            run = client.submit(graph, keep=[nodes, sums])
            values = run.results()
            assert all((values[number] == number).all() for number in range(2_000))
            assert values[2_000:] == [12_500.0 * number for number in range(2_000)]
            refs = [client.put(value + 1) for value in values[:500]]
            sums = [client.call(total, ref).result() for ref in refs[::50]]
            assert sums == [12_500.0 * (number + 1) for number in range(0, 500, 50)]
        assert all((values[number] == number).all() for number in range(2_000))
        print("right")
    """)
    assert (script.stdout, script.stderr) == ("right\n", "")


def test_classes_of_main_have_views_too():
    script = run_script("""
        import numpy as np
        import headrace as hr
        class Pair:
            def __init__(self, left, right):
                self.left, self.right = left, right
        def make():
            return Pair(np.arange(100_000), np.arange(5))
        with hr.Client(workers=1) as client:
            pair = client.call(make).result()
            print(pair.left.flags.writeable, pair.left[-1], pair.right.tolist())
    """)
    assert (script.stdout, script.stderr) == ("False 99999 [0, 1, 2, 3, 4]\n", "")


def test_a_client_without_numpy_passes_large_values():
    script = run_script("""
        import headrace as hr
        with hr.Client(workers=1) as client:
            ref = client.put([b"x" * 1_000_000, "y" * 1_000_000])
            print(client.call(len, ref).result(), len(client.call(bytes, 1_000_000).result()), "numpy" in sys.modules)
    """)
    assert (script.stdout, script.stderr) == ("2 1000000 False\n", "")


def test_the_owner_of_a_view_is_a_block(client):
    block = owner(value_of(client, filled, 1.0, 100_000))
    assert len(block) == 800_000
    assert memoryview(block).readonly
    assert bytes(memoryview(block)[:8]) == np.float64(1.0).tobytes()


# -- what may go wrong while memory is asked for -----------------------------------------------------------------------


def made_in_setup():
    hr.empty(1 << 18)


@pytest.mark.parametrize("size", [65_530, 65_531, 65_532, 65_535, 65_536, 65_537])
def test_bytes_and_texts_of_about_the_length_of_a_frame_arrive(client, size):
    assert value_of(client, bytes, size) == bytes(size)
    assert value_of(client, "x".__mul__, size) == "x" * size
    assert value_of(client, same, client.put(bytes(size))) == bytes(size)


def test_a_setup_may_make_arrays():
    with hr.Client(workers=1, setup=made_in_setup) as client:
        assert value_of(client, same, 1) == 1


def test_a_task_without_descriptors_left_says_so():
    def exhaust():
        files = []
        try:
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            try:
                hr.empty(MIB)
            except hr.StoreFull as error:
                return str(error)
        finally:
            for file in files:
                os.close(file)

    with hr.Client(workers=1, preload=["numpy"]) as client:
        assert "too many open files" in value_of(client, exhaust)
        assert value_of(client, total, client.call(filled, 1.0, ITEMS)) == ITEMS


def test_a_worker_without_descriptors_for_a_while_sees_later_what_came_then():
    with hr.Client(workers=2, preload=["numpy"]) as client:
        with pytest.raises(ZeroDivisionError):  # so that what failures need is imported
            value_of(client, divmod, 1, 0, worker=0)
        assert value_of(client, exhaust_descriptors, worker=0) > 50
        made = client.call(hr.task(filled, worker=1), 1.0, ITEMS)
        for _ in range(2):
            with pytest.raises(hr.ResultLost, match="too many open files"):
                value_of(client, total, made, worker=0)
        value_of(client, free_descriptors, worker=0)
        assert value_of(client, total, made, worker=0) == ITEMS
        (pid, _) = worker_pids(client)
        assert client.statistics().worker_deaths == 0, pid


def test_a_client_without_descriptors_for_a_while_sees_later_what_came_then():
    script = run_script(
        f"""
        import headrace as hr
        from large_tasks import exhaust_descriptors, filled, free_descriptors, same, total
        with hr.Client(workers=1) as client:
            try:  # so that what failures need is imported
                client.call(divmod, 1, 0).result()
            except ZeroDivisionError:
                pass
            # The worker gets its segment, of which the client needs nothing yet.
            graph = hr.Graph()
            client.submit(graph, keep=[graph.add(total, graph.add(filled, 1.0, {ITEMS}))]).result()
            exhaust_descriptors()
            made = client.call(filled, 2.0, {ITEMS})
            try:
                made.result()
            except hr.HeadraceError as error:
                print("too many open files" in str(error))
            free_descriptors()
            print(client.call(same, made).result().sum() == {2 * ITEMS})
        """
    )
    assert script.stdout == "True\nTrue\n", script.stderr


def test_what_was_granted_in_vain_is_given_back():
    def without_room():
        import resource

        limits = resource.getrlimit(resource.RLIMIT_AS)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 8 * MIB, limits[1]))
        try:
            for _ in range(3):
                with pytest.raises(hr.StoreFull, match="cannot be mapped"):
                    hr.empty(40 * MIB // 8)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        return hr.empty(40 * MIB // 8).nbytes

    with hr.Client(workers=1, store_limit=64 * MIB, preload=["numpy"]) as client:
        assert value_of(client, without_room) == 40 * MIB


def test_a_cancelled_wait_for_memory_leaves_none_behind():
    with hr.Client(workers=1, store_limit=100 * MIB) as client:
        view = value_of(client, filled_in_place, 1.0, 10 * MIB)
        waiting = client.call(filled_in_place, 2.0, 11 * MIB)
        waiting.cancel()
        del view
        assert value_of(client, total, client.put(np.ones(8 * MIB))) == 8 * MIB
        assert value_of(client, filled_in_place, 3.0, 9 * MIB).sum() == 27 * MIB


def test_a_task_that_waits_for_memory_is_cancelled_without_its_worker(tmp_path):
    with hr.Client(workers=2, store_limit=64 * MIB, spill_limit=0) as client:
        view = value_of(client, filled_in_place, 1.0, 6 * MIB)
        pids = worker_pids(client)
        # While another task runs, the broker lets one wait for memory.
        busy = client.call(hr.task(wait_for, worker=0), tmp_path / "gate")
        for number in range(3):
            waiting = client.call(hr.task(touch_and_fill, worker=1), str(tmp_path / str(number)), 6 * MIB)
            assert eventually((tmp_path / str(number)).exists)
            waiting.cancel()
            assert value_of(client, len, "after it", worker=1) == 8
            with pytest.raises(hr.CancelledError):
                waiting.result(timeout=TIMEOUT_S)
        assert worker_pids(client) == pids
        (tmp_path / "gate").touch()
        busy.result(timeout=TIMEOUT_S)
        del view
        flush(client)
        assert value_of(client, total, client.call(filled_in_place, 2.0, 7 * MIB)) == 14 * MIB


def test_an_interrupt_ends_a_wait_of_the_client_for_memory():
    script = run_script(
        f"""
        import os, signal, threading, time
        import numpy as np
        import headrace as hr
        from large_tasks import filled
        with hr.Client(workers=1, store_limit={64 * MIB}, spill_limit=0) as client:
            view = client.call(filled, 1.0, {6 * MIB}).result()
            busy = client.call(time.sleep, 4)  # so that the broker waits, too
            for _ in range(2):
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                start = time.monotonic()
                try:
                    client.put(np.ones({6 * MIB}))
                except KeyboardInterrupt:
                    print(time.monotonic() - start < 2)
            busy.result()
            del view
            client.submit(hr.Graph()).statistics()
            print(client.call(len, client.put(np.ones({6 * MIB}))).result() == {6 * MIB})
        """
    )
    assert script.stdout == "True\nTrue\nTrue\n", script.stderr


class Signal:
    """Says when it is pickled, which comes before memory is asked for."""

    def __init__(self):
        self.is_pickled = threading.Event()

    def __reduce__(self):
        self.is_pickled.set()
        return str, ()


def test_a_wait_for_memory_ends_with_its_client(tmp_path):
    client = hr.Client(workers=1, store_limit=64 * MIB, spill_limit=0, grace_s=0)
    view, signal = value_of(client, filled_in_place, 1.0, 6 * MIB), Signal()
    client.call(wait_for, tmp_path / "gate")  # so that the broker lets the wish wait
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(client.put, [signal, np.ones(6 * MIB)])
        assert signal.is_pickled.wait(TIMEOUT_S)
        client.close(wait=False, cancel=True)
        with pytest.raises(hr.BrokerLost, match="the client was closed, or its broker is gone, while a value waited"):
            put.result(timeout=TIMEOUT_S)
    assert view[0] == 1.0

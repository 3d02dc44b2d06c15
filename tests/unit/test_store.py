"""The store by itself, within one process."""

import multiprocessing.reduction
import pickle
import resource
import subprocess
import sys
import threading

import pytest

np = pytest.importorskip("numpy")

import headrace as hr  # noqa: E402
from headrace import limits, store  # noqa: E402

MIB = 1 << 20
PAGE = resource.getpagesize()


@pytest.fixture
def shared():
    with store.Store(limit=64 * MIB) as made:
        yield made


def test_import_takes_nothing_that_may_not_be_needed():
    script = "import sys, headrace.store; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "zmq", "multiprocessing", "concurrent.futures", "cloudpickle", "headrace.client", "click", "rich"}
    assert "headrace.store" in loaded
    assert not heavy & set(loaded)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        17,
        "text",
        b"bytes" * 50_000,
        "long text" * 50_000,
        list(range(100_000)),
        {"a": (1, 2.0, [None])},
        bytearray(100_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_in_comes_out(shared, value):
    item = shared.put(value)
    assert item.get() == value
    assert type(item.get()) is type(value)


@pytest.mark.parametrize("items", [0, 1, 5, 8_000, 20_000])
@pytest.mark.parametrize("dtype", ["f8", "u1", "?", ">i4", "M8[ns]", "U5", [("a", "i4"), ("b", "S3")]])
def test_arrays_are_the_same_and_read_only_where_they_pickle_so(shared, dtype, items):
    value = np.zeros(items, dtype)
    value[1::2] = np.ones(1, dtype)
    found = shared.put(value).get()
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert np.array_equal(found, value)
    # A short array of dates is copied within its pickle.
    assert found.flags.writeable == (dtype == "M8[ns]" and items < 20_000)


def test_orders_and_views_stay_what_they_are(shared):
    value = np.arange(60_000.0).reshape(200, 300)
    parts = [value, np.asfortranarray(value), value[::2], value[:, 5], value[:0]]
    found = shared.put(parts).get()
    assert all(np.array_equal(one, other) for one, other in zip(found, parts, strict=True))
    assert [one.flags.f_contiguous for one in found[:2]] == [False, True]


def test_every_part_is_aligned(shared):
    parts = [np.full(n, n % 100, dtype=np.uint8) for n in (1, 63, 64, 65, 70_000, 3)]
    found = shared.put(parts).get()
    assert all((one == other).all() for one, other in zip(found, parts, strict=True))
    assert all(one.__array_interface__["data"][0] % 64 == 0 for one in found)


def test_short_values_take_no_segment(shared):
    item = shared.put([np.arange(4_000), "text"])
    assert shared.used == 0
    assert not item.get()[0].flags.writeable
    assert pickle.loads(pickle.dumps(item)).get()[1] == "text", "it may travel anywhere"
    assert shared.put(np.zeros(8_192)).nbytes > 8 * 8_192
    item = shared.put(np.zeros(10_000))
    assert shared.used == -(-80_000 // PAGE) * PAGE
    assert item.get().sum() == 0.0


def test_frames_and_tables_lie_in_the_segment(shared):
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(np.arange(200_000.0).reshape(50_000, 4), columns=list("abcd"))
    found = shared.put(frame).get()
    assert found.equals(frame)
    assert not found["a"].to_numpy().flags.writeable
    table = arrow.table({"n": np.arange(100_000)})
    item = shared.put(table)
    assert item.get().equals(table)
    addresses = {item.get().column("n").chunk(0).buffers()[1].address for _ in range(3)}
    assert len(addresses) == 1, "each get shows the same memory"


def test_what_pickles_by_value_alone(shared):
    step = 3
    assert shared.put([np.zeros(100_000), lambda x: x + step]).get()[1](4) == 7


def test_what_cannot_travel_is_named(shared):
    with pytest.raises(hr.ArgumentNotPicklable, match=r"put\(\): value\['a'\]\[1\]: .*lock"):
        shared.put({"a": [1, threading.Lock()]})
    with pytest.raises(hr.ArgumentNotPicklable, match="travels by multiprocessing alone"):
        shared.put([shared.put(np.zeros(100_000))])


def test_plain_pickles_of_shared_memory_are_refused(shared):
    for thing in (shared.put(np.zeros(100_000)), shared.create(1)):
        with pytest.raises(TypeError, match=r"travels by multiprocessing alone .*fileno\(\), and attach\(\)"):
            pickle.dumps(thing)
        assert multiprocessing.reduction.ForkingPickler.dumps(thing)
    with pytest.raises(TypeError, match="budget of one process"):
        pickle.dumps(shared)


# -- arrays and segments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [5, (), (2, 3), [2, 3], (300, 400), (np.int64(3), 4), 0, (0, 3)])
@pytest.mark.parametrize("dtype", [float, "u1", "M8[ns]", "?", [("a", "i4"), ("b", "S3")], (float, (3,))])
def test_arrays_have_the_shape_of_numpys(shared, shape, dtype):
    array, expected = shared.empty(shape, dtype), np.empty(shape, dtype)
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    array[...] = np.ones(shape, dtype) if expected.dtype == dtype else 1
    assert shared.used == -(-array.nbytes // PAGE) * PAGE


@pytest.mark.parametrize("dtype", [object, [("a", "O")]])
def test_arrays_of_objects_are_refused(shared, dtype):
    with pytest.raises(hr.UsageError, match="Python objects"):
        shared.empty(5, dtype)


@pytest.mark.parametrize(("shape", "error"), [(-1, ValueError), ((3, -1), ValueError), ((2.0,), TypeError)])
def test_bad_shapes_are_refused_as_by_numpy(shared, shape, error):
    with pytest.raises(error):
        shared.empty(shape)


@pytest.mark.parametrize("size", [0, -1, -(1 << 70)])
def test_there_is_no_segment_of_no_bytes(shared, size):
    with pytest.raises(hr.UsageError, match="at least one byte"):
        shared.create(size)


def test_a_segment_is_bytes(shared):
    segment = shared.create(5)
    memoryview(segment)[:] = b"bytes"
    assert (len(segment), bytes(segment), repr(segment)) == (5, b"bytes", "<Segment of 5 bytes, writable>")
    reader = store.attach(segment.fileno())
    assert (bytes(reader), memoryview(reader).readonly) == (b"bytes", True)
    with pytest.raises(TypeError):
        memoryview(reader)[0] = 1
    with pytest.raises(TypeError):
        shared.create(1.5)


# -- the budget --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1 GiB", True, 2**64])
def test_a_bad_limit_is_refused(limit):
    with pytest.raises(hr.UsageError, match="limit takes a number of bytes"):
        store.Store(limit)


def test_the_limit_by_default_is_that_of_clients(monkeypatch):
    monkeypatch.setattr(store, "default_store_limit", lambda: 12_345)
    assert store.Store().limit == 12_345
    assert limits.default_store_limit() > 0


def test_pages_count(shared):
    segments = [shared.create(1), shared.create(PAGE), shared.create(PAGE + 1)]
    assert shared.used == 4 * PAGE
    del segments[1:]
    assert shared.used == PAGE


def test_more_than_any_machine_has(shared):
    with pytest.raises(hr.StoreFull, match=r"empty\(\) needs .* \(largest: none\)"):
        shared.empty((1 << 40, 1 << 40))
    with pytest.raises(MemoryError):
        store.Store(limit=1 << 62).create((1 << 62) - PAGE)


def test_a_closed_store_makes_nothing(shared):
    view = shared.put(np.ones(100_000)).get()
    shared.close()
    shared.close()
    for make in (lambda: shared.create(1), lambda: shared.empty(1), lambda: shared.put(1), shared.__enter__):
        with pytest.raises(hr.UsageError, match="closed"):
            make()
    assert view.sum() == 100_000

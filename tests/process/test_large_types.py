"""Which types are read where they were written, and which are copied: the table of `docs/large-values.md`.

Read in place is what lies, in the process that takes it, in the map of a segment.
"""

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from large_tasks import address, filled, is_shared, map_at, same  # noqa: E402

import headrace as hr  # noqa: E402

TIMEOUT_S = 30
ROWS = 200_000


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=2) as client:
        yield client


def arrow_addresses(table):
    columns = [column.chunk(0) for column in table.columns]
    return [buffer.address for column in columns for buffer in column.buffers() if buffer is not None]


# -- makers: each imports what it needs, in the worker -----------------------------------------------------------------


def numeric_frame():
    import pandas

    return pandas.DataFrame({"a": np.arange(1.0 * ROWS), "b": np.arange(2.0 * ROWS)[ROWS:], "c": np.arange(ROWS)})


def dated_frame():
    import pandas

    index = pandas.date_range("2026-01-01", periods=ROWS, freq="s", name="when")
    local = index.tz_localize("Europe/Vienna", nonexistent="shift_forward", ambiguous=True)
    return pandas.DataFrame(
        {"at": index + pandas.Timedelta("1h"), "since": index - index[0], "local": local}, index=index
    )


def arrow_table():
    import pyarrow

    return pyarrow.table({"number": np.arange(ROWS), "text": [f"row {number % 1_000}" for number in range(ROWS)]})


def frame_backed_by_arrow():
    return arrow_table().to_pandas(types_mapper=__import__("pandas").ArrowDtype)


def text_frame():
    import pandas

    return pandas.DataFrame({"text": pandas.array([f"row {n}" for n in range(ROWS)], dtype="string[pyarrow]")})


def polars_as_arrow():
    import polars

    return polars.DataFrame({"a": np.arange(1.0 * ROWS), "b": np.arange(ROWS)}).to_arrow()


def columns_of(frame):
    return [address(frame[name].to_numpy()) for name in frame]


def dates_of(frame):
    return [address(column.asi8) for column in (frame.index, *(frame[name].array for name in frame))]


def arrow_columns_of(frame):
    return [
        buffer.address
        for name in frame
        for buffer in frame[name].array.__arrow_array__().chunk(0).buffers()
        if buffer is not None
    ]


def in_polars(frame):
    import polars

    frame = polars.from_arrow(frame) if not isinstance(frame, polars.DataFrame) else frame
    return [address(frame[name].to_numpy(allow_copy=False)) for name in frame.columns]


def polars_frame():
    import polars
    import pyarrow  # noqa: F401

    return polars.DataFrame({"a": np.arange(1.0 * ROWS), "b": np.arange(ROWS)})


def tensor():
    import torch

    return torch.arange(ROWS).reshape(100, -1)


def dated_records():
    records = np.zeros(ROWS, dtype=[("at", "M8[ns]"), ("value", "f8")])
    records["at"] = np.arange(ROWS)
    return records


#: Name: (module needed, how it is made, where its parts lie). Those of pandas need pandas and pyarrow.
IN_PLACE = {
    "array in C order": (None, lambda: np.arange(1.0 * ROWS).reshape(100, -1), lambda x: [address(x)]),
    "array in Fortran order": (None, lambda: np.asfortranarray(np.ones((100, ROWS // 100))), lambda x: [address(x)]),
    "strided array": (None, lambda: np.arange(4.0 * ROWS)[::4], lambda x: [address(x)]),
    "array that repeats a long part": (
        None,
        lambda: np.broadcast_to(np.arange(1.0 * ROWS), (3, ROWS)),
        lambda x: [address(x)],
    ),
    "column of dates": (None, lambda: np.zeros((ROWS, 4), dtype="M8[s]")[:, 1], lambda x: [address(x)]),
    "structured array": (None, lambda: np.zeros(ROWS, dtype=[("a", "i4"), ("b", "S3")]), lambda x: [address(x)]),
    "datetime64": (None, lambda: np.arange(ROWS).astype("M8[s]"), lambda x: [address(x)]),
    "timedelta64, Fortran order": (
        None,
        lambda: np.ones((ROWS // 9, 9), dtype="m8[ms]", order="F"),
        lambda x: [address(x)],
    ),
    "structured with dates": (None, dated_records, lambda x: [address(x)]),
    "memoryview": (None, lambda: memoryview(np.ones((100, ROWS // 100))), lambda x: [address(np.asarray(x))]),
    "numeric frame": ("pandas", numeric_frame, columns_of),
    "frame and index of dates": ("pandas", dated_frame, dates_of),
    "Arrow table": ("pyarrow", arrow_table, arrow_addresses),
    "frame backed by Arrow": ("pyarrow", frame_backed_by_arrow, arrow_columns_of),
    "frame of text": ("pyarrow", text_frame, arrow_columns_of),
    "polars frame sent as an Arrow table": ("polars", polars_as_arrow, in_polars),
    "polars frame": ("polars", polars_frame, in_polars),
    "polars series": ("polars", lambda: polars_frame()["b"], lambda x: [address(x.to_numpy(allow_copy=False))]),
    "torch tensor": ("torch", tensor, lambda x: [x.data_ptr()]),
}


#: pandas combines the chunks of such columns when it pickles them, which copies them even if there is but one. A tensor
#: lies in a private map, which may be written to and so is not the block.
COMBINED = {"frame backed by Arrow", "frame of text", "torch tensor"}


def equal(one, other):
    if hasattr(one, "equals"):
        return one.equals(other)
    one, other = np.asarray(one), np.asarray(other)
    has_gaps = not other.flags.forc and 0 not in other.strides
    same_order = one.flags.c_contiguous if has_gaps else one.strides == other.strides
    return same_order and one.dtype == other.dtype and np.array_equal(one, other)


def own_bytes():
    """Memory that this process shares with nobody."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


@pytest.mark.parametrize("name", IN_PLACE)
def test_these_are_read_where_they_were_written(client, name):
    module, make, parts = IN_PLACE[name]
    if module is not None:
        if module != "torch":
            pytest.importorskip("pandas")
            pytest.importorskip("pyarrow")
        pytest.importorskip(module)
    # A tensor may be written to, in a map of its own.
    lies_there = is_shared if module != "torch" else lambda address: map_at(address)["path"] == "/memfd:headrace"
    made, expected = client.call(make), make()
    for worker in (0, 1):
        consumer = hr.task(lambda value: [lies_there(part) for part in parts(value)], worker=worker)
        seen = client.call(consumer, made).result(timeout=TIMEOUT_S)
        assert seen == [True] * len(parts(expected))
    value = made.result(timeout=TIMEOUT_S)
    assert type(value) is type(expected)
    assert equal(value, expected)
    assert all(map(lies_there, parts(value)))
    back = client.call(same, made).result(timeout=TIMEOUT_S)
    is_cited = parts(back) == parts(value)
    assert is_cited == (name not in COMBINED), "what a task returns as it is, is cited"


@pytest.mark.parametrize("name", ["array in C order", "datetime64", "structured with dates"])
def test_what_is_put_is_read_in_place(client, name):
    _, make, parts = IN_PLACE[name]
    value = client.call(same, client.put(make())).result(timeout=TIMEOUT_S)
    assert all(map(is_shared, parts(value)))
    assert equal(value, make())


def test_reading_in_place_takes_no_memory_of_the_reader(client):
    """A first call reads another value of the kind, so that what its types need to run is there."""

    def read(x):
        return own_bytes(), int(x.astype("i8", copy=False).max())

    for dtype in ("f8", "M8[s]"):
        made = [client.call(lambda kind=dtype: np.arange(40 * ROWS).astype(kind)) for _ in range(2)]
        before, _ = client.call(hr.task(read, worker=0), made[0]).result(timeout=TIMEOUT_S)
        after, greatest = client.call(hr.task(read, worker=0), made[1]).result(timeout=TIMEOUT_S)
        assert greatest == 40 * ROWS - 1
        assert after - before < 8 << 20, "the array has 64 MB"


def part_of_tensor():
    import torch

    return torch.ones(ROWS)[: ROWS - 1]


#: Name: (module needed, how it is made, where its parts lie).
COPIED = {
    "array of objects": (None, lambda: np.array([None, "text"] * ROWS, dtype=object), lambda x: [address(x)]),
    "masked array": (None, lambda: np.ma.masked_less(np.arange(ROWS), 5), lambda x: [address(x.data)]),
    "subclass of ndarray": (None, lambda: np.ones(ROWS).view(np.recarray), lambda x: [address(x)]),
    "bytes": (None, lambda: bytes(ROWS), lambda x: [address(np.frombuffer(x, "u1"))]),
    "bytearray": (None, lambda: bytearray(ROWS), lambda x: [address(np.frombuffer(x, "u1"))]),
    "part of a tensor": ("torch", part_of_tensor, lambda x: [x.data_ptr()]),
}


@pytest.mark.parametrize("name", COPIED)
def test_these_are_copies(client, name):
    module, make, parts = COPIED[name]
    if module is not None:
        pytest.importorskip(module)
    made, expected = client.call(make), make()
    value = made.result(timeout=TIMEOUT_S)
    assert type(value) is type(expected)
    assert np.array_equal(np.asarray(value), np.asarray(expected))
    assert not any(map(is_shared, parts(value)))
    seen = client.call(lambda value: [is_shared(part) for part in parts(value)], made).result(timeout=TIMEOUT_S)
    assert not any(seen)


def test_a_memoryview_of_a_view_cites_the_block(client):
    made = client.call(filled, 2.0, ROWS)
    view = made.result(timeout=TIMEOUT_S)
    back = client.call(lambda array: memoryview(array)[1_000:], made).result(timeout=TIMEOUT_S)
    assert (back.format, back.shape, back.readonly) == ("d", (ROWS - 1_000,), True)
    assert address(np.asarray(back)) == address(view) + 8_000


def test_a_tensor_may_be_written_to_and_nobody_else_sees_it(client):
    torch = pytest.importorskip("torch")
    made = client.call(tensor)

    def spoil(values):
        values += 1
        return int(values.sum())

    total = ROWS * (ROWS - 1) // 2
    assert client.call(hr.task(spoil, worker=0), made).result(timeout=TIMEOUT_S) == total + ROWS
    assert client.call(hr.task(spoil, worker=1), made).result(timeout=TIMEOUT_S) == total + ROWS
    value = made.result(timeout=TIMEOUT_S)
    value.zero_()
    assert int(made.result(timeout=TIMEOUT_S).sum()) in (0, total), "the object itself, or the result anew"
    assert client.call(torch.sum, made).result(timeout=TIMEOUT_S) == total

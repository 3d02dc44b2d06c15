"""Pickles of arrays that numpy gives no buffer for."""

import pickle

import pytest

np = pytest.importorskip("numpy")

from headrace import by_value, out_of_band  # noqa: E402

SECONDS = np.arange(12, dtype="i8").view("M8[s]")


def split(value, dumps=out_of_band.dumps):
    buffers = []
    return dumps(value, 5, buffers.append), buffers


def joined(blob, buffers):
    return pickle.loads(blob, buffers=[buffer.raw() for buffer in buffers])


@pytest.mark.parametrize("dumps", [out_of_band.dumps, by_value.dumps])
@pytest.mark.parametrize(
    "array",
    [
        SECONDS,
        SECONDS - SECONDS[3],
        SECONDS.astype(">M8[ns]"),
        SECONDS.astype("M8[25us]"),
        SECONDS.reshape(3, 4),
        np.asfortranarray(SECONDS.reshape(3, 4)),
        SECONDS.reshape(3, 2, 2),
        np.array("NaT", dtype="M8[D]"),
        np.zeros(3, dtype=[("when", "M8[s]"), ("what", "f4")]),
        np.zeros((2, 3), dtype=[("a", [("when", "m8[s]", (2,))]), ("b", "u1")]),
        np.zeros(3, dtype=np.dtype([("a", "u1"), ("when", "M8[s]")], align=True)),
        np.arange(5.0),
        np.zeros(3, dtype="V7"),
        np.zeros(3, dtype=[("a", "i4"), ("b", "S3")]),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}"[:60],
)
def test_contiguous_arrays_go_out_of_band(array, dumps):
    blob, buffers = split(array, dumps)
    assert sum(buffer.raw().nbytes for buffer in buffers) == array.nbytes
    again = joined(blob, buffers)
    assert type(again) is np.ndarray
    assert (again.dtype, again.shape, again.strides) == (array.dtype, array.shape, array.strides)
    assert again.tobytes() == array.tobytes()
    assert np.shares_memory(again, array)


@pytest.mark.parametrize(
    "array",
    [
        np.broadcast_to(SECONDS, (3, 12)),
        np.broadcast_to(1.5, (3, 12)),
        np.broadcast_to(SECONDS.reshape(12, 1)[::2], (6, 3)),
        np.broadcast_to(np.array([{"a": 1}, None], dtype=object), (3, 2)),
        np.ma.masked_array(SECONDS, SECONDS[4] > SECONDS),
        np.zeros(3, dtype=[("when", "M8[s]"), ("what", "f4")]).view(np.recarray),
        np.array([SECONDS[0], None], dtype=object),
        np.zeros(2, dtype=[("when", "M8[s]"), ("what", "O")]),
        np.zeros(3, dtype="V0"),
        SECONDS[:0],
        SECONDS[:0].reshape(0, 3),
    ],
    ids=[
        *("broadcast", "one number", "column", "broadcast objects"),
        *("masked", "records", "objects", "mixed", "V0", "0", "0x3"),
    ],
)
def test_other_arrays_arrive_right(array):
    blob, buffers = split(array)
    again = joined(blob, buffers)
    assert type(again) is type(array)
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tolist() == array.tolist()
    assert not any(buffer.raw().nbytes for buffer in buffers)


@pytest.mark.parametrize(
    "array",
    [SECONDS[::2], SECONDS[::-1], SECONDS.reshape(3, 4)[:, 1:3], np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0)],
    ids=["strided", "backwards", "columns", "axes"],
)
def test_an_array_with_gaps_is_made_contiguous_and_left_aside(array):
    blob, buffers = split(array)
    again = joined(blob, buffers)
    assert (again.dtype, again.tolist()) == (array.dtype, array.tolist())
    assert sum(buffer.raw().nbytes for buffer in buffers) == array.nbytes


def test_a_long_part_that_is_repeated_is_left_aside():
    part = np.arange(1_000.0)
    blob, buffers = split(np.broadcast_to(part, (50, 1_000)))
    again = joined(blob, buffers)
    assert (again.shape, again.strides) == ((50, 1_000), (0, 8))
    assert sum(buffer.raw().nbytes for buffer in buffers) == part.nbytes
    assert len(blob) < 1_000


def test_one_array_in_two_places_stays_one():
    first, second = joined(*split([SECONDS, {"again": SECONDS}]))
    assert first is second["again"]


def test_the_reducers_of_others_hold(monkeypatch):
    import copyreg

    class Own:
        pass

    with pytest.raises((AttributeError, pickle.PicklingError)):
        split(Own())
    monkeypatch.setitem(copyreg.dispatch_table, Own, lambda own: (int, (7,)))
    for dumps in (out_of_band.dumps, by_value.dumps):
        assert joined(*split(Own(), dumps)) == 7


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"some bytes"),
        memoryview(bytearray(b"some bytes")),
        memoryview(np.arange(5.0)),
        memoryview(np.arange(12, dtype="i4").reshape(3, 4)),
        memoryview(np.array(3.5)),
        memoryview(np.array([True, False])),
        memoryview(b"some bytes")[2:7],
    ],
    ids=lambda view: f"{view.format} {view.shape}",
)
def test_memoryviews_arrive_as_such(view):
    blob, buffers = split(view, by_value.dumps)
    again = joined(blob, buffers)
    assert (again.format, again.shape, again.tolist()) == (view.format, view.shape, view.tolist())
    assert sum(buffer.raw().nbytes for buffer in buffers) == view.nbytes


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"some bytes")[::2],
        memoryview(np.arange(5, dtype=">i4")),
        memoryview(np.asfortranarray(np.arange(12, dtype="i4").reshape(3, 4))),
        memoryview(np.zeros((0, 3))),
        memoryview(b""),
    ],
    ids=lambda view: f"{view.format} {view.shape}",
)
def test_other_memoryviews_arrive_as_bytes(view):
    assert joined(*split(view, by_value.dumps)) == view.tobytes()


def test_frames_of_polars_arrive_as_they_were():
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    columns = {
        "number": np.arange(6.0),
        "": [1, 2, 3, None, 5, 6],
        "text": [f"text {number}" for number in range(6)],
        "day": polars.Series([None] * 6, dtype=polars.Date),
        "kind": polars.Series(["a", "b"] * 3, dtype=polars.Categorical),
        "choice": polars.Series(["x", "y"] * 3, dtype=polars.Enum(["x", "y"])),
        "parts": [[1, 2]] * 6,
        "flag": [True, None] * 3,
    }
    frame = polars.DataFrame(columns)
    wide = polars.DataFrame({"wide": polars.Series([2**100] * 6, dtype=polars.Int128)})  # Arrow has no such type
    for value in (frame, polars.concat([frame, frame], rechunk=False), frame[:0], wide):
        again = joined(*split(value))
        assert (again.schema, again.equals(value, null_equal=True)) == (value.schema, True)
        for name in value.columns:
            series = joined(*split(value[name]))
            assert (series.name, series.dtype, series.equals(value[name], null_equal=True)) == (
                name,
                value[name].dtype,
                True,
            )
    blob, buffers = split(frame["number"])
    assert np.shares_memory(joined(blob, buffers).to_numpy(allow_copy=False), np.frombuffer(buffers[-1].raw()))


def test_tensors_arrive_as_they_were():
    torch = pytest.importorskip("torch")
    whole = torch.arange(12.0).reshape(3, 4)
    for tensor in (
        whole,
        whole.bfloat16(),
        torch.tensor(3),
        torch.zeros(0, 2),
        whole.t(),
        whole[1:],
        torch.ones(2).neg(),
    ):
        again = joined(*split(tensor))
        assert (type(again), again.dtype, again.shape) == (torch.Tensor, tensor.dtype, tensor.shape)
        assert torch.equal(again, tensor)
    assert joined(*split(torch.ones(2, requires_grad=True))).requires_grad


def test_an_argument_with_gaps_is_a_snapshot():
    array = np.arange(24.0)[::2]
    buffers = []
    blob = out_of_band.dumps_argument([array], 5, buffers.append)
    array[0] = 7.0
    (again,) = pickle.loads(blob, buffers=buffers)
    assert (again[0], not buffers) == (0.0, True)


@pytest.mark.parametrize("shape", [(9_000, 1), (1, 9_000), (1, 9_000, 1)])
def test_an_axis_of_one_item_repeats_nothing(shape):
    array = np.zeros((9_000, 4))[:, 1].reshape(shape)
    for gaps in (array, np.zeros((9_000, 4))[:, 1][:, None], np.zeros((9_000, 4))[:, 1][None, :]):
        blob, buffers = split(gaps)
        again = joined(blob, buffers)
        assert np.array_equal(again, gaps)
        assert pickle.loads(out_of_band.dumps_argument(gaps, 5, buffers.append), buffers=buffers).shape == gaps.shape

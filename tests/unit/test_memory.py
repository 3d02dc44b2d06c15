"""Arrays that no worker makes."""

import pytest

np = pytest.importorskip("numpy")

import headrace as hr  # noqa: E402
from headrace import memory  # noqa: E402

# -- arrays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [0, 5, 100_000, (), (0, 3), (2, 3), [2, 3], (300, 400), (np.int64(3), 4)])
@pytest.mark.parametrize("dtype", [float, "u1", "M8[ns]", [("a", "i4"), ("b", "S3")], object])
def test_outside_a_task_empty_is_that_of_numpy(shape, dtype):
    array, expected = hr.empty(shape, dtype), np.empty(shape, dtype)
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    assert array.flags.writeable
    assert array.flags.owndata
    assert array.flags.c_contiguous


def test_the_type_by_default_is_float():
    assert hr.empty(3).dtype == np.float64


@pytest.fixture
def allocated(monkeypatch):
    """Sizes that were asked for, as in a worker; memory of this process stands for shared memory."""
    sizes = []

    class Worker:
        shares_memory = True

        def allocate(self, size):
            sizes.append(size)
            return bytearray(size)

    monkeypatch.setattr(memory, "_worker", Worker())
    return sizes


@pytest.mark.parametrize("shape", [5, (), (2, 3), [2, 3], (300, 400), (np.int64(3), 4), np.array([2, 3]), range(2, 4)])
@pytest.mark.parametrize("dtype", [float, "u1", "M8[ns]", "?", [("a", "i4"), ("b", "S3")]])
def test_in_a_worker_the_bytes_are_allocated(allocated, shape, dtype):
    array, expected = hr.empty(shape, dtype), np.empty(shape, dtype)
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert allocated == [expected.nbytes]
    array[...] = np.ones(shape, dtype)
    assert np.array_equal(array, np.ones(shape, dtype))


@pytest.mark.parametrize(("shape", "dtype"), [(0, float), ((0, 3), float), (5, object), (5, [("a", "O")]), (5, "S0")])
def test_in_a_worker_what_has_no_bytes_to_share_is_that_of_numpy(allocated, shape, dtype):
    array = hr.empty(shape, dtype)
    expected = np.empty(shape, dtype)
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    assert not allocated


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        (-1, ValueError),
        ((3, -1), ValueError),
        ((-1, -5), ValueError),
        ((2.0,), TypeError),
        ("3", TypeError),
    ],
)
def test_in_a_worker_bad_shapes_are_refused_as_by_numpy(allocated, shape, error):
    with pytest.raises(error):
        np.empty(shape)
    with pytest.raises(error):
        hr.empty(shape)


def test_in_a_worker_a_numpy_integer_is_a_shape(allocated):
    assert hr.empty(np.int64(5)).shape == (5,)


def test_numpys_subarray_types_add_dimensions(allocated):
    dtype = np.dtype((float, (3,)))
    assert hr.empty(5, dtype).shape == np.empty(5, dtype).shape


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_copy_of_a_read_only_array_can_be_written_to():
    array = np.frombuffer(bytes(800))
    copied = hr.copy(array)
    copied[:] = 1.0
    assert not array.any()


def test_a_copy_goes_deep():
    value = {"a": [np.frombuffer(bytes(80)), "text"], "b": (np.frombuffer(bytes(8)),)}
    copied = hr.copy(value)
    copied["a"][0][:] = 1.0
    copied["b"][0][:] = 1.0
    copied["a"].append(None)
    assert len(value["a"]) == 2
    assert not value["a"][0].any()
    assert not value["b"][0].any()


def test_a_copy_keeps_order_type_and_what_is_one():
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    array.flags.writeable = False
    first, second = hr.copy([array, array])
    assert first is second
    assert first.flags.f_contiguous
    assert type(hr.copy(np.ma.masked_array([1, 2], [0, 1]))) is np.ma.MaskedArray
    assert hr.copy(7) == 7


@pytest.mark.parametrize(("items", "shape"), [("B", (24,)), ("d", (3,)), ("B", (2, 3, 4)), ("?", (24,))])
def test_a_copy_of_a_memoryview_can_be_written_to(items, shape):
    view = memoryview(bytes(24)).cast(items, shape)
    copied = hr.copy(view)
    assert not copied.readonly
    assert copied.tobytes() == view.tobytes()
    assert (copied.format, copied.shape) == (items, shape)
    copied.cast("B")[0] = 1
    assert view.tobytes() == bytes(24)
    assert hr.copy(memoryview(b"")).nbytes == 0


def test_a_copy_of_a_view_with_foreign_items_has_their_bytes():
    view = memoryview(np.arange(3, dtype=">i4")[::2])
    assert hr.copy(view).tobytes() == view.tobytes()

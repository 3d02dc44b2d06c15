"""The limit of shared memory by default, and arrays that no worker makes."""

import builtins
import io
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

import headrace as hr  # noqa: E402
from headrace import memory  # noqa: E402

GIB = 1 << 30
MEMINFO = f"MemTotal: {64 * GIB >> 10} kB\nMemFree: 1 kB\nMemAvailable: {40 * GIB >> 10} kB\nBuffers: 1 kB\n"


@pytest.fixture
def machine(monkeypatch):
    """Files of the kernel, to be given by path; those that are not given do not exist."""
    files = {"/proc/meminfo": MEMINFO}

    def open_fake(path, *arguments, **options):
        if not str(path).startswith(("/proc/", "/sys/")):
            return open_real(path, *arguments, **options)
        if path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path])

    open_real = builtins.open
    monkeypatch.setattr(builtins, "open", open_fake)
    return files


# -- the limit by default ----------------------------------------------------------------------------------------------


def test_half_of_what_is_available(machine):
    machine["/proc/self/cgroup"] = "0::/\n"
    assert memory.default_store_limit() == 20 * GIB


def test_without_control_groups(machine):
    assert "/proc/self/cgroup" not in machine
    assert memory.default_store_limit() == 20 * GIB


def test_half_of_the_limit_of_a_group_of_version_2(machine):
    machine["/proc/self/cgroup"] = "0::/user.slice/session-1.scope\n"
    machine["/sys/fs/cgroup/user.slice/session-1.scope/memory.max"] = f"{8 * GIB}\n"
    assert memory.default_store_limit() == 4 * GIB


@pytest.mark.parametrize("where", ["/sys/fs/cgroup/a/b/c", "/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"])
def test_the_limit_of_any_group_above_holds(machine, where):
    machine["/proc/self/cgroup"] = "0::/a/b/c\n"
    for folder in ("/sys/fs/cgroup/a/b/c", "/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a"):
        machine[f"{folder}/memory.max"] = "max\n"
    machine[f"{where}/memory.max"] = f"{2 * GIB}\n"
    assert memory.default_store_limit() == GIB


def test_the_least_limit_counts(machine):
    machine["/proc/self/cgroup"] = "0::/a/b\n"
    machine["/sys/fs/cgroup/a/memory.max"] = f"{6 * GIB}"
    machine["/sys/fs/cgroup/a/b/memory.max"] = f"{16 * GIB}"
    assert memory.default_store_limit() == 3 * GIB


def test_half_of_the_limit_of_a_group_of_version_1(machine):
    machine["/proc/self/cgroup"] = "12:cpu,cpuacct:/docker/abc\n5:hugetlb,memory:/docker/abc\n0::/other\n"
    machine["/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes"] = f"{GIB}\n"
    machine["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = "9223372036854771712\n"
    assert memory.default_store_limit() == GIB // 2


def test_in_a_container_the_root_is_the_group(machine):
    machine["/proc/self/cgroup"] = "5:memory:/docker/abc\n"
    machine["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = f"{3 * GIB}\n"
    assert memory.default_store_limit() == 3 * GIB // 2


@pytest.mark.parametrize("group", ["3:cpu:/a\n", "1:name=systemd:/a\n", "0::/\n", "0::/a:b\n", ""])
def test_groups_without_a_limit(machine, group):
    machine["/proc/self/cgroup"] = group
    assert memory.default_store_limit() == 20 * GIB


def test_a_path_with_a_colon(machine):
    machine["/proc/self/cgroup"] = "0::/a:b\n"
    machine["/sys/fs/cgroup/a:b/memory.max"] = f"{GIB}"
    assert memory.default_store_limit() == GIB // 2


@pytest.mark.parametrize("text", ["max\n", "\n", "-1\n", "much\n"])
def test_what_is_no_number_is_no_limit(machine, text):
    machine["/proc/self/cgroup"] = "0::/\n"
    machine["/sys/fs/cgroup/memory.max"] = text
    assert memory.default_store_limit() == 20 * GIB


def test_a_kernel_that_does_not_say_what_is_available(machine):
    machine["/proc/meminfo"] = "MemTotal: 1024 kB\n"
    machine["/proc/self/cgroup"] = "0::/\n"
    machine["/sys/fs/cgroup/memory.max"] = f"{GIB}\n"
    assert memory.default_store_limit() == GIB // 2


def test_this_machine_has_a_limit():
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < memory.default_store_limit() <= int(available.split()[1]) << 10


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
        def allocate(self, size):
            sizes.append(size)
            return bytearray(size)

    monkeypatch.setattr(memory, "_worker", Worker())
    return sizes


@pytest.mark.parametrize("shape", [5, (), (2, 3), [2, 3], (300, 400), (np.int64(3), 4)])
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
    ("shape", "error"), [(-1, ValueError), ((3, -1), ValueError), ((-1, -5), ValueError), ((2.0,), TypeError)]
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

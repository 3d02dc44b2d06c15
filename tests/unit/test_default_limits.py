"""How much memory and disk results may take by default."""

import builtins
import io
import os
from pathlib import Path

import pytest

import headrace as hr
from headrace import limits
from headrace.errors import UsageError

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


def test_half_of_what_is_available(machine):
    machine["/proc/self/cgroup"] = "0::/\n"
    assert limits.default_store_limit() == 20 * GIB


def test_without_control_groups(machine):
    assert "/proc/self/cgroup" not in machine
    assert limits.default_store_limit() == 20 * GIB


def test_half_of_the_limit_of_a_group_of_version_2(machine):
    machine["/proc/self/cgroup"] = "0::/user.slice/session-1.scope\n"
    machine["/sys/fs/cgroup/user.slice/session-1.scope/memory.max"] = f"{8 * GIB}\n"
    assert limits.default_store_limit() == 4 * GIB


@pytest.mark.parametrize("where", ["/sys/fs/cgroup/a/b/c", "/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"])
def test_the_limit_of_any_group_above_holds(machine, where):
    machine["/proc/self/cgroup"] = "0::/a/b/c\n"
    for folder in ("/sys/fs/cgroup/a/b/c", "/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a"):
        machine[f"{folder}/memory.max"] = "max\n"
    machine[f"{where}/memory.max"] = f"{2 * GIB}\n"
    assert limits.default_store_limit() == GIB


def test_the_least_limit_counts(machine):
    machine["/proc/self/cgroup"] = "0::/a/b\n"
    machine["/sys/fs/cgroup/a/memory.max"] = f"{6 * GIB}"
    machine["/sys/fs/cgroup/a/b/memory.max"] = f"{16 * GIB}"
    assert limits.default_store_limit() == 3 * GIB


def test_half_of_the_limit_of_a_group_of_version_1(machine):
    machine["/proc/self/cgroup"] = "12:cpu,cpuacct:/docker/abc\n5:hugetlb,memory:/docker/abc\n0::/other\n"
    machine["/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes"] = f"{GIB}\n"
    machine["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = "9223372036854771712\n"
    assert limits.default_store_limit() == GIB // 2


def test_in_a_container_the_root_is_the_group(machine):
    machine["/proc/self/cgroup"] = "5:memory:/docker/abc\n"
    machine["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = f"{3 * GIB}\n"
    assert limits.default_store_limit() == 3 * GIB // 2


@pytest.mark.parametrize("group", ["3:cpu:/a\n", "1:name=systemd:/a\n", "0::/\n", "0::/a:b\n", ""])
def test_groups_without_a_limit(machine, group):
    machine["/proc/self/cgroup"] = group
    assert limits.default_store_limit() == 20 * GIB


def test_a_path_with_a_colon(machine):
    machine["/proc/self/cgroup"] = "0::/a:b\n"
    machine["/sys/fs/cgroup/a:b/memory.max"] = f"{GIB}"
    assert limits.default_store_limit() == GIB // 2


@pytest.mark.parametrize("text", ["max\n", "\n", "-1\n", "much\n"])
def test_what_is_no_number_is_no_limit(machine, text):
    machine["/proc/self/cgroup"] = "0::/\n"
    machine["/sys/fs/cgroup/memory.max"] = text
    assert limits.default_store_limit() == 20 * GIB


def test_a_kernel_that_does_not_say_what_is_available(machine):
    machine["/proc/meminfo"] = "MemTotal: 1024 kB\n"
    machine["/proc/self/cgroup"] = "0::/\n"
    machine["/sys/fs/cgroup/memory.max"] = f"{GIB}\n"
    assert limits.default_store_limit() == GIB // 2


def test_this_machine_has_a_limit():
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < limits.default_store_limit() <= int(available.split()[1]) << 10


def test_the_directory_for_results_is_the_first_on_a_disk(tmp_path, monkeypatch):
    on_disk, in_memory = tmp_path / "disk", tmp_path / "memory"
    on_disk.mkdir()
    in_memory.mkdir()
    monkeypatch.setattr(limits, "_is_memory", lambda path: path == str(in_memory))
    monkeypatch.setenv("TMPDIR", str(on_disk))
    place, limit = limits.spill_place(None, None)
    disk = os.statvfs(on_disk)
    assert place == str(on_disk)
    assert 0 < limit <= disk.f_blocks * disk.f_frsize // 2
    monkeypatch.setenv("TMPDIR", str(in_memory))
    assert limits.spill_place(None, 7) == ("/var/tmp", 7)
    monkeypatch.setattr(limits, "_is_memory", lambda path: True)
    assert limits.spill_place(None, 7) == ("", 0)
    assert limits.spill_place(in_memory, 7) == (str(in_memory), 7)


def test_memory_that_looks_like_a_disk_is_known():
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    kinds = {line.split()[4]: line.split(" - ")[1].split()[0] for line in mounts}
    known = [path for path in ("/dev/shm", "/run", "/proc") if path in kinds and os.path.isdir(path)]
    for path in known:
        assert limits._is_memory(path) == (kinds[path] in ("tmpfs", "ramfs"))


@pytest.mark.parametrize("limit", [-1, 1.5, "1 GB", True, 2**63, 2**64])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(UsageError, match="spill_limit"):
        limits.spill_place(None, limit)
    with pytest.raises(UsageError, match=f"store_limit takes a number of bytes from 1 to 2\\*\\*63 - 1, not {limit!r}"):
        hr.Client(store_limit=limit)


def test_whatever_is_an_integer_is_a_limit():
    np = pytest.importorskip("numpy")
    assert limits.checked_bytes("limit", np.int64(5)) == 5
    assert type(limits.checked_bytes("limit", np.int64(5))) is int


def test_a_directory_stays_where_it_was_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    here = (str(tmp_path / "here"), 7)
    assert (
        limits.spill_place("here", 7) == limits.spill_place(b"here", 7) == limits.spill_place(Path("here"), 7) == here
    )
    monkeypatch.setenv("TMPDIR", "here")
    monkeypatch.setattr(limits, "_is_memory", lambda path: False)
    assert limits.spill_place(None, 7) == here


def test_a_directory_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "missing", 5, "", b"\0"):
        with pytest.raises(UsageError, match="spill_dir"):
            limits.spill_place(place, None)

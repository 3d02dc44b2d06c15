"""Bad days of the store: full memory, full disks, killed processes. Nothing hangs, lies, or stays behind."""

import gc
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from client_tasks import worker_pids  # noqa: E402
from large_tasks import (  # noqa: E402
    digits,
    empty_of,
    filled,
    filled_in_place,
    lies_in_block,
    plus_one,
    total,
)
from store_watch import (  # noqa: E402
    MIB,
    TIMEOUT_S,
    Process,
    available_bytes,
    backing,
    eventually,
    files_of,
    flush,
    holders_of,
    machine_bytes,
    program,
    run_script,
    store_of,
    value_of,
)
from store_workload import STORE_LIMIT  # noqa: E402

import headrace as hr  # noqa: E402

#: 4 MiB of float64.
ITEMS = MIB // 2


def results_of(run, nodes, is_right):
    """The nodes of a run that have a result, which must be right, and the errors of the others; when it has ended."""
    assert run.wait(TIMEOUT_S), "it hangs"
    right, errors = [], []
    for node in nodes:
        try:
            assert is_right(node, run.result(node)), f"{node.key} is wrong"
            right.append(node)
        except (hr.StoreFull, hr.UpstreamFailed) as error:
            errors.append(error.with_traceback(None))  # whose frames would keep the view that was looked at last
    return right, errors


def full_of(client, arrays=16):
    """A run that keeps more arrays than there is room for, which of them it has, and why the others failed."""
    graph = hr.Graph()
    nodes = [graph.add(filled, float(number), ITEMS) for number in range(arrays)]
    run = client.submit(graph, keep=nodes)
    return run, *results_of(run, nodes, lambda node, value: (value == node.index).all())


def goes_on(client):
    """Whether there is room for a result."""
    try:
        return bool((value_of(client, filled, 3.0, ITEMS) == 3.0).all())
    except hr.StoreFull:
        return False


# -- full --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spill_limit", "reason"),
    [
        (0, "spill_limit is 0, or no spill_dir lies on a disk"),
        (4096, "no further ones can move to disk"),
        (9 * MIB, "no further ones can move to disk"),
    ],
)
def test_a_full_store_says_what_fills_it_and_goes_on(tmp_path, spill_limit, reason):
    with hr.Client(workers=2, store_limit=32 * MIB, spill_dir=tmp_path, spill_limit=spill_limit) as client:
        run, right, errors = full_of(client)
        spilled = store_of(client).spilled
        assert 6 <= len(right) <= 8 + spill_limit // (4 * MIB)
        assert len(right) + len(errors) == 16
        largest = [f"{result.key}: {result.bytes} bytes" for result in store_of(client).largest]
        for use in (
            lambda: value_of(client, filled, 1.0, ITEMS),
            lambda: value_of(client, filled_in_place, 1.0, ITEMS),
            lambda: client.put(np.ones(ITEMS)),
        ):
            with pytest.raises(hr.StoreFull) as caught:
                use()
            text = str(caught.value)
            assert text.startswith(f"a result needs {4 * MIB} bytes of memory; ")
            assert f" of {32 * MIB} are taken" in text
            assert all(name in text for name in largest)
            assert reason in text
            assert len(largest) == 3
        assert store_of(client).spilled == spilled <= spill_limit
        # What was committed is there, and there is room again once it is let go of.
        assert all(value_of(client, total, run.ref(node)) == node.index * ITEMS for node in right)
        assert value_of(client, len, [1, 2]) == 2
        run.release()
        del run, right, errors, caught
        flush(client)
        assert eventually(lambda: goes_on(client))


@pytest.mark.parametrize("spill_limit", [0, 4096, MIB])
def test_small_results_without_room_fail_with_the_same_words(tmp_path, spill_limit):
    with hr.Client(workers=2, store_limit=4 * MIB, spill_dir=tmp_path, spill_limit=spill_limit) as client:
        graph = hr.Graph()
        nodes = graph.map(digits, range(1_500))
        run = client.submit(graph, keep=nodes)
        right, errors = results_of(run, nodes, lambda node, text: text == digits(node.index))
        # Beyond the budget is what was on its way to the broker when it was used up.
        assert 350 <= len(right) <= (12 * MIB + spill_limit) // 10_240
        assert len(right) + len(errors) == 1_500
        for error in errors:
            assert type(error) is hr.StoreFull
            assert f"of {4 * MIB} are taken" in str(error)
            assert "digits-" in str(error)
        run.release()
        del run, right, errors, error
        flush(client)
        assert value_of(client, digits, 5) == digits(5)


@pytest.mark.parametrize("use", ["task", "in place", "put"])
def test_what_is_larger_than_the_budget_is_refused_at_once(tmp_path, use):
    with hr.Client(workers=1, store_limit=16 * MIB, spill_dir=tmp_path, preload=["numpy"]) as client:
        kept = client.call(filled, 1.0, ITEMS)
        view = kept.result(timeout=TIMEOUT_S)
        array = np.ones(4 * MIB)
        start = time.monotonic()
        ways = {
            "task": lambda: value_of(client, filled, 1.0, 4 * MIB),
            "in place": lambda: value_of(client, empty_of, 4 * MIB),
            "put": lambda: client.put(array),
        }
        with pytest.raises(hr.StoreFull, match=f"a result needs {32 * MIB} bytes of memory"):
            ways[use]()
        assert time.monotonic() - start < 0.9, "it waited for room that cannot be"
        assert (view == 1.0).all()
        assert value_of(client, total, kept) == ITEMS


@pytest.mark.parametrize("size", [70_000, 200_000, 400_000, 700_000, 1_000_000])
def test_a_budget_in_which_every_task_waits_for_room_does_not_hang(tmp_path, size):
    items = size // 8
    with hr.Client(workers=4, store_limit=MIB, spill_dir=tmp_path) as client:
        graph = hr.Graph()
        made = [graph.add(filled, float(number), items) for number in range(40)]
        sums, more = graph.map(total, made), graph.map(plus_one, made)
        nodes = [*made, *sums, *more]
        run = client.submit(graph, keep=nodes)

        def is_right(node, value):
            number, part = node.index % 40, node.index // 40
            return np.all(value == (number * items if part == 1 else number + (part == 2)))

        right, errors = results_of(run, nodes, is_right)
        assert len(right) + len(errors) == 120
        if size <= 200_000:
            assert not errors, "four tasks have room with an input and a result each"
        for error in errors:
            assert isinstance(error, hr.StoreFull) or isinstance(error.__cause__, hr.StoreFull)
        assert store_of(client).peak <= MIB
        run.release()
        del run, right, errors
        flush(client)
        assert eventually(lambda: np.all(value_of(client, filled, 2.0, 10_000) == 2.0))


def test_two_clients_have_budgets_and_directories_of_their_own(tmp_path):
    directories = [tmp_path / name for name in ("left", "right")]
    for directory in directories:
        directory.mkdir()
    with (
        hr.Client(workers=1, store_limit=16 * MIB, spill_dir=directories[0]) as left,
        hr.Client(workers=1, store_limit=32 * MIB, spill_dir=directories[1]) as right,
    ):
        clients = (left, right)
        graphs = [hr.Graph() for _ in clients]
        nodes = [[graph.add(filled, float(n), ITEMS) for n in range(12)] for graph in graphs]
        runs = [client.submit(graph, keep=kept) for client, graph, kept in zip(clients, graphs, nodes, strict=True)]
        for run, directory, limit in zip(runs, directories, (16, 32), strict=True):
            assert run.wait(TIMEOUT_S)
            places = [backing(array).rsplit("/", 1)[0] for array in run.results()]
            assert all((array == number).all() for number, array in enumerate(run.results()))
            store = run.statistics().store
            assert store.limit == limit * MIB
            assert store.peak <= limit * MIB
            assert places.count(str(directory)) == store.spilled // (8 * ITEMS) >= 12 - limit // 4
            assert places.count(str(directory)) + places.count("") == 12, "and in memory the others"
        with pytest.raises(hr.UsageError, match="client"):
            left.call(total, runs[1].ref(nodes[1][0]))
        left_pids = worker_pids(left)
        left.close()
        assert not any(os.path.exists(f"/proc/{pid}") for pid in left_pids)
        assert (runs[0].result(nodes[0][3]) == 3.0).all()
        assert value_of(right, total, runs[1].ref(nodes[1][5])) == 5.0 * ITEMS


def test_a_view_of_a_file_outlives_its_client(tmp_path):
    with hr.Client(workers=1, store_limit=16 * MIB, spill_dir=tmp_path) as client:
        run, nodes, errors = full_of(client)
        assert not errors
        views = [run.result(node) for node in nodes]
    moved = [backing(view).startswith(f"{tmp_path}/") for view in views]
    assert sum(moved) >= 12
    inodes = files_of("self", tmp_path)
    del run, client
    gc.collect()
    assert all((view == number).all() and lies_in_block(view) for number, view in enumerate(views))
    assert inodes & files_of("self", tmp_path)
    views.clear()
    gc.collect()
    assert not files_of("self", tmp_path), "the last view takes its file along"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_array_of_five_gibibytes_goes_from_end_to_end(tmp_path):
    if available_bytes() < 12 << 30:
        pytest.skip(f"needs 12 GiB of memory; {available_bytes() >> 20} MiB are available")
    items = 5 << 27
    with hr.Client(workers=2, store_limit=6 << 30, spill_dir=tmp_path, spill_limit=0) as client:
        made = client.call(hr.task(filled, worker=0), 3.0, items)
        taken = client.call(hr.task(total, worker=1), made)
        assert taken.result(timeout=200) == 3.0 * items
        view = made.result(timeout=TIMEOUT_S)
        assert view.nbytes == 5 << 30
        assert view[0] == view[-1] == view[items // 2] == 3.0
        assert store_of(client).owned >= 5 << 30
        del view, made, taken
        flush(client)
        assert value_of(client, filled, 1.0, MIB)[5] == 1.0


@pytest.mark.parametrize("spill_limit", [0, 64 * MIB])
def test_small_values_that_are_put_count(tmp_path, spill_limit):
    with hr.Client(workers=1, store_limit=8 * MIB, spill_dir=tmp_path, spill_limit=spill_limit) as client:
        refs = []

        def put_all():
            for number in range(2_000):
                refs.append(client.put(digits(number)))  # 10 KiB each

        if spill_limit:
            put_all()
        else:
            with pytest.raises(hr.StoreFull, match=f"of {8 * MIB} are taken") as raised:
                put_all()
            assert "put-" in str(raised.value)
            assert 700 <= len(refs) <= 820
        assert store_of(client).inline + store_of(client).owned <= 9 * MIB
        assert value_of(client, digits, 5) == digits(5), "others have room still"
        client.put(b"what takes less than its place in a table would")
        assert value_of(client, lambda *texts: "".join(text[:10] for text in texts), *refs) == "".join(
            f"{number:010}" for number in range(len(refs))
        )
        refs.clear()
        flush(client)
        assert value_of(client, len, client.put(digits(7))) == 10_240


# -- disks -------------------------------------------------------------------------------------------------------------

#: A program: the disk fails, is told of by name, nothing is lost, and once there is room things go on.
DISK_FAILS = f"""
import resource, subprocess, time
import headrace as hr
from large_tasks import filled
from store_watch import MIB, flush
directory = sys.argv[1]

def errors_of(client, arrays):
    graph = hr.Graph()
    nodes = [graph.add(filled, float(number), MIB // 8) for number in range(arrays)]
    run = client.submit(graph, keep=nodes)
    errors, right = [], 0
    for node in nodes:
        try:
            assert (run.result(node, timeout={TIMEOUT_S}) == node.index).all()
            right += 1
        except hr.StoreFull as error:
            errors.append(str(error))
    assert right + len(errors) == arrays
    assert right >= 12, right
    # What was committed can be read as often as one likes.
    assert sum(bool((value == value[0]).all()) for value in committed(run, nodes)) == right
    return errors

def committed(run, nodes):
    for node in nodes:
        try:
            yield run.result(node)
        except hr.StoreFull:
            pass

def check(client, cause, mend):
    errors = errors_of(client, 40)
    assert errors
    for text in errors:
        assert "moving results to disk failed: " + cause in text, text
        assert text.endswith(f", in {{directory}}"), text
    assert client.statistics().store.peak <= 16 * MIB
    flush(client)
    assert client.call(filled, 2.0, MIB // 8).result({TIMEOUT_S})[0] == 2.0, "there is room in memory"
    mend()
    deadline = time.monotonic() + {TIMEOUT_S}
    while errors_of(client, 40):
        assert time.monotonic() < deadline, "it does not go on"
        flush(client)
        time.sleep(0.2)
    print("right")
"""


def test_a_limit_of_file_sizes_is_told_of_and_loses_nothing(tmp_path):
    script = run_script(
        DISK_FAILS
        + """
def lift():
    resource.setrlimit(resource.RLIMIT_FSIZE, before)

with hr.Client(workers=2, store_limit=16 * MIB, spill_dir=directory, spill_limit=1 << 30) as client:
    client.call(len, "workers are up").result()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * MIB, before[1]))
    check(client, "File too large", lift)
""",
        arguments=[str(tmp_path)],
    )
    assert script.stdout == "right\n", script.stderr


@pytest.fixture
def own_mounts(tmp_path, monkeypatch):
    """The words that start a program with mounts of its own, as root of its own."""
    words = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        tried = subprocess.run(
            [*words, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) to make mounts with")
    if tried.returncode:
        pytest.skip(f"this system lets tests make no mounts of their own: {tried.stderr.strip()}")
    # That root is not the owner of what a run directory would lie in.
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return words


def test_a_full_disk_is_told_of_and_loses_nothing(own_mounts, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = run_script(
        DISK_FAILS
        + """
import os
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", directory], check=True)
filler = os.path.join(directory, "filler")
with open(filler, "wb") as file:
    file.write(bytes(34 * MIB))
with hr.Client(workers=2, store_limit=16 * MIB, spill_dir=directory, spill_limit=64 * MIB) as client:
    check(client, "No space left on device", lambda: os.remove(filler))
""",
        before=own_mounts,
        arguments=[str(disk)],
    )
    assert script.stdout == "right\n", script.stderr


def test_space_on_disk_comes_back(own_mounts, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = run_script(
        f"""
        import os, subprocess
        import headrace as hr
        from large_tasks import filled
        from store_watch import MIB, Process, eventually, program
        directory = sys.argv[1]
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", directory], check=True)
        def used():
            disk = os.statvfs(directory)
            return (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        graph = hr.Graph()
        nodes = [graph.add(filled, float(number), MIB // 2) for number in range(32)]
        with hr.Client(workers=2, store_limit=16 * MIB, spill_dir=directory) as client:
            run = client.submit(graph, keep=nodes)
            assert run.wait({TIMEOUT_S})
            assert used() >= 100 * MIB
            run.release()
            assert eventually(lambda: used() == 0), "with the last result"
            run = client.submit(graph, keep=nodes)
            assert run.wait({TIMEOUT_S})
            assert used() >= 100 * MIB
        assert (run.result(nodes[5]) == 5.0).all()
        del run
        assert eventually(lambda: used() == 0), "with the client"
        with program('''
            import headrace as hr
            from large_tasks import filled
            client = hr.Client(workers=2, store_limit={16 * MIB}, spill_dir=sys.argv[1])
            graph = hr.Graph()
            run = client.submit(graph, keep=[graph.add(filled, float(number), {MIB // 2}) for number in range(32)])
            assert run.wait({TIMEOUT_S})
            print(len(run.results()), flush=True)
            sys.stdin.read()
            ''', arguments=[directory]) as child:
            assert child.stdout.readline() == "32\\n"
            assert used() >= 100 * MIB
            child.kill()
            assert eventually(lambda: used() == 0), "with the process, killed"
        print("right")
        """,
        before=own_mounts,
        arguments=[str(disk)],
    )
    assert script.stdout == "right\n", script.stderr


# -- /dev/shm ----------------------------------------------------------------------------------------------------------


def test_no_process_opens_dev_shm(tmp_path):
    with hr.Client(workers=2, store_limit=16 * MIB, spill_dir=tmp_path) as client:
        run, right, _ = full_of(client)
        ref = client.put(np.ones(ITEMS))
        assert value_of(client, total, ref) == ITEMS
        for pid in ("self", *worker_pids(client)):
            assert "/dev/shm" not in Path(f"/proc/{pid}/maps").read_text()
            names = {os.readlink(path) for path in links(f"/proc/{pid}/fd")}
            assert not any(name.startswith("/dev/shm") for name in names)
        assert run.wait(0)
        assert right


def links(directory):
    """The symbolic links of a directory, without those that are gone by now."""
    return [path for name in os.listdir(directory) if os.path.lexists(path := f"{directory}/{name}")]


@pytest.mark.parametrize("options", ["ro,size=64m", "size=64k"])
def test_dev_shm_may_be_small_or_read_only(own_mounts, tmp_path, options):
    script = run_script(
        f"""
        import os, subprocess
        import numpy as np
        subprocess.run(["mount", "-t", "tmpfs", "-o", {options!r}, "tmpfs", "/dev/shm"], check=True)
        import headrace as hr
        from store_workload import STORE_LIMIT, Workload
        with hr.Client(workers=2, store_limit=STORE_LIMIT, spill_dir=sys.argv[1]) as client:
            workload = Workload(client, seed=1)
            for _ in range(5):
                workload.round()
            array = np.ones(96 << 17)
        with hr.Client(workers=2, store_limit=256 << 20) as client:
            assert client.call(len, client.put(array)).result({TIMEOUT_S}) == len(array)
        assert os.listdir("/dev/shm") == []
        print("right")
        """,
        before=own_mounts,
        arguments=[str(tmp_path)],
    )
    assert script.stdout == "right\n", script.stderr


# -- deaths ------------------------------------------------------------------------------------------------------------


class Deaths:
    """Programs with the workload, one after another, in which somebody is killed at a random moment."""

    def __init__(self, tmp_path):
        self._spill_dir = tmp_path / "spill"
        self._runtime = tmp_path / "run"
        self._spill_dir.mkdir()
        self._runtime.mkdir(mode=0o700)

    def round(self, seed):
        """Kill one; see that the others do right, and that nothing is left of those who end."""
        dice = random.Random(seed)
        victim = ("producer", "consumer", "client")[seed % 3]
        environment = os.environ | {"XDG_RUNTIME_DIR": str(self._runtime)}
        with program(
            f"""
            import headrace as hr
            from store_workload import STORE_LIMIT, Workload
            with hr.Client(workers=2, store_limit=STORE_LIMIT, spill_dir=sys.argv[1]) as client:
                workload = Workload(client, {seed})
                workload.round()
                print(*[worker.pid for worker in client.statistics().workers], flush=True)
                for number in range({"1_000" if victim == "client" else "6"}):
                    workload.round()
                print("right", flush=True)
            """,
            arguments=[str(self._spill_dir)],
            env=environment,
        ) as script:
            pids = [int(pid) for pid in script.stdout.readline().split()]
            assert len(pids) == 2, script.stderr.read()
            assert len(list(self._runtime.iterdir())) == 1, "its own directory; what was left before is gone"
            workers = [Process(pid) for pid in pids]
            moment = dice.random() ** 2
            inodes = set()
            if victim == "client":
                assert not Process(script.pid).ends(moment)
                inodes = stopped_files_of(script.pid, self._spill_dir)
                script.kill()
                script.wait(TIMEOUT_S)
                self.check_run_directory()
            else:
                worker = workers[victim == "consumer"]
                if not worker.ends(moment):
                    os.kill(worker.pid, 9)
                out, errors = script.communicate(timeout=2 * TIMEOUT_S)
                assert out == "right\n", errors
                assert not list(self._runtime.iterdir())
            for worker in workers:
                with worker:
                    assert worker.ends(), "a worker outlived its client"
        assert eventually(lambda: not holders_of(inodes, self._spill_dir))
        assert not list(self._spill_dir.iterdir())

    def check_run_directory(self):
        """At most one waits to be removed by whoever starts next; it has no results in it."""
        left = list(self._runtime.iterdir())
        assert len(left) <= 1
        assert sum(path.lstat().st_size for directory in left for path in directory.iterdir()) <= 16 << 10


def stopped_files_of(pid, directory):
    """Stop a process, so that it opens nothing new, and give what it has open."""
    os.kill(pid, 19)
    assert eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    found = files_of(pid, directory)
    assert found, "it has neither memory nor files"
    return found


def check_deaths(tmp_path, seeds):
    deaths = Deaths(tmp_path)
    for seed in seeds:
        deaths.round(seed)


@pytest.mark.timeout(120)
def test_nothing_is_lost_or_left_whoever_is_killed(tmp_path):
    check_deaths(tmp_path, range(9))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_is_lost_or_left_after_a_hundred_deaths(tmp_path):
    gc.collect()
    before = machine_bytes()
    check_deaths(tmp_path, range(100, 200))
    # Others may use this machine as well: what a hundred programs would have left is far more.
    assert eventually(lambda: machine_bytes() <= before + 20 * STORE_LIMIT)

"""Results that memory has no room for, with real processes and a real disk: they move, and stay right."""

import gc
import multiprocessing
import os
import random
import time

import pytest

np = pytest.importorskip("numpy")

from client_tasks import worker_pids  # noqa: E402
from large_tasks import (  # noqa: E402
    both,
    digits,
    filled,
    filled_in_place,
    fork_reader,
    lies_in_block,
    look_closely,
    plus_one,
    put_aside,
    reap_children,
    same,
    take_totals,
    total,
)
from store_watch import (  # noqa: E402
    MIB,
    SEGMENT,
    TIMEOUT_S,
    Names,
    Process,
    backing,
    eventually,
    files_of,
    flush,
    holders_of,
    private_bytes,
    program,
    run_script,
    store_of,
    value_of,
)

import headrace as hr  # noqa: E402

#: 4 MiB of float64.
ITEMS = MIB // 2
ARRAY_BYTES = 8 * ITEMS


@pytest.fixture
def spill_dir(tmp_path):
    """A directory for files of which nobody may ever see a name."""
    directory = tmp_path / "spill"
    directory.mkdir()
    with Names(directory) as names:
        yield directory
        assert not names.appeared(), "a file had a name"
    assert not list(directory.iterdir())


@pytest.fixture
def client(spill_dir):
    """A client with room for seven arrays and a bit."""
    with hr.Client(workers=2, store_limit=32 * MIB, spill_dir=spill_dir) as client:
        yield client


def on_disk(array, directory):
    """Whether an array is a read-only view of a file."""
    assert lies_in_block(array)
    assert not array.flags.writeable
    return backing(array).startswith(f"{directory}/")


def kept_by(client, *tasks):
    """A run that keeps the results of these tasks, each (function, arguments), once all are there and before a look."""
    graph = hr.Graph()
    run = client.submit(graph, keep=[graph.add(fn, *arguments) for fn, *arguments in tasks])
    assert run.wait(TIMEOUT_S)
    return run


def crowd_out(client, arrays=16):
    """Have so many results made that those before go to disk; they are kept as long as the run that is given."""
    return kept_by(client, *[(filled, float(number), ITEMS) for number in range(arrays)])


def pass_around(client, value, worker):
    """What a task on this worker sees of a value."""
    return value_of(client, look_closely, value, worker=worker)


# -- more than there is room for ---------------------------------------------------------------------------------------


def test_sixteen_times_the_budget_goes_through_disk_and_is_right(spill_dir):
    limit, arrays = 64 * MIB, 256
    before = files_of("self", spill_dir)
    with hr.Client(workers=2, store_limit=limit, spill_dir=spill_dir) as client:
        graph = hr.Graph()
        nodes = [graph.add(filled, float(number), ITEMS) for number in range(arrays)]
        run = client.submit(graph, keep=nodes)
        assert run.wait(TIMEOUT_S)
        store = run.statistics().store
        assert store.limit == limit
        assert store.peak <= limit
        assert store.owned + store.spilled >= arrays * ARRAY_BYTES
        for seed in range(2):
            for node in random.Random(seed).sample(nodes, arrays):
                assert (run.result(node) == node.index).all()
        assert store_of(client).peak <= limit
        inodes = files_of("self", spill_dir) - before
        pids = worker_pids(client)
    last = run.result(nodes[-1])
    assert (last == arrays - 1.0).all(), "what was kept can be read after close"
    del run, last
    gc.collect()
    assert eventually(lambda: not holders_of(inodes, spill_dir))
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_nothing_is_left_on_disk_of_a_client_that_was_killed(spill_dir):
    with program(f"""
            import headrace as hr
            from large_tasks import filled
            client = hr.Client(workers=2, store_limit={16 * MIB}, spill_dir={str(spill_dir)!r})
            graph = hr.Graph()
            run = client.submit(graph, keep=[graph.add(filled, float(number), {ITEMS}) for number in range(16)])
            assert run.wait({TIMEOUT_S})
            views = run.results()
            statistics = run.statistics()
            print(statistics.store.spilled, *[worker.pid for worker in statistics.workers], flush=True)
            sys.stdin.read()
    """) as script:
        spilled, *pids = map(int, script.stdout.readline().split())
        assert spilled >= 12 * ARRAY_BYTES
        inodes = files_of(script.pid, spill_dir)
        assert len(inodes) >= 2, "of memory and of the disk"
        workers = [Process(pid) for pid in pids]
        script.kill()
        script.wait(TIMEOUT_S)
        for worker in workers:
            with worker:
                assert worker.ends(), "a worker outlived its client"
        assert eventually(lambda: not holders_of(inodes, spill_dir))


def test_results_that_die_in_time_are_not_moved(spill_dir):
    with hr.Client(workers=2, store_limit=32 * MIB, spill_dir=spill_dir) as client:
        graph = hr.Graph()
        sums = [graph.add(total, graph.add(filled, float(number), MIB // 4)) for number in range(200)]
        run = client.submit(graph, keep=graph.reduce(both, sums))
        assert most_spilled(run) == 0
        assert run.result() == MIB // 4 * sum(range(200))
        assert run.statistics().store.peak <= 32 * MIB


def test_a_tree_goes_depth_first_and_is_not_moved(spill_dir):
    with hr.Client(workers=2, store_limit=64 * MIB, spill_dir=spill_dir) as client:
        graph = hr.Graph()
        arrays = [graph.add(filled, float(number), MIB // 4) for number in range(200)]
        run = client.submit(graph, keep=graph.reduce(both, arrays))
        assert most_spilled(run) == 0
        assert (run.result() == sum(range(200))).all()


@pytest.mark.parametrize("megabytes", [24, 16])
def test_a_tree_that_does_not_fit_goes_through_disk(spill_dir, megabytes):
    """At any time two workers have four inputs and two results: 12 MiB."""
    with hr.Client(workers=2, store_limit=megabytes * MIB, spill_dir=spill_dir) as client:
        for _ in range(3):
            graph = hr.Graph()
            arrays = [graph.add(filled, float(number), MIB // 4) for number in range(64)]
            run = client.submit(graph, keep=graph.reduce(both, arrays))
            assert (run.result(timeout=TIMEOUT_S) == sum(range(64))).all()
            assert run.statistics().store.peak <= megabytes * MIB


def most_spilled(run):
    """The most that was seen on disk until a run ended."""
    deadline, most = time.monotonic() + TIMEOUT_S, 0
    while not run.wait(timeout=0.002):
        most = max(most, run.statistics().store.spilled)
        assert time.monotonic() < deadline, "it hangs"
    return most


# -- readers -----------------------------------------------------------------------------------------------------------


def test_tasks_see_read_only_views_of_what_lies_on_disk(client, spill_dir):
    made = kept_by(client, *[(filled, float(number), ITEMS) for number in range(8)])
    crowd = crowd_out(client)
    for worker in (0, 1):
        for number in range(8):
            place, writable, its_sum = pass_around(client, made.ref(f"filled-{number}"), worker)
            assert place.startswith(f"{spill_dir}/")
            assert not writable
            assert its_sum == number * ITEMS
    assert all(on_disk(view, spill_dir) for view in made.results()), "and the client sees the same"
    assert store_of(client).peak <= 32 * MIB
    assert crowd.wait(0)


def test_nodes_and_refs_take_what_lies_on_disk(client, spill_dir):
    crowd = crowd_out(client)
    graph = hr.Graph()
    refs = [crowd.ref(f"filled-{number}") for number in range(16)]
    run = client.submit(graph, keep=[graph.add(plus_one, ref) for ref in refs])
    for number, view in enumerate(run.results(timeout=TIMEOUT_S)):
        assert (view == number + 1.0).all()
    moved = [pass_around(client, ref, number % 2)[0].startswith(f"{spill_dir}/") for number, ref in enumerate(refs)]
    assert sum(moved) >= 8


def test_a_task_that_returns_what_lies_on_disk_returns_the_same_bytes(client, spill_dir):
    made = kept_by(client, (filled, 7.0, ITEMS))
    crowd = crowd_out(client)
    original = made.result()
    assert on_disk(original, spill_dir)
    before = store_of(client)
    again = [value_of(client, same, made.ref("filled-0"), worker=worker) for worker in (0, 1)]
    assert all(view.ctypes.data == original.ctypes.data for view in again)
    assert store_of(client).spilled == before.spilled
    del made, original
    flush(client)
    assert all((view == 7.0).all() for view in again)
    assert crowd.wait(0)


def test_what_was_put_moves_and_can_be_used(client, spill_dir):
    refs = [client.put({"number": number, "array": np.full(ITEMS, float(number))}) for number in range(24)]
    assert store_of(client).spilled >= 16 * ARRAY_BYTES
    places = []
    for number in random.Random(5).sample(range(24), 24):
        value = value_of(client, same, refs[number])
        assert value["number"] == number
        assert (value["array"] == number).all()
        places.append(on_disk(value["array"], spill_dir))
    assert sum(places) >= 16


@pytest.mark.parametrize("make", [filled, filled_in_place])
def test_a_view_of_before_a_move_stays_right(spill_dir, make):
    with hr.Client(workers=2, store_limit=32 * MIB, spill_dir=spill_dir) as client:
        made = kept_by(client, (make, 0.0, ITEMS), (make, 1.0, ITEMS))
        views = made.results()
        assert [backing(view) for view in views] == [SEGMENT] * 2
        first = made.ref(f"{make.__name__}-0")
        assert value_of(client, put_aside, first, worker=1) == 1
        crowd = crowd_out(client)
        assert pass_around(client, first, 0)[0].startswith(f"{spill_dir}/"), "it has moved"
        del made, first
        flush(client)
        crowd_out(client)
        assert all((view == number).all() for number, view in enumerate(views))
        assert value_of(client, take_totals, worker=1) == [0.0]
        assert crowd.wait(0)
    assert all((view == number).all() for number, view in enumerate(views))
    assert [backing(view) for view in views] == [SEGMENT] * 2


def test_views_that_stay_do_not_slow_down_who_comes_after(client):
    views = kept_by(client, *[(filled, float(number), ITEMS) for number in range(4)]).results()
    flush(client)
    crowd_out(client, arrays=2)
    start = time.monotonic()
    crowd_out(client, arrays=24)
    assert time.monotonic() - start < 10, "each result waits for views to go"
    assert all((view == number).all() for number, view in enumerate(views))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_view_of_a_file_passes_through_multiprocessing(client, spill_dir, method):
    made = kept_by(client, (filled, 1.5, ITEMS))
    crowd = crowd_out(client)
    view = made.result()
    assert on_disk(view, spill_dir)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(total, (view,)).get(TIMEOUT_S) == 1.5 * ITEMS
        assert np.array_equal(pool.apply_async(plus_one, (view,)).get(TIMEOUT_S), view + 1)
    assert crowd.wait(0)


def test_tasks_may_fork_while_results_move(client, tmp_path):
    gates = []
    for number in range(3):
        gate, answer = tmp_path / f"gate-{number}", tmp_path / f"answer-{number}"
        os.mkfifo(gate)
        os.mkfifo(answer)
        made = client.call(hr.task(filled, worker=1), 6.0 + number, ITEMS)
        forking = client.call(hr.task(fork_reader, worker=0), made, str(gate), str(answer))
        crowd = crowd_out(client)
        assert forking.result(timeout=TIMEOUT_S) > 0
        gates.append((gate, answer))
        del made, crowd
        flush(client)
    crowd_out(client)
    for number, (gate, answer) in enumerate(gates):
        gate.write_bytes(b"go")
        assert answer.read_text() == f"{6.0 + number} {6.0 + number}"
    assert value_of(client, reap_children, worker=0) is None


# -- small results -----------------------------------------------------------------------------------------------------


def check_small_results(spill_dir, results, limit, tiny=0):
    """Have so many results of 10 KiB made, with so many of a few bytes before the next, and read.

    Gives the most private memory of this process until all were made.

    Private memory is what the broker and the client take for results in this process; pages of the files, which are the
    system's cache, are not part of it.
    """
    with hr.Client(workers=2, store_limit=limit, spill_dir=spill_dir) as client:
        graph = hr.Graph()
        nodes, others = [], []
        for number in range(results):
            nodes.append(graph.add(digits, number))
            others += [graph.add(abs, number) for _ in range(tiny)]
        before = most = private_bytes()
        deadline = time.monotonic() + 2 * TIMEOUT_S
        run = client.submit(graph, keep=[nodes, others])
        while not run.wait(timeout=0.02):
            most = max(most, private_bytes())
            assert time.monotonic() < deadline, "it hangs"
        assert eventually(lambda: run.statistics().store.inline <= 1.5 * limit)
        store = run.statistics().store
        assert all(run.result(node) == node.index // (tiny + 1) for node in others)
        assert store.spilled >= results * 10_240 - 2 * limit
        dice = random.Random(results)
        assert all(run.result(nodes[number]) == digits(number) for number in dice.sample(range(results), 1_000))
        summed = client.call(lambda *texts: [text[:10] for text in texts], *[run.ref(node) for node in nodes[:500]])
        assert summed.result(timeout=TIMEOUT_S) == [f"{number:010}" for number in range(500)]
        read = 0
        for node, value in run.as_completed(release=True):
            number = node.index // (tiny + 1)
            assert value == (digits(number) if node.index % (tiny + 1) == 0 else number)
            read += 1
        assert read == results * (tiny + 1)
    return most - before


def test_small_results_move_too(spill_dir):
    """They are twice in this process while they are in memory, once at the broker and once at the client: 390 MiB."""
    assert check_small_results(spill_dir, 20_000, 16 * MIB) < 250 * MIB


def test_tiny_results_do_not_keep_small_ones_in_memory(spill_dir):
    """They came in the same frames."""
    assert check_small_results(spill_dir, 20_000, 16 * MIB, tiny=1) < 250 * MIB


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_small_results_move(spill_dir):
    assert check_small_results(spill_dir, 100_000, 64 * MIB) < 480 * MIB


# -- many blocks, few descriptors --------------------------------------------------------------------------------------


def check_many_blocks(spill_dir, blocks, items, limit):
    """Have so many blocks of so many numbers made, and read, by processes that may open 256 files."""
    script = run_script(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        import headrace as hr
        from large_tasks import filled, total
        env = {{"HEADRACE_INLINE_BYTES_MAX": "512"}}
        with hr.Client(workers=2, store_limit={limit}, spill_dir={str(spill_dir)!r}, env=env) as client:
            graph = hr.Graph()
            nodes = [graph.add(filled, float(number), {items}) for number in range({blocks})]
            run = client.submit(graph, keep=nodes)
            assert run.wait(500)
            store = run.statistics().store
            assert store.peak <= {limit}
            assert store.owned + store.spilled >= {blocks} * 8 * {items}, store
            assert all((run.result(node) == node.index).all() for node in nodes)
            taken = [client.call(total, run.ref(node)).result() for node in nodes[:: {blocks} // 100]]
            assert taken == [{items}.0 * number for number in range(0, {blocks}, {blocks} // 100)]
            print("right", store.spilled > 0)
        """,
        timeout_s=500,
    )
    assert script.stderr == ""
    return script.stdout


@pytest.mark.parametrize(("limit", "moves"), [(1024 * MIB, False), (32 * MIB, True)])
def test_three_thousand_blocks_need_few_descriptors(spill_dir, limit, moves):
    assert check_many_blocks(spill_dir, 3_000, 8_300, limit) == f"right {moves}\n"


@pytest.mark.parametrize(("limit", "moves"), [(1024 * MIB, False), (32 * MIB, True)])
def test_a_hundred_thousand_small_blocks_need_few_descriptors(spill_dir, limit, moves):
    assert check_many_blocks(spill_dir, 100_000, 128, limit) == f"right {moves}\n"

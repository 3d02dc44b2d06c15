"""Resources, tags with limits, GPUs and priorities of runs: what tasks may have at once, and who goes first."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from limit_tasks import die, gpus, hold, lock, most_at_once, note, notes, nothing, opened, running, spend, until

import headrace as hr

TIMEOUT_S = 30


@pytest.fixture(params=["processes", "threads"])
def parallel(request):
    return request.param


@pytest.fixture(params=["processes", "threads", "sync"])
def mode(request):
    return request.param


# -- limits of tags ----------------------------------------------------------------------------------------------------


def test_no_more_tasks_of_a_tag_run_at_once_than_its_limit(parallel, tmp_path):
    tagged = hr.task(hold, tags="db")
    with hr.Client(workers=4, mode=parallel, limits={"db": 2}) as client, opened(tmp_path):
        graph = hr.Graph()
        nodes = graph.map(tagged, [str(tmp_path)] * 6, range(6))
        run = client.submit(graph)
        until(lambda: len(running(tmp_path)) == 2)
        # Others run beside them, and the limit holds meanwhile.
        assert [client.call(nothing).result(TIMEOUT_S) for _ in range(20)] == [None] * 20
        assert len(running(tmp_path)) == 2
        (tmp_path / "gate").touch()
        assert len(run.results(timeout=TIMEOUT_S)) == len(nodes)
        assert running(tmp_path) == {str(number) for number in range(len(nodes))}


def test_a_limit_is_made_use_of_and_kept(parallel, tmp_path):
    with hr.Client(workers=4, mode=parallel, limits={"db": 2}) as client:
        graph = hr.Graph()
        graph.map(hr.task(spend, tags="db"), [str(tmp_path)] * 30, range(30))
        graph.map(nothing, range(300))
        assert client.submit(graph).wait(TIMEOUT_S)
    assert most_at_once(tmp_path) == 2


def test_amounts_of_a_resource_add_up(parallel, tmp_path):
    two = hr.task(spend, resources={"license": 2})
    one = hr.task(spend, resources={"license": 1})
    with hr.Client(workers=4, mode=parallel, resources={"license": 3}) as client:
        futures = [client.call(two, str(tmp_path), f"two{number}", 2) for number in range(10)]
        futures += [client.call(one, str(tmp_path), f"one{number}") for number in range(20)]
        for future in futures:
            future.result(TIMEOUT_S)
    assert most_at_once(tmp_path) == 3


def test_several_demands_of_one_task_hold_at_once(parallel, tmp_path):
    both = hr.task(spend, tags=("a", "b"), resources={"license": 1, "memory": "1GiB"})
    resources = {"license": 4, "memory": "3 GiB"}
    with hr.Client(workers=4, mode=parallel, resources=resources, limits={"a": 4, "b": 1}) as client:
        graph = hr.Graph()
        graph.map(both, [str(tmp_path)] * 12, range(12))
        client.submit(graph).wait(TIMEOUT_S)
    assert most_at_once(tmp_path) == 1
    assert len(notes(tmp_path)) == 24


def test_a_large_demand_is_served_though_small_ones_keep_coming(parallel, tmp_path):
    small = hr.task(spend, resources={"license": 1})
    large = hr.task(spend, resources={"license": 3})
    with hr.Client(workers=3, mode=parallel, resources={"license": 3}) as client:
        pending = [client.call(small, str(tmp_path), f"small{number}") for number in range(6)]
        future = client.call(large, str(tmp_path), "large", 3)
        deadline = time.monotonic() + TIMEOUT_S
        while not future.done():
            assert time.monotonic() < deadline
            pending = [other for other in pending if not other.done()]
            pending += [client.call(small, str(tmp_path), f"more{number}") for number in range(6 - len(pending))]
        for other in pending:
            other.result(TIMEOUT_S)
    assert most_at_once(tmp_path) == 3


def test_tasks_in_one_thread_count_as_well(tmp_path):
    with hr.Client(workers=4, mode="sync", limits={"db": 1}, resources={"license": 1}) as client:
        graph = hr.Graph()
        first = graph.add(hr.task(spend, tags="db"), str(tmp_path), 1)
        graph.add(hr.task(nothing, tags="db", resources={"license": 1}), first)
        assert client.submit(graph).results() == [None]
        assert client.call(hr.task(spend, tags="db"), str(tmp_path), 2).result() == 2
    assert most_at_once(tmp_path) == 1


def test_a_tag_without_a_limit_limits_nothing(parallel, tmp_path):
    with hr.Client(workers=3, mode=parallel) as client, opened(tmp_path):
        futures = [client.call(hr.task(hold, tags=f"user-{number}"), str(tmp_path), number) for number in range(3)]
        until(lambda: len(running(tmp_path)) == 3)
        (tmp_path / "gate").touch()
        assert {future.result(TIMEOUT_S) for future in futures} == {0, 1, 2}


def test_ten_thousand_tags_come_and_go():
    with hr.Client(workers=1, limits={"user-7": 1}) as client:
        for number in range(10_000):
            client.call(hr.task(nothing, tags=f"user-{number}"))
        client.call(nothing).result(TIMEOUT_S)


# -- who holds something and ends without an end -----------------------------------------------------------------------


def test_a_death_frees_what_its_task_held(tmp_path):
    deadly = hr.task(die, tags="db")
    with hr.Client(workers=2, limits={"db": 1}) as client:
        poison = client.call(deadly, str(tmp_path), "first")
        after = client.call(hr.task(spend, tags="db"), str(tmp_path), "second")
        with pytest.raises(hr.PoisonTask):
            poison.result(TIMEOUT_S)
        assert after.result(TIMEOUT_S) == "second"


def test_a_limit_holds_while_workers_are_killed(tmp_path):
    """Two runs of 150 tasks under a limit of one, beside others, while a worker is killed about every 40 ms."""
    with hr.Client(workers=3, limits={"db": 1}, crash_limit=100) as client:
        runs = []
        for number in range(2):
            graph = hr.Graph()
            tagged = graph.map(hr.task(lock, tags="db"), [str(tmp_path)] * 150, range(150))
            graph.map(nothing, tagged, range(150))
            runs.append(client.submit(graph, keep=tagged, priority=number))
        deadline = time.monotonic() + TIMEOUT_S
        kills = 0
        while not all(run.done() for run in runs):
            assert time.monotonic() < deadline
            pid = client.statistics().workers[kills % 3].pid
            if pid and kills < 60:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                kills += 1
            runs[0].wait(0.04)
        assert [run.results() for run in runs] == [list(range(150))] * 2
        assert all(thing.used == 0 for thing in client.statistics().shared)
    assert kills >= 3
    assert notes(tmp_path) == []


def test_a_cancelled_task_keeps_what_it_holds_until_it_has_stopped(tmp_path):
    stubborn = hr.task(resist, tags="db")
    with hr.Client(workers=2, limits={"db": 1}) as client, opened(tmp_path):
        future = client.call(stubborn, str(tmp_path))
        until(lambda: "begin" in notes(tmp_path))
        after = client.call(hr.task(note, tags="db"), str(tmp_path), "after")
        assert future.cancel()
        # The interrupt has come, and the task still runs.
        until(lambda: "interrupted" in notes(tmp_path))
        client.call(nothing).result(TIMEOUT_S)
        assert notes(tmp_path) == ["begin", "interrupted"]
        (tmp_path / "gate").touch()
        after.result(TIMEOUT_S)
    assert notes(tmp_path) == ["begin", "interrupted", "end", "after"]


def resist(folder):
    note(folder, "begin")
    try:
        hold(folder, "resist")
    except KeyboardInterrupt:
        note(folder, "interrupted")
        hold(folder, "resist")
        note(folder, "end")


def test_a_cancelled_task_in_a_thread_keeps_what_it_holds_until_it_returns(tmp_path):
    with hr.Client(workers=2, mode="threads", limits={"db": 1}) as client, opened(tmp_path):
        future = client.call(hr.task(hold, tags="db"), str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        after = client.call(hr.task(hold, tags="db"), str(tmp_path), "second")
        assert future.cancel()
        client.call(nothing).result(TIMEOUT_S)
        assert running(tmp_path) == {"first"}
        (tmp_path / "gate").touch()
        after.result(TIMEOUT_S)
        assert running(tmp_path) == {"first", "second"}


# -- GPUs --------------------------------------------------------------------------------------------------------------


def test_gpus_are_divided_among_workers_which_see_their_own(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with hr.Client(workers=3, resources={"gpu": 4}) as client:
        seen = {client.call(hr.task(gpus, worker=worker)).result(TIMEOUT_S) for worker in range(3)}
        assert seen == {(0, "0,3"), (1, "1"), (2, "2")}
        graph = hr.Graph()
        graph.map(hr.task(picky, resources={"gpu": 2}), range(20))
        assert set(client.submit(graph).results(timeout=TIMEOUT_S)) == {"0,3"}


def picky(_):
    return gpus()[1]


def test_workers_without_a_gpu_get_no_task_that_needs_one():
    env = {"CUDA_VISIBLE_DEVICES": "GPU-7"}
    with hr.Client(workers=2, resources={"gpu": 1}, env=env) as client:
        graph = hr.Graph()
        graph.map(hr.task(picky, resources={"gpu": 1}), range(20))
        assert set(client.submit(graph).results(timeout=TIMEOUT_S)) == {"GPU-7"}
        assert client.call(hr.task(gpus, worker=1)).result(TIMEOUT_S) == (1, "")


def test_the_environment_says_which_gpus_there_are(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    with hr.Client(workers=1, resources={"gpu": 2}) as client:
        assert client.call(gpus).result(TIMEOUT_S) == (0, "3,5")
    with pytest.raises(hr.UsageError, match=r"CUDA_VISIBLE_DEVICES='3,5,6' lets only 3 be seen"):
        hr.Client(workers=1, resources={"gpu": 4})


def test_the_environment_is_left_alone_where_no_gpu_is_declared(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    with hr.Client(workers=1) as client:
        assert client.call(gpus).result(TIMEOUT_S) == (0, "3,5,6")


# -- what can never run ------------------------------------------------------------------------------------------------


def refused(client, options, text):
    """A graph, and a call, are refused within a second with this text."""
    graph = hr.Graph()
    graph.map(nothing, range(3))
    graph.add(hr.task(nothing, key="picky", **options))
    for submit, key in ((lambda: client.submit(graph), "picky"), (lambda: call(client, options), "nothing")):
        start_s = time.monotonic()
        with pytest.raises(hr.NoSuitableWorker, match=re.escape(f"task '{key}' {text}")) as raised:
            submit()
        assert raised.value.key == key
        assert time.monotonic() - start_s < 1
    # And nothing is left of it.
    assert client.call(nothing).result(TIMEOUT_S) is None


def call(client, options):
    client.call(hr.task(nothing, **options))


def test_a_demand_that_no_worker_can_meet_is_refused_with_the_best_offer(mode):
    with hr.Client(workers=2, mode=mode, resources={"license": 2, "memory": "1.5GiB"}) as client:
        refused(client, {"resources": {"license": 3}}, "asks for license=3; there is license=2 in all")
        refused(client, {"resources": {"memory": "4GiB"}}, "asks for memory=4GiB; there is memory=1536MiB in all")
        refused(client, {"resources": {"seat": 1}}, "asks for seat=1; this client has no resource 'seat'")
        refused(client, {"worker": 5}, "is pinned to worker 5; workers are 0 to 1")


def test_a_demand_for_more_gpus_than_a_worker_has_is_refused_with_the_best_offer(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with hr.Client(workers=2, resources={"gpu": 1}) as client:
        text = "asks for gpu=3; the most that one worker has is gpu=1 (worker 0)"
        refused(client, {"resources": {"gpu": 3}}, text)
        text = "asks for gpu=1 and is pinned to worker 1, which has gpu=0"
        refused(client, {"resources": {"gpu": 1}, "worker": 1}, text)


def test_gpus_are_counted_like_anything_where_there_are_no_processes():
    with hr.Client(workers=2, mode="threads", resources={"gpu": 2}) as client:
        assert client.call(hr.task(nothing, resources={"gpu": 2})).result(TIMEOUT_S) is None
        refused(client, {"resources": {"gpu": 3}}, "asks for gpu=3; there is gpu=2 in all")


def test_memory_is_the_machines_unless_it_is_given(mode):
    with hr.Client(workers=1, mode=mode) as client:
        assert client.call(hr.task(nothing, resources={"memory": "1MiB"})).result(TIMEOUT_S) is None
        refused(client, {"resources": {"memory": "1000TiB"}}, "asks for memory=1000TiB; there is memory=")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"limits": {"db": 0}}, "'db': with a limit of 0 no such task could ever run"),
        ({"limits": {"db": "two"}}, "'db' must be a number or a size"),
        ({"limits": ["db"]}, "must map names to amounts"),
        ({"resources": {"": 1}}, "a resource's name must be a text"),
        ({"resources": {"license": -1}}, "'license' must be a whole number of at least 0"),
        ({"resources": {"memory": "4 gigs"}}, "'memory' must be a number or a size"),
    ],
)
def test_what_makes_no_sense_is_refused(mode, arguments, text):
    with pytest.raises(hr.UsageError, match=re.escape(text)):
        hr.Client(workers=1, mode=mode, **arguments)


# -- what is held ------------------------------------------------------------------------------------------------------


def test_statistics_tell_what_is_held(parallel, tmp_path):
    resources = {"license": 3, "memory": "2GiB"}
    with hr.Client(workers=2, mode=parallel, limits={"db": 1}, resources=resources) as client, opened(tmp_path):
        task = hr.task(hold, tags="db", resources={"license": 2})
        future = client.call(task, str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        shared = {thing.name: thing[1:] for thing in client.statistics().shared}
        assert shared == {"db": (True, 1, 1), "license": (False, 2, 3), "memory": (False, 0, 2 << 30)}
        (tmp_path / "gate").touch()
        future.result(TIMEOUT_S)
        assert all(thing.used == 0 for thing in client.statistics().shared)


def test_top_tells_what_is_held(tmp_path, tmp_path_factory, monkeypatch):
    base = tmp_path_factory.mktemp("run")
    base.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    with hr.Client(workers=1, limits={"db": 2}, resources={"license": 3}) as client, opened(tmp_path):
        client.call(hr.task(hold, tags="db", resources={"license": 2}), str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        command = [str(Path(sys.executable).with_name("headrace")), "top", "--once"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout
        assert "  limits   license: 2 of 3, tag db: 1 of 2\n" in text


# -- priorities of runs ------------------------------------------------------------------------------------------------


def test_a_run_of_higher_priority_goes_first(parallel, tmp_path):
    with hr.Client(workers=1, mode=parallel) as client, opened(tmp_path):
        first = client.call(hold, str(tmp_path), "first")
        second = client.call(hold, str(tmp_path), "second")  # it may stand behind the first one already
        until(lambda: running(tmp_path) == {"first"})
        runs = []
        for priority in (-1, 5, 0):
            graph = hr.Graph()
            graph.map(note, [str(tmp_path)] * 3, [f"priority {priority}"] * 3)
            runs.append(client.submit(graph, priority=priority))
        (tmp_path / "gate").touch()
        assert all(run.wait(TIMEOUT_S) for run in runs)
        first.result()
        second.result()
    assert notes(tmp_path) == [f"priority {priority}" for priority in (5, 0, -1) for _ in range(3)]


def test_the_priority_of_a_run_is_a_whole_number(mode):
    with hr.Client(workers=1, mode=mode) as client, pytest.raises(hr.UsageError, match="priority must be an int"):
        client.submit(hr.Graph(), priority=1.5)

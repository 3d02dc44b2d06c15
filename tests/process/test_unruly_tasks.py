"""What user code does to its process harms nobody else, and costs at most that process."""

import os
import re
import time
import weakref
from functools import partial
from pathlib import Path

import pytest
import unruly_tasks as tasks
from client_tasks import inc, wait_for, worker_pids
from outside import TIMEOUT_S
from store_watch import Process

import headrace as hr

MODES = ("fork", "spawn", "forkserver")


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=2, preload=["unruly_tasks"]) as client:
        yield client


def is_well(client):
    """Whether every worker does its work, and hands values to the others."""
    graph = hr.Graph()
    first = [graph.add(hr.task(inc, worker=worker), 1) for worker in (0, 1)]
    second = [graph.add(hr.task(inc, worker=worker), node) for worker, node in zip((1, 0), first, strict=True)]
    rest = graph.map(inc, range(200))
    run = client.submit(graph, keep=[*second, *rest])
    return run.results(timeout=TIMEOUT_S) == [3, 3, *range(1, 201)]


HARMLESS = {
    tasks.close_standard_descriptors: "closed",
    tasks.drop_standard_streams: "dropped",
    tasks.close_standard_streams: "closed",
    tasks.handle_signals: "handled",
    tasks.ignore_children: 0,
    tasks.block_every_signal: "blocked",
    tasks.move_elsewhere: "/",
    tasks.clear_environment: 0,
    tasks.read_standard_input: "",
    tasks.leave_threads: "left",
    tasks.fork_a_child_that_exits: 7,
    tasks.run_a_program: "said heard\n",
}


@pytest.mark.parametrize("task", HARMLESS, ids=lambda task: task.__name__)
def test_a_worker_takes_it(task):
    with hr.Client(workers=2) as client:
        pids = worker_pids(client)
        assert client.call(task).result(timeout=TIMEOUT_S) == HARMLESS[task]
        assert is_well(client)
        assert worker_pids(client) == pids, "nobody had to be replaced"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


FATAL = {
    # libzmq gives up, or our own thread is faster to see that the broker cannot be heard any more.
    tasks.close_every_descriptor: r"was killed by SIGABRT|exited with code 4",
    tasks.become_another_program: "was killed by SIGKILL",
    tasks.set_an_alarm: "was killed by SIGALRM",
    tasks.end_its_group: "was killed by SIGTERM",
}


@pytest.mark.parametrize("task", FATAL, ids=lambda task: task.__name__)
def test_a_worker_dies_of_it_and_the_error_names_the_task(client, task):
    start = time.monotonic()
    with pytest.raises(hr.WorkerDied) as caught:
        client.call(hr.task(task, key=f"the {task.__name__}")).result(timeout=TIMEOUT_S)
    text = str(caught.value)
    assert text.startswith(f"task 'the {task.__name__}' (attempt 3/3) was running in worker ")
    assert re.search(FATAL[task], text)
    assert is_well(client)
    assert time.monotonic() - start < 15, "it took long to be noticed"


@pytest.mark.parametrize("task", [tasks.close_the_control_socket, tasks.want_few_descriptors])
def test_a_worker_of_no_more_use_is_replaced(client, task):
    assert isinstance(client.call(task).result(timeout=TIMEOUT_S), str)
    assert is_well(client)


# -- children ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [tasks.fork_a_child_that_raises, tasks.fork_a_child_that_leaves])
def test_a_forked_child_that_comes_back_runs_nothing_else(client, task):
    assert client.call(task).result(timeout=TIMEOUT_S) == 1
    assert is_well(client)


@pytest.mark.parametrize("method", MODES)
def test_a_task_may_use_a_pool_of_processes(client, method):
    assert client.call(tasks.use_a_pool, method).result(timeout=TIMEOUT_S) == [0, 1, 4, 9, 16]
    assert is_well(client)


@pytest.mark.parametrize("task", [tasks.leave_a_process, tasks.leave_a_program])
def test_a_child_that_goes_on_does_not_keep_the_run_alive(task):
    start = time.monotonic()
    with hr.Client(workers=1) as client:
        child = Process(client.call(task).result(timeout=TIMEOUT_S))
        assert is_well_alone(client)
    with child:
        assert child.ends(), "it outlived its client"
    assert time.monotonic() - start < TIMEOUT_S / 2


def is_well_alone(client):
    graph = hr.Graph()
    return client.submit(graph, keep=graph.map(inc, range(50))).results(timeout=TIMEOUT_S) == list(range(1, 51))


@pytest.mark.parametrize("method", MODES)
def test_a_client_may_share_its_process_with_multiprocessing(client, method):
    future = client.call(inc, 1)
    assert tasks.use_a_pool(method) == [0, 1, 4, 9, 16]
    assert future.result(timeout=TIMEOUT_S) == 2
    assert is_well(client)


def test_a_child_of_the_client_may_have_a_client_of_its_own(client):
    held = client.call(inc, 1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with hr.Client(workers=1) as own:
                code = 0 if own.call(inc, 41).result(timeout=TIMEOUT_S) == 42 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert held.result(timeout=TIMEOUT_S) == 2
    assert is_well(client)


def test_a_child_of_the_client_that_goes_on_holds_nothing_up(tmp_path):
    gate = tmp_path / "gate"
    with hr.Client(workers=1) as client:
        pids = worker_pids(client)
        held = client.call(wait_for, str(gate))
        child = os.fork()
        if child == 0:
            try:
                wait_for(str(tmp_path / "end"))
            finally:
                os._exit(0)
        gate.touch()
        assert held.result(timeout=TIMEOUT_S) == str(gate)
    try:
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
        assert Path(f"/proc/{child}").exists()
    finally:
        (tmp_path / "end").touch()
        os.waitpid(child, 0)


@pytest.mark.parametrize("mode", ["processes", "threads", "sync"])
def test_a_result_that_raises_whatever_it_is_asked_harms_nothing_else(mode):
    with hr.Client(workers=1, mode=mode) as client:
        proxy = client.call(tasks.give_a_dead_proxy)
        if mode == "processes":
            with pytest.raises(hr.ResultNotPicklable, match="weakly-referenced object no longer exists"):
                proxy.result(timeout=TIMEOUT_S)
        else:
            assert type(proxy.result(timeout=TIMEOUT_S)) is weakref.ProxyType
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


# -- cancelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [tasks.block_every_signal, tasks.handle_signals, tasks.drop_standard_streams])
def test_what_a_task_did_to_signals_does_not_save_the_next_from_being_cancelled(before, tmp_path):
    with hr.Client(workers=1) as client:
        client.call(before).result(timeout=TIMEOUT_S)
        started = tmp_path / "started"
        running = client.call(partial(announce_and_wait, str(started)))
        wait_for(str(started))
        start = time.monotonic()
        assert running.cancel()
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2, "the slot is free"
        assert time.monotonic() - start < 10, "after the grace period at the latest"


def announce_and_wait(path):
    Path(path).touch()
    wait_for(f"{path}, never")

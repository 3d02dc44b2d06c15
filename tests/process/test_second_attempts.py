"""Tasks that an idle worker tries as well, because they take long: what becomes of the two attempts."""

import os
import signal
import time

import pytest
from client_tasks import Sour, add, inc
from outside import wait_until
from policy_tasks import die_beside, fail_beside, fail_both, hang_first, hold, ignore_first, lines

import headrace as hr

TIMEOUT_S = 30
GRACE_S = 0.5


@pytest.fixture
def client():
    with hr.Client(workers=2, grace_s=GRACE_S, crash_limit=1, preload=["policy_tasks"]) as client:
        assert client.call(inc, 1).result(TIMEOUT_S) == 2
        yield client


def twice(fn, **options):
    return hr.task(fn, speculative=True, **options)


def test_the_second_attempt_ends_and_the_first_is_interrupted(client, path, gate):
    assert client.call(twice(hang_first), path, str(gate), "value").result(TIMEOUT_S) == "value"
    wait_until(lambda: lines(path + ".interrupts"))
    first, second = lines(path)
    assert first != second, "they ran in two processes"
    pids = {client.call(hr.task(os.getpid, worker=worker)).result(TIMEOUT_S) for worker in range(2)}
    assert pids == {int(first), int(second)}, "both are there still"
    assert len(lines(path)) == 2
    statistics = client.statistics()
    assert (statistics.worker_deaths, statistics.blamed_deaths) == (0, 0)


def test_an_attempt_that_does_not_stop_is_killed_and_nobody_is_blamed(client, path, gate):
    graph = hr.Graph()
    node = graph.add(twice(ignore_first), path, str(gate), "value")
    run = client.submit(graph)
    assert run.result(node, timeout=TIMEOUT_S) == "value"
    wait_until(lambda: client.statistics().worker_deaths == 1)
    assert client.statistics().blamed_deaths == 0
    assert (run.statistics().done, run.statistics().retries) == (1, 0)
    assert len(lines(path)) == 2


def test_a_worker_that_is_stopped_does_not_hold_its_task_up(client, path, gate):
    future = client.call(twice(hang_first), path, str(gate), "value")
    wait_until(lambda: lines(path))
    start_s = time.monotonic()
    os.kill(int(lines(path)[0]), signal.SIGSTOP)
    assert future.result(TIMEOUT_S) == "value"
    assert time.monotonic() - start_s < 4, "before its silence counts"
    wait_until(lambda: client.statistics().worker_deaths == 1)
    assert client.call(inc, 2).result(TIMEOUT_S) == 3


def test_what_needs_the_task_gets_the_value_that_counts(client, path, gate):
    graph = hr.Graph()
    node = graph.add(twice(hang_first), path, str(gate), 20)
    last = graph.add(add, graph.add(inc, node), node)
    run = client.submit(graph, keep=[node, last])
    assert run.result(last, timeout=TIMEOUT_S) == 41
    assert run.result(node) == 20
    assert len(lines(path)) == 2


@pytest.mark.parametrize("end", [fail_beside, die_beside])
def test_an_attempt_that_ends_badly_does_not_count_while_the_other_runs(client, path, gate, end):
    future = client.call(twice(end), path, str(gate), "value")
    wait_until(lambda: lines(path + ".failed"))
    if end is die_beside:
        wait_until(lambda: client.statistics().worker_deaths == 1)
    assert client.call(inc, 2).result(TIMEOUT_S) == 3
    assert not future.done()
    gate.touch()
    assert future.result(TIMEOUT_S) == "value"
    assert client.statistics().blamed_deaths == 0
    assert len(lines(path)) == 2


def test_if_both_fail_the_task_fails(client, path):
    with pytest.raises(Sour):
        client.call(twice(fail_both), path).result(TIMEOUT_S)
    assert len(lines(path)) == 2


def test_a_cancel_stops_both(client, path, gate):
    future = client.call(twice(hold), path, str(gate))
    wait_until(lambda: len(lines(path)) == 2)
    assert future.cancel()
    wait_until(lambda: len(lines(path + ".interrupts")) == 2)
    assert client.call(inc, 2).result(TIMEOUT_S) == 3
    assert client.statistics().worker_deaths == 0


def test_without_the_option_there_is_one_attempt(client, path, gate):
    future = client.call(hang_first, path, str(gate), "value")
    with pytest.raises(TimeoutError):
        future.result(1.5)
    gate.touch()
    assert future.result(TIMEOUT_S) == "late"
    assert len(lines(path)) == 1


def test_a_tag_that_is_taken_allows_no_second_attempt(path, gate):
    with hr.Client(workers=2, limits={"db": 1}) as client:
        future = client.call(twice(hang_first, tags="db"), path, str(gate), "value")
        with pytest.raises(TimeoutError):
            future.result(1.5)
        gate.touch()
        assert future.result(TIMEOUT_S) == "late"
        assert len(lines(path)) == 1


@pytest.mark.parametrize("mode", ["threads", "sync"])
def test_elsewhere_the_option_does_nothing(mode, path, gate):
    with hr.Client(workers=2, mode=mode) as client:
        gate.touch()
        assert client.call(twice(hang_first), path, str(gate), "value").result(TIMEOUT_S) == "late"
        assert len(lines(path)) == 1

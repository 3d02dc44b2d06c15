"""Attempts that run for too long, and tasks that wait for too long: what becomes of them, and of their workers."""

import time
from pathlib import Path

import pytest
from client_tasks import inc
from outside import wait_until
from policy_tasks import (
    hold_alone,
    hold_interpreter,
    ignore_interrupts,
    lines,
    sleep,
    sleep_first,
    wait_until_unwanted,
    worker_process,
)

import headrace as hr

TIMEOUT_S = 30
#: Far longer than any limit here.
LONG_S = 120
#: Short, so that tests of what passes it are.
GRACE_S = 0.3


@pytest.fixture(scope="module", params=["processes", "threads", "sync"])
def client(request):
    with hr.Client(workers=2, mode=request.param, grace_s=GRACE_S) as client:
        yield client


@pytest.fixture
def processes():
    with hr.Client(workers=1, grace_s=GRACE_S, preload=["policy_tasks"]) as client:
        client.call(inc, 1).result(TIMEOUT_S)
        yield client


# -- in every mode -----------------------------------------------------------------------------------------------------


def test_a_task_that_ends_in_time_is_left_alone(client, path):
    assert client.call(hr.task(sleep, timeout_s=LONG_S), path, 0.01, "value").result(TIMEOUT_S) == "value"
    assert len(lines(path)) == 1


def test_a_task_that_does_not_fails_and_names_the_limit(client, path):
    future = client.call(hr.task(sleep, timeout_s=0.1), path, 0.4, "value")
    with pytest.raises(hr.TaskTimeout, match=r"ran for longer than its timeout_s=0\.1") as caught:
        future.result(TIMEOUT_S)
    assert (caught.value.key, caught.value.worker) == (future.key, caught.value.worker)
    assert caught.value.attempt >= 1
    assert isinstance(caught.value, TimeoutError)
    assert len(lines(path)) == 1


def test_an_attempt_that_takes_too_long_is_tried_again(client, path):
    graph = hr.Graph()
    node = graph.add(hr.task(sleep_first, timeout_s=0.2, retries=1), path, 0.5, "value")
    run = client.submit(graph)
    assert run.result(node, timeout=TIMEOUT_S) == "value"
    assert len(lines(path)) == 2
    statistics = run.statistics()
    assert (statistics.timeouts, statistics.retries, statistics.done) == (1, 1, 1)


def test_the_last_timeout_says_how_many_there_were(client, path):
    fail = hr.task(sleep, timeout_s=0.1, retries=2, retry_on=KeyError)
    with pytest.raises(hr.TaskTimeout, match=r"after 2 retries$"):
        client.call(fail, path, 0.3).result(TIMEOUT_S)
    assert len(lines(path)) == 3, "what option retry_on says of exceptions does not matter here"


def test_what_needs_an_overdue_task_is_skipped(client, path):
    graph = hr.Graph()
    node = graph.add(hr.task(sleep, timeout_s=0.1), path, 0.3)
    run = client.submit(graph, keep=[node, graph.add(inc, node)])
    assert run.wait(TIMEOUT_S)
    with pytest.raises(hr.UpstreamFailed) as caught:
        run.result("inc-1")
    assert isinstance(caught.value.__cause__, hr.TaskTimeout)
    assert (run.statistics().failed, run.statistics().timeouts) == (1, 1)


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_two_attempts_never_run_at_once(client, path):
    with pytest.raises(hr.TaskTimeout):
        client.call(hr.task(hold_alone, timeout_s=0.1, retries=2), path, 0.6).result(TIMEOUT_S)
    wait_until(lambda: len(lines(path)) == 6)  # each writes twice
    assert lines(path + ".overlaps") == []


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_a_limit_counts_from_the_start_of_the_attempt(client, tmp_path):
    slow = hr.task(sleep, timeout_s=2)
    futures = [client.call(slow, str(tmp_path / "effects"), 0.5, number) for number in range(10)]
    # Two workers need 2.5 s for them.
    assert [future.result(TIMEOUT_S) for future in futures] == list(range(10))


# -- worker processes --------------------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_attempt_and_the_worker_goes_on(processes, path):
    before = processes.call(worker_process).result(TIMEOUT_S)
    started = time.monotonic()
    with pytest.raises(hr.TaskTimeout):
        processes.call(hr.task(sleep, timeout_s=0.1), path, LONG_S).result(TIMEOUT_S)
    assert 0.1 <= time.monotonic() - started < TIMEOUT_S
    assert processes.call(worker_process).result(TIMEOUT_S) == before
    assert processes.statistics().worker_deaths == 0


def test_a_task_may_tidy_up_when_it_is_interrupted(processes, path):
    def tidy(path):
        try:
            time.sleep(LONG_S)
        finally:
            time.sleep(GRACE_S / 3)
            Path(path).write_text("tidied\n")

    with pytest.raises(hr.TaskTimeout):
        processes.call(hr.task(tidy, timeout_s=0.1), path).result(TIMEOUT_S)
    assert lines(path) == ["tidied"]


def test_what_comes_too_late_does_not_count(processes, path):
    def late():
        try:
            time.sleep(LONG_S)
        except KeyboardInterrupt:
            return "late"

    with pytest.raises(hr.TaskTimeout):
        processes.call(hr.task(late, timeout_s=0.1)).result(TIMEOUT_S)
    assert processes.statistics().worker_deaths == 0


@pytest.mark.parametrize("task", [ignore_interrupts, hold_interpreter])
def test_a_worker_whose_task_does_not_end_is_killed_and_that_is_no_crash(processes, path, task):
    before = processes.call(worker_process).result(TIMEOUT_S)
    with pytest.raises(hr.TaskTimeout, match="after 3 retries"):
        processes.call(hr.task(task, timeout_s=0.5, retries=3), path, LONG_S).result(TIMEOUT_S)
    assert processes.call(worker_process).result(TIMEOUT_S) != before
    statistics = processes.statistics()
    assert (statistics.timeouts, statistics.retries) == (4, 3)
    assert statistics.worker_deaths >= 3, "as many as no task would survive that crashed"
    if task is ignore_interrupts:
        assert statistics.worker_deaths == len(lines(path + ".interrupts")), "each attempt was interrupted once"


def test_what_stands_behind_a_killed_attempt_runs_once(processes, path, tmp_path):
    graph = hr.Graph()
    stuck = graph.add(hr.task(ignore_interrupts, timeout_s=0.2), path, LONG_S)
    others = [graph.add(sleep, str(tmp_path / str(number)), 0, number) for number in range(20)]
    run = processes.submit(graph, keep=[stuck, others])
    assert [run.result(node, timeout=TIMEOUT_S) for node in others] == list(range(20))
    with pytest.raises(hr.TaskTimeout):
        run.result(stuck, timeout=TIMEOUT_S)
    assert [len(lines(tmp_path / str(number))) for number in range(20)] == [1] * 20


def test_limits_of_short_tasks_in_one_batch_are_each_their_own(processes, path):
    graph = hr.Graph()
    limited = hr.task(sleep, timeout_s=0.5)
    nodes = [graph.add(limited, path, 0.001, number) for number in range(1_000)]
    assert processes.submit(graph, keep=nodes).results(TIMEOUT_S) == list(range(1_000))


# -- threads -----------------------------------------------------------------------------------------------------------


def test_a_thread_is_free_once_the_call_returns_and_the_client_knows_before(path):
    with hr.Client(workers=1, mode="threads") as client:
        started = time.monotonic()
        with pytest.raises(hr.TaskTimeout):
            client.call(hr.task(sleep, timeout_s=0.1), path, 0.8).result(TIMEOUT_S)
        assert time.monotonic() - started < 0.8
        assert client.call(time.monotonic).result(TIMEOUT_S) - started >= 0.8


@pytest.mark.parametrize("mode", ["processes", "threads"])
def test_an_overdue_task_can_see_that_it_is(path, mode):
    with hr.Client(workers=1, mode=mode, grace_s=TIMEOUT_S) as client:
        with pytest.raises(hr.TaskTimeout):
            client.call(hr.task(wait_until_unwanted, timeout_s=0.1), path).result(TIMEOUT_S)
        if mode == "threads":
            wait_until(lambda: lines(path + ".ended"))
        assert client.call(inc, 1).result(TIMEOUT_S) == 2


# -- waits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_a_task_that_finds_no_worker_in_time_fails(client, path, tmp_path):
    busy = [client.call(sleep, str(tmp_path / "busy"), 1) for _ in range(2)]
    # In mode "processes" some of these stand with their workers, where they have not started.
    hurried = [client.call(hr.task(sleep, queue_timeout_s=0.2), path, 0) for _ in range(8)]
    for future in hurried:
        with pytest.raises(hr.TaskTimeout, match=r"stood ready for longer than its queue_timeout_s=0\.2") as caught:
            future.result(TIMEOUT_S)
        assert (caught.value.attempt, caught.value.worker) == (None, None)
    assert not any(future.done() for future in busy)
    assert [future.result(TIMEOUT_S) for future in busy] == [None] * 2
    assert lines(path) == []


def test_a_task_that_has_started_may_run_for_longer_than_it_might_have_waited(client, path):
    assert client.call(hr.task(sleep, queue_timeout_s=0.1), path, 0.4, "value").result(TIMEOUT_S) == "value"
    assert len(lines(path)) == 1


def test_a_wait_begins_when_the_inputs_are_there(client, path, tmp_path):
    graph = hr.Graph()
    before = graph.add(sleep, str(tmp_path / "before"), 0.5)
    node = graph.add(hr.task(sleep, queue_timeout_s=0.2), path, 0, "value", before)
    run = client.submit(graph)
    assert run.result(node, timeout=TIMEOUT_S) == "value"
    assert run.statistics().timeouts == 0


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_what_needs_a_task_that_waited_too_long_is_skipped(client, path, tmp_path):
    busy = [client.call(sleep, str(tmp_path / "busy"), 0.8) for _ in range(2)]
    graph = hr.Graph()
    node = graph.add(hr.task(sleep, queue_timeout_s=0.1), path, 0)
    run = client.submit(graph, keep=[node, graph.add(inc, node)])
    assert run.wait(TIMEOUT_S)
    with pytest.raises(hr.UpstreamFailed) as caught:
        run.result("inc-1")
    assert isinstance(caught.value.__cause__, hr.TaskTimeout)
    assert run.statistics().timeouts == 1
    assert [future.result(TIMEOUT_S) for future in busy] == [None] * 2


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grace_s", [-1, "1", True, float("inf")])
def test_a_grace_that_is_none_is_refused(grace_s):
    with pytest.raises(hr.UsageError, match="grace_s must be seconds"):
        hr.Client(workers=1, grace_s=grace_s)

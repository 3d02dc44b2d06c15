"""Cancellation in every state: what it does, and what the client sees; the tables of `docs/failures.md`."""

import re
import textwrap
import time
from pathlib import Path

import pytest
from client_tasks import fail, inc
from outside import wait_until
from policy_tasks import fail_first, hold, ignore_interrupts, lines, succeed, worker_process

import headrace as hr
from headrace.failures import CANCEL_REASONS

TIMEOUT_S = 30
LONG_S = 120
GRACE_S = 0.5


@pytest.fixture(params=["processes", "threads"])
def client(request):
    """A client with one worker, which knows these functions."""
    with hr.Client(workers=1, mode=request.param, grace_s=GRACE_S, preload=["policy_tasks"]) as client:
        client.call(inc, 1).result(TIMEOUT_S)
        yield client


@pytest.fixture
def processes():
    with hr.Client(workers=1, grace_s=GRACE_S, preload=["policy_tasks"]) as client:
        client.call(inc, 1).result(TIMEOUT_S)
        yield client


@pytest.fixture
def threads():
    with hr.Client(workers=1, mode="threads") as client:
        yield client


def reason(read, *args):
    """Why what is read was cancelled."""
    with pytest.raises(hr.CancelledError) as caught:
        read(*args)
    assert caught.value.key
    return caught.value.reason


# -- states ------------------------------------------------------------------------------------------------------------


def test_a_task_that_waits_for_others_never_runs(client, path, gate, tmp_path):
    graph = hr.Graph()
    first = graph.add(hold, str(tmp_path / "first"), str(gate), 1)
    second = graph.add(succeed, path, first)
    third = graph.add(succeed, path, second)
    run = client.submit(graph, keep=[first, second, third])
    wait_until(lambda: lines(tmp_path / "first"))
    run.cancel(second)
    assert reason(run.result, second, TIMEOUT_S) == "user"
    assert reason(run.result, third, TIMEOUT_S) == "parent-cancelled"
    assert not run.done()
    gate.touch()
    assert run.result(first, timeout=TIMEOUT_S) == 1
    assert run.wait(TIMEOUT_S)
    assert lines(path) == []
    assert (run.statistics().done, run.statistics().cancelled) == (1, 2)


def test_tasks_that_stand_ready_or_with_a_worker_never_run(client, path, gate, tmp_path):
    graph = hr.Graph()
    graph.add(hold, str(tmp_path / "first"), str(gate))
    others = [graph.add(succeed, path) for _ in range(50)]
    run = client.submit(graph, keep=others)
    wait_until(lambda: lines(tmp_path / "first"))
    statistics = run.statistics()
    assert statistics.ready > 0
    if client._mode == "processes":
        assert statistics.leased > 1, "some stand with the worker and have not started"
    run.cancel(others)
    assert {reason(run.result, node, TIMEOUT_S) for node in others} == {"user"}
    gate.touch()
    assert run.wait(TIMEOUT_S)
    assert client.call(inc, 1).result(TIMEOUT_S) == 2, "the worker goes on"
    assert lines(path) == []
    assert (run.statistics().done, run.statistics().cancelled) == (1, 50)


def test_a_task_in_its_pause_does_not_run_again(client, path):
    graph = hr.Graph()
    node = graph.add(hr.task(fail_first, retries=3, backoff=LONG_S), path, 9)
    run = client.submit(graph)
    wait_until(lambda: run.statistics().retries == 1)
    run.cancel(node)
    assert reason(run.result, node, TIMEOUT_S) == "user"
    assert run.wait(TIMEOUT_S)
    assert len(lines(path)) == 1


def test_a_running_task_is_interrupted_once_and_its_worker_goes_on(processes, path, gate):
    before = processes.call(worker_process).result(TIMEOUT_S)
    future = processes.call(hold, path, str(gate))
    wait_until(lambda: lines(path))
    assert future.cancel()
    assert reason(future.result) == "user"
    assert processes.call(worker_process).result(TIMEOUT_S) == before
    assert len(lines(path + ".interrupts")) == 1
    assert processes.statistics().worker_deaths == 0


def test_a_running_task_that_does_not_end_is_killed_after_its_grace_and_that_is_no_crash(processes, path, tmp_path):
    before = processes.call(worker_process).result(TIMEOUT_S)
    # As many as the crash limit would not forgive, were they crashes; and one that stands behind each.
    for number in range(3):
        future = processes.call(ignore_interrupts, path, LONG_S)
        behind = processes.call(succeed, str(tmp_path / f"behind-{number}"))
        wait_until(lambda count=number: len(lines(path)) > count)
        started = time.monotonic()
        assert future.cancel()
        assert reason(future.result) == "user"
        assert behind.result(TIMEOUT_S) == 1
        assert time.monotonic() - started >= GRACE_S
    assert processes.call(worker_process).result(TIMEOUT_S) != before
    assert processes.statistics().worker_deaths == 3


def test_the_slot_is_free_when_the_worker_says_so(processes, path, tmp_path):
    def tidy(path):
        succeed(path)
        try:
            time.sleep(LONG_S)
        finally:
            time.sleep(GRACE_S / 10)
            succeed(path)

    future = processes.call(tidy, path)
    wait_until(lambda: lines(path))
    future.cancel()
    processes.call(succeed, str(tmp_path / "next")).result(TIMEOUT_S)
    ended, started = float(lines(path)[1]), float(lines(tmp_path / "next")[0])
    assert ended <= started, "the clean-up was over when the next task started"


def test_an_import_is_not_left_half_done(processes, path, tmp_path):
    package = tmp_path / "half_done"
    package.mkdir()
    (package / "part.py").write_text("names = ['part']\n")
    slow = f"""
        from half_done.part import *
        import time
        open({path!r}, "a").write("in\\n")
        time.sleep(0.2)
        names = part.names
    """
    (package / "__init__.py").write_text(textwrap.dedent(slow))

    def use(folder):
        import sys

        if folder not in sys.path:
            sys.path.append(folder)
        import half_done

        return half_done.names

    pid = processes.statistics().workers[0].pid
    future = processes.call(use, str(tmp_path))
    wait_until(lambda: lines(path))
    future.cancel()
    assert processes.call(use, str(tmp_path)).result(TIMEOUT_S) == ["part"]
    assert processes.statistics().workers[0].pid == pid, "nobody had to be killed"
    assert lines(path) == ["in"], "it was imported once"


def test_an_overdue_task_that_is_cancelled_hears_no_second_interrupt(processes, path):
    future = processes.call(hr.task(ignore_interrupts, timeout_s=0.3), path, LONG_S)
    wait_until(lambda: lines(path + ".interrupts"))
    assert future.cancel()
    assert reason(future.result) == "user"
    assert processes.call(inc, 1).result(TIMEOUT_S) == 2
    assert len(lines(path + ".interrupts")) == 1


def test_a_call_on_a_thread_goes_on_and_does_not_count(threads, path, gate):
    future = threads.call(hold, path, str(gate), "late")
    wait_until(lambda: lines(path))
    assert future.cancel()
    assert reason(future.result) == "user"
    following = threads.call(inc, 1)
    assert not following.done(), "its thread is not free"
    gate.touch()
    assert following.result(TIMEOUT_S) == 2
    assert reason(future.result) == "user"


def test_what_has_ended_stays_what_it_is(client):
    graph = hr.Graph()
    good, bad = graph.add(inc, 1), graph.add(fail, 3)
    worse = graph.add(inc, bad)
    run = client.submit(graph, keep=[good, bad, worse])
    assert run.wait(TIMEOUT_S)
    run.cancel()
    run.cancel([good, [bad, "inc-2"]])
    assert run.result(good) == 2
    assert [type(run._ending(node.index)).__name__ for node in (bad, worse)] == ["Sour", "UpstreamFailed"]
    future = client.call(inc, 1)
    future.result(TIMEOUT_S)
    assert not future.cancel()
    assert future.result() == 2


def test_a_cancelled_task_can_be_cancelled_again(client, path, gate):
    future = client.call(hold, path, str(gate))
    wait_until(lambda: lines(path))
    assert future.cancel()
    assert future.cancel()
    assert reason(future.result) == "user"


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_whole_run_is_cancelled_and_what_it_has_stays(client, path, gate):
    graph = hr.Graph()
    done = graph.add(inc, 1)
    running = graph.add(hold, path, str(gate), None, done)
    waiting = graph.add(succeed, path, running)
    run = client.submit(graph, keep=[done, running, waiting])
    wait_until(lambda: lines(path))
    assert run.result(done, TIMEOUT_S) == 2, "its worker has told of it"
    run.cancel()
    assert run.wait(TIMEOUT_S)
    assert run.result(done) == 2
    assert [reason(run.result, node) for node in (running, waiting)] == ["user", "user"]


def test_what_another_run_takes_by_reference_is_cancelled_for_it(client, path, gate):
    graph = hr.Graph()
    node = graph.add(hold, path, str(gate))
    run = client.submit(graph)
    other = hr.Graph()
    other.add(inc, run.ref(node))
    dependent = client.submit(other)
    call = client.call(inc, run.ref(node))
    wait_until(lambda: lines(path))
    run.cancel()
    assert reason(dependent.result) == reason(call.result, TIMEOUT_S) == "parent-cancelled"


def test_tasks_are_named_by_node_key_and_sequences_of_them(client, path, gate, tmp_path):
    graph = hr.Graph()
    graph.add(hold, str(tmp_path / "first"), str(gate))
    nodes = graph.map(succeed, [path] * 6)
    run = client.submit(graph, keep=nodes)
    wait_until(lambda: lines(tmp_path / "first"))
    run.cancel("succeed-1")
    run.cancel([nodes[1], (nodes[2:4], "succeed-5")])
    gate.touch()
    assert run.result(nodes[5], timeout=TIMEOUT_S) == 1
    assert [reason(run.result, node) for node in nodes[:5]] == ["user"] * 5


def test_what_is_no_task_of_the_run_is_refused_and_nothing_cancelled(client, path, gate):
    graph = hr.Graph()
    node = graph.add(hold, path, str(gate), 1)
    run = client.submit(graph)
    for wrong in ("nonsense", hr.Graph().add(inc, 1), [node, "nonsense"], 7):
        with pytest.raises(hr.GraphError):
            run.cancel(wrong)
    later = graph.add(inc, 1)
    with pytest.raises(hr.GraphError, match="added after"):
        run.cancel([node, later])
    gate.touch()
    assert run.result(node, timeout=TIMEOUT_S) == 1


def test_a_task_that_ended_and_is_not_kept_can_be_named(client):
    graph = hr.Graph()
    first = graph.add(inc, 1)
    run = client.submit(graph, keep=[graph.add(inc, first)])
    assert run.result(timeout=TIMEOUT_S) == 3
    run.cancel(first)
    assert run.result() == 3


@pytest.mark.parametrize(("mode", "count"), [("processes", 1_000_000), ("threads", 100_000)])
def test_very_many_tasks_are_cancelled_at_once(mode, count, path, gate):
    with hr.Client(workers=1, mode=mode) as client:
        busy = client.call(hold, path, str(gate))
        graph = hr.Graph()
        graph.map(inc, range(count))
        run = client.submit(graph, keep=[])
        started = time.monotonic()
        run.cancel()
        assert run.wait(TIMEOUT_S)
        assert time.monotonic() - started < TIMEOUT_S / 3
        assert run.statistics().cancelled == count
        busy.cancel()


# -- reasons -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["processes", "threads"])
def test_what_had_not_ended_when_the_client_was_closed_says_so(mode, path, gate):
    client = hr.Client(workers=1, mode=mode)
    future = client.call(hold, path, str(gate))
    wait_until(lambda: lines(path))
    client.close(wait=False, cancel=True)
    assert reason(future.result, TIMEOUT_S) == "client-closed"


def test_the_docs_name_every_reason():
    page = (Path(__file__).parents[2] / "docs" / "failures.md").read_text(encoding="utf-8")
    table = page.split("| reason | why |")[1]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, flags=re.MULTILINE) == list(CANCEL_REASONS)

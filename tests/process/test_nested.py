"""Nested work: tasks that submit tasks, wait for them, or return graphs; the words of `docs/nested.md`."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import outside
import pytest
from nested_tasks import (
    await_gate,
    bad_graph,
    boom,
    call_and_await,
    call_and_be_called,
    call_and_iterate,
    call_and_leave,
    call_and_wait,
    call_and_wait_briefly,
    call_and_wait_by_futures,
    call_and_wait_in_a_thread,
    call_until_caught,
    crash_at_depth,
    deep,
    die_once,
    double,
    empty_graph,
    fib,
    graph_of,
    graph_of_array,
    graph_of_future,
    graph_of_graph,
    graph_that_dies,
    graph_that_is_late,
    leak_client,
    lines,
    note,
    old_client,
    ones_by_way_of_another,
    pair,
    pid,
    plus,
    sum_of_ones,
    tree,
    use_leaked_client,
    wait_for_many,
)  # fmt: skip

import headrace as hr

TIMEOUT_S = 20
wait_until = partial(outside.wait_until, timeout_s=TIMEOUT_S)
GRACE_S = 0.5


@pytest.fixture(scope="module", params=["processes", "threads", "sync"])
def client(request):
    with hr.Client(workers=2, mode=request.param) as client:
        yield client


@pytest.fixture
def processes():
    """One worker, and one that may stand in for it."""
    with hr.Client(workers=1, extra_workers=1, grace_s=GRACE_S) as client:
        client.call(double, 1).result(TIMEOUT_S)
        yield client


@pytest.fixture
def alone():
    """One worker, and nobody who could stand in for it."""
    with hr.Client(workers=1, extra_workers=0, grace_s=GRACE_S) as client:
        client.call(double, 1).result(TIMEOUT_S)
        yield client


def are_ended(path, waits):
    """Whether so many waits were ended: by an interrupt, or by the end of what they waited for."""
    ends = [line for line in lines(path) if line in ("KeyboardInterrupt", "CancelledError")]
    return len(ends) == waits


def ending(future):
    """How a call ended: its value, or the class of its exception."""
    try:
        return future.result(TIMEOUT_S)
    except Exception as error:
        return type(error)


# -- submitting and waiting --------------------------------------------------------------------------------------------


def test_fib_of_15_needs_four_processes_at_most(client):
    assert client.call(fib, 15).result(TIMEOUT_S) == 610
    workers = client.statistics().workers
    assert sum(worker.pid > 0 for worker in workers) <= 4


def test_fib_runs_within_its_own_wait_where_nobody_stands_in(alone):
    assert alone.call(fib, 12).result(TIMEOUT_S) == 144
    assert len(alone.statistics().workers) == 1


def test_a_task_may_use_all_of_the_client(client):
    assert client.call(wait_for_many, 50).result(TIMEOUT_S) == 50 * 49 + 101


def test_several_tasks_wait_at_once(client):
    futures = [client.call(call_and_wait, double, number) for number in range(40)]
    assert [future.result(TIMEOUT_S) for future in futures] == [2 * number for number in range(40)]


@pytest.mark.parametrize("wait", [call_and_await, call_and_wait_by_futures, call_and_be_called])
def test_event_loops_and_callbacks_in_tasks_are_served(client, wait):
    # Both workers are taken.
    futures = [client.call(wait, double, number) for number in range(4)]
    assert [future.result(TIMEOUT_S) for future in futures] == [0, 2, 4, 6]


def test_why_tells_what_an_event_loop_waits_for(processes, path, gate):
    waiting = processes.call(hr.task(call_and_await, key="outer"), hr.task(await_gate, key="inner"), path, "x", gate)
    wait_until(lambda: lines(path) == ["x"])
    assert re.search(r"'outer' runs in worker 0 .*, and waits for 'inner'", str(waiting.why()))


def test_the_error_of_a_nested_task_is_its_own(client):
    error = client.call(call_and_wait, boom, "inside").exception(TIMEOUT_S)
    assert type(error) is ValueError
    assert str(error) == "inside"


def test_outside_of_a_task_there_is_no_client():
    with pytest.raises(hr.UsageError, match=r"current_client\(\) gives a task the client"):
        hr.current_client()


def test_a_client_of_a_task_that_has_ended_is_refused():
    with hr.Client(workers=1) as client:
        assert client.call(leak_client).result(TIMEOUT_S) == 2
        with pytest.raises(hr.UsageError, match="the task that had this client has ended"):
            client.call(use_leaked_client).result(TIMEOUT_S)


def test_extra_workers_is_checked():
    for wrong in (-1, True, "2", 5_000):
        with pytest.raises(hr.UsageError, match="extra_workers"):
            hr.Client(workers=1, extra_workers=wrong)
    with pytest.raises(hr.UsageError, match="extra_workers is for worker processes"):
        hr.Client(workers=1, extra_workers=1, mode="threads")


def test_on_threads_the_client_is_the_callers_own():
    with hr.Client(workers=1, mode="threads") as client:
        keep = []
        client.call(old_client, keep).result(TIMEOUT_S)
        assert keep[0] is client


def test_a_timeout_ends_a_wait(processes, path, gate):
    assert processes.call(call_and_wait_briefly, 0.1, await_gate, path, "inner", gate).result(TIMEOUT_S) == "too late"


def test_large_values_are_seen_where_they_lie(client):
    pytest.importorskip("numpy")
    assert client.call(sum_of_ones, 300_000).result(TIMEOUT_S) == 300_000.0
    assert client.call(ones_by_way_of_another, 300_000).result(TIMEOUT_S).sum() == 600_000.0


def test_nothing_of_nested_work_stays_in_memory(processes):
    pytest.importorskip("numpy")
    for _ in range(3):
        processes.call(ones_by_way_of_another, 300_000).result(TIMEOUT_S)
        processes.call(fib, 6).result(TIMEOUT_S)
    wait_until(lambda: processes.statistics().tasks_held <= 3)
    wait_until(lambda: processes.statistics().bytes_held < 1_000)


# -- who stands in -----------------------------------------------------------------------------------------------------


def test_another_process_takes_the_place_of_one_that_waits_and_leaves_in_the_end(processes, path, gate):
    waiting = processes.call(call_and_wait, await_gate, path, "inner", gate)
    wait_until(lambda: lines(path) == ["inner"])
    workers = processes.statistics().workers
    assert len({worker.pid for worker in workers if worker.pid}) == 2
    gate.touch()
    assert waiting.result(TIMEOUT_S) == "inner"
    wait_until(lambda: [bool(worker.pid) for worker in processes.statistics().workers] in ([True], [True, False]))
    assert processes.statistics().worker_deaths == 0
    assert processes.call(call_and_wait, pid).result(TIMEOUT_S) not in {worker.pid for worker in workers}


def test_a_worker_that_stands_in_has_no_gpus():
    def gpus_of_two():
        return os.environ["CUDA_VISIBLE_DEVICES"], hr.current_client().call(gpus).result()

    def gpus():
        return os.environ["CUDA_VISIBLE_DEVICES"]

    env = {"CUDA_VISIBLE_DEVICES": "3"}
    with hr.Client(workers=1, extra_workers=1, resources={"gpu": 1}, env=env) as client:
        assert client.call(hr.task(gpus_of_two, resources={"gpu": 1})).result(TIMEOUT_S) == ("3", "")


def test_unstarted_work_of_a_worker_that_waits_goes_elsewhere(path, gate):
    with hr.Client(workers=2, extra_workers=0) as client:
        waiting = client.call(call_and_wait, await_gate, path, "inner", gate)
        wait_until(lambda: lines(path) == ["inner"])
        # Both workers are taken: one waits for what the other one runs.
        others = [client.call(double, number) for number in range(10)]
        gate.touch()
        assert [other.result(TIMEOUT_S) for other in others] == [2 * number for number in range(10)]
        assert waiting.result(TIMEOUT_S) == "inner"


def test_why_tells_what_a_waiting_task_waits_for(processes, path, gate):
    waiting = processes.call(hr.task(call_and_wait, key="outer"), hr.task(await_gate, key="inner"), path, "x", gate)
    wait_until(lambda: lines(path) == ["x"])
    assert re.search(r"'outer' runs in worker 0 .*, and waits for 'inner'", str(waiting.why()))


def test_why_tells_which_task_runs_on_top_of_another_one(alone, path, gate):
    inner = hr.task(await_gate, key="inner")
    waiting = alone.call(hr.task(call_and_wait, key="outer"), inner, path, "x", gate)
    wait_until(lambda: lines(path) == ["x"])
    behind = alone.call(hr.task(double, key="behind"), 1)
    assert re.search(r"'outer' runs in worker 0 .*, and waits for 'inner'", str(waiting.why()))
    assert re.search(r"'behind' is ready and waits for a worker; .* busy are worker 0 \('outer'", str(behind.why()))
    assert not behind.done()


@pytest.mark.parametrize(
    "wait", [call_and_await, call_and_wait_by_futures, call_and_be_called, call_and_iterate, call_and_wait_in_a_thread]
)
def test_what_nobody_can_run_ends_for_event_loops_callbacks_and_threads(alone, wait):
    error = alone.call(wait, hr.task(double, key="inner"), 1).exception(TIMEOUT_S)
    assert type(error) is hr.Stalled
    assert re.search(
        r"'inner' cannot run: nothing can go on: 'inner' waits for a worker; .* busy are worker 0", str(error)
    )
    assert alone.call(call_and_wait, double, 1).result(TIMEOUT_S) == 2


def test_a_standstill_of_waits_is_told():
    def hold(tag, path, name, others):
        note(path, name)
        while len(lines(path)) < others:
            time.sleep(0.002)
        return hr.current_client().call(hr.task(double, tags=tag, key=f"wants-{tag}"), 1).result()

    import tempfile

    with tempfile.TemporaryDirectory() as folder, hr.Client(workers=2, limits={"a": 1, "b": 1}) as client:
        path = os.path.join(folder, "effects")
        one = client.call(hr.task(hold, tags="a", key="holds-a"), "b", path, "a", 2)
        other = client.call(hr.task(hold, tags="b", key="holds-b"), "a", path, "b", 2)
        endings = [ending(one), ending(other)]
        assert sorted(map(str, endings)) == sorted(map(str, [hr.Stalled, 2])), "one is told, which frees the other"
        error = one.exception() or other.exception()
        assert re.search(r"nothing can go on: 'holds-.' waits for 'wants-.', and .*tag '.' \(limit 1\)", str(error))


# -- what ends with a task ---------------------------------------------------------------------------------------------


def test_what_a_task_leaves_behind_is_cancelled(processes, path, gate):
    assert processes.call(call_and_leave, path, await_gate, path, "inner", gate).result(TIMEOUT_S) == "left"
    assert processes.call(double, 4).result(TIMEOUT_S) == 8
    wait_until(lambda: processes.statistics().tasks_held <= 3)


def test_a_cancel_ends_a_wait_and_what_is_waited_for(processes, path, gate):
    waiting = processes.call(call_until_caught, path, call_until_caught, path, await_gate, path, "inner", gate)
    wait_until(lambda: "inner" in lines(path))
    waiting.cancel()
    assert ending(waiting) is hr.CancelledError
    assert processes.call(double, 4).result(TIMEOUT_S) == 8
    wait_until(lambda: are_ended(path, 2))
    assert processes.statistics().worker_deaths == 0


def test_a_cancel_ends_a_wait_with_another_task_on_top(alone, path, gate):
    waiting = alone.call(call_until_caught, path, call_until_caught, path, await_gate, path, "inner", gate)
    wait_until(lambda: "inner" in lines(path))
    waiting.cancel()
    assert ending(waiting) is hr.CancelledError
    assert alone.call(double, 4).result(TIMEOUT_S) == 8
    assert are_ended(path, 2)
    assert alone.statistics().worker_deaths == 0


@pytest.mark.parametrize("extra", [0, 1])
def test_a_time_limit_ends_a_wait(path, gate, extra):
    with hr.Client(workers=1, extra_workers=extra, grace_s=TIMEOUT_S) as client:
        waiting = client.call(hr.task(call_until_caught, timeout_s=0.5), path, await_gate, path, "inner", gate)
        assert ending(waiting) is hr.TaskTimeout
        assert client.call(double, 4).result(TIMEOUT_S) == 8
        wait_until(lambda: are_ended(path, 1))
        assert client.statistics().worker_deaths == 0


def test_a_killed_worker_takes_what_its_task_has_submitted_along(path, gate):
    with hr.Client(workers=1, extra_workers=1) as client:
        waiting = client.call(call_and_wait, await_gate, path, "inner", gate)
        wait_until(lambda: lines(path) == ["inner"])
        outer = next(worker.pid for worker in client.statistics().workers if worker.number == 0)
        os.kill(outer, signal.SIGKILL)
        wait_until(lambda: len(lines(path)) == 2)
        gate.touch()
        assert waiting.result(TIMEOUT_S) == "inner"
        statistics = client.statistics()
        # Its death is not the waiting task's that ran again; the inner one was interrupted or killed.
        assert statistics.done == 1


def test_a_killed_stand_in_runs_its_task_again(processes, path, gate):
    waiting = processes.call(call_and_wait, await_gate, path, "inner", gate)
    wait_until(lambda: lines(path) == ["inner"])
    stand_in = next(worker.pid for worker in processes.statistics().workers if worker.number == 1)
    os.kill(stand_in, signal.SIGKILL)
    wait_until(lambda: lines(path) == ["inner", "inner"])
    gate.touch()
    assert waiting.result(TIMEOUT_S) == "inner"


def test_a_crash_on_top_of_a_wait_blames_the_task_on_top(alone, path):
    assert alone.call(call_and_wait, die_once, path).result(TIMEOUT_S) == "alive"
    assert lines(path) == ["ran", "ran"]
    assert alone.statistics().worker_deaths == 1


def test_a_task_that_always_crashes_on_top_of_a_wait_is_not_run_for_ever(alone, path):
    assert ending(alone.call(crash_at_depth, 1, path)) is hr.PoisonTask
    assert lines(path) == ["crash"] * 3
    statistics = alone.statistics()
    assert statistics.worker_deaths == statistics.blamed_deaths == 3


def test_a_crash_deeper_than_processes_stand_in_is_not_run_for_ever(path):
    with hr.Client(workers=2) as client:
        assert ending(client.call(crash_at_depth, 8, path)) is hr.PoisonTask
        assert client.call(double, 4).result(TIMEOUT_S) == 8


def test_the_end_of_the_client_ends_nested_waits(path, gate):
    started_s = time.monotonic()
    client = hr.Client(workers=1, extra_workers=1, grace_s=GRACE_S)
    waiting = client.call(call_and_wait, await_gate, path, "inner", gate)
    wait_until(lambda: lines(path) == ["inner"])
    client.close(cancel=True)
    assert ending(waiting) is hr.CancelledError
    assert time.monotonic() - started_s < TIMEOUT_S / 2


# -- graphs in the place of results ------------------------------------------------------------------------------------


def test_a_graph_that_a_task_returns_takes_its_place(client):
    assert client.call(tree, 100).result(TIMEOUT_S) == 9_900
    assert client.call(pair).result(TIMEOUT_S) == (2, 4)
    assert client.call(deep, 20).result(TIMEOUT_S) == "bottom"
    graph = hr.Graph()
    first = graph.add(tree, 10)
    last = graph.add(plus, first, 1)
    assert client.submit(graph, keep=[first, last]).results(TIMEOUT_S) == [90, 91]


def test_a_failure_in_it_is_the_tasks(client):
    error = client.call(hr.task(bad_graph, retries=2)).exception(TIMEOUT_S)
    assert type(error) is ValueError
    assert str(error) == "inner"
    assert "'culprit'" in "".join(error.__notes__)
    graph = hr.Graph()
    behind = graph.add(double, graph.add(bad_graph))
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    with pytest.raises(hr.UpstreamFailed):
        run.result(behind)


@pytest.mark.parametrize(("make", "kind"), [(graph_that_is_late, hr.TaskTimeout), (graph_that_dies, hr.WorkerDied)])
def test_a_time_limit_or_a_death_in_it_names_the_inner_task(make, kind):
    with hr.Client(workers=1, grace_s=GRACE_S, crash_limit=1) as client:
        for future in (client.call(make), client.call(graph_of_graph, make)):
            error = future.exception(TIMEOUT_S)
            assert type(error) is kind
            assert error.key == "culprit"
            assert "task 'culprit'" in str(error)


def test_a_graph_without_tasks_is_refused(client):
    with pytest.raises(hr.GraphError, match="returned a graph without tasks"):
        client.call(empty_graph).result(TIMEOUT_S)


def test_it_may_take_futures_and_large_arguments(client):
    assert client.call(graph_of_future).result(TIMEOUT_S) == 42
    pytest.importorskip("numpy")
    assert client.call(graph_of_array, 300_000).result(TIMEOUT_S).sum() == 600_000.0


def test_the_worker_is_free_meanwhile_and_may_die(path, gate):
    with hr.Client(workers=2, grace_s=GRACE_S) as client:
        future = client.call(graph_of, path, gate)
        wait_until(lambda: lines(path) == ["made", "inner"])
        running = client.call(pid).result(TIMEOUT_S)  # by the only worker that is free
        os.kill(running, signal.SIGKILL)
        assert client.call(double, 4).result(TIMEOUT_S) == 8
        assert not future.done()
        gate.touch()
        assert future.result(TIMEOUT_S) == "inner"
        assert lines(path) == ["made", "inner"], "neither ran again"


def test_a_cancel_reaches_into_it(client, path, gate):
    if client._mode == "sync":
        pytest.skip("calls end within call")
    future = client.call(graph_of, path, gate)
    wait_until(lambda: lines(path) == ["made", "inner"])
    future.cancel()
    assert ending(future) is hr.CancelledError
    if client._mode == "threads":
        gate.touch()  # nothing ends a call there
    assert client.call(double, 4).result(TIMEOUT_S) == 8
    wait_until(lambda: client.statistics().leased == 0)


def test_the_code_of_the_page_runs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "nested.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    script = tmp_path / "nested.py"
    script.write_text(code)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_threads_of_a_task_may_submit_as_well(processes):
    def fan_out(count):
        client, found = hr.current_client(), []
        threads = [
            threading.Thread(target=lambda n=n: found.append(client.call(double, n).result())) for n in range(count)
        ]
        for thread in threads:
            thread.start()
        done = client.call(double, 100).result()
        for thread in threads:
            thread.join()
        return sorted([*found, done])

    assert processes.call(fan_out, 4).result(TIMEOUT_S) == [0, 2, 4, 6, 200]

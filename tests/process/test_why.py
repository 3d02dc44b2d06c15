"""Why a task does not run: in every mode the same words, and stacks of processes that hang."""

import ctypes
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from limit_tasks import hold, nothing, opened, running, until

import headrace as hr
from headrace.why import Why

TIMEOUT_S = 30
HEADRACE = Path(sys.executable).with_name("headrace")


@pytest.fixture(params=["processes", "threads"])
def parallel(request):
    return request.param


@pytest.fixture
def base(monkeypatch, tmp_path_factory):
    """Keep the brokers of this test apart from those of others."""
    folder = tmp_path_factory.mktemp("run")
    os.chmod(folder, 0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def in_worker(mode):
    return r"worker \d \(pid \d+\)" if mode == "processes" else r"worker \d"


def fail():
    raise ValueError("no good")


# -- words -------------------------------------------------------------------------------------------------------------


def test_each_state_says_what_the_task_waits_for(parallel, tmp_path):
    with hr.Client(workers=2, mode=parallel, limits={"db": 1}) as client, opened(tmp_path):
        graph = hr.Graph()
        first = graph.add(hr.task(hold, tags="db", key="first"), str(tmp_path), "first")
        second = graph.add(hr.task(hold, tags="db", key="second"), str(tmp_path), "second")
        last = graph.add(hr.task(nothing, key="last"), first, second)
        run = client.submit(graph)
        until(lambda: running(tmp_path) == {"first"})
        why = run.why(first)
        assert (why.key, why.state, why.attempt) == ("first", "running", 1)
        assert re.fullmatch(rf"'first' runs in {in_worker(parallel)}, attempt 1, for .*s", str(why))
        assert (why.pid is not None) == (parallel == "processes")
        assert 0 <= why.since_s < TIMEOUT_S
        # In worker processes it may stand behind the first one, with the worker that holds the tag.
        why = run.why("second")
        if why.state == "queued":
            assert re.fullmatch(rf"'second' is with {in_worker(parallel)}, behind 'first', which .*", why.text)
        else:
            holder = run.why(first).worker
            assert why.text == f"'second' is ready and waits for tag 'db' (limit 1), held by 'first' in worker {holder}"
        why = run.why(last)
        assert why.state == "waiting"
        assert re.match(
            r"'last' waits for 2 of 2 tasks that it needs: 'first' \(runs in worker \d\), 'second' \(", why.text
        )
        (tmp_path / "gate").touch()
        assert run.wait(TIMEOUT_S)
        assert run.why(last) == Why("last", "done", "'last' is done", attempt=run.why(last).attempt)


def test_a_ready_task_names_who_holds_a_resource_and_how_much_is_free(parallel, tmp_path):
    taking = hr.task(hold, resources={"license": 2})
    with hr.Client(workers=2, mode=parallel, resources={"license": 3}) as client, opened(tmp_path):
        first = client.call(taking, str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        other = 1 - first.why().worker
        second = client.call(taking.options(worker=other), str(tmp_path), "second")
        why = second.why()
        text = f"'hold-1' is ready and waits for license=2 (1 of 3 free), held by 'hold-0' in worker {1 - other}"
        assert (why.state, why.text) == ("ready", text)


def test_a_ready_task_without_a_worker_names_those_who_are_busy(parallel, tmp_path):
    with hr.Client(workers=1, mode=parallel) as client, opened(tmp_path):
        futures = [client.call(hold, str(tmp_path), number) for number in range(4)]
        until(lambda: len(running(tmp_path)) == 1)
        why = futures[-1].why()
        assert why.state == "ready"
        order = r"(is the next of its kind|has \d+ tasks? before it)"
        text = rf"'hold-3' is ready and waits for a worker; it {order}, and busy are worker 0 \('hold-0' for .*\)"
        assert re.fullmatch(text, why.text)


def test_a_pausing_task_says_for_how_long(parallel):
    with hr.Client(workers=1, mode=parallel) as client:
        future = client.call(hr.task(fail, retries=2, backoff=1800))
        until(lambda: future.why().state == "pausing")
        text = r"'fail-0' pauses for another .* min .* before its next attempt, after 1 failure"
        assert re.fullmatch(text, future.why().text)
        future.cancel()


@pytest.mark.parametrize("mode", ["processes", "threads", "sync"])
def test_ended_tasks_say_how_they_ended(mode):
    with hr.Client(workers=1, mode=mode) as client:
        graph = hr.Graph()
        bad = graph.add(fail)
        below = graph.add(nothing, bad)
        good = graph.add(nothing)
        run = client.submit(graph, keep=[below])
        assert run.wait(TIMEOUT_S)
        assert (run.why(bad).state, run.why(bad).text) == ("failed", "'fail-0' has failed: ValueError: no good")
        assert run.why(below).state == "skipped"
        assert run.why(good).state in ("done", "unknown")
        future = client.call(nothing)
        future.result(TIMEOUT_S)
        assert future.why().state == "done"
        with pytest.raises(hr.GraphError, match="'nonsense'"):
            run.why("nonsense")


def test_a_cancelled_call_says_so(parallel, tmp_path):
    with hr.Client(workers=1, mode=parallel) as client, opened(tmp_path):
        future = client.call(hold, str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        future.cancel()
        assert future.why().state == "cancelled"


# -- the command line --------------------------------------------------------------------------------------------------


def headrace(*words):
    command = [str(HEADRACE), "why", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.usefixtures("base")
def test_the_command_line_finds_a_task_by_its_key(tmp_path):
    with hr.Client(workers=1) as client, opened(tmp_path):
        client.call(hr.task(hold, key="the-one"), str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        told = headrace("the-one")
        assert (told.returncode, told.stderr) == (0, "")
        assert re.fullmatch(r"'the-one' runs in worker 0 \(pid \d+\), attempt 1, for .*s\n", told.stdout)
        (fields,) = json.loads(headrace("the-one", "--json").stdout)
        assert {**fields, "directory": 0, "text": 0, "since_s": 0, "worker_pid": 0} == {
            "directory": 0,
            "pid": os.getpid(),
            "key": "the-one",
            "state": "running",
            "text": 0,
            "worker": 0,
            "worker_pid": 0,
            "attempt": 1,
            "since_s": 0,
            "stacks": "",
        }
        told = headrace("nonsense-3")
        assert told.returncode == 1
        assert "of 1 brokers none knows a task 'nonsense-3'" in told.stderr


@pytest.mark.usefixtures("base")
def test_every_field_is_in_the_help(tmp_path):
    text = headrace("--help").stdout
    with hr.Client(workers=1) as client, opened(tmp_path):
        client.call(hold, str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        (fields,) = json.loads(headrace("hold-0", "--json").stdout)
    assert all(re.search(rf"\b{name}\b", text) for name in fields)


@pytest.mark.usefixtures("base")
def test_without_a_broker_the_command_line_says_where_it_looked(base):
    told = headrace("anything")
    assert told.returncode == 1
    assert f"no broker runs (looked in {base})" in told.stderr


# -- stacks ------------------------------------------------------------------------------------------------------------


def spin_in_native_code(folder):
    """Hold the interpreter lock in native code until the gate is open."""
    Path(folder, "runs-native").touch()
    libc = ctypes.PyDLL(None)
    libc.access.argtypes = [ctypes.c_char_p, ctypes.c_int]
    libc.poll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int]
    gate = str(Path(folder, "gate")).encode()
    while libc.access(gate, 0) != 0:
        libc.poll(None, 0, 100)  # PyDLL keeps the lock


def test_stacks_show_where_a_task_hangs(parallel, tmp_path):
    with hr.Client(workers=1, mode=parallel) as client, opened(tmp_path):
        future = client.call(hold, str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        start_s = time.monotonic()
        why = future.why(stacks=True)
        assert time.monotonic() - start_s < 2
        assert re.search(r'limit_tasks.py", line \d+,? in hold', why.stacks)
        assert "most recent call" in why.stacks
        assert str(why) == f"{why.text}\n{why.stacks}"
        # Again, and only what is new.
        assert future.why(stacks=True).stacks.count("most recent call") == why.stacks.count("most recent call")
        assert future.why().stacks == ""


def test_stacks_come_from_native_code_that_keeps_the_interpreter(tmp_path):
    with hr.Client(workers=1) as client, opened(tmp_path):
        future = client.call(spin_in_native_code, str(tmp_path))
        until(lambda: running(tmp_path) == {"native"})
        assert "in spin_in_native_code" in future.why(stacks=True).stacks


def test_a_stopped_process_gives_no_stacks_and_says_why(tmp_path):
    with hr.Client(workers=1) as client, opened(tmp_path):
        future = client.call(hold, str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        pid = future.why().pid
        os.kill(pid, 19)
        try:
            assert "has not written its stacks within a second" in future.why(stacks=True).stacks
        finally:
            os.kill(pid, 18)


def test_a_task_in_no_process_has_no_stacks(parallel, tmp_path):
    with hr.Client(workers=1, mode=parallel) as client, opened(tmp_path):
        graph = hr.Graph()
        first = graph.add(hold, str(tmp_path), "first")
        last = graph.add(nothing, first)
        run = client.submit(graph)
        until(lambda: running(tmp_path) == {"first"})
        if parallel == "threads":
            assert run.why(last, stacks=True).stacks == "it does not run, so there are no stacks of it"
        else:
            # A worker may have it already, in its queue.
            assert run.why(last, stacks=True).stacks


@pytest.mark.usefixtures("base")
def test_the_command_line_shows_stacks(tmp_path):
    with hr.Client(workers=1) as client, opened(tmp_path):
        client.call(hold, str(tmp_path), "first")
        until(lambda: running(tmp_path) == {"first"})
        told = headrace("hold-0", "--stacks")
        assert told.returncode == 0
        assert "in hold" in told.stdout

"""Each way in which a task can end its process, at each stage: a named error for it, and nothing for the others."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from deadly_tasks import (
    OnPickle,
    OnUnpickle,
    blow,
    blow_at_exit,
    blow_in_thread,
    blow_soon,
    blow_with,
    inc,
    make,
    ones,
    pid_of,
    take,
    total,
)

import headrace as hr
from headrace.deaths import WorkerDeath, signal_name

TIMEOUT_S = 30
HERE = Path(__file__).parent

#: What each stage is, as a call and its arguments, given how it goes off.
STAGES = {
    "argument unpickle": lambda kind: (take, OnUnpickle(kind)),
    "run": lambda kind: (blow, kind),
    "result pickle": lambda kind: (make, OnPickle, kind),
}
#: Signal and exit code of the process.
ENDS = {
    "segfault": ("SIGSEGV", None),
    "abort": ("SIGABRT", None),
    "kill": ("SIGKILL", None),
    "term": ("SIGTERM", None),
    "exit": (None, 3),
    "exit 0": (None, 0),
}


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=2, crash_limit=1) as client:
        yield client


def error_among_others(client, function, *args):
    """What a task raises, while others stand beside it; those end well."""
    graph = hr.Graph()
    before = graph.map(inc, range(50))
    bad = graph.add(hr.task(function, key="bad"), *args)
    after = graph.map(inc, before)
    run = client.submit(graph, keep=[bad, after])
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        run.result(bad, timeout=TIMEOUT_S)
    assert [run.result(node, timeout=TIMEOUT_S) for node in after] == list(range(2, 52))
    return caught.value


def check_death(error, kind):
    signal, exit_code = ENDS[kind]
    assert type(error) is hr.WorkerDied
    assert (error.key, error.attempts) == ("bad", 1)
    name = error.signal and signal_name(error.signal)
    assert (name, error.exit_code) == (signal, exit_code)
    how = f"was killed by {signal}" if signal else f"exited with code {exit_code}"
    assert f"task 'bad' (attempt 1/1) was running in worker {error.worker} (pid {error.pid}) which {how}" in str(error)
    assert error.deaths == (WorkerDeath(error.worker, error.pid, error.signal, error.exit_code, "crashed"),)


@pytest.mark.parametrize("kind", ["segfault", "exit", "sys.exit", "exception"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_in_the_worker(client, stage, kind):
    error = error_among_others(client, *STAGES[stage](kind))
    if kind in ENDS:
        check_death(error, kind)
    elif stage == "result pickle":
        assert type(error) is hr.ResultNotPicklable
        assert type(error.__cause__) is {"sys.exit": hr.TaskError, "exception": RuntimeError}[kind]
    elif kind == "sys.exit":
        assert type(error) is hr.TaskError
        assert str(error) == "SystemExit: 3"
    else:
        assert type(error) is RuntimeError
        assert ("loaded the arguments" in error.__notes__[0]) is (stage == "argument unpickle")


@pytest.mark.parametrize("kind", ["segfault", "exit", "sys.exit", "exception"])
def test_a_result_that_goes_off_in_the_worker_that_reads_it(client, kind):
    graph = hr.Graph()
    made = graph.add(hr.task(make, worker=0), OnUnpickle, kind)
    bad = graph.add(hr.task(take, key="bad", worker=1), made)
    run = client.submit(graph, keep=[bad])
    with pytest.raises((hr.WorkerDied, hr.TaskError, RuntimeError)) as caught:
        run.result(bad, timeout=TIMEOUT_S)
    if kind in ENDS:
        check_death(caught.value, kind)
    assert run.statistics().done == 1, "whoever made it is not to blame"


@pytest.mark.parametrize("kind", ["sys.exit", "exception"])
def test_stages_in_the_client_that_raise(client, kind):
    with pytest.raises({"sys.exit": SystemExit, "exception": hr.ArgumentNotPicklable}[kind]):
        client.call(take, OnPickle(kind))
    future = client.call(hr.task(make, key="bad"), OnUnpickle, kind)
    with pytest.raises(hr.TaskError, match="the result of task 'bad' cannot be unpickled here") as caught:
        future.result(TIMEOUT_S)
    assert type(caught.value.__cause__) is {"sys.exit": SystemExit, "exception": RuntimeError}[kind]
    assert client.call(inc, 1).result(TIMEOUT_S) == 2


@pytest.mark.parametrize("stage", ["argument pickle", "result unpickle"])
@pytest.mark.parametrize(("kind", "code"), [("segfault", -11), ("exit", 3)])
def test_stages_in_the_client_that_end_it_leave_nothing(stage, kind, code, tmp_path):
    deed = {
        "argument pickle": f"client.call(take, OnPickle({kind!r}))",
        "result unpickle": f"client.call(make, OnUnpickle, {kind!r}).result()",
    }
    script = f"""
        import sys; sys.path.insert(0, {str(HERE)!r})
        import headrace as hr
        from deadly_tasks import *
        with hr.Client(workers=1) as client:
            print(client.call(pid_of).result(), flush=True)
            {deed[stage]}
            print("went on")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == code, done.stderr
    pid = int(done.stdout)  # one line
    wait_until(lambda: has_ended(pid))


@pytest.mark.parametrize("kind", ["sys.exit", "exception"])
@pytest.mark.parametrize("mode", ["threads", "sync"])
def test_a_run_in_this_process(mode, kind):
    with hr.Client(workers=1, mode=mode) as client:
        error = error_among_others(client, blow, kind)
        assert type(error) is {"sys.exit": hr.TaskError, "exception": RuntimeError}[kind]


# -- other ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["abort", "exit 0", "term", "kill"])
def test_other_ends_of_a_process(client, kind):
    error = error_among_others(client, blow, kind)
    check_death(error, kind)
    assert ("nothing tells who sent SIGKILL" in str(error)) is (kind == "kill")


@pytest.mark.parametrize("kind", ["segfault", "exit"])
def test_a_thread_that_ends_the_process(client, kind):
    check_death(error_among_others(client, blow_in_thread, kind), kind)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", ["sys.exit", "exception"])
def test_a_thread_that_raises_ends_itself_alone(client, kind):
    pid = client.call(hr.task(blow_in_thread, worker=0), kind).result(TIMEOUT_S)
    assert client.call(hr.task(pid_of, worker=0)).result(TIMEOUT_S) == pid


def test_a_process_that_ends_while_it_is_idle_is_nobody_s_fault(client):
    before = client.statistics()
    pid = client.call(hr.task(blow_soon, worker=0), "abort", 0.02).result(TIMEOUT_S)
    wait_until(lambda: client.statistics().worker_deaths > before.worker_deaths)
    assert client.call(hr.task(pid_of, worker=0)).result(TIMEOUT_S) != pid
    assert client.statistics().blamed_deaths == before.blamed_deaths


def test_a_process_that_crashes_when_it_ends_hurts_nothing():
    with hr.Client(workers=1, max_tasks_per_worker=2) as client:
        pids = [client.call(blow_at_exit, "abort").result(TIMEOUT_S) for _ in range(3)]
        wait_until(lambda: client.statistics().workers_retired == 1)
        statistics = client.statistics()
        assert (statistics.worker_deaths, statistics.blamed_deaths) == (0, 0)
    assert len(set(pids)) == 2


def test_a_process_that_crashes_with_large_memory_in_its_hands(client):
    graph = hr.Graph()
    arrays = graph.map(ones, [1_000_000, 2_000_000])
    bad = graph.add(hr.task(blow_with, key="bad"), arrays[0], "segfault")
    sums = graph.map(total, arrays)
    run = client.submit(graph, keep=[bad, arrays, sums])
    with pytest.raises(hr.WorkerDied, match="SIGSEGV"):
        run.result(bad, timeout=TIMEOUT_S)
    assert [run.result(node, timeout=TIMEOUT_S) for node in sums] == [1e6, 2e6]
    assert [run.result(node).sum() for node in arrays] == [1e6, 2e6]
    run.release()


def has_ended(pid):
    """Whether a process that nobody here waits for is gone, or as good as."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_until(true):
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)

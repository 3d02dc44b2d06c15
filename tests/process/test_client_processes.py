"""The client with real worker processes: their deaths, their output, their start and their end."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest
from client_tasks import big, inc, kill_itself, leave, slowly, speak, touch, wait_for, who_am_i, worker_pids

import headrace as hr

TIMEOUT_S = 30
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=2) as client:
        yield client


def run_script(text, **options):
    """Run a program of its own, with this folder on its path."""
    text = f"import sys; sys.path.insert(0, {str(HERE)!r})\n" + textwrap.dedent(text)
    command = [sys.executable, "-W", "error", "-c", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options)


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_a_task_that_leaves_its_worker_fails_alone(client):
    graph = hr.Graph()
    bad = graph.add(leave, 3)
    below = graph.add(inc, bad)
    fine = graph.map(inc, range(500))
    run = client.submit(graph)
    with pytest.raises(hr.WorkerDied) as caught:
        client.submit(graph, keep=[bad]).result(timeout=TIMEOUT_S)
    error = caught.value
    assert (error.key, error.exit_code, error.signal, error.attempts) == ("leave-0", 3, None, 3)
    assert f"(pid {error.pid}) which exited with code 3" in str(error)
    with pytest.raises(hr.UpstreamFailed) as skipped:
        run.result(below, timeout=TIMEOUT_S)
    assert isinstance(skipped.value.__cause__, hr.WorkerDied)
    assert [run.result(node, timeout=TIMEOUT_S) for node in fine] == list(range(1, 501))


def test_a_killed_worker_leaves_its_last_words(client):
    future = client.call(kill_itself, "about to go")
    with pytest.raises(hr.PoisonTask, match=r"\(attempt 3/3\).*killed by SIGKILL(.|\n)*about to go") as caught:
        future.result(timeout=TIMEOUT_S)
    assert caught.value.signal == signal.SIGKILL
    assert caught.value.stderr.endswith("about to go")
    assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2, "another worker took its place"


def test_a_worker_killed_from_outside_is_replaced_and_its_task_runs_again(client, tmp_path):
    gate = tmp_path / "gate"
    started = [client.call(touch, str(tmp_path / f"started-{number}")) for number in range(2)]
    assert all(future.result(timeout=TIMEOUT_S) for future in started)
    held = [client.call(wait_for, str(gate)) for _ in range(2)]
    for pid in worker_pids(client):
        os.kill(pid, signal.SIGKILL)
    gate.touch()
    assert [future.result(timeout=TIMEOUT_S) for future in held] == [str(gate)] * 2


def test_a_result_above_the_limit_fails_its_task():
    with hr.Client(workers=1, store_limit=1 << 20) as client:
        with pytest.raises(hr.StoreFull, match=r"2097\d+ bytes of memory.* of 1048576") as caught:
            client.call(big, 2 << 20).result(timeout=TIMEOUT_S)
        assert "'big-0'" in caught.value.__notes__[0]
        assert len(client.call(big, 1 << 19).result(timeout=TIMEOUT_S)) == 1 << 19


# -- running calls -----------------------------------------------------------------------------------------------------


def test_a_running_call_is_interrupted(client, tmp_path):
    gate = tmp_path / "never"
    both = [client.call(wait_for, str(gate)) for _ in range(2)]
    client.call(touch, str(tmp_path / "queued"))
    assert all(future.cancel() for future in both)
    assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


def test_functions_of_main_travel_by_value():
    script = run_script("""
        import headrace as hr
        base = 40
        def shifted(number):
            return number + base
        with hr.Client(workers=1) as client:
            print(client.call(shifted, 2).result(), client.call(lambda: base).result())
            graph = hr.Graph()
            print(client.submit(graph, keep=graph.map(shifted, [1, 2])).results())
    """)
    assert script.stderr == ""
    assert script.stdout == "42 40\n[41, 42]\n"


# -- output ------------------------------------------------------------------------------------------------------------


def test_classes_of_main_come_back_as_they_were():
    script = run_script("""
        import headrace as hr
        class Point:
            made = 0
            def __init__(self, x):
                type(self).made += 1
                self.x = x
            def double(self):
                return Point(2 * self.x)
        def make(x):
            class Inner:
                value = x
            return Inner()
        method = Point.double
        with hr.Client(workers=2) as client:
            results = [client.call(Point.double, Point(x)).result() for x in range(3)]
            moved = client.call(Point.double, client.call(Point.double, Point(1))).result()
            print(Point.made, Point.double is method, [type(p) is Point for p in (*results, moved)], moved.x)
            print(client.call(make, 5).result().value, client.call(type, None).result() is type(None))
    """)
    assert script.stdout == "4 True [True, True, True, True] 4\n5 True\n", script.stderr


def test_lines_of_tasks_arrive_whole_and_marked(client, capfd):
    client.call(speak, "one\ntwo").result(timeout=TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    out = err = ""
    while (out.count("\n"), err.count("\n")) < (2, 2) and time.monotonic() < deadline:
        client.call(inc, 1).result(timeout=TIMEOUT_S)
        more_out, more_err = capfd.readouterr()
        out, err = out + more_out, err + more_err
    assert sorted(out.splitlines()) in (["[worker 0] one", "[worker 0] two"], ["[worker 1] one", "[worker 1] two"])
    assert {line[:8] for line in err.splitlines()} <= {"[worker "}
    assert [line[11:] for line in err.splitlines()] == ["ONE", "TWO"]


# -- start -------------------------------------------------------------------------------------------------------------


def test_workers_are_prepared_as_asked():
    script = run_script("""
        import os, sys, headrace as hr
        def prepare():
            import builtins
            builtins.prepared = True
        def look():
            import builtins
            return builtins.prepared, "colorsys" in sys.modules, os.environ["FLAVOUR"], os.environ["OMP_NUM_THREADS"]
        os.environ.pop("OMP_NUM_THREADS", None)
        with hr.Client(workers=1, preload=["colorsys"], setup=prepare, env={"FLAVOUR": "sour"}) as client:
            print(client.call(look).result())
    """)
    assert script.stderr == ""
    assert script.stdout == "(True, True, 'sour', '1')\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"workers": 0}, "from 1 to"),
        ({"workers": -1}, "from 1 to"),
        ({"workers": 2.0}, "takes a number"),
        ({"workers": True}, "takes a number"),
        ({"mode": "fibres"}, "'processes', 'threads' or 'sync'"),
        ({"address": "tcp://elsewhere:4711"}, "headrace keygen"),
        ({"address": "tcp://elsewhere:4711", "workers": 2}, "workers"),
        ({"preload": "numpy"}, r"\['numpy'\]"),
        ({"setup": 3}, "without arguments"),
        ({"env": {"A": 1}}, "str to str"),
        ({"mode": "threads", "env": {"A": "1"}}, "worker processes"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(arguments, words):
    with pytest.raises(hr.UsageError, match=words):
        hr.Client(**arguments)


def test_a_setup_that_fails_says_so():
    script = run_script("""
        import headrace as hr
        def prepare():
            raise RuntimeError("no database here")
        with hr.Client(workers=1, setup=prepare) as client:
            for use in (lambda: client.call(len, "").result(), lambda: client.call(len, "")):
                try:
                    use()
                except hr.InfraError as error:
                    print(type(error).__name__, str(error).count("RuntimeError: no database here"))
    """)
    assert script.stdout == "InfraError 1\nInfraError 1\n"
    assert "[worker 0] RuntimeError: no database here" in script.stderr


def test_workers_that_leave_without_a_word_are_told_of():
    with hr.Client(workers=1, setup=partial(leave, 3)) as client:
        error = client.call(inc, 1).exception(timeout=TIMEOUT_S)
    assert type(error) is hr.InfraError
    assert str(error).endswith(
        "exited with code 3 before it could take work, 3 times in a row; it wrote nothing to standard error"
    )


# -- end ---------------------------------------------------------------------------------------------------------------


def test_leaving_waits_for_what_was_submitted(tmp_path):
    with hr.Client(workers=2) as client:
        graph = hr.Graph()
        node = graph.add(touch, str(tmp_path / "run"), graph.add(slowly, 0.05))
        run = client.submit(graph)
        future = client.call(touch, str(tmp_path / "call"), client.call(slowly, 0.05))
        client.submit(graph)  # nobody holds this one
    assert (tmp_path / "run").exists()
    assert (tmp_path / "call").exists()
    assert run.result(node) == str(tmp_path / "run"), "results outlive the client"
    assert future.result() == str(tmp_path / "call")
    assert run.done()
    assert "2 of 2 ended" in repr(run)
    assert "closed" in repr(client)


def test_an_exception_cancels_what_was_submitted(tmp_path):
    start = time.monotonic()
    futures = []

    def submit_and_fail():
        with hr.Client(workers=1) as client:
            futures.append(client.call(wait_for, str(tmp_path / "never")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        submit_and_fail()
    assert time.monotonic() - start < TIMEOUT_S / 2
    with pytest.raises(hr.CancelledError):
        futures[0].result()


@pytest.mark.parametrize("kind", ["SystemExit", "GeneratorExit", "KeyboardInterrupt", "ValueError"])
def test_a_result_that_raises_when_it_is_read_harms_no_callback(kind):
    script = run_script(f"""
        import os, threading, headrace as hr
        HERE = os.getpid()
        class Bitter:
            def __reduce__(self):
                return taste, (HERE,)
        def taste(pid):
            if os.getpid() == pid:
                raise {kind}("bitter")
        with hr.Client(workers=1) as client:
            seen, told = [], threading.Event()
            future = client.call(hr.task(Bitter, key="b"))
            future.add_done_callback(lambda future: (seen.append(future.exception()), told.set()))
            if "{kind}" == "KeyboardInterrupt":
                assert told.wait({TIMEOUT_S})  # in the main thread it would be taken for Ctrl-C
            try:
                future.result()
            except hr.TaskError as error:
                print(error, type(error.__cause__).__name__)
            assert told.wait({TIMEOUT_S}) and seen == [future.exception()]
            again = threading.Event()
            client.call(abs, -1).add_done_callback(lambda _: again.set())
            print(again.wait({TIMEOUT_S}))
    """)
    assert script.stdout == f"the result of task 'b' cannot be unpickled here: {kind}: bitter {kind}\nTrue\n", (
        script.stderr
    )


def test_a_closed_client_takes_nothing_more():
    client = hr.Client(workers=1)
    pids = worker_pids(client)
    client.close()
    client.close(wait=False, cancel=True)
    for use in (lambda: client.submit(hr.Graph()), lambda: client.call(inc, 1), client.__enter__):
        with pytest.raises(hr.UsageError, match="closed"):
            use()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_closing_without_waiting_goes_on_in_the_background(tmp_path):
    client = hr.Client(workers=1)
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    future = client.call(touch, str(trace), client.call(wait_for, str(gate)))
    client.close(wait=False)
    assert not future.done()
    gate.touch()
    assert future.result(timeout=TIMEOUT_S) == str(trace)


def test_results_that_never_came_say_why(tmp_path):
    client = hr.Client(workers=1)
    future = client.call(wait_for, str(tmp_path / "never"))
    graph = hr.Graph()
    run = client.submit(graph, keep=[graph.add(inc, graph.add(wait_for, str(tmp_path / "never")))])
    client.close(wait=False, cancel=True)
    with pytest.raises(hr.CancelledError) as caught:
        future.result(timeout=TIMEOUT_S)
    assert caught.value.reason == "client-closed"
    with pytest.raises(hr.CancelledError):
        run.results()
    assert run.wait(0)
    with pytest.raises(hr.CancelledError):
        list(run.as_completed())


def test_a_client_that_is_collected_complains_and_ends():
    pids = []

    def forget():
        client = hr.Client(workers=1)
        pids.extend(worker_pids(client))

    with pytest.warns(ResourceWarning, match="unclosed <Client: 1 worker"):
        forget()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_runs_and_futures_keep_their_client():
    graph = hr.Graph()
    node = graph.add(inc, 1)
    client = hr.Client(workers=1)
    run = client.submit(graph)
    still = client
    del client
    gc.collect()
    assert run.result(node, timeout=TIMEOUT_S) == 2
    still.close()


def test_a_program_may_end_without_closing():
    script = run_script("""
        import time, headrace as hr
        from client_tasks import inc, slowly
        client = hr.Client(workers=2)
        future = client.call(slowly, 60)
        print(client.call(inc, 1).result(), *[w.pid for w in client.submit(hr.Graph()).statistics().workers if w.pid])
    """)
    assert script.stderr == ""
    answer, *pids = script.stdout.split()
    assert answer == "2"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_forked_child_is_told_and_harms_nobody(client):
    future = client.call(inc, 1)
    assert future.result(timeout=TIMEOUT_S) == 2
    graph = hr.Graph()
    node = graph.add(inc, 2)
    run = client.submit(graph)
    assert run.result(node, timeout=TIMEOUT_S) == 3
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            refused = 0
            for use in (
                lambda: client.call(inc, 1),
                lambda: client.submit(graph),
                lambda: client.submit,
                run.done,
                run.release,
                run.statistics,
                run.cancel,
            ):
                try:
                    use()
                except hr.ForkedClientError:
                    refused += 1
            client.close()
            code = 0 if refused == 6 and run.result(node) == 3 and future.result() == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.call(inc, 5).result(timeout=TIMEOUT_S) == 6


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------

WAITS = {
    "result": "run.result(nodes[0])",
    "results": "run.results()",
    "wait": "run.wait()",
    "wait with a timeout": "run.wait(timeout=60)",
    "as_completed": "next(run.as_completed())",
    "a future": "future.result()",
    "statistics": "while True: run.statistics()",
    "the end of with": "pass",
}


@pytest.mark.parametrize("mode", ["processes", "threads"])
@pytest.mark.parametrize("wait", WAITS)
def test_an_interrupt_ends_every_wait(wait, mode, tmp_path):
    text = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
import headrace as hr
from client_tasks import wait_for
with hr.Client(workers=2, mode={mode!r}) as client:
    graph = hr.Graph()
    nodes = graph.map(wait_for, [{str(tmp_path / "never")!r}] * 3)
    run = client.submit(graph)
    future = client.call(wait_for, {str(tmp_path / "never")!r})
    print(*[worker.pid for worker in run.statistics().workers], flush=True)
    {WAITS[wait]}
"""
    program = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        pids = program.stdout.readline().split()
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=TIMEOUT_S)
    finally:
        program.kill()
        program.communicate()
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert program.returncode == -signal.SIGINT
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids if pid != "0")


def test_what_was_completed_and_released_leaves_the_broker(client):
    graph = hr.Graph()
    graph.map(big, [100_000] * 40)
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    assert run.statistics().bytes_held > 4_000_000
    assert all(len(value) == 100_000 for _, value in run.as_completed(release=True))
    deadline = time.monotonic() + TIMEOUT_S
    while run.statistics().bytes_held > 2_000_000:  # the broker lets go at the end of its turn
        assert time.monotonic() < deadline


# -- much --------------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_tasks_come_back_right(client):
    graph = hr.Graph()
    nodes = graph.map(inc, range(100_000))
    assert client.submit(graph, keep=nodes).results(timeout=TIMEOUT_S) == list(range(1, 100_001))


def test_pinned_tasks_run_where_they_should(client):
    graph = hr.Graph()
    pinned = [hr.task(who_am_i, worker=worker) for worker in range(2)]
    node = None
    nodes = [node := graph.add(pinned[number % 2], node) for number in range(20)]
    workers = [worker for _, worker, _ in client.submit(graph, keep=nodes).results(timeout=TIMEOUT_S)]
    assert workers == [0, 1] * 10


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_million_calls_in_sequence_leave_memory_flat(client):
    def resident_bytes():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def call(times):
        for number in range(times):
            assert client.call(inc, number).result() == number + 1

    call(20_000)
    before = resident_bytes()
    call(1_000_000)
    assert resident_bytes() - before < 8 << 20

"""`headrace broker` and its clients: several at once, their deaths and its own, real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import client_tasks
import numpy as np
import pytest
from client_tasks import inc
from outside import END_S, TIMEOUT_S, Home, Program, script, wait_until
from standalone import broker
from store_watch import eventually
from test_cli import headrace

import headrace as hr
from headrace.cli.app import ExitCode

#: A client that has work to do without an end, says so, and does not leave by itself.
BUSY = """
import sys, client_tasks
import headrace as hr
with hr.Client(sys.argv[1]) as client:
    seconds, count = (0.02, 2_000) if "short" in sys.argv else (60, 8)
    calls = [client.call(client_tasks.slowly, seconds) for _ in range(count)]
    print("busy", flush=True)
    sys.stdin.read()
"""


def whole(address):
    """The state of a broker."""
    run = headrace("status", address, "--json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def open_tasks(address):
    tasks = whole(address)["tasks"]
    return tasks["waiting"] + tasks["ready"] + tasks["leased"]


def graph_of(numbers):
    graph = hr.Graph()
    return graph, graph.reduce(client_tasks.add, graph.map(inc, numbers))


@pytest.fixture(scope="module")
def address():
    """A broker that all tests share which do it no harm."""
    with broker() as (_, address):
        yield address


def test_a_client_finds_what_an_embedded_broker_gives(address):
    with hr.Client(address) as client:
        assert (client.workers, client.mode) == (2, "processes")
        graph, total = graph_of(range(1_000))
        assert client.submit(graph, keep=[total]).result(timeout=TIMEOUT_S) == sum(range(1, 1_001))
        ref = client.put([1, 2, 3])
        assert client.call(client_tasks.double_all, ref).result(timeout=TIMEOUT_S) == [2, 4, 6]
        with pytest.raises(client_tasks.Sour):
            client.call(client_tasks.fail, 3).result(timeout=TIMEOUT_S)
        assert client.call(client_tasks.inc, 1).result(timeout=TIMEOUT_S) == 2
    assert repr(client) == "<Client: closed, had 2 workers>"


def test_the_path_of_the_directory_is_an_address_too(address):
    with hr.Client(Path(address.removeprefix("ipc://"))) as client:
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


def test_clients_at_once_have_each_their_own(address):
    with hr.Client(address) as one, hr.Client(address) as other:
        runs = []
        for client in (one, other) * 5:
            graph, total = graph_of(range(200))
            runs.append(client.submit(graph, keep=[total]))
        assert {run.result(timeout=TIMEOUT_S) for run in runs} == {sum(range(1, 201))}
        future = one.call(inc, 1)
        with pytest.raises(hr.UsageError, match="another client"):
            other.call(inc, future)


def spread(value):
    array = hr.empty(value.shape, value.dtype)
    array[:] = value + 1
    return array


def test_large_values_travel_in_frames_to_and_from_clients(address):
    array = np.arange(2 << 20, dtype="f8")
    with hr.Client(address) as client:
        result = client.call(hr.task(spread), array).result(timeout=TIMEOUT_S)
        assert np.array_equal(result, array + 1)
        graph = hr.Graph()
        chain = graph.add(spread, array)
        for _ in range(3):
            chain = graph.add(spread, chain)
        run = client.submit(graph)
        assert np.array_equal(run.result(timeout=TIMEOUT_S), array + 4)
        assert client.statistics().store.owned > 0, "the workers share them"


def nested(depth):
    if depth == 0:
        return 1
    client = hr.current_client()
    return sum(future.result() for future in [client.call(nested, depth - 1) for _ in range(2)])


def test_tasks_submit_tasks(address):
    with hr.Client(address) as client:
        assert client.call(nested, 4).result(timeout=TIMEOUT_S) == 16


SAYS = """
import sys
import headrace as hr
def say(text):
    print(text)
with hr.Client(sys.argv[1]) as client:
    client.call(say, sys.argv[2]).result()
"""


def test_what_a_task_prints_appears_with_its_client(address):
    commands = [[sys.executable, "-c", SAYS, address, word] for word in ("apple", "pear")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [run.communicate(timeout=TIMEOUT_S)[0] for run in runs]
    assert [output.split("] ")[1] for output in outputs] == ["apple\n", "pear\n"]


def test_a_client_that_is_killed_disturbs_nobody(address, tmp_path):
    with hr.Client(address) as client, Home() as home:
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
        with Program(home, *script(BUSY), address) as program:
            assert program.line() == "busy\n"
            wait_until(lambda: whole(address)["tasks"]["leased"] > 0)
            os.kill(program.pid, signal.SIGKILL)
            assert client.call(inc, 2).result(timeout=TIMEOUT_S) == 3
        wait_until(lambda: open_tasks(address) == 0)
        assert client.call(inc, 3).result(timeout=TIMEOUT_S) == 4


def test_a_client_may_be_stopped_for_a_while(address):
    with Home() as home, Program(home, *script(BUSY), address, "short") as program:
        assert program.line() == "busy\n"
        os.kill(program.pid, signal.SIGSTOP)
        with hr.Client(address) as client:
            until = time.monotonic() + 3
            while time.monotonic() < until:
                assert client.call(inc, 2).result(timeout=TIMEOUT_S) == 3
        assert open_tasks(address) > 0, "its tasks go on"
        os.kill(program.pid, signal.SIGCONT)
        program.signal_group(signal.SIGKILL)
    wait_until(lambda: open_tasks(address) == 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_client_hears_of_its_brokers_end(number):
    with broker() as (program, address):
        client = hr.Client(address)
        future = client.call(client_tasks.slowly, 60)
        wait_until(lambda: whole(address)["tasks"]["leased"] > 0)
        os.kill(program.pid, number)
        start = time.monotonic()
        if number == signal.SIGSTOP:
            with pytest.raises(TimeoutError):
                future.result(timeout=2)
            os.kill(program.pid, signal.SIGKILL)
            start = time.monotonic()
        with pytest.raises(hr.BrokerLost):
            future.result(timeout=TIMEOUT_S)
        assert time.monotonic() - start < END_S
        with pytest.raises(hr.BrokerLost):
            client.call(inc, 1)
        client.close()
        assert eventually(lambda: not program.pids(), END_S), "workers outlive their broker"


def test_at_sigterm_what_runs_ends_and_nobody_else_is_taken():
    with broker() as (program, address):
        with hr.Client(address) as client:
            future = client.call(client_tasks.slowly, 1.0, "in time")
            wait_until(lambda: whole(address)["tasks"]["leased"] > 0)
            os.kill(program.pid, signal.SIGTERM)

            def is_refused():
                try:
                    hr.Client(address).close()
                except hr.InfraError as error:
                    return "takes no more clients" in str(error)
                return False

            wait_until(is_refused)
            assert future.result(timeout=TIMEOUT_S) == "in time"
            code, _, errors = program.end()
            assert (code, "draining" in errors) == (0, True), errors
            with pytest.raises(hr.BrokerLost, match="shuts down"):
                client.call(inc, 1).result(timeout=TIMEOUT_S)
        assert eventually(lambda: not program.pids())
        assert not program.home.run_dirs()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(number):
    with broker() as (program, address):
        with Program(program.home, *script(BUSY), address) as busy:
            assert busy.line() == "busy\n"
            wait_until(lambda: whole(address)["tasks"]["leased"] > 0)
            os.kill(program.pid, number)
            if number == signal.SIGTERM:
                wait_until(lambda: headrace("status", address).returncode == 0)
                os.kill(program.pid, number)
            code, _, errors = program.end()
        assert code == (ExitCode.TERMINATED if number == signal.SIGTERM else ExitCode.INTERRUPTED), errors
        assert eventually(lambda: not program.pids())
        assert not program.home.run_dirs()


def test_status_says_when_nobody_answers(tmp_path):
    run = headrace("status", tmp_path)
    assert run.returncode == ExitCode.INFRASTRUCTURE
    assert "no broker is at" in run.stderr


def test_a_broker_whose_workers_cannot_start_says_why():
    with broker("--preload", "no_such_module") as (program, _):
        code, _, errors = program.end()
    assert code == ExitCode.INFRASTRUCTURE
    assert "no_such_module" in errors


def test_addresses_that_are_none(address, tmp_path):
    with pytest.raises(hr.UsageError, match="no address of a broker"):
        hr.Client("somewhere")
    with pytest.raises(hr.BrokerLost, match="no broker is at"):
        hr.Client(f"ipc://{tmp_path}")
    with pytest.raises(hr.UsageError, match="workers, mode cannot be chosen here"):
        hr.Client(address, workers=2, mode="threads")
    (tmp_path / "broker").touch()
    with pytest.raises(hr.UsageError, match="no socket of a broker"):
        hr.Client(tmp_path)


def test_a_directory_that_is_open_to_others_is_refused():
    with broker() as (_, address):
        directory = Path(address.removeprefix("ipc://"))
        directory.chmod(0o755)
        with pytest.raises(hr.UsageError, match=r"open to others \(mode 0755\)"):
            hr.Client(address)

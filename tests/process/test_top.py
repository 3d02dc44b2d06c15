"""`headrace top` and the observer behind it: real clients, and what else may lie where brokers do."""

import json
import os
import platform
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest
import zmq
from client_tasks import inc
from test_cli import TIMEOUT_S, headrace

import headrace as hr
from headrace import observer
from headrace.cli.app import ExitCode
from headrace.observer import Observer

#: A client with results beyond its memory.
SPILLING = """
import sys
import numpy
import headrace as hr

def load(value):
    return numpy.full(2 << 20, float(value))

with hr.Client(workers=2, store_limit=64 << 20, spill_dir=sys.argv[1]) as client:
    graph = hr.Graph()
    run = client.submit(graph, keep=[graph.add(hr.task(load, key=f"\\x1b[31mload-{part}"), part) for part in range(6)])
    run.wait()
    print("ready", flush=True)
    sys.stdin.read()
"""

#: A client with tasks in every state, one run of which is over and let go.
BUSY = """
import sys, time
import headrace as hr

def same(*values):
    return values

def refuse():
    raise ValueError("no")

with hr.Client(workers=1) as client:
    graph = hr.Graph()
    graph.map(same, range(100))
    client.submit(graph).results()
    graph = hr.Graph()
    graph.add(same, graph.add(refuse))
    failed = client.submit(graph)
    failed.wait()
    graph = hr.Graph()
    graph.add(same, graph.add(time.sleep, 3600))
    run = client.submit(graph)
    while run.statistics().leased == 0:
        pass
    print("ready", flush=True)
    sys.stdin.read()
    client.close(cancel=True)
"""


@pytest.fixture
def base(monkeypatch):
    """A folder for brokers that nobody else's are in; its path is short, as those of sockets must be."""
    path = tempfile.mkdtemp(prefix="hr-top-")
    monkeypatch.setenv("XDG_RUNTIME_DIR", path)
    yield Path(path)
    shutil.rmtree(path)


@contextmanager
def running(script, *arguments):
    """A client in a process of its own, until the end of the block."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.stdin.close()
            process.wait(TIMEOUT_S)


def snapshot():
    """What `headrace top --once --json` prints."""
    run = headrace("top", "--once", "--json")
    assert (run.returncode, run.stderr, run.stdout.count("\n")) == (0, "", 1)
    return json.loads(run.stdout)


def test_nothing_runs(base):
    run = headrace("top", "--once")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"no broker runs (looked in {base})\n", "")
    told = snapshot()
    assert told["time"] == pytest.approx(time.time(), abs=TIMEOUT_S)
    assert told == {"time": told["time"], "looked_in": str(base), "brokers": []}


def test_nothing_runs_where_nothing_is(base, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "none"))
    assert observer.run_dir_base() == f"/tmp/headrace-{os.geteuid()}"
    assert observer.run_directories(str(base / "none")) == []


def test_two_clients_at_once(base, tmp_path):
    with running(BUSY) as busy, running(SPILLING, tmp_path) as spilling:
        first, second = snapshot()["brokers"]
        text = headrace("top", "--once").stdout

    assert [first["pid"], second["pid"]] == [busy.pid, spilling.pid], "the oldest comes first"
    assert [first["command"], second["command"]] == [busy.args, spilling.args]
    assert {first["directory"], second["directory"]} == {str(base / Path(first["directory"]).name), second["directory"]}
    assert first["tasks"] == {
        "waiting": 0,
        "ready": 0,
        "leased": 2,
        "done": 100,
        "failed": 1,
        "skipped": 1,
        "cancelled": 0,
    }
    assert second["tasks"] == dict.fromkeys(first["tasks"], 0) | {"done": 6}
    assert [worker["number"] for worker in second["workers"]] == [0, 1]
    assert all(set(worker) == {"number", "pid", "finished", "busy_s"} for worker in second["workers"])
    assert sum(worker["finished"] for worker in second["workers"]) == 6
    assert sum(worker["busy_s"] for worker in second["workers"]) > 0
    assert (first["deaths"], first["problem"]) == (0, None)

    store, bytes_each = second["store"], 16 << 20
    assert set(store) == {"limit", "owned", "peak", "mapped", "inline", "spilled", "largest"}
    assert store["limit"] == 64 << 20
    assert bytes_each <= store["owned"] <= store["peak"] <= 64 << 20
    assert store["spilled"] >= 3 * bytes_each
    assert store["mapped"] > 0
    assert store["largest"][0]["bytes"] >= bytes_each
    assert store["largest"][0]["key"].startswith("\x1b[31mload-")
    assert first["store"]["largest"] == []

    assert f"process {busy.pid}: {sys.executable} -c" in text
    assert "2 leased, 100 done, 1 failed, 1 skipped" in text
    assert "of 64.0 MiB owned" in text
    assert "16.0 MiB ?[31mload-" in text, "a terminal obeys nothing that a name says"
    assert text.replace("\n", "").isprintable()


def test_an_observer_sees_what_the_client_sees(base):
    with hr.Client(workers=2) as client, Observer() as seen:
        value = client.put(bytes(1 << 20))
        assert client.call(len, value).result(timeout=TIMEOUT_S) == 1 << 20
        (broker,) = seen.look()
        state = client.statistics()
        assert broker.state == state._replace(first_lease_s=0.0, elapsed_s=0.0)
        assert (broker.state.done, broker.pid, broker.problem) == (2, os.getpid(), "")
        assert seen.look() == [broker], "looking changes nothing"
        started = time.monotonic()
    assert time.monotonic() - started < TIMEOUT_S, "nobody waits for an observer"
    assert list(base.iterdir()) == []


def test_a_client_that_ends_is_gone_at_the_next_look(base):
    with Observer() as seen:
        with hr.Client(workers=1):
            assert len(seen.look()) == 1
        assert seen.look() == []
        with hr.Client(workers=1) as client:
            assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
            (broker,) = seen.look()
            assert broker.state.done == 1


def test_a_stopped_process_is_told_and_holds_nobody_up(base):
    with running(BUSY) as busy, hr.Client(workers=1), Observer() as seen:
        assert [bool(broker.state) for broker in seen.look()] == [True, True]
        busy.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, busy.pid, os.WSTOPPED)
        for timeout_s in (0.3, 2 * TIMEOUT_S):  # what owes an answer is not waited for again
            started = time.monotonic()
            stopped, other = seen.look(timeout_s)
            assert time.monotonic() - started < TIMEOUT_S
            assert (stopped.state, stopped.problem) == (None, f"process {busy.pid} is stopped")
            assert (stopped.pid, stopped.command[0], other.problem) == (busy.pid, sys.executable, "")
        told = snapshot()["brokers"][0]
        assert told["problem"] == f"process {busy.pid} is stopped"
        assert [told[name] for name in ("tasks", "workers", "deaths", "shared", "store")] == [None] * 5
        assert f"\n  problem  process {busy.pid} is stopped\n" in headrace("top", "--once").stdout

        busy.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, busy.pid, os.WCONTINUED)
        assert all(await_answers(seen))
        busy.kill()
        busy.wait(TIMEOUT_S)
        assert [broker.pid for broker in seen.look()] == [os.getpid()], "its directory is still there"
        assert len(list(base.iterdir())) == 2


def await_answers(seen):
    """Look until every broker answers."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        states = [broker.state for broker in seen.look()]
        if all(states):
            break
    return states


def test_what_is_no_broker_is_left_out_or_given_up_on(base):
    def place(name):
        (base / name).mkdir()
        (base / name / "lock").touch()
        return str(base / name / "broker")

    with (
        hr.Client(workers=1),  # it removes what is stale, so it comes first
        Observer() as seen,
        socket.socket(socket.AF_UNIX) as stale,
        socket.socket(socket.AF_UNIX) as mute,
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as mad,
    ):
        place("headrace-00000000")  # killed before it listened
        stale.bind(place("headrace-11111111"))
        (base / "headrace-22222222").touch()
        (base / "headrace-33333333").symlink_to(base / "headrace-11111111")
        place("headrace-notes")
        mute.bind(place("headrace-44444444"))
        mute.listen()
        mad.bind(f"ipc://{place('headrace-55555555')}")
        seen.look(0.1)  # the mad one is asked
        assert mad.poll(TIMEOUT_S * 1000)
        mad.send_multipart([mad.recv_multipart()[0], b"\xc1 nonsense"])

        def look():
            return {broker.directory[-8:]: broker for broker in seen.look(0.3)}

        while (mad_one := look()["55555555"]).problem == "it does not answer":
            pass
        mad.close()
        while "55555555" in (others := look()):
            pass  # the socket is closed in the background
    assert (mad_one.state, mad_one.problem[:35]) == (None, "it says what cannot be understood: ")
    mute_one = others.pop("44444444")
    assert (mute_one.pid, mute_one.state, mute_one.problem) == (os.getpid(), None, "it does not answer")
    (real,) = others.values()
    assert (real.state is None, real.problem) == (False, "")


def test_a_queue_of_others_is_no_reason_to_wait(base):
    (base / "headrace-00000000").mkdir()
    with socket.socket(socket.AF_UNIX) as mute, socket.socket(socket.AF_UNIX) as other, Observer() as seen:
        mute.bind(str(base / "headrace-00000000" / "broker"))
        mute.listen(0)
        other.connect(mute.getsockname())
        (broker,) = seen.look(0.1)
    assert (broker.pid, broker.command, broker.problem) == (0, (), "it does not answer")


def test_another_version_is_told_in_the_brokers_own_words(base, monkeypatch):
    with hr.Client(workers=1) as client, Observer() as seen:
        monkeypatch.setattr(observer, "__version__", "9.8.7")
        (broker,) = seen.look()
        assert (broker.pid, broker.state) == (os.getpid(), None)
        assert broker.problem.startswith("it refuses headrace 9.8.7: the broker is headrace ")
        assert hr.__version__ in broker.problem
        assert seen.look() == [broker], "it is not asked again"
        monkeypatch.undo()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
        assert snapshot()["brokers"][0]["problem"] is None
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


def test_who_comes_back_late_says_hello_again(base, monkeypatch):
    """A broker, played by the test, sees HELLO and QUERY, then QUERY alone, and after a long pause a new peer."""
    hello, welcome, goodbye, query = 1, 2, 3, 14
    state = (Path(__file__).parents[2] / "rust" / "wire" / "golden" / "state.bin").read_bytes()
    (base / "headrace-00000000").mkdir()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as broker, Observer() as seen:
        broker.bind(f"ipc://{base}/headrace-00000000/broker")

        def heard(count):
            frames = []
            for _ in range(count):
                assert broker.poll(TIMEOUT_S * 1000)
                peer, frame = broker.recv_multipart()
                frames.append([peer, *msgpack.unpackb(frame)])
            return frames

        seen.look(0)
        first, second = heard(2)
        peer = first[0]
        assert first[1:] == [hello, 1, 3, hr.__version__, platform.python_version(), 0, 0, 0, os.getpid()]
        assert second == [peer, query, 0, 0]
        broker.send_multipart([peer, msgpack.packb([welcome, 1, hr.__version__, 0, 1, 0])])
        for _ in range(2):
            broker.send_multipart([peer, state])
            while (late := seen.look(0.1)[0]).state is None:
                pass
            assert (late.state.done, late.state.store.largest[1]) == (10_000_000_000, ("load-4", 1))
            assert heard(1) == [[peer, query, 0, 0]]
        monkeypatch.setattr(observer, "_REMEMBERED_S", -1.0)
        broker.send_multipart([peer, state])
        told = set()
        while not {(True, goodbye), (False, hello)} <= told:
            seen.look(0.1)
            while broker.poll(0):
                (frame,) = heard(1)
                told.add((frame[0] == peer, frame[1]))
                if frame[1] == query:
                    broker.send_multipart([frame[0], state])
        assert (True, hello) not in told


def test_an_interrupt_at_a_bad_moment_leaves_nothing_to_wait_for(base, monkeypatch):
    def interrupt(pid):
        raise KeyboardInterrupt

    monkeypatch.setattr(observer, "_command", interrupt)
    with hr.Client(workers=1), pytest.raises(KeyboardInterrupt), Observer() as seen:
        seen.look()


def test_ctrl_c_ends_it(base):
    command = [sys.executable, "-m", "headrace", "top", "--json", "--interval", "0.1"]
    pipe = subprocess.PIPE
    with (
        hr.Client(workers=1) as client,
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process,
    ):
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
    assert [line["brokers"][0]["pid"] for line in lines] == [os.getpid()] * 3
    assert lines[0]["time"] < lines[1]["time"] < lines[2]["time"]
    assert (process.returncode, errors) == (ExitCode.INTERRUPTED, "headrace: interrupted\n")


def test_ctrl_c_gives_the_terminal_back(base):
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    command = [sys.executable, "-m", "headrace", "top", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment) as process:
        os.close(theirs)
        screen = read_until(ours, b"no broker runs")
        assert b"\x1b[?1049h" in screen
        with hr.Client(workers=1):
            read_until(ours, f"process {os.getpid()}: ".encode())
        read_until(ours, b"no broker runs")
        process.send_signal(signal.SIGINT)
        assert b"\x1b[?25h" in read_until(ours, b"\x1b[?1049l"), "the cursor comes back, then the screen"
        _, errors = process.communicate(timeout=TIMEOUT_S)
    os.close(ours)
    assert (process.returncode, errors) == (ExitCode.INTERRUPTED, "headrace: interrupted\n")


def read_until(terminal, text):
    """Read from a terminal until it has shown the text."""
    shown = b""
    until = time.monotonic() + TIMEOUT_S
    while text not in shown:
        ready, _, _ = select.select([terminal], [], [], until - time.monotonic())
        assert ready, shown
        shown += os.read(terminal, 65536)
    return shown


def test_text_for_a_pipe_goes_on_until_the_reader_leaves(base):
    command = [sys.executable, "-m", "headrace", "top", "--interval", "0.1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        lines = [process.stdout.readline() for _ in range(4)]
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == ExitCode.BROKEN_PIPE
        assert process.stderr.read() == ""
    assert lines == [f"no broker runs (looked in {base})\n", "\n"] * 2


def test_every_field_is_in_the_help(base):
    text = headrace("top", "--help").stdout
    with hr.Client(workers=1):
        told = snapshot()
    (broker,) = told["brokers"]
    names = {*told, *broker, *broker["tasks"], *broker["workers"][0], *broker["store"], "key", "bytes"}
    assert not {name for name in names if name not in text}
    assert "\b" not in text


@pytest.mark.parametrize("interval", ["0", "nan", "inf", "soon"])
def test_an_interval_is_a_number_of_seconds(interval):
    run = headrace("top", "--interval", interval)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (ExitCode.USAGE, "", 1)

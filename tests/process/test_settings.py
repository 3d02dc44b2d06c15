"""Options of `headrace broker` and `headrace worker` from flags, environment and file; their logs; their health."""

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest
from client_tasks import inc, slowly
from outside import TIMEOUT_S, Home, Program, command_line, wait_until
from standalone import broker
from store_watch import eventually
from test_cli import headrace

import headrace as hr
from headrace.cli.app import ExitCode


@pytest.fixture
def config(tmp_path):
    """Writes a file of settings; gives its path."""

    def write(text):
        path = tmp_path / "headrace.toml"
        path.write_text(text)
        return str(path)

    return write


def resources(address):
    with hr.Client(address) as client:
        return {thing.name: thing.total for thing in client.statistics().shared if thing.name != "memory"}


def test_flags_go_before_the_environment_and_that_before_the_file(config, monkeypatch):
    path = config('[broker]\nworkers = 1\nresource = {license = 3}\npreload = ["json"]\n[worker]\nslots = 2\n')
    with broker("--config", path, workers=2) as (_, address):
        assert resources(address) == {"license": 3}
        with hr.Client(address) as client:
            assert client.workers >= 2, "the flag"
    monkeypatch.setenv("HEADRACE_CONFIG", path)
    monkeypatch.setenv("HEADRACE_BROKER_RESOURCE", "license=4 seat=1")
    monkeypatch.setenv("HEADRACE_BROKER_PLACES", "0")
    with Home() as home, Program(home, *command_line("broker")) as program:
        address = program.line().strip()
        assert resources(address) == {"license": 4, "seat": 1}, "the environment"
        with hr.Client(address) as client:
            assert client.workers == 1, "the file"
    with Home() as home, Program(home, *command_line("broker", "--resource", "license=5")) as program:
        assert resources(program.line().strip()) == {"license": 5}


def test_an_agent_may_have_everything_from_a_file(config, monkeypatch):
    with Home() as home, broker("--places", 3, home=home, workers=0) as (_, address):
        path = config(f'[worker]\naddress = "{address}"\nslots = 3\nname = "filed"\n')
        monkeypatch.setenv("HEADRACE_CONFIG", path)
        with Program(home, *command_line("worker")) as program, hr.Client(address) as client:
            assert program.line() == "joined\n"
            wait_until(lambda: sum(1 for worker in client.statistics().workers if worker.pid) == 3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[broker]\nworkerz = 2\n", "[broker] has no option 'workerz'; it has "),
        ('[broker]\nworkers = "many"\n', "[broker] workers: 'many' is not a valid integer"),
        ("[broker]\nworkers = [1]\n", "[broker] workers: it takes one value, not [1]"),
        ('[broker]\nresource = "gpu=1"\n', "[broker] resource: it takes a list or a table, not 'gpu=1'"),
        ("[broker]\nplaces = 5000\n", "[broker] places: 5000 is not in the range"),
        ("[broker\n", "headrace.toml: "),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(config, text, complaint):
    run = headrace("broker", "--config", config(text))
    assert run.returncode == ExitCode.USAGE
    assert complaint in run.stderr
    assert run.stdout == ""


def test_a_file_that_is_not_there_and_a_bad_variable(tmp_path, monkeypatch):
    run = headrace("broker", "--config", tmp_path / "none.toml")
    assert (run.returncode, "No such file" in run.stderr) == (ExitCode.USAGE, True)
    monkeypatch.setenv("HEADRACE_BROKER_WORKERS", "many")
    run = headrace("broker")
    assert (run.returncode, "'many' is not a valid integer" in run.stderr) == (ExitCode.USAGE, True), run.stderr


# -- logs --------------------------------------------------------------------------------------------------------------


def test_logs_for_programs_are_an_object_a_line(tmp_path):
    with Home() as home, ExitStack() as stack:
        program, address = stack.enter_context(broker("--log-format", "json", home=home, workers=1))
        words = command_line("worker", address, "--log-format", "json", "--slots", 1, "--name", "there")
        agent = stack.enter_context(Program(home, *words))
        assert agent.line() == "joined\n"
        with hr.Client(address) as client:
            wait_until(lambda: sum(1 for worker in client.statistics().workers if worker.pid) == 2)
            os.kill(agent.pid, signal.SIGTERM)
            code, _, errors = agent.end()
            assert code == 0
            assert [line["event"] for line in objects(errors)][:1] == ["joined"]
            wait_until(lambda: sum(1 for worker in client.statistics().workers if worker.pid) == 1)
        os.kill(program.pid, signal.SIGTERM)
        code, _, errors = program.end()
        assert code == 0
        lines = objects(errors)
        assert lines[0] | {"time": ""} == {
            "time": "",
            "program": "headrace broker",
            "event": "started",
            "text": f"listens at {address}",
            "address": address,
            "endpoint": None,
        }
        texts = [line["text"] for line in lines if line["event"] == "broker"]
        assert any("machine 'there' has joined" in text for text in texts)
        assert any("machine 'there' is gone" in text for text in texts)
        assert lines[-1]["event"] == "draining"


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


# -- health ------------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path, method="GET"):
    """The status of an answer, and what it says."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return None, ""


@contextmanager
def healthy():
    port = free_port()
    with broker("--health", port, workers=1) as (program, address):
        yield program, address, port


def test_a_broker_says_whether_it_is_well():
    with healthy() as (program, address, port):
        assert ask(port, "/live") == (200, "yes\n")
        assert ask(port, "/ready") == (200, "yes\n")
        assert ask(port, "/live", "HEAD") == (200, "")
        for path, method in (("/", "GET"), ("/live/", "GET"), ("/live", "POST"), ("/../keys", "GET")):
            assert ask(port, path, method) == (404, "ask for /live or /ready\n")
        with hr.Client(address) as client:
            future = client.call(slowly, 1.0)
            wait_until(lambda: client.statistics().leased == 1)
            os.kill(program.pid, signal.SIGTERM)
            wait_until(lambda: ask(port, "/ready")[0] == 503)
            assert ask(port, "/live")[0] == 200, "it drains"
            assert future.result(timeout=TIMEOUT_S) == 1.0 or future.done()
        assert program.end()[0] == 0


def test_questions_that_are_none_do_no_harm():
    with healthy() as (_, address, port), ExitStack() as stack:
        for _ in range(40):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            peer.settimeout(5)
        peer.close()
        assert eventually(lambda: ask(port, "/ready")[0] == 200)
        for bad in (b"", b"GET", b"\xff" * 5_000, b"GET /live\r\n", os.urandom(100)):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
                peer.sendall(bad)
                peer.shutdown(socket.SHUT_WR)
                peer.settimeout(5)
                answer = peer.recv(4096)
            assert answer == b"" or answer.startswith((b"HTTP/1.0 404", b"HTTP/1.0 200"))
        with hr.Client(address) as client:
            assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


def test_an_agent_says_whether_it_is_with_its_broker(tmp_path):
    port = free_port()
    with Home() as home:
        words = command_line("worker", "HERE", "--slots", 1, "--health", port)
        with broker(home=home, workers=0) as (program, address):
            words[2] = address
            with Program(home, *words) as agent:
                assert agent.line() == "joined\n"
                assert [ask(port, path)[0] for path in ("/live", "/ready")] == [200, 200]
                os.kill(program.pid, signal.SIGKILL)
                wait_until(lambda: ask(port, "/ready")[0] == 503)
                assert ask(port, "/live")[0] == 200


@pytest.mark.parametrize("place", ["http", "1:2:3", "70000", "127.0.0.1", "[::1:80"])
def test_places_for_health_that_are_none(place):
    run = headrace("broker", "--workers", 1, "--health", place)
    assert run.returncode in (ExitCode.USAGE, ExitCode.INFRASTRUCTURE), run.stderr
    assert run.stdout == ""

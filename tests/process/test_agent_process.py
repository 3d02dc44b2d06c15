"""Brokers and agents that a program starts, with keys in memory alone. Real processes."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from client_tasks import inc
from outside import TIMEOUT_S, Home, Program, script, wait_until
from store_watch import eventually

import headrace as hr

HERE = Path(__file__).parent


@pytest.fixture
def keys():
    return hr.SessionKeys()


@pytest.fixture
def broker(keys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with hr.Broker(workers=0, listen="tcp://127.0.0.1:*", keys=keys.broker, log=lambda *_: None) as broker:
        yield broker


def test_an_agent_lends_its_workers(broker, keys):
    with hr.AgentProcess(broker.endpoint, keys=keys.worker, slots=2, name="here") as agent:
        agent.wait_joined(TIMEOUT_S)
        agent.wait_joined(0)
        for address, own in ((broker.endpoint, keys.client), (broker.address, None)):
            with hr.Client(address, keys=own) as client:
                assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
                assert client.call(os.getppid).result(timeout=TIMEOUT_S) == agent.pid
        assert agent.poll() is None
    assert agent.poll() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(agent.pid, 0)


def test_what_an_agent_runs_is_seen_where_this_program_looks(broker, keys, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    with hr.AgentProcess(broker.address, slots=1), hr.Client(broker.address) as client:
        assert client.call(only_here.answer).result(timeout=TIMEOUT_S) == 42


def test_an_agent_ends_with_its_broker(broker, keys):
    with hr.AgentProcess(broker.endpoint, keys=keys.worker, slots=1) as agent:
        agent.wait_joined(TIMEOUT_S)
        broker.stop()
        assert agent.wait(TIMEOUT_S) == 0


def test_an_agent_that_is_refused_says_why(broker, keys):
    with hr.AgentProcess(broker.endpoint, keys=keys.client, slots=1) as agent:
        with pytest.raises(hr.InfraError, match="it says that it is a worker"):
            agent.wait_joined(TIMEOUT_S)
        assert agent.wait(TIMEOUT_S) == 3
    for own, slots, text in ((hr.SessionKeys(), 1, "does not accept this key"), (keys, 0, "ended with code 2")):
        agent = hr.AgentProcess(broker.endpoint, keys=own.worker, slots=slots)
        with agent, pytest.raises(hr.InfraError, match=text):
            agent.wait_joined(TIMEOUT_S)


def test_an_agent_gives_up_in_time(keys):
    with hr.AgentProcess("tcp://127.0.0.1:1", keys=keys.worker, slots=1, give_up_s=0.3) as agent:
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            agent.wait_joined(0.1)
        with pytest.raises(hr.InfraError, match=r"no broker has answered at tcp://127.0.0.1:1 for 0\.3 s"):
            agent.wait_joined(TIMEOUT_S)
        assert agent.wait(TIMEOUT_S) == 3


PARENT = """
import os, sys
import headrace as hr
from headrace.keys import PeerKeys
keys = PeerKeys(*sys.stdin.readline().split())
agent = hr.AgentProcess(sys.argv[1], keys=keys, slots=2)
agent.wait_joined(30)
if "fork" in sys.argv and os.fork() == 0:  # it has the pipe to the agent, too
    import time
    time.sleep(60)
    os._exit(0)
print(agent.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("more", [[], ["fork"]], ids=["alone", "with a child that has its descriptors"])
def test_an_agent_does_not_outlive_who_started_it(broker, keys, more):
    with Home() as home, Program(home, *script(PARENT), broker.endpoint, *more) as program:
        program.process.stdin.write(" ".join(keys.worker) + "\n")
        program.process.stdin.flush()
        agent = int(program.line())
        with hr.Client(broker.address) as client:
            pid = client.call(os.getpid).result(timeout=TIMEOUT_S)
            assert {agent, pid} <= set(program.pids())
            os.kill(program.pid, signal.SIGKILL)
            program.process.wait()
            assert eventually(lambda: not {agent, pid} & set(program.pids()))
            wait_until(lambda: not any(worker.pid for worker in client.statistics().workers))


def test_keys_of_a_session_show_no_secret_and_travel(keys):
    secrets = [keys.broker.secret, keys.client.secret, keys.worker.secret]
    assert len(set(secrets)) == 3
    text = repr([keys, keys.broker, keys.client, keys.worker]) + str(keys.client)
    assert not any(secret in text for secret in secrets)
    assert pickle.loads(pickle.dumps(keys)).worker == keys.worker
    assert keys.client.text().count("\n") == 3


def test_keys_are_in_no_command_line_and_no_environment(broker, keys):
    with hr.AgentProcess(broker.endpoint, keys=keys.worker, slots=1) as agent, hr.Client(broker.address) as client:
        pid = client.call(os.getpid).result(timeout=TIMEOUT_S)
        for process in (agent.pid, pid):
            for name in ("cmdline", "environ"):
                text = Path(f"/proc/{process}/{name}").read_bytes().decode(errors="replace")
                assert keys.worker.secret not in text


def test_a_broker_hands_its_lines_to_whoever_wants_them(keys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    lines = []
    log = lambda *line: lines.append(line)  # noqa: E731
    with hr.Broker(workers=0, log=log) as broker, hr.AgentProcess(broker.address, slots=1, name="there") as agent:
        agent.wait_joined(TIMEOUT_S)
        wait_until(lambda: (None, "stderr", "headrace: machine 'there' has joined: worker 0\n") in lines)


def test_an_agent_reads_its_key_from_standard_input(broker, keys, tmp_path):
    """As a shell would do it: the key, and then an input that stays open."""
    words = [sys.executable, "-m", "headrace", "worker", broker.endpoint, "--keys", "-", "--tied", "--slots", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as program:
        program.stdin.write("# a comment\n" + keys.worker.text())
        program.stdin.flush()
        assert program.stdout.readline() == "joined\n"
        with hr.Client(broker.address) as client:
            future = client.call(time.sleep, 30)
            wait_until(lambda: client.statistics().leased == 1)
            program.stdin.close()
            assert program.wait(TIMEOUT_S) == 0
            assert not future.done(), "it waits for another machine"
            client.close(cancel=True)
    for text, complaint in (("nonsense\n", "standard input is no key file"), ("", "standard input is no key file")):
        run = subprocess.run(words, input=text, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert (run.returncode, complaint in run.stderr) == (2, True), run.stderr


def test_the_example_of_the_docs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
    (block,) = [
        part.partition("```")[0] for part in page.split("```python\n") if "AgentProcess(" in part.partition("```")[0]
    ]
    (tmp_path / "example.py").write_text(block)
    run = subprocess.run([sys.executable, tmp_path / "example.py"], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert run.returncode == 0, run.stderr

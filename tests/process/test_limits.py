"""What is too much, too long or too silent, with real worker processes."""

import functools
import io
import os
import select
import signal
import subprocess
import sys
import threading

import pytest
from client_tasks import inc

import headrace as hr

TIMEOUT_S = 30


def length(*values):
    return [len(value) for value in values]


def add_length(data, y):
    return len(data) + y


def stop_itself_once(path):
    if os.path.exists(path):
        return "second try"
    open(path, "w").close()
    os.kill(os.getpid(), signal.SIGSTOP)
    return "went on"


def start_child(path):
    """Start a process that would outlive this one, and say which through a pipe with a name."""
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    with open(path, "w") as pipe:
        pipe.write(str(child.pid))
    return child.pid


def start_child_and_die(path):
    start_child(path)
    os.kill(os.getpid(), signal.SIGKILL)


def talk(mib, path):
    line = "x" * 1023 + "\n"
    for _ in range(mib << 10):
        sys.stdout.write(line)
    sys.stdout.flush()
    open(path, "w").close()


def await_end(pidfd):
    """Wait until a process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(TIMEOUT_S * 1000), "the process goes on"
    os.close(pidfd)


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_batch_of_long_arguments_travels_in_several_frames():
    with hr.Client(workers=1) as client:
        graph = hr.Graph()
        graph.map(length, [b""] * 1000)
        client.submit(graph).results(timeout=TIMEOUT_S)  # the estimate is low from here on
        graph = hr.Graph()
        graph.map(length, [bytes(1 << 19)] * 200)
        assert client.submit(graph).results(timeout=TIMEOUT_S) == [[1 << 19]] * 200


@pytest.mark.slow
def test_arguments_that_no_frame_can_hold_are_refused_and_the_client_works_on():
    with hr.Client(workers=1) as client:
        too_long = [bytes(1 << 19)] * 1025
        with pytest.raises(hr.UsageError, match="a call of 'length' has arguments of 537"):
            client.call(length, *too_long)
        graph = hr.Graph()
        graph.add(hr.task(length, key="long one"), *too_long)
        with pytest.raises(hr.UsageError, match=r"task 'long one' has arguments of 537\d+ bytes"):
            client.submit(graph)
        assert client.call(length, b"1").result(timeout=TIMEOUT_S) == [1]


@pytest.mark.slow
def test_a_stopped_worker_is_killed_and_replaced(tmp_path, capfd):
    with hr.Client(workers=1) as client:
        assert client.call(stop_itself_once, str(tmp_path / "stopped")).result(timeout=TIMEOUT_S) == "second try"
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
    assert "is stopped or has lost its connection" in capfd.readouterr().err


def test_what_a_task_started_ends_with_its_worker(pipe):
    with hr.Client(workers=1) as client:
        pids = []
        reader = threading.Thread(target=lambda: [pids.append(os.pidfd_open(int(pipe.read_text()))) for _ in range(3)])
        reader.start()
        with pytest.raises(hr.PoisonTask):
            client.call(start_child_and_die, str(pipe)).result(timeout=TIMEOUT_S)
        reader.join(TIMEOUT_S)
        for pidfd in pids:
            await_end(pidfd)


def test_what_a_task_started_ends_with_its_client():
    with hr.Client(workers=1) as client:
        pidfd = os.pidfd_open(client.call(start_child, os.devnull).result(timeout=TIMEOUT_S))
    await_end(pidfd)


def test_output_that_nobody_reads_is_bounded(pipe, monkeypatch, capsys):
    class Blocked(io.StringIO):
        """Standard output whose reader has gone away for a while."""

        def write(self, text):
            back.wait(TIMEOUT_S)
            return super().write(text)

    back, out = threading.Event(), Blocked()
    monkeypatch.setattr(sys, "stdout", out)
    with hr.Client(workers=1) as client:
        call = client.call(talk, 8, str(pipe))
        pipe.read_text()  # the task has written everything
        call.result(timeout=TIMEOUT_S)
        back.set()
    assert len(out.getvalue()) < 7 << 20
    assert "bytes of output" in capsys.readouterr().err


def memory_mib(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20


def test_long_functions_that_are_called_once_are_not_kept():
    with hr.Client(workers=1) as client:
        pids = [os.getpid(), client.call(os.getpid).result(timeout=TIMEOUT_S)]
        memory = []
        for start in (0, 100):  # the first round fills what waits to be let go
            for number in range(start, start + 100):
                one_off = functools.partial(add_length, number.to_bytes(1 << 20))
                assert client.call(one_off, y=number).result(timeout=TIMEOUT_S) == number + (1 << 20)
            memory.append([memory_mib(pid) for pid in pids])
        assert all(after < before + 40 for before, after in zip(*memory, strict=True)), memory


def test_a_long_function_that_is_called_often_is_one_function():
    with hr.Client(workers=1) as client:
        often = functools.partial(add_length, bytes(1 << 20))
        calls = [client.call(often, y=number) for number in range(5)]
        assert [call.result(timeout=TIMEOUT_S) for call in calls] == [number + (1 << 20) for number in range(5)]
        with pytest.raises(TypeError, match="add_length"):
            client.call(functools.partial(add_length, bytes(2 << 20))).result(timeout=TIMEOUT_S)

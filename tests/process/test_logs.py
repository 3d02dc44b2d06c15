"""What each task has written: exact, complete at its end, and bounded."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import log_tasks
import pytest
from log_tasks import MAGIC, say, what_say_wrote

import headrace as hr

TIMEOUT_S = 30
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=2, grace_s=1) as client:
        yield client


def log_of(client, function, *args):
    """Give the log of a call, which is to end well."""
    future = client.call(function, *args)
    future.result(TIMEOUT_S)
    return future.logs()


def wait_for_log(future, text):
    """Give the log once it contains a text."""
    deadline = time.monotonic() + TIMEOUT_S
    while text not in future.logs():
        assert time.monotonic() < deadline, future.logs()
        time.sleep(0.001)
    return future.logs()


# -- whose it is -------------------------------------------------------------------------------------------------------


def test_each_of_a_thousand_short_tasks_has_its_own_lines(client):
    graph = hr.Graph()
    nodes = graph.map(say, range(1_000))
    silent = graph.add(log_tasks.be_silent, nodes)
    run = client.submit(graph, keep=[])
    assert run.wait(TIMEOUT_S)
    assert [run.logs(node) for node in nodes] == list(map(what_say_wrote, range(1_000)))
    assert run.logs(silent) == ""
    assert run.logs("say-7") == what_say_wrote(7)


def test_tasks_that_hand_over_inside_a_worker_have_logs_of_their_own(client):
    graph = hr.Graph()
    chain = [graph.add(log_tasks.say_late, 0)]
    for number in range(1, 200):
        chain.append(graph.add(log_tasks.say_late, number, chain[-1]))
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    assert [run.logs(node) for node in chain] == list(map(what_say_wrote, range(200)))


def test_a_log_is_complete_once_the_result_is_here(client):
    for number in range(300):
        assert log_of(client, say, number) == what_say_wrote(number)


@pytest.mark.parametrize("extra", [0, 2])
def test_what_a_task_has_submitted_has_logs_there(extra):
    with hr.Client(workers=1, extra_workers=extra) as client:
        for number in range(20):
            future = client.call(log_tasks.logs_of_nested, number)
            assert future.result(TIMEOUT_S) == (what_say_wrote(number), what_say_wrote(number + 1))
            assert future.logs() == "before\nbehind\n"


def test_logging_and_warnings_are_written_too(client):
    text = log_of(client, log_tasks.report_by_logging)
    assert "WARNING:root:by logging\n" in text
    assert "UserWarning: by warnings" in text


def test_threads_write_for_the_task_that_runs(client):
    lines = log_of(client, log_tasks.write_from_threads, 8).splitlines()
    assert sorted(lines) == sorted(f"{number}: {line}" for number in range(8) for line in range(50))


def test_a_child_process_writes_for_the_task_that_runs(client):
    assert log_of(client, log_tasks.run_child) == "before\nchild\nafter\n"


def test_a_log_can_be_read_while_its_task_runs(client, tmp_path):
    gate = tmp_path / "gate"
    future = client.call(log_tasks.write_and_wait, str(gate))
    assert wait_for_log(future, "here") == "I am here\n"
    gate.touch()
    future.result(TIMEOUT_S)


# -- however it ends ---------------------------------------------------------------------------------------------------


def test_last_words_are_kept_and_each_attempt_adds_to_them(client, tmp_path):
    text = log_of(client, log_tasks.die, str(tmp_path / "died"))
    assert text.startswith("last words\nunheard")
    assert "Fatal Python error: Aborted" in text
    assert text.endswith("better\n")


def test_a_poison_task_has_the_words_of_all_its_attempts(client):
    future = client.call(log_tasks.die, "/nowhere/at/all")
    assert isinstance(future.exception(TIMEOUT_S), FileNotFoundError)
    poison = client.call(die_always)
    error = poison.exception(TIMEOUT_S)
    assert isinstance(error, hr.PoisonTask)
    assert poison.logs().count("I die") == 3
    # The message tells what the process wrote, and nothing of how it travels.
    assert "\x00" not in str(error)
    assert "\ufffd" not in str(error)


def die_always():
    import os

    print("I die", file=sys.stderr)
    os.abort()


def test_retries_write_to_one_log(client, tmp_path):
    task = hr.task(log_tasks.fail_first, retries=2)
    assert log_of(client, task, str(tmp_path / "tried")) == "trying\ntrying\n"


def test_a_failed_task_has_a_log(client):
    future = client.call(log_tasks.fail_with_words)
    assert isinstance(future.exception(TIMEOUT_S), ValueError)
    assert future.logs() == "before the end\n"


def test_a_cancelled_task_has_a_log_with_what_it_wrote_at_the_end(client):
    future = client.call(log_tasks.write_and_hang)
    wait_for_log(future, "begun")
    assert future.cancel()
    assert wait_for_log(future, "stopped") == "begun\nstopped\n"


def test_a_task_that_timed_out_has_a_log(client):
    future = client.call(hr.task(log_tasks.write_and_hang, timeout_s=0.1))
    assert isinstance(future.exception(TIMEOUT_S), hr.TaskTimeout)
    assert future.logs() == "begun\nstopped\n"


# -- unruly writers ----------------------------------------------------------------------------------------------------


def test_of_much_output_the_end_is_kept_and_the_rest_counted(client):
    lines, length = 200_000, 100
    text = log_of(client, log_tasks.write_much, lines, length)
    note, _, tail = text.partition("\n")
    assert len(tail) <= 64 << 10
    assert note == f"[headrace] {lines * length - len(tail):,} bytes that came before were not kept"
    kept = tail.splitlines()
    assert len(kept) > 600
    assert kept == [f"{number:08}".ljust(length - 1, ".") for number in range(lines - len(kept), lines)]
    assert log_of(client, say, 1) == what_say_wrote(1)


@pytest.mark.parametrize(
    ("function", "log"),
    [
        (log_tasks.close_streams, "closing"),
        (log_tasks.replace_streams, ""),
        (log_tasks.detach_stream, "detached" + "still here"),
        (log_tasks.write_bytes, "\x00\ufffd\ufffd\n\ufffdhr\x00\ufffd\x01not a mark"),
        (log_tasks.fork_child, "parent\nchild\nparent again\n"),
    ],
)
def test_whatever_a_task_does_to_its_streams_the_next_one_is_served(function, log):
    with hr.Client(workers=1) as client:
        assert log_of(client, function) == log
        assert log_of(client, log_tasks.be_silent) == ""
        assert client.call(int, "7").result(TIMEOUT_S) == 7


def test_what_looks_like_a_mark_harms_nobody():
    with hr.Client(workers=2) as client:
        futures = [client.call(log_tasks.write_to_descriptor) for _ in range(10)]
        says = [client.call(say, number) for number in range(100)]
        for future in [*futures, *says]:
            future.result(TIMEOUT_S)
        # Whose the bytes themselves are is a matter of time: they are native.
        assert all(what_say_wrote(number).splitlines() == own_lines(future) for number, future in enumerate(says))


def own_lines(future):
    return [line.rpartition("\ufffd")[2].removeprefix("\x01") for line in future.logs().splitlines()][-3:]


def test_a_child_writes_for_the_task_that_forked_it(tmp_path):
    gate = str(tmp_path / "gate")
    with hr.Client(workers=1) as client:
        parent = client.call(log_tasks.leave_child, gate)
        parent.result(TIMEOUT_S)
        assert log_of(client, log_tasks.open_gate, gate) == "mine\n"
        assert parent.logs() == "", "it had ended"


def test_a_file_in_the_place_of_standard_output_gets_the_text_alone(client, tmp_path):
    path = tmp_path / "file"
    assert log_of(client, log_tasks.redirect, str(path)) == "out again\n"
    assert path.read_bytes() == b"into the file\n"


def test_the_screen_shows_lines_and_no_marks():
    program = f"""
    import sys; sys.path.insert(0, {str(HERE)!r})
    import headrace as hr, log_tasks
    with hr.Client(workers=1) as client:
        for number in range(3):
            client.call(log_tasks.say, number).result()
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S)
    expected = "".join(f"[worker 0] out {number}\n[worker 0] end {number}\n" for number in range(3))
    assert done.stdout.decode() == expected
    assert done.stderr.decode() == "".join(f"[worker 0] err {number}\n" for number in range(3))
    assert MAGIC not in done.stdout + done.stderr


# -- for how long ------------------------------------------------------------------------------------------------------


def test_logs_go_with_their_run(client):
    graph = hr.Graph()
    node = graph.add(say, 1)
    run = client.submit(graph)
    assert run.result(timeout=TIMEOUT_S) == 1
    run.release()
    with pytest.raises(hr.ResultReleased, match="was released"):
        run.logs(node)
    with pytest.raises(hr.GraphError):
        run.logs("nobody")


def test_logs_can_be_read_after_the_client_was_closed():
    with hr.Client(workers=1) as client:
        future = client.call(say, 3)
    assert future.logs() == what_say_wrote(3)


@pytest.mark.parametrize("mode", ["threads", "sync"])
def test_tasks_in_this_process_write_to_its_own_streams(mode, capsys):
    with hr.Client(workers=1, mode=mode) as client:
        future = client.call(say, 4)
        future.result(TIMEOUT_S)
        run = client.submit(hr.Graph())
        with pytest.raises(hr.UsageError, match=r"'say-0'.*mode=\"processes\""):
            future.logs()
        with pytest.raises(hr.GraphError):
            run.logs("nobody")
    assert capsys.readouterr() == ("out 4\nend 4", "err 4\n")

"""Ctrl-C and SIGTERM, at any moment: the program is soon out, with the usual exit code, and nothing of it is left."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from outside import END_S, RUN_DIR_BYTES_MAX, TIMEOUT_S, Home, Program, command_line, is_gone, script

import headrace as hr

START = """
import os, threading, time
import headrace as hr
from client_tasks import inc, slowly, wait_for
def say(*words):
    print(*words, flush=True)
def swallow_interrupts(path):
    open(path, "w").close()
    while True:
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            pass
"""

#: Where a program is when it is told to end; it says so in a line first.
MOMENTS = {
    "before anything is imported": """
        print("now", flush=True)
        import time
        import headrace as hr
        hr.Client(workers=2).call(time.sleep, 60).result()
        """,
    "workers that are not up": """
        with hr.Client(workers=2, setup=lambda: time.sleep(60)) as client:
            say("now")
            client.call(inc, 1).result()
        """,
    "a large graph on its way": """
        graph = hr.Graph()
        graph.map(inc, range(500_000))
        with hr.Client(workers=2) as client:
            client.call(inc, 1).result()
            say("now")
            while True:
                client.submit(graph).wait()
        """,
    "a wait for tasks that swallow interrupts": """
        with hr.Client(workers=2) as client:
            started = [sys.argv[1] + name for name in "ab"]
            futures = [client.call(swallow_interrupts, path) for path in started]
            for path in started:
                wait_for(path)
            say("now")
            futures[0].result()
        """,
    "a wait while a callback goes on": """
        with hr.Client(workers=2) as client:
            running = threading.Event()
            def callback(_):
                running.set()
                time.sleep(60)
            client.call(inc, 1).add_done_callback(callback)
            running.wait()
            say("now")
            client.call(slowly, 60).result()
        """,
    "the end of the client": """
        client = hr.Client(workers=2)
        client.call(slowly, 60)
        say("now")
        client.close()
        """,
    "clients that nobody closes": """
        clients = [hr.Client(workers=1), hr.Client(workers=1)]
        futures = [client.call(swallow_interrupts, sys.argv[1] + "c") for client in clients]
        wait_for(sys.argv[1] + "c")
        say("now")
        time.sleep(60)
        """,
}


def moment_of(name):
    return (MOMENTS[name],) if "import" in name else (START, MOMENTS[name])


def starts_again(home):
    """Whether a program that starts now works, and removes what others have left."""
    with Program(
        home, *script(START, "with hr.Client(workers=1) as client: say(client.call(inc, 1).result())")
    ) as next_one:
        code, output, errors = next_one.end()
    return (code, output, errors, home.run_dirs()) == (0, "2\n", "", [])


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_a_program(moment, times, tmp_path):
    with Home() as home, Program(home, *script(*moment_of(moment)), f"{tmp_path}/") as program:
        assert program.line() == "now\n"
        start = time.monotonic()
        memory = program.memory()
        program.signal_group()
        if times == 2:
            time.sleep(0.03)  # as fast as people press it twice
            program.signal_group()
        code, _, errors = program.end()
        assert time.monotonic() - start < END_S
        assert code == 130
        assert errors.rstrip().splitlines()[-1].startswith("KeyboardInterrupt"), errors
        assert program.ended_within(END_S, start), program.pids()
        assert is_gone(memory)
        assert home.run_dirs() == []


@pytest.mark.parametrize("moment", ["workers that are not up", "a large graph on its way", "the end of the client"])
def test_sigterm_ends_a_program_that_does_not_handle_it(moment, tmp_path):
    with Home() as home, Program(home, *script(*moment_of(moment)), f"{tmp_path}/") as program:
        assert program.line() == "now\n"
        start = time.monotonic()
        memory = program.memory()
        assert memory
        program.signal_group(signal.SIGTERM)
        code, _, errors = program.end()
        assert (code, errors) == (143, "")
        assert program.ended_within(END_S, start), program.pids()
        assert is_gone(memory)
        # Nobody was asked, so nobody could remove the directory: that is for the next one.
        assert len(home.run_dirs()) <= 1
        assert home.bytes() <= RUN_DIR_BYTES_MAX
        assert starts_again(home)


def test_sigterm_that_a_program_turns_into_an_exit_ends_it_in_order():
    body = """
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with hr.Client(workers=2) as client:
            future = client.call(slowly, 60)
            say("now")
            future.result()
        """
    with Home() as home, Program(home, *script(START, body)) as program:
        assert program.line() == "now\n"
        start = time.monotonic()
        program.signal_group(signal.SIGTERM)
        code, _, errors = program.end()
        assert time.monotonic() - start < END_S
        assert (code, errors) == (143, "")
        assert program.ended_within(END_S, start)
        assert home.run_dirs() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_to_every_worker_costs_no_result(number):
    with hr.Client(workers=2) as client:
        graph = hr.Graph()
        nodes = graph.map(slow_square, range(200))
        run = client.submit(graph, keep=nodes)
        state = run.statistics()
        for _ in range(3):
            while (now := run.statistics()).progress.done < state.progress.done + 20 or not all(
                w.pid for w in now.workers
            ):
                time.sleep(0.002)
            state = now
            for worker in state.workers:
                with contextlib.suppress(ProcessLookupError):  # it is still dead
                    os.kill(worker.pid, number)
        assert run.results(timeout=TIMEOUT_S) == [number * number for number in range(200)]
        deaths = client.statistics().worker_deaths
        assert deaths == 0 if number == signal.SIGINT else deaths >= 4


def slow_square(number):
    time.sleep(0.002)
    return number * number


# -- the command line --------------------------------------------------------------------------------------------------

#: A traceback that goes through headrace, be it the package or the program.
OUR_TRACEBACK = re.compile(r'File "[^"]*/headrace(_command)?/')


def workflow_of_a_minute(tmp_path):
    """A workflow of tasks that sleep."""
    names = [str(number) for number in range(8)]
    tasks = [{"name": name, "id": name, "parents": [], "children": []} for name in names]
    times = [{"id": name, "runtimeInSeconds": 60} for name in names]
    execution = {"makespanInSeconds": 1, "executedAt": "2020-01-01T00:00:00Z", "tasks": times}
    workflow = {"specification": {"tasks": tasks}, "execution": execution}
    path = tmp_path / "sleepers.json"
    path.write_text(json.dumps({"name": "sleepers", "schemaVersion": "1.5", "workflow": workflow}))
    return path


def end_at(moment_s, command, number, times=1):
    """Run a command until a moment of its life, end it, and see that nothing is left."""
    with Home() as home, Program(home, *command) as program:
        time.sleep(moment_s)
        start = time.monotonic()
        memory = program.memory()
        for _ in range(times):
            program.signal_group(number)
            time.sleep(0.02 if times > 1 else 0)
        code, _, errors = program.end()
        assert time.monotonic() - start < END_S
        assert program.ended_within(END_S, start), program.pids()
        assert is_gone(memory)
        # It was not over before, and Python itself had come up.
        if code and "Fatal Python error: init_" not in errors:
            assert code == 128 + number, errors
            assert not OUR_TRACEBACK.search(errors), errors
        if home.run_dirs():
            # The signal came before anybody could heed it.
            assert number == signal.SIGTERM
            assert starts_again(home)
        return code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_the_command_line_ends_at_any_moment(number, times, tmp_path):
    dice = random.Random(number * 10 + times)
    sleepers = workflow_of_a_minute(tmp_path)
    demo = command_line("demo", "--pages", 200_000, "--workers", 2)
    replay = command_line("run", sleepers, "--workers", 2, "--time-scale", 1)
    codes = [end_at(dice.uniform(0, 0.6), command, number, times) for command in (demo, replay) for _ in range(2)]
    assert 128 + number in codes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_command_line_says_why_it_ended(number, tmp_path):
    command = command_line("run", workflow_of_a_minute(tmp_path), "--workers", 2, "--time-scale", 1)
    with Home() as home, Program(home, *command) as program:
        assert program.line(), "the first line comes before the run"
        program.signal_group(number)
        code, _, errors = program.end()
        assert code == 128 + number
        assert errors.splitlines()[-1] == f"headrace: {'interrupted' if number == signal.SIGINT else 'terminated'}"
        assert home.run_dirs() == []


@pytest.mark.parametrize("at", [2, 3, 5, 9, 17, 33, 65])
def test_an_interrupt_at_any_import_ends_the_command_line_without_a_traceback(at):
    program = f"""
        import signal
        class Finder:
            left = {at}
            def find_spec(self, name, path=None, target=None):
                self.left -= 1
                if self.left == 0:
                    signal.raise_signal(signal.SIGINT)
        command = {command_line()[0]!r}
        program = __import__('pathlib').Path(command).read_text()
        sys.argv[:] = [command, "--version"]
        sys.meta_path.insert(0, Finder())
        exec(compile(program, command, "exec"), {{"__name__": "__main__"}})
        """
    run = subprocess.run(script(program), capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert run.returncode in (-signal.SIGINT, 130), run.stdout
    assert "Traceback" not in run.stderr


def test_an_ignored_interrupt_stays_ignored(tmp_path):
    # A shell script that starts a command in the background makes it ignore interrupts.
    command = [
        "sh",
        "-c",
        'trap "" INT; exec "$@"',
        "sh",
        *command_line("run", "--workers", "1", str(tmp_path / "none.json")),
    ]
    quick = json.loads(workflow_of_a_minute(tmp_path).read_text())
    (tmp_path / "none.json").write_text(json.dumps(quick))
    with Home() as home, Program(home, *command) as program:
        assert program.line()
        program.signal_group()
        code, _, errors = program.end()
        assert (code, home.run_dirs()) == (0, []), errors


def test_the_module_is_the_command():
    run = subprocess.run([sys.executable, "-m", "headrace", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == subprocess.run(command_line("--version"), capture_output=True, text=True, check=True).stdout
    assert Path(command_line()[0]).exists()

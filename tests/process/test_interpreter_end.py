"""The interpreter ends while tasks run and threads wait: at once, with its own exit code, and nothing left behind."""

import time

import pytest
from outside import END_S, RUN_DIR_BYTES_MAX, Home, Program, is_gone, script

START = """
import atexit, os, threading, time
import headrace as hr
from client_tasks import inc, slowly
def say(*words):
    print(*words, flush=True)
client = hr.Client(workers=2)
"""

#: How a program ends whose tasks still run: its body, its exit code, and what it says last.
ENDS = {
    "its main thread ends": (
        """
        futures = [client.call(slowly, 60) for _ in range(10)]
        graph = hr.Graph()
        graph.map(slowly, [60] * 10)
        run = client.submit(graph)
        """,
        0,
        [],
    ),
    "threads wait": (
        """
        def wait(how):
            try:
                how()
            except hr.CancelledError as error:
                assert error.reason == "client-closed", error.reason
        future = client.call(slowly, 60)
        graph = hr.Graph()
        graph.map(slowly, [60] * 10)
        run = client.submit(graph)
        ways = future.result, future.exception, run.wait, run.results, lambda: list(run.as_completed())
        for way in ways:
            threading.Thread(target=wait, args=(way,), daemon=True).start()
        time.sleep(0.1)
        """,
        0,
        [],
    ),
    "a thread that is waited for waits": (
        """
        future = client.call(slowly, 0.3, "the value")
        threading.Thread(target=lambda: say(future.result())).start()
        """,
        0,
        ["the value"],
    ),
    "callbacks are pending": (
        """
        for _ in range(10):
            client.call(slowly, 60).add_done_callback(lambda future: os.write(1, b"told\\n"))
        """,
        0,
        ["told"] * 10,
    ),
    "a callback goes on": (
        """
        running = threading.Event()
        def callback(_):
            running.set()
            time.sleep(60)
        client.call(inc, 1).add_done_callback(callback)
        running.wait()
        """,
        0,
        [],
    ),
    "sys.exit": ("future = client.call(slowly, 60); sys.exit(7)", 7, []),
    "sys.exit within with": (
        """
        with client:
            future = client.call(slowly, 60)
            sys.exit(7)
        """,
        7,
        [],
    ),
    "sys.exit in a thread": (
        """
        future = client.call(slowly, 60)
        thread = threading.Thread(target=lambda: sys.exit(7))
        thread.start()
        thread.join()
        """,
        0,
        [],
    ),
    "an atexit handler uses the client": (
        """
        future = client.call(slowly, 60)
        atexit.register(lambda: say(client.call(inc, 1).result()))
        """,
        0,
        ["2"],
    ),
    "an atexit handler makes a client": (
        """
        @atexit.register
        def late():
            with hr.Client(workers=1) as own:
                say(own.call(inc, 1).result())
        future = client.call(slowly, 60)
        """,
        0,
        ["2"],
    ),
    "daemon threads submit": (
        """
        graph = hr.Graph()
        graph.map(inc, range(50_000))
        def submit():
            while True:
                try:
                    client.submit(graph).results()
                    client.call(inc, 1).result()
                except hr.UsageError:
                    return
                except hr.CancelledError:
                    continue
        for _ in range(3):
            threading.Thread(target=submit, daemon=True).start()
        time.sleep(0.3)
        """,
        0,
        [],
    ),
    "a cycle holds everything": (
        """
        class Holder: pass
        holder = Holder()
        holder.all = [holder, client, client.call(slowly, 60), client.submit(hr.Graph())]
        """,
        0,
        [],
    ),
    "tasks run on threads": (
        """
        client.close()
        client = hr.Client(workers=2, mode="threads")
        future = client.call(slowly, 60)
        """,
        0,
        [],
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_with_live_work(end):
    body, code, said = ENDS[end]
    with Home() as home, Program(home, *script(START, "say('now')", body)) as program:
        assert program.line() == "now\n"
        memory = program.memory()
        start = time.monotonic()
        assert program.end() == (code, "\n".join(["now", *said, ""]), "")
        assert time.monotonic() - start < END_S
        assert program.ended_within(END_S, start), program.pids()
        assert is_gone(memory)
        assert home.run_dirs() == []


@pytest.mark.parametrize("end", ["os._exit(7)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_a_program_that_just_goes_leaves_a_directory_at_most(end):
    body = f"""
        import faulthandler; faulthandler.disable()
        future = client.call(slowly, 60)
        say("now")
        {end}
        """
    with Home() as home, Program(home, *script(START, body)) as program:
        assert program.line() == "now\n"
        start = time.monotonic()
        assert program.end()[0] in (7, 134, 137)
        assert program.ended_within(END_S, start), program.pids()
        assert len(home.run_dirs()) <= 1
        assert home.bytes() <= RUN_DIR_BYTES_MAX

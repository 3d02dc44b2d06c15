"""Workers that stop answering, and workers that only seem to.

Each of these takes seconds by its nature, so they happen at the same time, once, and the tests look at what became of
them.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import outside
import pytest
from deadly_tasks import hold_interpreter, pid_of, stay_once

import headrace as hr

TIMEOUT_S = 40
wait_until = partial(outside.wait_until, timeout_s=TIMEOUT_S)
HERE = Path(__file__).parent
#: Longer than it takes until a worker counts as lost.
LONG_S = 7


def lines(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A worker that is stopped, one in native code that keeps the interpreter lock, and a client that is stopped."""
    folder = tmp_path_factory.mktemp("scene")
    traces = folder / "traces"
    stopped_client = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STOPPED_CLIENT), str(folder)], stdout=subprocess.PIPE, text=True
    )
    with hr.Client(workers=3) as client, stopped_client:
        wait_until((folder / "ready").exists)
        stopped_client.send_signal(signal.SIGSTOP)
        resume = threading.Timer(LONG_S, stopped_client.send_signal, args=(signal.SIGCONT,))
        resume.start()
        locked_pid = client.call(hr.task(pid_of, worker=2)).result(TIMEOUT_S)
        locked = client.call(hr.task(hold_interpreter, worker=2), LONG_S)
        hung = client.call(stay_once, str(traces), 60)
        wait_until(lambda: lines(traces))
        hung_pid = int(lines(traces)[0].split()[1])
        pidfd = os.pidfd_open(hung_pid)
        os.kill(hung_pid, signal.SIGSTOP)
        start = time.monotonic()
        wait_until(lambda: len(lines(traces)) > 1)
        redispatch_s = time.monotonic() - start
        result = hung.result(TIMEOUT_S)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        except ProcessLookupError:
            gone = True
        else:
            gone = False
        os.close(pidfd)
        locked_result = locked.result(TIMEOUT_S)
        statistics = client.statistics()
        resume.join()
        said = stopped_client.communicate(timeout=TIMEOUT_S)[0]
        assert client.call(pid_of).result(TIMEOUT_S) > 0
    return SimpleNamespace(
        redispatch_s=redispatch_s,
        hung_pid=hung_pid,
        result=result,
        gone=gone,
        traces=lines(traces),
        locked=(locked_pid, locked_result),
        statistics=statistics,
        said=said,
    )


STOPPED_CLIENT = f"""
    import sys; sys.path.insert(0, {str(HERE)!r})
    from pathlib import Path
    import headrace as hr
    from deadly_tasks import pid_of, stay
    folder = sys.argv[1]
    with hr.Client(workers=2) as client:
        before = sorted(client.call(hr.task(pid_of, worker=worker)).result() for worker in range(2))
        calls = [client.call(hr.task(stay, worker=worker), folder + "/stays", {LONG_S} / 2) for worker in range(2)]
        while not Path(folder, "stays").exists() or Path(folder, "stays").read_text().count("began") < 2:
            pass
        Path(folder, "ready").touch()
        print(sorted(call.result() for call in calls) == before, client.statistics().worker_deaths)
"""


def test_a_stopped_workers_task_runs_elsewhere_within_six_seconds(scene):
    assert 3.9 < scene.redispatch_s <= 6
    assert scene.result != scene.hung_pid


def test_a_stopped_worker_is_gone_so_nothing_late_can_come(scene):
    assert scene.gone, "it was killed before its work went elsewhere"
    ended = [line for line in scene.traces if line.startswith("ended")]
    assert ended == [f"ended {scene.result}"], "exactly one has come to its end"
    assert scene.statistics.stale_reports == 0


def test_silence_is_counted_against_nobody(scene):
    assert (scene.statistics.worker_deaths, scene.statistics.blamed_deaths) == (1, 0)


def test_native_code_that_keeps_the_interpreter_lock_is_not_silence(scene):
    before, after = scene.locked
    assert before == after


def test_a_client_that_was_stopped_itself_blames_no_worker(scene):
    assert scene.said == "True 0\n"

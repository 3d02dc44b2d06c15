"""Whom a worker's death is counted against, how often a task is tried again, and workers that cannot live."""

import os
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import outside
import pytest
from deadly_tasks import add, be_the_only_one, blow, inc, pid_of, raise_memory_error, take_memory, work

import headrace as hr

TIMEOUT_S = 50
wait_until = partial(outside.wait_until, timeout_s=TIMEOUT_S)
HERE = Path(__file__).parent


def run_script(text, **options):
    """Run a program of its own, with this folder on its path."""
    text = f"import sys; sys.path.insert(0, {str(HERE)!r})\n" + textwrap.dedent(text)
    command = [sys.executable, "-W", "error", "-c", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options)


# -- poison ------------------------------------------------------------------------------------------------------------


def test_b5_a_poison_task_among_a_thousand_is_the_only_one_to_fail(tmp_path):
    tasks, poison, traces = 500, 250, tmp_path / "traces"
    with hr.Client(workers=2) as client:
        graph = hr.Graph()
        graph.map(work, range(2_000), poison=-1, path=os.devnull)
        client.submit(graph).results(timeout=TIMEOUT_S)  # from here on batches are long
        graph = hr.Graph()
        layer = graph.map(work, range(tasks), poison=poison, path=str(traces))
        pairs = graph.map(add, layer[:-1], layer[1:])
        last = graph.add(inc, pairs[0])
        run = client.submit(graph, keep=[*layer, *pairs, last])
        outcomes = {node.key: (value, run) for node, value in run.as_completed(errors="return")}
        values = [outcomes[node.key][0] for node in layer]
        error = values[poison]
        assert type(error) is hr.PoisonTask
        assert [value for number, value in enumerate(values) if number != poison] == [
            number + 1 for number in range(tasks) if number != poison
        ]
        for number, node in enumerate(pairs):
            value = outcomes[node.key][0]
            if number in (poison - 1, poison):
                assert type(value) is hr.UpstreamFailed
                assert value.root_key == layer[poison].key
            else:
                assert value == 2 * number + 3
        assert outcomes[last.key][0] == 4
        statistics = run.statistics()
        assert (statistics.failed, statistics.skipped) == (1, 2)
        # Its own deaths are all that were counted against anybody.
        assert statistics.worker_deaths == statistics.blamed_deaths == error.attempts == 3
        assert len(error.deaths) == len({death.pid for death in error.deaths}) == 3
        times = Counter(map(int, traces.read_text().split()))
        assert times.pop(poison) == 3
        assert max(times.values()) > 1, "some were in the same batch, and ran again"
        for death in error.deaths:
            assert f"worker {death.worker} (pid {death.pid}) was killed by SIGKILL" in str(error)


@pytest.mark.parametrize("limit", [1, 2])
def test_the_crash_limit_is_the_clients(limit):
    with hr.Client(workers=1, crash_limit=limit) as client:
        with pytest.raises(hr.WorkerDied, match=rf"\(attempt {limit}/{limit}\).*exited with code 3") as caught:
            client.call(blow, "exit").result(TIMEOUT_S)
        assert type(caught.value) is (hr.WorkerDied if limit == 1 else hr.PoisonTask)
        assert client.statistics().worker_deaths == limit


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"crash_limit": 0}, "crash_limit takes a number of deaths from 1 to 255, not 0"),
        ({"crash_limit": 256}, "from 1 to 255"),
        ({"crash_limit": None}, "not None"),
        ({"oom_limit": True}, "oom_limit takes a number of deaths"),
        ({"max_tasks_per_worker": 0}, "from 1 on, or None"),
        ({"max_tasks_per_worker": 2.0}, r"not 2\.0"),
        ({"max_tasks_per_worker": 2, "mode": "threads"}, "worker processes"),
        ({"max_tasks_per_worker": 2, "mode": "sync"}, "worker processes"),
    ],
)
def test_bad_limits_are_refused(arguments, words):
    with pytest.raises(hr.UsageError, match=words):
        hr.Client(workers=1, **arguments)


# -- memory ------------------------------------------------------------------------------------------------------------

LIMIT_MIB = 400


def is_removed(group):
    """Whether a control group could be removed, which needs the end of every thread in it."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@contextmanager
def memory_group(limit_mib):
    """A memory control group of our own: its files of processes and of kills. Skips where none can be made."""
    tried = []
    for root, limit, swap, events in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
        ("/sys/fs/cgroup", "memory.max", "memory.swap.max", "memory.events"),
    ):
        group = Path(root, f"headrace-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError as error:
            tried.append(f"{group}: {error.strerror}")
            continue
        try:
            try:
                (group / limit).write_text(str(limit_mib << 20))
                if (group / swap).exists():
                    (group / swap).write_text(str(limit_mib << 20) if "memsw" in swap else "0")
            except OSError as error:
                tried.append(f"{group / limit}: {error.strerror}")
                continue
            yield group / "cgroup.procs", group / events
            return
        finally:
            wait_until(lambda: is_removed(group))  # noqa: B023
    pytest.skip("no memory control group can be made here, so nothing can be killed by it: " + "; ".join(tried))


def test_a_kill_for_want_of_memory_is_told_apart():
    with memory_group(LIMIT_MIB) as (processes, events):
        script = run_script(f"""
            from pathlib import Path
            import os
            Path({str(processes)!r}).write_text(str(os.getpid()))
            import headrace as hr
            from deadly_tasks import blow, inc, take_memory
            with hr.Client(workers=2) as client:
                graph = hr.Graph()
                fine = graph.map(inc, range(200))
                run = client.submit(graph, keep=fine)
                bomb = client.call(hr.task(take_memory, key="bomb"), 2 * {LIMIT_MIB})
                try:
                    bomb.result(20)
                except MemoryError as error:
                    print(type(error).__name__, error)
                assert run.results(20) == list(range(1, 201))
                s = client.statistics()
                print(s.oom_deaths, s.worker_deaths, s.blamed_deaths)
                # A kill that the kernel knows nothing of is none of its own.
                error = client.call(blow, "kill").exception(20)
                s = client.statistics()
                print(type(error).__name__, s.oom_deaths, s.worker_deaths)
        """)
        kills = events.read_text()
    assert (script.returncode, len(script.stdout.splitlines())) == (0, 3), f"{script.stderr}{script.stdout}{kills}"
    words, counts, poison = script.stdout.splitlines()
    assert "oom_kill 1" in kills.splitlines(), kills
    assert words.startswith("WorkerOOM task 'bomb' (attempt 1/1) was running in worker "), words
    assert "the kernel's OOM killer was active in the control group that this worker shares with 2 other" in words
    # How much the worker took is not always known: the kernel may take its memory before it is counted.
    assert f"the group may take {LIMIT_MIB} MiB" in words
    assert (counts, poison) == ("1 1 1", "PoisonTask 1 4")


def test_a_memory_error_of_a_task_is_its_own():
    with hr.Client(workers=1) as client:
        pid = client.call(pid_of).result(TIMEOUT_S)
        with pytest.raises(MemoryError, match="of its own") as caught:
            client.call(raise_memory_error).result(TIMEOUT_S)
        assert type(caught.value) is MemoryError
        with pytest.raises(MemoryError) as caught:
            client.call(take_memory, 1 << 40).result(TIMEOUT_S)  # more than there are addresses
        assert type(caught.value) is MemoryError
        assert client.call(pid_of).result(TIMEOUT_S) == pid


# -- workers that cannot live ------------------------------------------------------------------------------------------


def test_an_interpreter_that_is_not_there_is_named_without_spinning():
    script = run_script("""
        import time, headrace as hr
        sys.executable = "/nowhere/python"
        with hr.Client(workers=2) as client:
            call, start, cpu = client.call(len, ""), time.monotonic(), time.process_time()
            error = call.exception()
            print(type(error).__name__, error)
            print(time.monotonic() - start, time.process_time() - cpu)
    """)
    words, times = script.stdout.splitlines()
    assert "InfraError" in words
    assert "could not be started, 3 times in a row" in words
    assert "cannot execute /nowhere/python" in words
    wall_s, cpu_s = map(float, times.split())
    assert 0.1 < wall_s < 10, "it was tried again, with pauses"
    assert cpu_s < 0.2 * wall_s


def test_a_module_that_cannot_be_imported_is_told_of(capfd):
    with hr.Client(workers=2, preload=["module_that_raises"]) as client:
        error = client.call(inc, 1).exception(TIMEOUT_S)
    assert type(error) is hr.InfraError
    assert "exited with code 3 before it could take work, 3 times in a row" in str(error)
    assert "ImportError: libmissing.so.7: cannot open shared object file" in str(error)
    assert "libmissing.so.7" in capfd.readouterr().err


def test_a_worker_that_cannot_start_leaves_the_work_to_others(tmp_path, capfd):
    place = tmp_path / "place"
    with hr.Client(workers=2, setup=partial(be_the_only_one, str(place))) as client:
        said = []

        def has_said(words):
            said.append(capfd.readouterr().err)
            return words in "".join(said)

        wait_until(lambda: has_said("the other workers go on, but worker "))
        graph = hr.Graph()
        run = client.submit(graph, keep=graph.map(inc, range(300)))
        assert run.results(timeout=TIMEOUT_S) == list(range(1, 301))
        (broken,) = re.findall(r"go on, but worker (\d) exited with code 7 .* 3 times in a row", "".join(said))
        call = client.call(hr.task(pid_of, worker=int(broken)))
        cpu_s, start_s = time.process_time(), time.monotonic()
        with pytest.raises(TimeoutError):
            call.result(1)
        assert time.process_time() - cpu_s < 0.05 * (time.monotonic() - start_s), "the broker spins"
        assert client.statistics().worker_deaths >= 3
        place.unlink()
        assert call.result(TIMEOUT_S) > 0, "the next try is one that works"
        assert client.statistics().blamed_deaths == 0

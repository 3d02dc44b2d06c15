"""Workers that leave after so many tasks: nothing is lost with them, and nobody waits for long."""

import contextlib
import operator
import os
from collections import Counter
from functools import partial
from pathlib import Path

import outside
import pytest
from client_tasks import wait_for
from deadly_tasks import add, blow, inc, note, ones, pid_of, total

import headrace as hr

TIMEOUT_S = 50
wait_until = partial(outside.wait_until, timeout_s=TIMEOUT_S)
ITEMS = 300_000


def traced(path, *numbers):
    note(path, os.getpid())
    return sum(numbers) + 1


@pytest.fixture(params=[1, 10], ids=["N=1", "N=10"])
def share(request):
    return request.param


def test_nothing_is_lost_and_nobody_runs_more_than_its_share(share, tmp_path):
    traces = tmp_path / "traces"
    with hr.Client(workers=2, max_tasks_per_worker=share) as client:
        graph = hr.Graph()
        size = 4 if share == 1 else 20
        chain = graph.add(traced, str(traces))
        for _ in range(size - 1):
            chain = graph.add(traced, str(traces), chain)
        layer = graph.map(traced, [str(traces)] * size, range(size))
        pairs = graph.map(traced, [str(traces)] * (size - 1), layer[:-1], layer[1:])
        run = client.submit(graph, keep=[chain, pairs])
        assert run.results(timeout=TIMEOUT_S) == [size] + [2 * number + 4 for number in range(size - 1)]
        tasks = 3 * size - 1
        by_process = Counter(traces.read_text().split())
        assert sum(by_process.values()) == tasks, "each ran once"
        assert max(by_process.values()) <= share
        assert len(by_process) >= tasks / share
        statistics = client.statistics()
        assert (statistics.worker_deaths, statistics.blamed_deaths) == (0, 0)
        assert statistics.workers_retired >= tasks / share - 3


def test_large_results_outlive_the_worker_that_made_them(share):
    with hr.Client(workers=2, max_tasks_per_worker=share) as client:
        graph = hr.Graph()
        arrays = graph.map(ones, [ITEMS + number for number in range(4)])
        sums = graph.map(total, arrays)
        last = graph.reduce(operator.add, sums)
        run = client.submit(graph, keep=[*arrays[:3], last])
        assert run.result(last, timeout=TIMEOUT_S) == sum(ITEMS + number for number in range(4))
        pids = {worker.pid for worker in client.statistics().workers}
        assert [array.sum() for array in run.results()[:3]] == [ITEMS, ITEMS + 1, ITEMS + 2]
        # Those that made them are gone; what they keep is what the results take, not what was granted for more.
        ref = run.ref(arrays[0])
        while client.call(pid_of).result(TIMEOUT_S) in pids:
            pass
        assert client.call(total, ref).result(TIMEOUT_S) == ITEMS
        assert client.statistics().worker_deaths == 0


def test_what_retired_workers_leave_is_charged_by_the_page():
    with hr.Client(workers=1, max_tasks_per_worker=1, store_limit=64 << 20) as client:
        graph = hr.Graph()
        arrays = graph.map(ones, [ITEMS] * 6)
        run = client.submit(graph, keep=arrays)
        assert sum(array.sum() for array in run.results(timeout=TIMEOUT_S)) == 6 * ITEMS
        wait_until(lambda: client.statistics().workers_retired == 6)
        assert client.statistics().store.owned < 8 * 8 * ITEMS, "whole segments would take the budget"
        assert client.statistics().store.spilled == 0


def test_functions_and_a_setup_reach_every_new_process():
    def prepare():
        os.environ["PREPARED"] = "yes"

    def look(number):
        return os.environ["PREPARED"], number, os.getpid()

    with hr.Client(workers=1, max_tasks_per_worker=1, setup=prepare) as client:
        seen = [client.call(look, number).result(TIMEOUT_S) for number in range(3)]
    assert [(word, number) for word, number, _ in seen] == [("yes", 0), ("yes", 1), ("yes", 2)]
    assert len({pid for *_, pid in seen}) == 3


def test_a_crash_is_a_crash_though_workers_retire():
    with hr.Client(workers=1, max_tasks_per_worker=2, crash_limit=2) as client:
        assert client.call(inc, 1).result(TIMEOUT_S) == 2
        with pytest.raises(hr.PoisonTask, match="SIGSEGV"):
            client.call(blow, "segfault").result(TIMEOUT_S)
        assert client.call(add, 1, 2).result(TIMEOUT_S) == 3
        assert (client.statistics().worker_deaths, client.statistics().blamed_deaths) == (2, 2)


def test_the_successor_is_there_when_its_predecessor_leaves(tmp_path):
    others = children()
    with hr.Client(workers=1, max_tasks_per_worker=1) as client:
        first = client.call(wait_for, tmp_path / "gate")
        pid = client.statistics().workers[0].pid
        wait_until(lambda: len(children() - others) == 2)
        assert not first.done(), "it has been started while the task runs"
        (tmp_path / "gate").touch()
        first.result(TIMEOUT_S)
        assert client.call(pid_of).result(TIMEOUT_S) != pid
    assert not children() - others


def children():
    """Processes that this one has started."""
    found = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found |= set(Path(f"/proc/self/task/{thread}/children").read_text().split())
    return found

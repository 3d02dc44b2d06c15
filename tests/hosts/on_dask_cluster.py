"""headrace on a Dask cluster: real schedulers, nannies and workers.

`test_dask_cluster.py` runs this in a process of its own: Dask's distributed changes how exceptions travel.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed
import pytest
from places import mark, of_this_test, wait_until

import headrace as hr
from headrace.adaptive import by_backlog
from headrace.integrations import dask_cluster

TIMEOUT_S = 60

mark()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where brokers make their directories."""
    path = tmp_path_factory.mktemp("run")
    os.environ["XDG_RUNTIME_DIR"] = str(path)
    return path


@pytest.fixture
def dask(home):
    """A client of a cluster with two workers of one thread."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client
    wait_until(lambda: not of_this_test("--tied"))
    assert list(home.iterdir()) == []


def square(x):
    return x * x


def add(left, right):
    return left + right


def slowly(seconds, number, path=None):
    if path:
        with open(path, "ab", buffering=0) as file:
            file.write(f"start {number}\n".encode())
    time.sleep(seconds)
    return number


def family(_=None):
    """The process of the task, and those above it."""
    found, pid = [], os.getpid()
    while pid > 1:
        found.append(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return found


def nothing_is_left(dask):
    def plugins(dask_scheduler):
        return [name for name in (*dask_scheduler.plugins, *dask_scheduler.worker_plugins) if "headrace" in name]

    def of_worker(dask_worker):
        return [name for name in dask_worker.plugins if "headrace" in name]

    return (
        not of_this_test("--tied")
        and not of_this_test("headrace.worker")
        and dask.run_on_scheduler(plugins) == []
        and not any(dask.run(of_worker).values())
    )


def agents():
    return of_this_test("--tied")


@pytest.mark.parametrize("broker", ["client", "scheduler"])
def test_a_graph_runs_beside_the_dask_workers(dask, broker):
    with dask_cluster.start(dask, broker=broker) as cluster, cluster.client() as client:
        graph = hr.Graph()
        total = graph.reduce(add, graph.map(square, range(1_000)))
        assert client.submit(graph, keep=[total]).result(timeout=TIMEOUT_S) == sum(x * x for x in range(1_000))
        cluster.wait_for_workers(2)
        run = client.submit(places_of_many())
        families = run.results()
        beside = set(dask.run(os.getpid).values())
        assert {pid for pid in beside if any(pid in above for above in families)} == beside, "both did some of it"
        assert dask.submit(square, 7).result() == 49, "Dask works as before"
    assert nothing_is_left(dask)


def places_of_many():
    graph = hr.Graph()
    graph.map(slow_family, range(200))
    return graph


def slow_family(_):
    time.sleep(0.005)
    return family()


def test_a_dask_worker_that_is_killed_comes_back_with_an_agent(dask, tmp_path):
    with dask_cluster.start(dask) as cluster, cluster.client() as client:
        cluster.wait_for_workers(2)
        before, effects = agents(), tmp_path / "effects"
        futures = [client.call(slowly, 0.05, number, str(effects)) for number in range(100)]
        wait_until(effects.exists)
        victim = next(iter(dask.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        assert [future.result(timeout=TIMEOUT_S) for future in futures] == list(range(100))
        starts = {int(line.split()[1]) for line in effects.read_text().splitlines()}
        assert starts == set(range(100))
        wait_until(lambda: len(agents()) == 2 and len(set(agents()) & set(before)) == 1)
        cluster.wait_for_workers(2)
        assert client.call(square, 3).result(timeout=TIMEOUT_S) == 9
    assert nothing_is_left(dask)


def test_agents_come_and_go_with_dask_workers(dask):
    with dask_cluster.start(dask) as cluster, cluster.client() as client:
        dask.cluster.scale(3)
        cluster.wait_for_workers(3)
        dask.cluster.scale(1)
        wait_until(lambda: len(agents()) == 1)
        wait_until(lambda: sum(1 for worker in client.statistics().workers if worker.pid) == 1)
        assert client.call(square, 3).result(timeout=TIMEOUT_S) == 9
        dask.restart()
        cluster.wait_for_workers(1)
        assert client.call(square, 4).result(timeout=TIMEOUT_S) == 16
    assert nothing_is_left(dask)


def test_an_agent_that_is_killed_is_started_anew(dask):
    with dask_cluster.start(dask) as cluster, cluster.client() as client:
        before = agents()
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(agents()) == 2 and set(agents()) != set(before))
        cluster.wait_for_workers(2)
        assert client.call(square, 3).result(timeout=TIMEOUT_S) == 9
    assert nothing_is_left(dask)


STARTS_AND_STAYS = """
import sys, distributed
from headrace.integrations import dask_cluster
if __name__ == "__main__":
    client = distributed.Client(sys.argv[1])
    cluster = dask_cluster.start(client, broker=sys.argv[2])
    with cluster.client() as session:
        assert session.call(pow, 2, 5).result(timeout=30) == 32
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("broker", ["client", "scheduler"])
def test_a_program_that_is_killed_leaves_nothing_behind(dask, broker, home):
    words = [sys.executable, "-c", STARTS_AND_STAYS, dask.scheduler.address, broker]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "ready\n"
        wait_until(lambda: len(agents()) == 2)
        program.kill()
    wait_until(lambda: nothing_is_left(dask))
    if broker == "scheduler":  # it ends last, in order
        wait_until(lambda: not any(home.iterdir()))
    for directory in home.iterdir():  # of a broker that was killed; the next one would do it
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def test_a_program_that_ends_without_a_word_leaves_nothing_behind(dask):
    words = [sys.executable, "-c", STARTS_AND_STAYS, dask.scheduler.address, "client"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "ready\n"
        program.stdin.close()
    assert program.returncode == 0
    wait_until(lambda: nothing_is_left(dask))


def test_the_end_of_the_dask_client_ends_the_session(dask):
    with distributed.Client(dask.scheduler.address) as other:
        cluster = dask_cluster.start(other)
        wait_until(lambda: len(agents()) == 2)
    wait_until(lambda: nothing_is_left(dask))
    cluster.close()


def test_two_sessions_do_not_meet(dask):
    with dask_cluster.start(dask) as one, dask_cluster.start(dask, broker="scheduler") as other:
        with one.client() as client, other.client() as neighbour:
            assert client.call(square, 2).result(timeout=TIMEOUT_S) == 4
            assert neighbour.call(square, 3).result(timeout=TIMEOUT_S) == 9
        other.close()
        with one.client() as client:
            assert client.call(square, 4).result(timeout=TIMEOUT_S) == 16
    assert nothing_is_left(dask)


def test_what_an_agent_is_refused_for_is_raised_by_the_start(dask):
    with pytest.raises(hr.InfraError, match=r"it has 2 slots, and there are \d free places"):
        dask_cluster.start(dask, slots=2, places=3)
    assert nothing_is_left(dask)
    with pytest.raises(hr.UsageError, match="broker is 'client' or 'scheduler', not 'both'"):
        dask_cluster.start(dask, broker="both")


def test_secrets_are_in_no_command_line_and_no_environment(dask):
    with dask_cluster.start(dask) as cluster, cluster.client() as client:
        assert client.call(square, 2).result(timeout=TIMEOUT_S) == 4
        keys = cluster._keys
        secrets = [keys.broker.secret, keys.client.secret, keys.worker.secret]
        pids = of_this_test("")
        assert len(pids) >= 7, "this one, two nannies' workers, two agents, two workers"
        for pid in pids:
            for name in ("cmdline", "environ"):
                text = Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
                assert not any(secret in text for secret in secrets)
        assert not any(secret in repr((keys.broker, keys.client, keys.worker)) for secret in secrets)


def test_workers_on_threads_have_agents_too(home):
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None, "processes": False}
    with contextlib.ExitStack() as stack:
        dask = stack.enter_context(distributed.Client(stack.enter_context(distributed.LocalCluster(**options))))
        with dask_cluster.start(dask) as started, started.client() as client:
            started.wait_for_workers(2)
            assert client.call(square, 2).result(timeout=TIMEOUT_S) == 4
        assert nothing_is_left(dask)


def test_workers_follow_the_load(dask, tmp_path):
    with dask_cluster.start(dask) as cluster, cluster.client() as client:
        asked = []

        def decide(load):
            asked.append(load)
            return by_backlog(1, 3, target_s=0.5)(load)

        cluster.adapt(decide, every_s=0.1)
        wait_until(lambda: len(agents()) == 1)
        futures = [client.call(slowly, 0.05, number) for number in range(200)]
        wait_until(lambda: len(agents()) == 3)
        first = client.call(square, 7)
        assert [future.result(timeout=TIMEOUT_S) for future in futures] == list(range(200))
        ref = client.put(1)
        wait_until(lambda: len(agents()) == 1)
        assert client.call(add, first, ref).result(timeout=TIMEOUT_S) == 50, "what only a worker had that went is kept"
        assert max(load.ready for load in asked) > 50
        assert asked[-1].task_s > 0.01
    assert nothing_is_left(dask)


def test_a_client_of_an_address_cannot_scale(dask):
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(distributed.Client(dask.scheduler.address))
        cluster = stack.enter_context(dask_cluster.start(other))
        with pytest.raises(hr.UsageError, match="knows no cluster that can be scaled"):
            cluster.adapt(by_backlog(1, 3))
    wait_until(lambda: nothing_is_left(dask))


def test_a_dask_worker_that_leaves_ends_what_it_runs(dask, tmp_path):
    with dask_cluster.start(dask) as cluster, cluster.client() as client:
        cluster.wait_for_workers(2)
        effects = tmp_path / "effects"
        futures = [client.call(slowly, 0.5, number, str(effects)) for number in range(6)]
        wait_until(lambda: effects.exists() and len(effects.read_text().splitlines()) == 2)
        dask.cluster.scale(1)
        assert [future.result(timeout=TIMEOUT_S) for future in futures] == list(range(6))
        assert len(effects.read_text().splitlines()) == 6, "nothing ran twice"
    assert nothing_is_left(dask)

"""Workers from elsewhere: agents join a broker over the network, leave it, die and come back. Real processes."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import machine_tasks
import msgpack
import pytest
import zmq
from client_tasks import inc
from machine_tasks import place, slowly
from networks import network
from outside import PATH, TIMEOUT_S, Home, Program, command_line, wait_until
from store_watch import eventually
from test_security import answer, dealer

import headrace as hr
from headrace import keys
from headrace.cli.app import ExitCode

HELLO, GOODBYE, AGENT = 1, 3, 4


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATH)


@contextlib.contextmanager
def listening(home, folder, *options, listen="tcp://127.0.0.1:*", wrap=list, workers=0):
    words = command_line("broker", "--workers", workers, "--listen", listen, "--keys", folder, *options)
    with Program(home, *wrap(words)) as program:
        yield program, program.line().strip(), program.line().strip()


@contextlib.contextmanager
def agent(home, endpoint, folder, *options, slots=2, wrap=list):
    words = command_line("worker", endpoint, "--keys", folder, "--slots", slots, *options)
    with Program(home, *wrap(words)) as program:
        yield program


def workers_up(client):
    return sum(1 for worker in client.statistics().workers if worker.pid)


def wait_for_workers(client, count, timeout_s=TIMEOUT_S):
    wait_until(lambda: workers_up(client) == count, timeout_s)


@pytest.fixture
def cluster(folder):
    """A client of a broker without workers of its own, and an agent with two."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(Home())
        broker, address, endpoint = stack.enter_context(listening(home, folder))
        program = stack.enter_context(agent(home, endpoint, folder))
        client = stack.enter_context(hr.Client(address))
        wait_for_workers(client, 2)
        yield client, program, broker, endpoint, home
        client.close(cancel=True)


def test_tasks_run_where_the_agent_is(cluster):
    client, program, *_ = cluster
    pids = {worker.pid for worker in client.statistics().workers}
    assert pids <= set(program.children())
    graph = hr.Graph()
    total = graph.reduce(machine_tasks_add, graph.map(inc, range(2_000)))
    assert client.submit(graph, keep=[total]).result(timeout=TIMEOUT_S) == sum(range(1, 2_001))
    assert {client.call(place, number).result(timeout=TIMEOUT_S)[1] for number in range(20)} <= pids
    payload = os.urandom(20 << 20)
    assert client.call(inc_bytes, payload).result(timeout=TIMEOUT_S) == payload[::-1]
    assert client.call(machine_tasks.tree, 3).result(timeout=TIMEOUT_S) == 8


def machine_tasks_add(left, right):
    return left + right


def inc_bytes(payload):
    return payload[::-1]


def test_what_a_task_prints_there_appears_with_its_client(cluster):
    client, *_ = cluster
    future = client.call(machine_tasks.say, "from afar")
    assert future.result(timeout=TIMEOUT_S) == "from afar"
    assert eventually(lambda: "from afar\n" in str(future.logs()))


def test_a_task_there_is_interrupted(cluster, tmp_path):
    client, *_ = cluster
    started = tmp_path / "started"
    graph = hr.Graph()
    graph.add(machine_tasks.spin, str(started))
    run = client.submit(graph)
    wait_until(started.exists)
    run.cancel()
    wait_until(Path(f"{started}-interrupted").exists)
    assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
    with pytest.raises(hr.TaskTimeout):
        client.call(hr.task(machine_tasks.spin, timeout_s=0.2), str(tmp_path / "again")).result(timeout=TIMEOUT_S)


def test_a_task_there_that_kills_its_worker_is_blamed(cluster):
    client, *_ = cluster
    with pytest.raises(hr.PoisonTask, match="SIGKILL"):
        client.call(machine_tasks.die).result(timeout=TIMEOUT_S)
    assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
    wait_for_workers(client, 2)


def test_what_a_dead_agent_had_runs_elsewhere(cluster, folder, tmp_path):
    client, program, _, endpoint, home = cluster
    effects = tmp_path / "effects"
    futures = [client.call(slowly, 0.05, str(effects), number) for number in range(60)]
    wait_until(effects.exists)
    with agent(home, endpoint, folder) as other:
        wait_for_workers(client, 4)
        children = program.children()
        start = time.monotonic()
        os.kill(program.pid, signal.SIGKILL)
        assert [future.result(timeout=TIMEOUT_S)[0] for future in futures] == list(range(60))
        assert time.monotonic() - start < 10
        assert eventually(lambda: not set(children) & set(program.pids()))
        wait_for_workers(client, 2)
        ends = [line for line in effects.read_text().splitlines() if line.startswith("end")]
        assert {int(line.split()[1]) for line in ends} == set(range(60)), "each ran at least once"
        assert set(other.children()) >= {worker.pid for worker in client.statistics().workers if worker.pid}


def test_at_sigterm_what_runs_ends_and_the_agent_leaves(cluster, folder, tmp_path):
    """Two of a hundred tasks run; the others are another machine's, and nothing runs twice."""
    client, program, _, endpoint, home = cluster
    effects = tmp_path / "effects"
    futures = [client.call(slowly, 0.5, str(effects), number) for number in range(10)]
    wait_until(lambda: effects.exists() and len(effects.read_text().splitlines()) >= 2)
    with agent(home, endpoint, folder) as other:
        os.kill(program.pid, signal.SIGTERM)
        code, _, errors = program.end()
        assert (code, "draining" in errors) == (0, True), errors
        assert eventually(lambda: not program.pids())
        assert [future.result(timeout=TIMEOUT_S)[0] for future in futures] == list(range(10))
        lines = effects.read_text().splitlines()
        assert sorted(lines) == sorted(f"{what} {number}" for what in ("start", "end") for number in range(10))
        wait_for_workers(client, 2)
        assert {worker.pid for worker in client.statistics().workers if worker.pid} <= set(other.children())


def test_results_that_only_a_leaving_machine_has_are_kept(cluster, folder):
    client, program, _, endpoint, home = cluster
    graph = hr.Graph()
    first = graph.map(inc, range(100))
    run = client.submit(graph, keep=first)
    run.wait(timeout=TIMEOUT_S)
    refs = [run.ref(node) for node in first]
    os.kill(program.pid, signal.SIGTERM)
    assert program.end()[0] == 0
    with agent(home, endpoint, folder):
        assert client.call(sum, refs).result(timeout=TIMEOUT_S) == sum(range(1, 101))


@pytest.mark.parametrize("how", ["a second signal", "its time"])
def test_an_agent_that_drains_for_too_long_leaves_at_once(folder, how):
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(Home())
        _, address, endpoint = stack.enter_context(listening(home, folder))
        options = ["--drain-s", 0.3 if how == "its time" else 60]
        program = stack.enter_context(agent(home, endpoint, folder, *options))
        client = stack.enter_context(hr.Client(address))
        wait_for_workers(client, 2)
        future = client.call(slowly, 30)
        wait_until(lambda: client.statistics().leased == 1)
        os.kill(program.pid, signal.SIGTERM)
        if how == "a second signal":
            wait_until(lambda: workers_up(client) == 1)
            os.kill(program.pid, signal.SIGTERM)
        code, _, errors = program.end()
        assert code == 0, errors
        assert eventually(lambda: not program.pids())
        wait_for_workers(client, 0)
        assert not future.done(), "it waits for a worker"
        client.close(cancel=True)


def test_an_agent_waits_for_its_broker_and_comes_back(folder):
    with Home() as home:
        with listening(home, folder) as (_, _, endpoint):
            pass
        with agent(home, endpoint, folder) as program:
            for _ in range(2):
                with contextlib.ExitStack() as stack:
                    broker, address, _ = stack.enter_context(listening(home, folder, listen=endpoint))
                    client = stack.enter_context(hr.Client(address))
                    wait_for_workers(client, 2)
                    assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
                    os.kill(broker.pid, signal.SIGKILL)
                    broker.process.wait()
            assert program.process.poll() is None


def test_an_agent_ends_with_a_broker_that_was_told_to(cluster):
    client, program, broker, *_ = cluster
    client.close()
    os.kill(broker.pid, signal.SIGTERM)
    assert broker.end()[0] == 0
    code, _, errors = program.end()
    assert (code, "the broker has ended" in errors) == (0, True), errors
    assert eventually(lambda: not program.pids())


def test_a_stopped_agent_is_lost_and_comes_back(cluster):
    client, program, *_ = cluster
    future = client.call(slowly, 0.1)
    assert future.result(timeout=TIMEOUT_S)
    pids = {worker.pid for worker in client.statistics().workers}
    os.kill(program.pid, signal.SIGSTOP)
    start = time.monotonic()
    wait_for_workers(client, 0)
    assert time.monotonic() - start < 8
    os.kill(program.pid, signal.SIGCONT)
    wait_for_workers(client, 2)
    assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
    assert not pids & {worker.pid for worker in client.statistics().workers}, "those of before were ended"


def test_too_many_slots_are_refused_in_words(folder):
    with Home() as home, listening(home, folder, "--places", 3) as (_, _, endpoint):
        with agent(home, endpoint, folder, slots=4) as program:
            code, _, errors = program.end()
        assert code == ExitCode.INFRASTRUCTURE
        assert "it has 4 slots, and there are 3 free places" in errors


def test_a_machine_whose_workers_cannot_start_is_told_so_and_others_go_on(cluster, folder):
    client, _, _, endpoint, home = cluster
    with agent(home, endpoint, folder, "--preload", "no_such_module") as program:
        code, _, errors = program.end()
    assert code == ExitCode.INFRASTRUCTURE
    assert "no_such_module" in errors
    assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


def test_other_versions_are_refused_with_both_named(cluster, folder):
    _, _, _, endpoint, _ = cluster
    own = keys.keys_of_peer(folder, "worker")
    for version, python, text in (
        (
            hr.__version__,
            "3.9.1",
            f"runs Python {'.'.join(map(str, sys.version_info[:3]))}, the peer runs Python 3.9.1",
        ),
        ("0.0.1", "3.11.1", f"the broker is headrace {hr.__version__} (protocol 1), the peer is headrace 0.0.1"),
    ):
        with zmq.Context() as context:
            peer = dealer(context, endpoint, own)
            told = answer(peer, msgpack.packb([HELLO, 1, AGENT, version, python, 0, 1, 0, 1]))
            assert told[0] == GOODBYE
            assert text in told[2]
            context.destroy(0)


@pytest.mark.parametrize("key", ["client.key", "observer.key"])
def test_an_agent_needs_the_key_of_a_worker(cluster, folder, key):
    _, _, _, endpoint, home = cluster
    with agent(home, endpoint, folder / key) as program:
        code, _, errors = program.end()
    assert code == ExitCode.INFRASTRUCTURE
    assert "it says that it is a worker" in errors


# -- what a machine has ------------------------------------------------------------------------------------------------


def test_what_a_machine_has_is_counted_for_its_workers_alone(cluster, folder, tmp_path):
    client, _, _, endpoint, home = cluster
    careful = hr.task(slowly, resources={"fpga": 1})
    effects = tmp_path / "effects"
    early = client.call(careful, 0.1, str(effects), 0)
    assert "fpga" in early.why().text
    with agent(home, endpoint, folder, "--resource", "fpga=1", "--name", "bench") as program:
        wait_for_workers(client, 4)
        futures = [early, *(client.call(careful, 0.1, str(effects), number) for number in range(1, 6))]
        pids = {future.result(timeout=TIMEOUT_S)[2] for future in futures}
        assert pids <= set(program.children())
        order = [line.split() for line in effects.read_text().splitlines()]
        assert [what for what, _ in order] == ["start", "end"] * 6, "one at a time"
        shared = {thing.name: thing.total for thing in client.statistics().shared}
        assert shared["fpga"] == 1
        assert shared["memory"] > 0
        two = client.call(hr.task(slowly, resources={"fpga": 2}), 0)
        assert two.why().state == "ready"
        with agent(home, endpoint, folder, "--resource", "fpga=2"):
            assert two.result(timeout=TIMEOUT_S)[0] == 0
    wait_for_workers(client, 2)
    assert {thing.name: thing.total for thing in client.statistics().shared}["fpga"] == 0
    late = client.call(careful, 0)
    assert late.why().state == "ready"
    with agent(home, endpoint, folder, "--resource", "fpga=1"):
        assert late.result(timeout=TIMEOUT_S)[0] == 0


def test_what_the_broker_counts_is_no_machines(folder):
    with Home() as home, listening(home, folder, "--resource", "license=1") as (_, _, endpoint):
        with agent(home, endpoint, folder, "--resource", "license=1") as program:
            code, _, errors = program.end()
        assert code == ExitCode.INFRASTRUCTURE
        assert "the broker counts the resource 'license' for all machines together" in errors


# -- machines with networks of their own -------------------------------------------------------------------------------


@contextlib.contextmanager
def two_machines(folder):
    """A client, two machines and the agents on them."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network(2))
        home = stack.enter_context(Home())
        listen = "tcp://0.0.0.0:8786"
        _, address, _ = stack.enter_context(
            listening(home, folder, listen=listen, wrap=lambda words: net.command(*words))
        )
        agents = []
        for machine in net.machines:
            endpoint = f"tcp://{machine.broker_address}:8786"
            wrap = lambda words, machine=machine: machine.command(*words)  # noqa: E731
            options = ["--name", machine.name]
            agents.append(stack.enter_context(agent(home, endpoint, folder, *options, slots=1, wrap=wrap)))
        client = stack.enter_context(hr.Client(address))
        wait_for_workers(client, 2)
        yield client, net.machines, agents
        client.close(cancel=True)


def test_two_machines_share_the_work(folder):
    with two_machines(folder) as (client, *_):
        graph = hr.Graph()
        run = client.submit(graph_of_places(graph, 200))
        spaces = {space for space, _ in run.results()}
        assert len(spaces) == 2
        assert os.stat("/proc/self/ns/net").st_ino not in spaces


def graph_of_places(graph, count):
    graph.map(placed_slowly, range(count))
    return graph


def placed_slowly(_):
    time.sleep(0.005)
    return place()


def test_a_machine_behind_a_cut_cable_is_lost_and_comes_back(folder, tmp_path):
    with two_machines(folder) as (client, machines, _):
        effects = tmp_path / "effects"
        futures = [client.call(slowly, 0.1, str(effects), number) for number in range(100)]
        wait_until(effects.exists)
        machines[0].cut()
        cut_s = time.monotonic()
        wait_for_workers(client, 1)
        noticed_s = time.monotonic() - cut_s
        assert [future.result(timeout=TIMEOUT_S)[0] for future in futures] == list(range(100))
        machines[0].heal()
        healed_s = time.monotonic()
        wait_for_workers(client, 2)
        rejoined_s = time.monotonic() - healed_s
        print(f"noticed after {noticed_s:.1f} s, rejoined after {rejoined_s:.1f} s")
        assert noticed_s < 6.5
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
        assert rejoined_s < 10


def test_a_machine_that_is_killed_loses_nothing(folder, tmp_path):
    with two_machines(folder) as (client, _, agents):
        futures = [client.call(slowly, 0.02, None, number) for number in range(100)]
        wait_until(lambda: futures[3].done())
        for pid in agents[0].pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert [future.result(timeout=TIMEOUT_S)[0] for future in futures] == list(range(100))

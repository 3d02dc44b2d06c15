"""Large results on several machines: shared within one, copied between two, made again when one is lost."""

import contextlib
import os
import signal
import time

import array_tasks
import numpy as np
import pytest
from client_tasks import inc
from networks import network
from outside import TIMEOUT_S, Home, wait_until
from store_watch import eventually
from test_machines import agent, listening, wait_for_workers

import headrace as hr

LONG_S = 90


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))


@contextlib.contextmanager
def machines(folder, count, slots=1, workers=0):
    """A client beside the broker, and agents on machines that can reach each other."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network(count))
        net.route()
        home = stack.enter_context(Home())
        _, address, _ = stack.enter_context(
            listening(
                home, folder, listen="tcp://0.0.0.0:8786", wrap=lambda words: net.command(*words), workers=workers
            )
        )
        client = stack.enter_context(hr.Client(address))
        agents = []
        for machine in net.machines:
            endpoint = f"tcp://{machine.broker_address}:8786"
            wrap = lambda words, machine=machine: machine.command(*words)  # noqa: E731
            agents.append(
                stack.enter_context(agent(home, endpoint, folder, "--name", machine.name, slots=slots, wrap=wrap))
            )
            # One after the other, so that their workers are numbered in this order.
            wait_for_workers(client, workers + slots * len(agents))
        yield client, net, agents
        client.close(cancel=True)


def on(worker, function):
    return hr.task(function, worker=worker)


@contextlib.contextmanager
def one_agent(folder, slots=2, workers=0):
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(Home())
        _, address, endpoint = stack.enter_context(listening(home, folder, workers=workers))
        client = stack.enter_context(hr.Client(address))
        program = stack.enter_context(agent(home, endpoint, folder, slots=slots))
        wait_for_workers(client, workers + slots)
        yield client, program
        client.close(cancel=True)


def owned(client):
    return client.statistics().store.owned


@pytest.mark.parametrize("where", ["agent", "broker"])
def test_workers_of_one_machine_share_memory(folder, where):
    slots, workers = (2, 0) if where == "agent" else (1, 2)
    with one_agent(folder, slots, workers) as (client, _):
        made = client.call(on(0, array_tasks.make), 40, 1)
        looked = [client.call(on(worker, array_tasks.look), made) for worker in (0, 1)]
        found = [future.result(timeout=TIMEOUT_S) for future in looked]
        assert len({pid for _, pid, _, _ in found}) == 2
        assert all(shared for *_, shared in found), found
        assert {sha for sha, *_ in found} == {array_tasks.digest(array_tasks.make(40, 1))}
        del made, looked
        assert eventually(lambda: owned(client) == 0, 20)


def test_a_client_gets_large_results_whole(folder):
    with one_agent(folder, 2, 1) as (client, _):
        expected = array_tasks.make(300, 2)
        for worker in (0, 1):
            found = client.call(on(worker, array_tasks.make), 300, 2).result(timeout=LONG_S)
            assert np.array_equal(found, expected)
            found[0] = 1  # it is the client's own
            del found
        graph = hr.Graph()
        parts = [graph.add(on(number % 3, array_tasks.make), 1, number) for number in range(12)]
        run = client.submit(graph, keep=parts)
        for number, array in enumerate(run.results()):
            assert np.array_equal(array, array_tasks.make(1, number))
        run.release()
        del run
        assert eventually(lambda: owned(client) == 0, 20)


def test_a_result_travels_from_machine_to_machine(folder):
    with machines(folder, 2, slots=2) as (client, *_):
        made = client.call(on(0, array_tasks.make), 256, 3)
        start = time.monotonic()
        looked = [client.call(on(worker, array_tasks.look), made) for worker in (2, 3, 1)]
        found = [future.result(timeout=LONG_S) for future in looked]
        print(f"256 MB to two readers in {time.monotonic() - start:.2f} s")
        assert {sha for sha, *_ in found} == {array_tasks.digest(array_tasks.make(256, 3))}
        assert all(shared for *_, shared in found)
        spaces = [space for _, _, space, _ in found]
        assert spaces[0] == spaces[1] != spaces[2]
        assert owned(client) < 600_000_000, "both readers there use one copy"
        del made, looked
        assert eventually(lambda: owned(client) == 0, 30), owned(client)
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


def test_inputs_from_two_machines_meet(folder):
    with machines(folder, 2, workers=1) as (client, *_):
        arrays = [client.call(on(worker, array_tasks.make), 20 + worker, worker) for worker in range(3)]
        for left, right in ((0, 1), (1, 2), (2, 0)):
            expected = array_tasks.both(array_tasks.make(20 + left, left), array_tasks.make(20 + right, right))
            future = client.call(array_tasks.both, arrays[left], arrays[right])
            assert future.result(timeout=TIMEOUT_S) == expected


def test_a_source_that_dies_while_it_is_read_loses_nothing(folder, tmp_path):
    with machines(folder, 2, slots=1) as (client, _, agents):
        made_at = tmp_path / "made"
        graph = hr.Graph()
        made = graph.add(array_tasks.make, 400, 4, str(made_at))
        held = graph.add(on(1, array_tasks.look), made)
        # The other machine is busy, so that the array is made on the first one.
        blocker = client.call(on(1, time.sleep), 1.0)
        wait_until(lambda: client.statistics().leased == 1)
        run = client.submit(graph, keep=[held])
        wait_until(made_at.exists)
        wait_until(lambda: owned(client) > 700_000_000, LONG_S)
        for pid in agents[0].pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sha, *_ = run.result(held, timeout=LONG_S)
        assert sha == array_tasks.digest(array_tasks.make(400, 4))
        assert blocker.result(timeout=TIMEOUT_S) is None
        print("it was made", len(made_at.read_text().splitlines()), "times")


def test_idle_machines_take_what_has_to_wait_elsewhere(folder):
    with machines(folder, 2, slots=1) as (client, *_):
        made = client.call(on(0, array_tasks.make), 8, 5)
        futures = [client.call(array_tasks.look, made, 0.3) for _ in range(12)]
        found = [future.result(timeout=LONG_S) for future in futures]
        assert len({space for _, _, space, _ in found}) == 2, "the other machine has helped"


def test_what_lies_on_a_leaving_machine_alone_is_brought_home(folder, tmp_path):
    made_at = tmp_path / "made"
    with machines(folder, 2, slots=1) as (client, _, agents):
        futures = [client.call(on(0, array_tasks.make), 60, number, str(made_at)) for number in (7, 8)]
        wait_until(lambda: all(future.done() for future in futures), LONG_S)
        later = client.call(array_tasks.both, *futures)
        os.kill(agents[0].pid, signal.SIGTERM)
        code, _, errors = agents[0].end()
        assert code == 0, errors
        wait_for_workers(client, 1)
        expected = array_tasks.both(array_tasks.make(60, 7), array_tasks.make(60, 8))
        assert later.result(timeout=LONG_S) == expected
        assert client.call(array_tasks.both, *futures).result(timeout=LONG_S) == expected
        assert len(made_at.read_text().splitlines()) == 2, "nothing was made again"

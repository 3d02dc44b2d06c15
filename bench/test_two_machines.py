"""What do two machines cost, against two workers of this one? On the same cores, so the way there is measured.

The machines are network namespaces with a virtual cable each to that of the broker; connections are encrypted. The
client and the broker talk over a Unix socket, as two programs of one machine.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

import headrace
from comparison import take_turns
from figures import at_most, per_task_us
from workloads import add, cell, inc

sys.path.append(str(Path(__file__).parents[1] / "tests" / "process"))

INDEPENDENT = 10_000
STEPS, WIDTH = 100, 100
LEAVES = 4_096


def independent():
    """Tasks that depend on nothing, and the results that are wanted."""
    graph = headrace.Graph()
    return graph, graph.map(inc, range(INDEPENDENT)), INDEPENDENT


def stencil():
    """Tasks that need three neighbours of the step before."""
    graph = headrace.Graph()
    row = [graph.add(cell, j, j + 1, j + 2) for j in range(WIDTH)]
    for _ in range(STEPS - 1):
        row = [graph.add(cell, row[j - 1], row[j], row[(j + 1) % WIDTH]) for j in range(WIDTH)]
    return graph, row, STEPS * WIDTH


def tree():
    """A binary tree."""
    graph = headrace.Graph()
    level = [graph.add(inc, value) for value in range(LEAVES)]
    while len(level) > 1:
        level = [graph.add(add, left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return graph, level, 2 * LEAVES - 1


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """A client of a broker whose two workers are on two machines."""
    from networks import network
    from outside import Home, Program, command_line

    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network(2))
        home = stack.enter_context(Home())
        keys = tmp_path_factory.mktemp("keys") / "keys"
        subprocess.run(command_line("keygen", keys), check=True, capture_output=True)
        words = command_line("broker", "--workers", 0, "--listen", "tcp://0.0.0.0:8786", "--keys", keys)
        environment = {"cwd": Path(__file__).parent}
        broker = stack.enter_context(Program(home, *net.command(*words), **environment))
        address = broker.line().strip()
        for machine in net.machines:
            words = command_line("worker", f"tcp://{machine.broker_address}:8786", "--keys", keys, "--slots", 1)
            words = ["env", f"PYTHONPATH={Path(__file__).parent}", *words]
            stack.enter_context(Program(home, *machine.command(*words)))
        client = stack.enter_context(headrace.Client(address))
        graph = headrace.Graph()
        graph.map(inc, range(1_000))
        client.submit(graph).results()
        while sum(worker.pid > 0 for worker in client.statistics().workers) < 2:
            client.call(inc, 1).result()
        yield client


@pytest.mark.parametrize("build", [independent, stencil, tree])
def test_two_machines(benchmark, client, far, rounds, record, build):
    graph, nodes, tasks = build()
    expected = client.submit(graph, keep=nodes).results()

    def run_on(client):
        return lambda: client.submit(graph, keep=nodes).results()

    def check(values):
        assert values == expected

    turns = take_turns(benchmark, run_on(far), run_on(client), rounds=rounds, check=check)
    record(
        at_most(
            f"two machines, {build.__name__}, submit and results",
            [1 / ratio for ratio in turns.ratios()],
            "× local",
            bar=1.5,
            aim=1.15,
            measured=f"{per_task_us(turns.ours_s, tasks):.3g} µs/task",
            reference=f"local {per_task_us(turns.reference_s, tasks):.3g} µs/task",
        )
    )

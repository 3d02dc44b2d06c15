"""headrace on a Ray cluster: real raylets, one of them the head. `test_ray_cluster.py` runs this in its own process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from places import mark, of_this_test, wait_until
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

import headrace as hr
from headrace.integrations import ray_cluster

TIMEOUT_S = 60

mark()
HERE = str(Path(__file__).parent)
os.environ["PYTHONPATH"] = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="module")
def nodes():
    """A head with one processor."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def square(x):
    return x * x


def add(left, right):
    return left + right


def slowly(seconds, number):
    time.sleep(seconds)
    return number, os.getppid()


def agents():
    return of_this_test("--tied")


def nothing_is_left():
    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    return not agents() and not of_this_test("headrace.worker") and not groups


def test_a_graph_runs_on_a_node(nodes):
    with ray_cluster.start() as cluster, cluster.client() as client:
        graph = hr.Graph()
        total = graph.reduce(add, graph.map(square, range(1_000)))
        assert client.submit(graph, keep=[total]).result(timeout=TIMEOUT_S) == sum(x * x for x in range(1_000))
    wait_until(nothing_is_left)
    assert ray.get(ray.remote(square).remote(3)) == 9, "its processor is Ray's again"


def test_nodes_come_and_go(nodes):
    with ray_cluster.start() as cluster, cluster.client() as client:
        cluster.wait_for_workers(1)
        added = nodes.add_node(num_cpus=2)
        cluster.wait_for_workers(3, TIMEOUT_S)
        futures = [client.call(slowly, 0.02, number) for number in range(100)]
        answers = [future.result(timeout=TIMEOUT_S) for future in futures]
        assert [number for number, _ in answers] == list(range(100))
        assert {agent for _, agent in answers} == set(agents())
        futures = [client.call(slowly, 0.05, number) for number in range(100)]
        nodes.remove_node(added, allow_graceful=False)
        assert [future.result(timeout=TIMEOUT_S)[0] for future in futures] == list(range(100))
        wait_until(lambda: len(agents()) == 1)
    wait_until(nothing_is_left)


def test_an_actor_or_agent_that_is_killed_comes_back(nodes):
    with ray_cluster.start() as cluster, cluster.client() as client:
        for victim_of in (lambda agent: agent, parent):
            (agent,) = agents()
            os.kill(victim_of(agent), signal.SIGKILL)
            wait_until(lambda agent=agent: agents() not in ([], [agent]), TIMEOUT_S)
            assert client.call(square, 3).result(timeout=TIMEOUT_S) == 9
    wait_until(nothing_is_left)


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


STARTS_AND_STAYS = """
import sys, ray
from headrace.integrations import ray_cluster
ray.init(address=sys.argv[1], log_to_driver=False)
cluster = ray_cluster.start()
with cluster.client() as session:
    assert session.call(pow, 2, 5).result(timeout=30) == 32
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_program_that_is_killed_leaves_nothing_behind(nodes):
    words = [sys.executable, "-c", STARTS_AND_STAYS, nodes.address]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert "ready\n" in iter(program.stdout.readline, "")
        wait_until(lambda: len(agents()) == 1)
        program.kill()
    wait_until(nothing_is_left, TIMEOUT_S)


def test_what_an_agent_is_refused_for_is_raised_by_the_start(nodes):
    with pytest.raises(hr.InfraError, match="it has 5 slots, and there are 3 free places"):
        ray_cluster.start(slots=5, places=3)
    wait_until(nothing_is_left)
    with pytest.raises(hr.InfraError, match="no node of the Ray cluster has as many CPUs"):
        ray_cluster.start(cpus=64)

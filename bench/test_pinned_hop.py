"""What does a hop from one worker to the other cost, beside the floor under it?

A chain of 200 tasks pinned to two workers by turns, against the same number of hops of a bare token: worker, libzmq
ROUTER, other worker, in native code without anything of headrace (rust/sys/examples/router_hop.rs).
"""

import os
import statistics
import subprocess
import sys

import pytest

import headrace
from comparison import take_turns
from figures import at_most, per_task_us
from repository import REPOSITORY
from workloads import inc

HOPS = 200


@pytest.fixture
def router_hop():
    """The bare hop, as a function that makes `HOPS` of them and returns the seconds they took."""
    binary = native_example("router_hop", "headrace-sys")
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    with subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as hops:

        def make_hops():
            print(HOPS, file=hops.stdin, flush=True)
            return int(hops.stdout.readline()) / 1e9

        yield make_hops
        hops.stdin.close()


def native_example(name, package):
    """Build an example of the workspace; the path of its program."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--example", name, "--package", package]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")
    return os.path.join(target, "release", "examples", name)


@pytest.mark.quick
def test_pinned_hop(benchmark, client, router_hop, rounds, record):
    on = [headrace.task(inc, worker=worker) for worker in (0, 1)]

    def ours():
        graph = headrace.Graph()
        node = graph.add(on[0], 0)
        for hop in range(1, HOPS):
            node = graph.add(on[hop % 2], node)
        return client.submit(graph).result(node)

    def check(value):
        assert value == HOPS

    def check_reference(seconds):
        assert seconds > 0

    turns = take_turns(
        benchmark,
        ours,
        router_hop,
        rounds=3 * rounds,
        check=check,
        check_reference=check_reference,
        warm_up_rounds=2,
    )
    samples = [mine / bare for mine, bare in zip(turns.ours_s, turns.reference_s, strict=True)]
    record(
        at_most(
            f"chain of {HOPS} pinned to two workers by turns, against a bare ROUTER hop",
            samples,
            "×",
            bar=1.5,
            aim=1.15,
            measured=f"{per_task_us(turns.ours_s, HOPS):.3g} µs/hop",
            reference=f"bare hop {per_task_us(turns.reference_s, HOPS):.3g} µs",
            detail=f"fastest quarter: {statistics.quantiles(samples)[0]:.2f}×",
        )
    )

"""What does a graph of Dask cost on headrace, conversion included, beside Dask's own distributed scheduler, and Frisky?

Each peer runs in an interpreter that has it: this one, or one of those that `HEADRACE_PEER_PYTHON` names, with colons
between them. The floor that Dask itself sets, its conversion of the graph and its `order`, is printed beside.
"""

import os
import statistics
import sys
import time
from itertools import pairwise

import pytest

from figures import Figure
from other_interpreter import OtherInterpreter, can_import

pytest.importorskip("dask", reason="dask is not installed: pip install '.[dask]'")
pytest.importorskip("dask.array", reason="dask.array needs numpy")

from dask_workloads import SHAPES, no_ops, seconds_of, seconds_of_no_ops
from headrace.integrations.dask import DaskClient

TASKS = 100_000
#: At least so many times faster than each, and what is aimed at.
NO_OPS = {"distributed": (20, None), "frisky": (2, 8)}
PYTHONS = "HEADRACE_PEER_PYTHON"
ROUNDS_MAX = 5


@pytest.fixture(scope="module")
def ours():
    with DaskClient(workers=2) as client:
        seconds_of_no_ops(client, 1_000)
        yield client


@pytest.fixture(scope="module", params=NO_OPS)
def peer(request):
    pythons = [sys.executable, *filter(None, os.environ.get(PYTHONS, "").split(os.pathsep))]
    for python in pythons:
        if can_import(python, request.param, "dask", "numpy"):
            with OtherInterpreter(python, "peers_dask.py", request.param) as other:
                other.name = request.param
                yield other
            return
    pytest.skip(f"no {request.param} in {', '.join(pythons)}: name an interpreter that has it by {PYTHONS}")


def in_turn(rounds, ours, theirs):
    """Seconds of each, in turn; the first turns warm up."""
    pairs = [(ours(), theirs()) for _ in range(1 + min(rounds, ROUNDS_MAX))]
    return list(zip(*pairs[1:], strict=True))


def figure(question, ours_s, theirs_s, peer, unit, factor, bar, aim, detail=""):
    return Figure(
        f"{question}, against {peer}",
        f"{statistics.median(ours_s) * factor:.3g} {unit}",
        f"{peer} {statistics.median(theirs_s) * factor:.4g} {unit}",
        score=statistics.median(theirs / ours for ours, theirs in zip(ours_s, theirs_s, strict=True)),
        unit="×",
        bar=bar,
        aim=aim,
        at_least=True,
        samples=list(ours_s),
        detail=detail,
    )


def floors_us():
    """Microseconds a task of what Dask does of it: the conversion that others use, and the order."""
    from dask._task_spec import convert_legacy_graph
    from dask.order import order

    graph = no_ops(TASKS)[0]
    times = [time.perf_counter()]
    converted = convert_legacy_graph(graph)
    times.append(time.perf_counter())
    order(converted)
    times.append(time.perf_counter())
    return [(end - start) / TASKS * 1e6 for start, end in pairwise(times)]


@pytest.mark.timeout(900)
def test_a_graph_of_tasks_that_do_nothing(ours, peer, rounds, record):
    ours_s, theirs_s = in_turn(rounds, lambda: seconds_of_no_ops(ours, TASKS), lambda: peer.seconds("no-ops"))
    bar, aim = NO_OPS[peer.name]
    convert_us, order_us = floors_us()
    detail = f"Dask's own conversion of it takes {convert_us:.3g} µs a task, its order {order_us:.3g}; neither is used"
    question = f"Dask: get of {TASKS:,} no-ops, conversion included"
    record(figure(question, ours_s, theirs_s, peer.name, "µs/task", 1e6, bar, aim, detail))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", SHAPES)
def test_arrays(ours, peer, shape, rounds, record):
    ours_s, theirs_s = in_turn(rounds, lambda: seconds_of(ours, shape), lambda: peer.seconds(shape))
    question = f"Dask array: {shape}, chunks of 1 to 13 MB"
    record(figure(question, ours_s, theirs_s, peer.name, "s", 1, 3 if peer.name == "distributed" else 1, 10))

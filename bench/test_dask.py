"""What does a graph of Dask cost on headrace, conversion included, beside Dask's own distributed scheduler?

Ask for the peer with `pip install distributed`. The floor that Dask itself sets, its conversion of the graph and its
`order`, is printed beside.
"""

import importlib.util
import statistics
import time
from itertools import pairwise

import pytest

from figures import Figure

dask = pytest.importorskip("dask", reason="dask is not installed: pip install '.[dask]'")
da = pytest.importorskip("dask.array", reason="dask.array needs numpy")

from headrace.integrations.dask import DaskClient  # noqa: E402
from workloads import inc  # noqa: E402

TASKS = 100_000
#: What distributed runs of it: it takes milliseconds a task.
PEER_TASKS = 2_000


def graph_of(tasks):
    """Half of the tasks depend on nothing, the others on one of these."""
    first = {f"x{number}": (inc, number) for number in range(tasks // 2)}
    return first | {f"y{number}": (inc, f"x{number}") for number in range(tasks // 2)}


def last_keys(tasks):
    return [f"y{number}" for number in range(tasks // 2)]


@pytest.fixture(scope="module")
def ours():
    with DaskClient(workers=2) as client:
        client.get(graph_of(1_000), last_keys(1_000))
        yield client


@pytest.fixture(scope="module")
def peer():
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("distributed, the peer, is not installed: pip install distributed")
    import distributed

    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as client:
        client.get(graph_of(1_000), last_keys(1_000))
        yield client


def seconds(client, tasks):
    graph, keys = graph_of(tasks), last_keys(tasks)
    start = time.perf_counter()
    values = client.get(graph, keys)
    elapsed_s = time.perf_counter() - start
    assert list(values) == [number + 2 for number in range(tasks // 2)]
    return elapsed_s


def floors_us():
    """Microseconds a task of what Dask does of it: the conversion that we use, and the order that we do not."""
    from dask._task_spec import convert_legacy_graph
    from dask.order import order

    graph = graph_of(TASKS)
    times = [time.perf_counter()]
    converted = convert_legacy_graph(graph)
    times.append(time.perf_counter())
    order(converted)
    times.append(time.perf_counter())
    return [(end - start) / TASKS * 1e6 for start, end in pairwise(times)]


@pytest.mark.timeout(600)
def test_a_graph_of_tasks_that_do_nothing(ours, peer, rounds, record):
    ours_us, theirs_us = [], []
    for _ in range(rounds):
        ours_us.append(seconds(ours, TASKS) / TASKS * 1e6)
        theirs_us.append(seconds(peer, PEER_TASKS) / PEER_TASKS * 1e6)
    ratio = statistics.median(theirs / ours for ours, theirs in zip(ours_us, theirs_us, strict=True))
    convert_us, order_us = floors_us()
    record(
        Figure(
            f"get of {TASKS:,} no-ops, against distributed's of {PEER_TASKS:,}",
            f"{statistics.median(ours_us):.3g} µs/task",
            f"distributed {statistics.median(theirs_us):.4g} µs/task",
            score=ratio,
            unit="×",
            bar=20,
            aim=None,
            at_least=True,
            samples=ours_us,
            detail=f"Dask's conversion of it takes {convert_us:.3g} µs; its order, not used, would take {order_us:.3g}",
        )
    )


SIDE, CHUNKS = 40, 40


def work(shape):
    if shape == "(x + x.T).sum()":
        x = da.ones((SIDE * 360, SIDE * 360), chunks=360)
        return (x + x.T).sum()
    if shape == "rechunk":
        x = da.ones((8_000, 8_000), chunks=(8_000, 200))
        return x.rechunk((200, 8_000), method="tasks").sum()
    return da.ones(400 * 130_000, chunks=130_000).sum(split_every=2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", ["(x + x.T).sum()", "rechunk", "tree reduction"])
def test_arrays(ours, peer, shape, record):
    ours_s, theirs_s = [], []
    for number in range(4):
        collection = work(shape)
        for client, into in ((ours, ours_s), (peer, theirs_s)):
            start = time.perf_counter()
            collection.compute(scheduler=client)
            if number:
                into.append(time.perf_counter() - start)
    ratio = statistics.median(theirs / ours for ours, theirs in zip(ours_s, theirs_s, strict=True))
    record(
        Figure(
            f"Dask array: {shape}, chunks of 1 to 13 MB, against distributed with processes",
            f"{statistics.median(ours_s):.3g} s",
            f"distributed {statistics.median(theirs_s):.3g} s",
            score=ratio,
            unit="×",
            bar=3,
            aim=10,
            at_least=True,
            samples=ours_s,
        )
    )

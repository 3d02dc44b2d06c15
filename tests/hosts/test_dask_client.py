"""`DaskClient` beyond what Dask's own tests say: persistence, futures, annotations, callbacks, errors."""

import gc
import time
from collections import namedtuple

import pytest

dask = pytest.importorskip("dask")
np = pytest.importorskip("numpy")

import dask.array as da  # noqa: E402
from dask.callbacks import Callback  # noqa: E402
from dask.utils_test import add, inc  # noqa: E402

import headrace as hr  # noqa: E402
from headrace.integrations.dask import DaskClient, get  # noqa: E402

TIMEOUT_S = 30
Pair = namedtuple("Pair", "a b")


@pytest.fixture(scope="module", params=["threads", "processes"])
def client(request):
    with DaskClient(workers=2, mode=request.param) as client:
        yield client


def divide(x, y):
    return x / y


# -- values ------------------------------------------------------------------------------------------------------------


def test_collections_run_on_the_client_of_the_with_statement(client):
    x = da.arange(1_000_000, chunks=100_000)
    assert (x + 1).sum().compute() == 500_000_500_000
    assert client.client.statistics is not None
    assert dask.delayed(add)(1, dask.delayed(inc)(2)).compute() == 4


def test_a_collection_is_a_graph():
    graph = hr.Graph.from_dask(da.arange(1_000, chunks=100).sum())
    assert hr.run(graph, workers=1) == [499_500]
    assert hr.run(hr.Graph.from_dask(dask.delayed(add)(dask.delayed(inc)(1), 5)), mode="sync") == [7]
    assert hr.run(hr.Graph.from_dask(dask.delayed(5)), mode="sync") == [5]


def test_the_shared_scheduler_function():
    assert dask.delayed(inc)(1).compute(scheduler=get) == 2
    assert get({"x": 1, "y": (inc, "x")}, ["y", ["x"]]) == (2, (1,))


def test_large_results_are_views_and_inputs_are_not_changed(client):
    x = da.ones((512, 512), chunks=256)
    values = x.compute()
    assert values.sum() == 512 * 512
    y = x.persist()
    assert (y + y).sum().compute() == 2 * 512 * 512


def test_what_a_task_raises_is_raised(client):
    x = dask.delayed(divide)(1, 0)
    with pytest.raises(ZeroDivisionError):
        x.compute()
    with pytest.raises(ZeroDivisionError):
        dask.delayed(inc)(x).compute()
    with pytest.raises(ZeroDivisionError):
        dask.compute(*(dask.delayed(inc)(dask.delayed(divide)(1, number)) for number in range(5)))


def sleep_for_ever():
    time.sleep(TIMEOUT_S)


def test_the_failure_itself_is_raised_in_whatever_order_it_was_asked_for(client):
    if client.client.mode == "threads":
        pytest.skip("a thread cannot be cancelled")
    bad, slow = dask.delayed(divide)(1, 0), dask.delayed(sleep_for_ever)()
    for both in ((bad, slow), (slow, bad)):
        with pytest.raises(ZeroDivisionError):
            dask.compute(*both)


def test_what_a_persisted_task_raised_is_raised_by_whoever_needs_it(client):
    bad = dask.delayed(divide)(1, 0)
    persisted = bad.persist()
    with pytest.raises(ZeroDivisionError):
        dask.delayed(inc)(persisted).compute()
    with pytest.raises(ZeroDivisionError):
        client.compute(bad).result(TIMEOUT_S)
    with pytest.raises(ZeroDivisionError):
        client.gather([client.compute(bad)])


def test_an_unknown_key_and_a_cycle_are_refused(client):
    with pytest.raises(KeyError, match="z"):
        client.get({"x": 1}, "z")
    with pytest.raises(RuntimeError, match="cycle"):
        client.get({"x": (inc, "y"), "y": (inc, "x")}, "x")


def test_only_what_is_needed_runs(client):
    graph = {"bad": (divide, 1, 0), "x": (inc, 1), "worse": (inc, "bad")}
    assert client.get(graph, "x") == 2


def compute_within(number):
    total = dask.delayed(add)(dask.delayed(inc)(number), 1).compute()
    return total, hr.current().key, da.ones(10, chunks=5).sum().compute()


def test_a_task_may_compute_with_the_scheduler_that_runs_it(client):
    with dask.config.set(scheduler=client):
        found = dask.compute(*(dask.delayed(compute_within)(number) for number in range(6)))
    assert [total for total, _, _ in found] == [number + 2 for number in range(6)]
    assert {ones for _, _, ones in found} == {10}


def test_a_scheduler_may_be_an_argument_and_used_by_name(client):
    def within(scheduler, number):
        x = dask.delayed(inc)(number)
        return x.compute(scheduler=scheduler), x.compute(scheduler=get)

    with dask.config.set(scheduler=client):
        assert client.client.call(within, client, 1).result(TIMEOUT_S) == (2, 2)
        assert client.client.call(within, client, 5).result(TIMEOUT_S) == (6, 6)


def test_what_a_nested_task_raises_is_raised_through_the_task_around_it(client):
    def within():
        return dask.delayed(divide)(1, 0).compute()

    with dask.config.set(scheduler=client), pytest.raises(ZeroDivisionError):
        dask.delayed(within)().compute()


# -- futures -----------------------------------------------------------------------------------------------------------


def test_persisted_collections_stay_with_the_workers(client):
    x = da.random.random((400, 400), chunks=100)
    persisted = x.persist()
    futures = client.futures(persisted)
    assert len(futures) == 16
    assert (persisted.sum().compute(), persisted.mean().compute()) == (
        persisted.sum().compute(),
        persisted.mean().compute(),
    )
    assert np.array_equal(persisted.compute(), persisted.compute()), "the numbers are not drawn again"
    block = futures[0].result(TIMEOUT_S)
    assert block.shape == (100, 100)


def test_persisted_results_die_with_their_collection(client):
    if client.client.mode != "processes":
        pytest.skip("memory is counted in worker processes")
    gc.collect()
    before = client.client.statistics().store.owned
    persisted = da.ones((2_000, 2_000), chunks=1_000).persist()
    assert persisted.sum().compute() == 4_000_000
    assert client.client.statistics().store.owned >= before
    futures = client.futures(persisted)
    assert sum(future.result(TIMEOUT_S).nbytes for future in futures) == 32_000_000
    del persisted, futures
    gc.collect()
    assert not client._known


def test_futures_of_compute_scatter_and_gather(client):
    x = da.arange(100, chunks=10)
    assert client.gather(client.compute(x.sum())) == 4950
    assert client.gather(client.compute([x.sum(), x.max()])) == [4950, 99]
    assert client.compute(x.sum(), sync=True) == 4950
    there = client.scatter({"a": np.arange(10), "b": 5})
    assert client.gather(there["b"]) == 5
    assert dask.delayed(np.sum)(there["a"]).compute() == 45
    assert client.gather(client.scatter([1, 2])) == [1, 2]
    pair = client.gather(client.scatter(Pair(1, 2)))
    assert (type(pair), pair) == (Pair, (1, 2))


# -- annotations and callbacks -----------------------------------------------------------------------------------------

TRIES = []


def fail_twice():
    if hr.current().failures < 2:
        raise OSError("not yet")
    return "at last"


def test_annotations_are_options(client):
    with dask.annotate(retries=2):
        x = dask.delayed(fail_twice)()
    assert x.compute(optimize_graph=False) == "at last"
    with dask.annotate(resources={"unicorn": 1}, priority=5):
        y = dask.delayed(inc)(1)
    with pytest.raises(hr.NoSuitableWorker, match="unicorn"):
        y.compute(optimize_graph=False)


def worker_of(_number):
    return hr.current().worker


def test_tasks_run_on_the_workers_that_their_annotation_names(client):
    def workers_of(**annotations):
        with dask.annotate(**annotations):
            tasks = [dask.delayed(worker_of)(number) for number in range(20)]
        return set(dask.compute(*tasks, optimize_graph=False))

    assert workers_of(workers="1") == {1}
    assert workers_of(workers=[0]) == {0}
    assert workers_of(workers=["0", "1"]) == {0, 1}
    assert workers_of(workers="tcp://10.0.0.1:1", allow_other_workers=True) <= {0, 1}
    with pytest.raises(hr.NoSuitableWorker):
        workers_of(workers=[7])
    with pytest.raises(ValueError, match=r"tcp://.*numbered"):
        workers_of(workers="tcp://10.0.0.1:1")


def test_callbacks_hear_of_every_task(client):
    told = []

    class Listener(Callback):
        def _start(self, dsk):
            told.append("start")

        def _start_state(self, dsk, state):
            told.append(len(state["waiting"]))

        def _posttask(self, key, result, dsk, state, worker_id):
            told.append((key, result))

        def _finish(self, dsk, state, failed):
            told.append(failed)

    with Listener():
        assert client.get({"x": 1, "y": (inc, "x"), "z": (add, "y", 10)}, "z") == 12
    assert told == ["start", 2, ("y", 2), ("z", 12), False]
    told.clear()
    with Listener(), pytest.raises(ZeroDivisionError):
        client.get({"y": (divide, 1, 0)}, "y")
    assert told == ["start", 1, True]


def test_progress_bars_work(client, capsys):
    from dask.diagnostics import ProgressBar

    with ProgressBar(dt=0.01):
        da.ones(100, chunks=10).sum().compute()
    assert "100% Completed" in capsys.readouterr().out

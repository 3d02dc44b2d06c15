"""What a client promises in every mode: the same calls, the same answers, the same errors."""

import asyncio
import concurrent.futures
import gc
import operator
import threading
import warnings

import pytest
from client_tasks import Sour, add, dig, double_all, fail, inc, slowly, total, touch, wait_for, who_am_i

import headrace as hr

TIMEOUT_S = 20


@pytest.fixture(scope="module", params=["processes", "threads", "sync"])
def client(request):
    with hr.Client(workers=2, mode=request.param) as client:
        yield client


@pytest.fixture
def diamond():
    """A graph with its nodes by name."""
    graph = hr.Graph()
    top = graph.add(inc, 0)
    left, right = graph.add(inc, top), graph.add(add, top, 10)
    bottom = graph.add(hr.task(add, key="bottom"), left, right)
    return graph, top, left, right, bottom


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_sinks_by_default(client, diamond):
    graph, top, _left, _right, bottom = diamond
    run = client.submit(graph)
    assert run.result(bottom, timeout=TIMEOUT_S) == 13
    assert run.result("bottom") == run.result() == 13
    assert run.results() == [13]
    with pytest.raises(hr.NotKept, match=r"'inc-0'.*keep="):
        run.result(top)


def test_keep_says_which_results_and_in_which_order(client, diamond):
    graph, top, left, right, _bottom = diamond
    run = client.submit(graph, keep=[right, "inc-1", top])
    assert run.results(timeout=TIMEOUT_S) == [11, 2, 1]
    assert [run.result(node) for node in (top, left, right)] == [1, 2, 11]
    with pytest.raises(hr.NotKept, match="'bottom'"):
        run.result("bottom")
    with pytest.raises(hr.UsageError, match="keeps 3 results"):
        run.result()


def test_keep_takes_sequences_of_nodes_and_nothing_at_all(client):
    graph = hr.Graph()
    nodes = graph.map(inc, range(5))
    last = graph.add(total, nodes[0])
    assert client.submit(graph, keep=nodes).results(timeout=TIMEOUT_S) == [1, 2, 3, 4, 5]
    assert client.submit(graph, keep=[last, nodes[:2]]).results(timeout=TIMEOUT_S) == [1, 1, 2]
    nothing = client.submit(graph, keep=[])
    assert nothing.wait(TIMEOUT_S)
    assert nothing.results() == []


def test_a_result_is_the_same_object_each_time(client):
    graph = hr.Graph()
    node = graph.add(double_all, [1, 2])
    run = client.submit(graph)
    assert run.result(node, timeout=TIMEOUT_S) == [2, 4]
    assert run.result(node) is run.results()[0]


def test_many_results_arrive_right(client):
    graph = hr.Graph()
    nodes = graph.map(inc, range(3_000))
    pairs = graph.map(add, nodes[:1_000], nodes[1_000:2_000])
    run = client.submit(graph, keep=[pairs, nodes])
    assert run.results(timeout=TIMEOUT_S) == [i + 1 + i + 1_001 for i in range(1_000)] + list(range(1, 3_001))
    assert all(run.result(node) == index + 1 for index, node in enumerate(nodes))


def test_submit_takes_the_graph_as_it_is(client):
    graph = hr.Graph()
    first = graph.add(inc, 1)
    run = client.submit(graph)
    later = graph.add(inc, first)
    assert run.result(first, timeout=TIMEOUT_S) == 2
    with pytest.raises(hr.GraphError, match="added after this run"):
        run.result(later)
    assert client.submit(graph).result(later, timeout=TIMEOUT_S) == 3


def test_an_empty_graph_is_a_run_that_has_ended(client):
    run = client.submit(hr.Graph())
    assert run.wait(TIMEOUT_S)
    assert run.done()
    assert run.results() == []
    assert list(run.as_completed()) == []


def test_nodes_and_keys_of_other_graphs_are_refused(client, diamond):
    graph, *_ = diamond
    other = hr.Graph().add(inc, 1)
    with pytest.raises(hr.GraphError, match=r"run\.ref"):
        client.submit(graph, keep=[other])
    with pytest.raises(hr.GraphError, match="'nonsense'"):
        client.submit(graph, keep=["nonsense"])
    run = client.submit(graph)
    with pytest.raises(hr.GraphError, match=r"run\.ref"):
        run.result(other)
    with pytest.raises(hr.GraphError, match="'nonsense'"):
        run.result("nonsense")
    assert run.wait(TIMEOUT_S)


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_waits_end_at_their_timeout(client, tmp_path, request):
    if client._mode == "sync":
        pytest.skip("a run of mode sync has ended when submit returns")
    gate = tmp_path / "gate"
    graph = hr.Graph()
    node = graph.add(wait_for, str(gate))
    run = client.submit(graph)
    with pytest.raises(TimeoutError, match=r"'wait_for-0' has not ended within 0\.01 s"):
        run.result(node, timeout=0.01)
    with pytest.raises(TimeoutError, match="1 of 1 results"):
        run.results(timeout=0)
    assert not run.wait(0.01)
    assert not run.done()
    gate.touch()
    assert run.wait(TIMEOUT_S)
    assert run.done()
    assert run.result(node, timeout=0) == str(gate)


def test_many_threads_wait_at_once(client):
    graph = hr.Graph()
    nodes = graph.map(inc, range(200))
    run = client.submit(graph)
    wrong = []

    def read(part):
        wrong.extend(node for node in part if run.result(node, timeout=TIMEOUT_S) != node.index + 1)

    threads = [threading.Thread(target=read, args=(nodes[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_threads_submit_at_once(client):
    graph = hr.Graph()
    node = graph.add(inc, 1)
    answers = []

    def submit():
        answers.extend(client.submit(graph).result(node, timeout=TIMEOUT_S) for _ in range(50))
        answers.extend(client.call(inc, 1).result(timeout=TIMEOUT_S) for _ in range(50))

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [2] * 200


# -- failures ----------------------------------------------------------------------------------------------------------


def test_the_original_exception_is_raised_with_a_note(client):
    graph = hr.Graph()
    node = graph.add(fail, 7)
    run = client.submit(graph)
    with pytest.raises(Sour) as caught:
        run.result(node, timeout=TIMEOUT_S)
    assert caught.value.degree == 7
    assert any("'fail-0'" in note and "worker" in note for note in caught.value.__notes__)
    with pytest.raises(Sour) as again:
        run.result(node)
    assert again.value is caught.value


def test_descendants_of_a_failure_name_it(client):
    graph = hr.Graph()
    bad = graph.add(fail, 7)
    below = graph.add(inc, graph.add(inc, bad))
    fine = graph.add(inc, 1)
    run = client.submit(graph, keep=[bad, below, fine])
    with pytest.raises(hr.UpstreamFailed, match=r"'inc-2' did not run because 'fail-0' failed: Sour\(7\)") as caught:
        run.result(below, timeout=TIMEOUT_S)
    assert caught.value.root_key == "fail-0"
    assert isinstance(caught.value.__cause__, Sour)
    assert run.result(fine, timeout=TIMEOUT_S) == 2
    with pytest.raises(Sour):
        run.results()
    assert run.wait(TIMEOUT_S)
    statistics = run.statistics()
    assert (statistics.done, statistics.failed, statistics.skipped) == (1, 1, 2)


def test_the_cause_is_told_where_it_was_not_kept(client):
    graph = hr.Graph()
    below = graph.add(inc, graph.add(fail, 3))
    run = client.submit(graph)
    with pytest.raises(hr.UpstreamFailed) as caught:
        run.result(below, timeout=TIMEOUT_S)
    assert caught.value.__cause__.degree == 3


def test_a_cancelled_run_ends_with_its_reason(client, tmp_path):
    if client._mode == "sync":
        pytest.skip("a run of mode sync has ended when submit returns")
    gate, started = tmp_path / "gate", tmp_path / "started"
    graph = hr.Graph()
    first = graph.add(touch, str(started))
    held = graph.add(lambda path, _: wait_for(path), str(gate), first)
    below = graph.add(inc, held)
    run = client.submit(graph, keep=[first, held, below])
    assert run.result(first, timeout=TIMEOUT_S)
    run.cancel()
    assert run.wait(TIMEOUT_S)
    for node in (held, below):
        with pytest.raises(hr.CancelledError) as caught:
            run.result(node)
        assert caught.value.reason in ("user", "parent-cancelled")
    assert run.result(first) == str(started)
    assert run.statistics().cancelled == 2
    gate.touch()  # for the thread that cannot be stopped
    run.cancel()
    assert run.result(first) == str(started), "cancelling what has ended changes nothing"


# -- as they are completed ---------------------------------------------------------------------------------------------


def test_completions_come_once_each_and_go_on_after_an_error(client):
    graph = hr.Graph()
    nodes = [graph.add(inc, 1), graph.add(fail, 1), graph.add(inc, 2)]
    run = client.submit(graph)
    completions = run.as_completed()
    seen, errors = {}, []
    while True:
        try:
            node, value = next(completions)
        except Sour as error:
            errors.append(error)
        except StopIteration:
            break
        else:
            seen[node] = value
    assert seen == {nodes[0]: 2, nodes[2]: 3}
    assert len(errors) == 1


def test_errors_can_be_returned(client):
    graph = hr.Graph()
    good, bad = graph.add(inc, 1), graph.add(fail, 1)
    completed = dict(client.submit(graph).as_completed(errors="return"))
    assert completed[good] == 2
    assert isinstance(completed[bad], Sour)
    with pytest.raises(hr.UsageError, match="'raise' or 'return'"):
        client.submit(graph).as_completed(errors="ignore")


def test_completions_hold_what_is_kept_and_nothing_else(client):
    graph = hr.Graph()
    skipped = graph.add(inc, graph.add(fail, 1))
    kept = graph.add(inc, 1)
    completed = list(client.submit(graph, keep=[kept]).as_completed())
    assert completed == [(kept, 2)]
    assert skipped not in dict(completed)


def test_released_completions_cannot_be_read_again(client):
    graph = hr.Graph()
    graph.map(inc, range(100))
    run = client.submit(graph)
    assert sorted(value for _, value in run.as_completed(release=True)) == list(range(1, 101))
    with pytest.raises(hr.ResultReleased, match="'inc-5'"):
        run.result("inc-5")


def test_a_released_run_says_so(client):
    graph = hr.Graph()
    node = graph.add(inc, 1)
    run = client.submit(graph)
    ref = run.ref(node)
    assert run.wait(TIMEOUT_S)
    run.release()
    run.release()
    for read in (lambda: run.result(node), run.results, lambda: run.ref(node), lambda: next(run.as_completed())):
        with pytest.raises(hr.ResultReleased):
            read()
    assert client.call(inc, ref).result(timeout=TIMEOUT_S) == 3
    assert repr(run).startswith(f"<Run {run.number}: ")


def test_a_run_that_keeps_nothing_has_statistics(client):
    graph = hr.Graph()
    graph.map(inc, range(10))
    run = client.submit(graph, keep=[])
    assert run.wait(TIMEOUT_S)
    assert run.statistics().done == 10
    assert "10 of 10 ended" in repr(run)


# -- single calls ------------------------------------------------------------------------------------------------------


def test_a_call_is_a_future_of_the_standard_library(client):
    future = client.call(add, 1, right=2)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(timeout=TIMEOUT_S) == 3
    assert future.done()
    assert not future.cancelled()
    assert not future.running()
    assert future.exception() is None
    assert future.key.startswith("add-")
    assert future.cancel() is False


def test_a_failed_call_raises(client):
    future = client.call(fail, 5)
    with pytest.raises(Sour) as caught:
        future.result(timeout=TIMEOUT_S)
    assert future.exception() is caught.value
    assert "fail-" in repr(future)
    assert "Sour" in repr(future)


def test_futures_and_refs_stand_anywhere_in_arguments(client, diamond):
    graph, _top, _left, right, bottom = diamond
    run = client.submit(graph, keep=[right, bottom])
    future = client.call(inc, 1)
    tree = {"a": [future, 1], "b": (run.ref(bottom), {"c": [[run.ref(right)]]}), "again": future}
    assert client.call(dig, tree).result(timeout=TIMEOUT_S) == 2 + 1 + 13 + 11 + 2
    larger = hr.Graph()
    node = larger.add(dig, tree)
    assert client.submit(larger).result(larger.add(inc, 0) and node, timeout=TIMEOUT_S) == 29


def test_calls_behind_a_failed_call_name_it(client):
    first = client.call(fail, 1)
    second = client.call(inc, first)
    with pytest.raises(hr.UpstreamFailed) as caught:
        second.result(timeout=TIMEOUT_S)
    assert isinstance(caught.value.__cause__, Sour)
    third = client.call(inc, second)
    with pytest.raises(hr.UpstreamFailed):
        third.result(timeout=TIMEOUT_S)


def test_futures_are_found_wherever_containers_are_shared(client):
    one = client.call(inc, 0)
    inner = [one]
    shared = (inner, {"again": inner, "plain": [5]})
    assert client.call(dig, [shared, inner, [inner, shared], 10]).result(timeout=TIMEOUT_S) == 26


def test_deep_arguments_are_taken_or_refused_in_a_few_words(client):
    deep = 0
    for _ in range(5_000):
        deep = [deep]
    if client._mode == "processes":
        with pytest.raises(hr.ArgumentNotPicklable) as caught:
            client.call(len, deep)
        assert len(str(caught.value)) < 500
        return
    assert client.call(len, deep).result(timeout=TIMEOUT_S) == 1
    deep = client.call(inc, 0)
    for _ in range(5_000):
        deep = [deep]
    error = client.call(len, deep).exception(timeout=TIMEOUT_S)
    assert type(error) is hr.UsageError


def test_a_future_may_go_before_its_call_has_ended(client, tmp_path):
    trace = tmp_path / "trace"
    client.call(touch, str(trace), client.call(slowly, 0.05))
    gc.collect()
    client._core.wait_idle()
    assert trace.exists()


def test_the_standard_library_waits_for_our_futures(client):
    futures = [client.call(inc, number) for number in range(20)]
    done, open_futures = concurrent.futures.wait(futures, timeout=TIMEOUT_S)
    assert (len(done), len(open_futures)) == (20, 0)
    completed = concurrent.futures.as_completed([client.call(inc, number) for number in range(20)], timeout=TIMEOUT_S)
    assert sum(future.result() for future in completed) == sum(range(1, 21))


def test_a_waiter_is_not_told_of_what_had_ended_before_it_came(client, tmp_path):
    if client._mode == "sync":
        pytest.skip("a call of mode sync has ended when it returns")
    here, there = hr.task(wait_for, worker=0), hr.task(wait_for, worker=1)
    first, ended, held, last = (str(tmp_path / name) for name in ("first", "ended", "held", "last"))
    busy, go_on, told = threading.Event(), threading.Event(), threading.Event()
    client.call(here, first).add_done_callback(lambda _: (busy.set(), go_on.wait(TIMEOUT_S)))
    touch(first)
    assert busy.wait(TIMEOUT_S), "the dispatcher's thread is at it"
    known, open_future, last_future = client.call(here, ended), client.call(there, held), client.call(here, last)
    known.add_done_callback(lambda _: None)
    last_future.add_done_callback(lambda _: told.set())
    touch(ended)
    known.result(timeout=TIMEOUT_S)
    base = concurrent.futures._base
    with base._AcquireFutures([known, open_future]):
        waiter = base._create_and_install_waiters([known, open_future], base.ALL_COMPLETED)
    go_on.set()
    touch(last)
    assert told.wait(TIMEOUT_S), "the dispatcher has announced both"
    assert not waiter.event.is_set()
    touch(held)
    assert waiter.event.wait(TIMEOUT_S)
    assert waiter.finished_futures == [open_future]


def test_callbacks_run_once_and_their_thread_goes(client):
    called, ready = [], threading.Event()
    future = client.call(slowly, 0.02, "value")

    def call_back(future):
        called.append((future.result(), threading.current_thread().name))
        ready.set()

    future.add_done_callback(call_back)
    assert ready.wait(TIMEOUT_S)
    assert len(called) == 1
    assert called[0][0] == "value"
    if client._mode != "sync":
        assert called[0][1] == "headrace-dispatcher"
    client._dispatcher.join(TIMEOUT_S)
    assert "headrace-dispatcher" not in [thread.name for thread in threading.enumerate()]
    future.add_done_callback(call_back)
    assert called[1] == ("value", threading.current_thread().name), "it has ended: called at once"


def test_a_callback_that_raises_harms_nobody(client, caplog):
    first, second, ready = client.call(slowly, 0.02), client.call(slowly, 0.02), threading.Event()
    first.add_done_callback(lambda _: 1 / 0)
    second.add_done_callback(lambda _: ready.set())
    assert ready.wait(TIMEOUT_S)
    client._dispatcher.join(TIMEOUT_S)
    assert "ZeroDivisionError" in caplog.text


def test_a_waiting_call_can_be_cancelled(client, tmp_path):
    if client._mode == "sync":
        pytest.skip("a call of mode sync has ended when it returns")
    gate = tmp_path / "gate"
    held = client.call(wait_for, str(gate))
    behind = client.call(inc, held)
    told = threading.Event()
    behind.add_done_callback(lambda _: told.set())
    assert behind.cancel() is True
    assert behind.cancelled()
    assert behind.cancel() is True
    assert told.wait(TIMEOUT_S)
    with pytest.raises(concurrent.futures.CancelledError):
        behind.result()
    with pytest.raises(hr.CancelledError) as caught:
        behind.exception()
    assert caught.value.reason == "user"
    gate.touch()
    assert held.result(timeout=TIMEOUT_S) == str(gate)


def test_what_needs_a_cancelled_call_says_so(client, tmp_path):
    if client._mode == "sync":
        pytest.skip("a call of mode sync has ended when it returns")
    held = client.call(wait_for, str(tmp_path / "gate"))
    below = client.call(inc, held)
    assert held.cancel()
    touch(tmp_path / "gate")
    for call in (below, client.call(inc, held), client.call(inc, below)):
        with pytest.raises(hr.CancelledError, match="because a task that it needs was") as caught:
            call.result(timeout=TIMEOUT_S)
        assert caught.value.reason == "parent-cancelled"
    with pytest.raises(hr.CancelledError) as caught:
        held.result()
    assert caught.value.reason == "user"


def test_options_travel_with_calls(client):
    key, worker, cancelled = client.call(hr.task(who_am_i, key="me", worker=1)).result(timeout=TIMEOUT_S)
    assert (key, cancelled) == ("me", False)
    assert worker == (0 if client._mode == "sync" else 1)
    with pytest.raises(hr.NoSuitableWorker, match="worker 7"):
        client.call(hr.task(who_am_i, worker=7))
    graph = hr.Graph()
    graph.add(hr.task(who_am_i, worker=7))
    with pytest.raises(hr.NoSuitableWorker, match=r"'who_am_i-0'.*worker 7"):
        client.submit(graph)


@pytest.mark.parametrize("thing", [3, "text", None])
def test_only_functions_can_be_called(client, thing):
    with pytest.raises(hr.UsageError, match="function"):
        client.call(thing)


def test_async_functions_are_refused(client):
    async def later():
        """Never runs."""

    with pytest.raises(hr.UsageError, match="async"):
        client.call(later)


def test_nodes_are_not_arguments_of_calls(client):
    graph = hr.Graph()
    node = graph.add(inc, 1)
    for argument in (node, [node], graph.map(inc, [1])):
        with pytest.raises(hr.GraphError, match=r"run\.ref"):
            client.call(dig, argument)


def test_references_of_another_client_are_refused(client):
    with hr.Client(workers=1, mode="sync") as other:
        future = other.call(inc, 1)
        with pytest.raises(hr.UsageError, match="another client"):
            client.call(inc, future)
        graph = hr.Graph()
        graph.add(inc, future)
        with pytest.raises(hr.UsageError, match="another client"):
            client.submit(graph)


def test_a_generator_as_a_result_fails_its_task(client):
    def generate():
        yield 1

    with pytest.raises(hr.ResultNotPicklable, match="generator"):
        client.call(generate).result(timeout=TIMEOUT_S)


# -- event loops -------------------------------------------------------------------------------------------------------


def test_everything_can_be_awaited(client):
    async def main():
        graph = hr.Graph()
        graph.map(inc, range(20))
        run = client.submit(graph)
        completed = sorted([value async for _, value in run.as_completed()])
        assert completed == list(range(1, 21))
        assert await run == list(range(1, 21))
        assert await client.call(inc, 1) == 2
        assert await asyncio.gather(*(client.call(inc, number) for number in range(20))) == list(range(1, 21))
        with pytest.raises(Sour):
            await client.call(fail, 1)
        graph.add(fail, 2)
        with pytest.raises(Sour):
            await client.submit(graph)

    asyncio.run(main())


def test_an_event_loop_is_told_of_cancelled_calls(client, tmp_path):
    if client._mode == "sync":
        pytest.skip("a call of mode sync has ended when it returns")
    gate = tmp_path / "gate"

    async def main():
        held = client.call(wait_for, str(gate))
        behind = client.call(inc, held)
        waiting = asyncio.ensure_future(_awaited(behind))
        await asyncio.sleep(0)
        behind.cancel()
        with pytest.raises(hr.CancelledError):
            await waiting
        impatient = client.call(inc, held)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_awaited(impatient), timeout=0.01)
        assert impatient.cancelled(), "whoever stops waiting cancels, as with the standard library's futures"
        gate.touch()
        assert await held == str(gate)

    asyncio.run(main())


async def _awaited(future):
    return await future


# -- telling -----------------------------------------------------------------------------------------------------------


def test_reprs_tell_state_and_counts(client):
    graph = hr.Graph()
    graph.map(inc, range(1_000))
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    assert repr(run).startswith(f"<Run {run.number}: 1,000 of 1,000 ended")
    assert "1,000 of 1,000 ended" in run._repr_html_()
    assert "2 workers" in repr(client)
    assert "unfinished" in client._repr_html_()


def test_awaiting_may_outlive_its_loop(client, tmp_path, caplog):
    if client._mode == "sync":
        pytest.skip("a call of mode sync has ended when it returns")
    held = client.call(wait_for, str(tmp_path / "gate"))
    loop = asyncio.new_event_loop()
    step = held.__await__()

    async def begin():
        return next(step)

    loop.run_until_complete(begin())
    loop.close()
    told = threading.Event()
    held.add_done_callback(lambda _: told.set())
    touch(tmp_path / "gate")
    assert told.wait(TIMEOUT_S)
    assert caplog.text == ""


def test_statistics_add_up(client, diamond):
    graph, *_ = diamond
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    statistics = run.statistics()
    assert run.progress() == statistics.progress
    assert (statistics.done, statistics.progress.ended, statistics.progress.total) == (4, 4, 4)
    assert 0 < statistics.first_lease_s <= statistics.elapsed_s < TIMEOUT_S
    assert [worker.number for worker in statistics.workers] == [0, 1]
    assert sum(worker.finished for worker in statistics.workers) == 4


def test_functions_are_recognised_by_what_they_are(client):
    def made(number):
        return lambda: number

    assert [client.call(made(number)).result(timeout=TIMEOUT_S) for number in range(20)] == list(range(20))
    assert client.call(operator.mul, 6, 7).result(timeout=TIMEOUT_S) == 42
    assert client.call("a-b".split, "-").result(timeout=TIMEOUT_S) == ["a", "b"]
    assert client.call("c d".split).result(timeout=TIMEOUT_S) == ["c", "d"]


def test_collected_runs_and_futures_leave_nothing_behind(client):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = hr.Graph()
        graph.map(inc, range(10))
        for _ in range(20):
            client.submit(graph)
            client.call(inc, 1)
        gc.collect()
        client._core.wait_idle()
        assert client._core.unfinished() == ([], 0)


@pytest.mark.parametrize("mode", ["processes", "threads", "sync"])
def test_preload_and_setup_are_checked_alike(mode):
    with pytest.raises(hr.UsageError, match="preload takes a list"):
        hr.Client(workers=1, mode=mode, preload="json")
    with pytest.raises(hr.UsageError, match="setup takes a function"):
        hr.Client(workers=1, mode=mode, setup=3)


def test_run_takes_every_iterable_of_nodes():
    graph = hr.Graph()
    nodes = graph.map(inc, range(3))
    assert hr.run(graph, (node for node in nodes), mode="sync") == [1, 2, 3]
    assert sorted(hr.run(graph, {nodes[0], nodes[2]}, mode="sync")) == [1, 3]
    assert hr.run(graph, [nodes[1], iter(nodes)], "inc-0", mode="sync") == ([2, [1, 2, 3]], 1)
    with pytest.raises(hr.GraphError, match="not dict"):
        hr.run(graph, {"a": nodes[0]}, mode="sync")
    below = graph.add(inc, graph.add(fail, 7))
    with pytest.raises(hr.UpstreamFailed):
        hr.run(graph, below, mode="sync")

"""What is special to the modes that run tasks in the client's own process."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
import traceback
import weakref

import pytest

import headrace as hr
from headrace import futures
from headrace.interrupts import Uninterrupted

TIMEOUT_S = 20


@pytest.fixture(params=["threads", "sync"])
def client(request):
    with hr.Client(workers=2, mode=request.param) as client:
        yield client


class Thing:
    """An object that cannot be pickled, and says when it goes."""

    def __init__(self):
        self.lock = threading.Lock()


def same(thing):
    return thing


def test_calls_share_their_objects(client):
    thing = Thing()
    assert client.call(same, thing).result(timeout=TIMEOUT_S) is thing
    held = [thing]
    assert client.call(same, held).result(timeout=TIMEOUT_S) is held
    first = client.call(same, thing)
    assert client.call(lambda things: things["it"][0], {"it": (first, 1)}).result(timeout=TIMEOUT_S) is thing


def test_results_of_tasks_are_shared(client):
    graph = hr.Graph()
    made = graph.add(Thing)
    twice = [graph.add(same, made), graph.add(same, made)]
    run = client.submit(graph, keep=[made, *twice])
    results = run.results(timeout=TIMEOUT_S)
    assert results[0] is results[1] is results[2]


def test_a_graph_by_reference_shares_its_arguments(client):
    thing = Thing()
    graph = hr.Graph(by_reference=True)
    node = graph.add(same, thing)
    assert client.submit(graph).result(node, timeout=TIMEOUT_S) is thing


def test_a_graph_by_reference_stays_in_its_process():
    graph = hr.Graph(by_reference=True)
    graph.add(same, Thing())
    with hr.Client(workers=1) as client, pytest.raises(hr.UsageError, match="by-reference"):
        client.submit(graph)


def test_intermediate_results_go_when_nobody_needs_them(client):
    made = []

    def make():
        thing = Thing()
        made.append(weakref.ref(thing))
        return thing

    graph = hr.Graph()
    last = graph.add(lambda thing: "done", graph.add(make))
    run = client.submit(graph)
    assert run.result(last, timeout=TIMEOUT_S) == "done"
    gc.collect()
    assert made[0]() is None


def test_results_go_with_their_run_their_refs_and_futures(client):
    graph = hr.Graph()
    node = graph.add(Thing)
    run = client.submit(graph)
    ref = run.ref(node)
    alive = weakref.ref(run.result(node, timeout=TIMEOUT_S))
    run.release()
    gc.collect()
    assert client.call(same, ref).result(timeout=TIMEOUT_S) is alive(), "the ref holds it"
    del ref
    client.call(same, 1).result(timeout=TIMEOUT_S)
    gc.collect()
    assert alive() is None
    future = client.call(Thing)
    alive = weakref.ref(future.result(timeout=TIMEOUT_S))
    del future
    client.call(same, 1).result(timeout=TIMEOUT_S)
    gc.collect()
    assert alive() is None


def test_tracebacks_show_the_users_code_alone(client):
    graph = hr.Graph()
    node = graph.add(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        client.submit(graph).result(node, timeout=TIMEOUT_S)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "<lambda>"
    assert "_run" not in frames


def test_setup_and_preload_happen_here():
    called = []
    with hr.Client(workers=1, mode="threads", preload=["colorsys"], setup=lambda: called.append(1)) as client:
        assert client.call(same, 1).result(timeout=TIMEOUT_S) == 1
    assert called == [1]
    with pytest.raises(ModuleNotFoundError):
        hr.Client(mode="sync", preload=["no_such_module"])


def test_sync_runs_in_the_calling_thread_before_submit_returns():
    with hr.Client(mode="sync") as client:
        future = client.call(threading.get_ident)
        assert future.done()
        assert future.result() == threading.get_ident()
        assert client.submit(hr.Graph()).done()


def test_sync_lets_tasks_submit():
    with hr.Client(mode="sync") as client:

        def count_down(number):
            return 0 if number == 0 else 1 + client.call(count_down, number - 1).result()

        assert client.call(count_down, 20).result() == 20
        with pytest.raises(hr.UsageError, match="deep"):
            client.call(count_down, 100).result()


def test_an_interrupt_of_sync_ends_the_submission():
    def interrupt():
        raise KeyboardInterrupt

    graph = hr.Graph()
    graph.add(same, graph.add(interrupt))
    graph.add(same, 1)
    with hr.Client(mode="sync") as client:
        with pytest.raises(KeyboardInterrupt):
            client.submit(graph)
        assert client.call(same, 2).result() == 2


def test_threads_run_side_by_side_and_know_their_numbers():
    with hr.Client(workers=3, mode="threads") as client:
        together = threading.Barrier(3, timeout=TIMEOUT_S)

        def meet():
            together.wait()
            return hr.current().worker

        assert sorted(future.result(timeout=TIMEOUT_S) for future in [client.call(meet) for _ in range(3)]) == [0, 1, 2]


def test_a_task_on_a_thread_sees_that_it_was_cancelled():
    with hr.Client(workers=1, mode="threads") as client:
        started, ended = threading.Event(), threading.Event()

        def work():
            started.set()
            while not hr.current().cancelled:
                time.sleep(0.001)
            ended.set()

        future = client.call(work)
        assert started.wait(TIMEOUT_S)
        assert future.cancel()
        assert ended.wait(TIMEOUT_S)
        with pytest.raises(hr.CancelledError):
            future.result()


def test_threads_go_with_their_client():
    client = hr.Client(workers=3, mode="threads")
    threads = client._engine._threads
    assert [thread.is_alive() for thread in threads] == [True] * 3
    client.close()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not any(thread.is_alive() for thread in threads)


def test_priorities_decide_who_goes_first():
    with hr.Client(workers=1, mode="sync") as client:
        order = []
        graph = hr.Graph()
        for priority in (1, 3, 2):
            graph.add(hr.task(order.append, priority=priority), priority)
        client.submit(graph)
    # Arguments of a graph are encoded, but the function is the list's own method.
    assert order == [3, 2, 1]


def test_run_needs_no_client():
    graph = hr.Graph()
    parts = graph.map(abs, [-1, -2])
    total = graph.reduce(max, parts)
    assert hr.run(graph, mode="sync") == [2]
    assert hr.run(graph, total, mode="sync") == 2
    assert hr.run(graph, total, parts, mode="threads") == (2, [1, 2])
    assert hr.run(graph, total.key, total, mode="sync") == (2, 2)
    assert callable(hr.run)
    failing = hr.Graph()
    failing.add(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        hr.run(failing, mode="sync")


def test_statistics_tell_of_their_own_run():
    go_on = threading.Event()
    first, second = hr.Graph(by_reference=True), hr.Graph(by_reference=True)
    first.map(go_on.wait, [TIMEOUT_S] * 5)
    held = second.add(go_on.wait, TIMEOUT_S)
    second.add(same, held)
    with hr.Client(workers=1, mode="threads") as client:
        runs = [client.submit(first), client.submit(second)]
        try:
            states = [run.progress() for run in runs]
        finally:
            go_on.set()
    assert [(state.waiting, state.ready + state.leased) for state in states] == [(0, 5), (1, 1)]


# -- whatever tasks do, the tables stay right --------------------------------------------------------------------------


def test_a_slot_that_is_anothers_by_now_is_left_alone():
    go_on = {name: threading.Event() for name in "ab"}
    started = {name: threading.Event() for name in "ab"}
    workers = {}

    def hold(name):
        workers[name] = hr.current().worker
        started[name].set()
        go_on[name].wait(TIMEOUT_S)
        return name

    def give_up(name):
        """Cancel a running call and forget it; its thread goes on."""
        call = client.call(hold, name)
        assert started[name].wait(TIMEOUT_S)
        assert call.cancel()

    def let_go(name):
        go_on[name].set()
        client.call(hr.task(same, worker=workers[name]), None).result(timeout=TIMEOUT_S)

    with hr.Client(workers=3, mode="threads") as client:
        give_up("a")
        gc.collect()
        second = client.call(hold, "b")
        assert started["b"].wait(TIMEOUT_S)
        let_go("a")
        assert second.cancel()
        del second
        gc.collect()
        third = client.call(same, "c")
        assert third.result(timeout=TIMEOUT_S) == "c"
        let_go("b")
        assert client.call(same, third).result(timeout=TIMEOUT_S) == "c"
        counts = client._engine._calls.counts
        assert (counts.leased, counts.cancelled) == (0, 2)


class Looking(Exception):
    def __getattr__(self, name):
        return self.args[0][name]


class Noteless(Exception):
    __notes__ = None


class Fixed(Exception):
    def with_traceback(self, _trace):
        raise RuntimeError("no")


class Secretive(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("no")


class Blank(Exception):
    __hash__ = None

    def __bool__(self):
        raise RuntimeError("no")

    __eq__ = __repr__ = __str__ = __bool__


@pytest.mark.parametrize("kind", [Looking, Noteless, Fixed, Secretive, Blank])
def test_no_exception_of_a_task_harms_the_engine(client, kind):
    def fail():
        raise kind({})

    failed = client.call(fail)
    below = client.call(same, failed)
    error = failed.exception(timeout=TIMEOUT_S)
    assert type(error) is kind
    assert type(below.exception(timeout=TIMEOUT_S)) is hr.UpstreamFailed
    assert client.call(same, 1).result(timeout=TIMEOUT_S) == 1


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_orders_to_leave_are_the_tasks_own(client, kind):
    def leave():
        raise kind("7")

    error = client.call(leave).exception(timeout=TIMEOUT_S)
    assert type(error) is hr.TaskError
    assert (error.key, type(error.__cause__)) == ("leave-0", kind)
    assert "would end more than its task" in error.__notes__[0]
    assert error.__notes__[1].startswith("headrace: raised by task 'leave-0'")
    assert "raise kind" in error.traceback
    graph = hr.Graph()
    graph.add(leave)
    with pytest.raises(hr.TaskError):
        client.submit(graph).result(timeout=TIMEOUT_S)


def test_what_escapes_the_engine_itself_ends_the_attempt():
    with hr.Client(workers=1, mode="threads") as client:
        run = client._engine.run

        def stumble(task):
            client._engine.run = run
            raise LookupError(task.key)

        client._engine.run = stumble
        assert type(client.call(same, 1).exception(timeout=TIMEOUT_S)) is LookupError
        assert client.call(same, 2).result(timeout=TIMEOUT_S) == 2


def test_names_that_cannot_be_written_are_refused(client):
    def fine():
        return 1

    with pytest.raises(hr.UsageError, match="lone surrogates"):
        hr.task(fine, key="a\ud800")
    fine.__name__ = "f\ud800"
    with pytest.raises(hr.UsageError, match="lone surrogates"):
        client.call(fine)
    with pytest.raises(hr.UsageError, match="lone surrogates"):
        hr.Graph().add(fine)
    assert client.call(same, 1).result(timeout=TIMEOUT_S) == 1


class Interrupting:
    """A kernel during whose calls somebody presses Ctrl-C, once."""

    def __init__(self, kernel, name):
        self._kernel, self._name = kernel, name

    def __getattr__(self, name):
        method = getattr(self._kernel, name)

        def then_interrupt(*args):
            answer = method(*args)
            if name == self._name and threading.current_thread() is threading.main_thread():
                self._name = None
                signal.raise_signal(signal.SIGINT)
            return answer

        return then_interrupt


@pytest.mark.parametrize("name", ["submit", "submit_one", "lease", "complete", "cancel"])
def test_an_interrupt_leaves_no_task_half_entered(client, name):
    client._engine._kernel = Interrupting(client._engine._kernel, name)
    graph = hr.Graph()
    graph.map(same, range(3))
    with contextlib.suppress(KeyboardInterrupt):
        client.submit(graph)
        client.call(same, 1)
        client.call(same, 2).cancel()
    assert client.call(same, 3).result(timeout=TIMEOUT_S) == 3
    client._core.wait_idle()


def test_an_interrupt_waits_for_the_end_of_a_section():
    lock, steps = threading.RLock(), []
    section, other = Uninterrupted(lock), Uninterrupted(lock)

    def work():
        with section:
            with section, other:
                signal.raise_signal(signal.SIGINT)
                steps.append(1)
            steps.append(2)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_forked_child_waits_for_no_lock_of_its_parent():
    client = hr.Client(workers=1, mode="threads")
    go_on = threading.Event()
    graph = hr.Graph()
    graph.add(time.monotonic)
    run = client.submit(graph)
    future = client.call(go_on.wait, TIMEOUT_S)
    locks = [client._engine._lock, client._closing, client._dispatcher._lock, futures._MAKING]
    locked, unlock = threading.Event(), threading.Event()

    def hold_locks():
        with locks[0], locks[1], locks[2], locks[3]:
            locked.set()
            unlock.wait(TIMEOUT_S)

    thread = threading.Thread(target=hold_locks)
    thread.start()
    assert locked.wait(TIMEOUT_S)
    pid = os.fork()
    if pid == 0:
        signal.alarm(TIMEOUT_S)
        refused = 0
        uses = [run.cancel, run.statistics, future.cancel, future.done, client._engine.cancel_all]
        uses.append(lambda: future.add_done_callback(print))
        for use in uses:
            try:
                use()
            except hr.ForkedClientError:
                refused += 1
        client.close()
        texts = [repr(run), repr(future), repr(client)]
        os._exit(0 if refused == len(uses) and all("of the parent process" in text for text in texts) else 1)
    status = os.waitpid(pid, 0)[1]
    unlock.set()
    go_on.set()
    thread.join()
    client.close()
    assert status == 0

"""`headrace.Executor` beyond what CPython's own tests say (tests/hosts)."""

import asyncio
import concurrent.futures
import gc
import itertools
import os
import threading
import time
import weakref

import pytest
from client_tasks import inc, wait_for
from deadly_tasks import blow
from store_watch import TIMEOUT_S, run_script

import headrace as hr

MODES = ["processes", "threads"]


@pytest.fixture(params=MODES)
def executor(request):
    with hr.Executor(2, mode=request.param) as executor:
        yield executor


@pytest.fixture
def processes():
    with hr.Executor(2) as executor:
        yield executor


def add(x, y=0):
    return x + y


# -- calls -------------------------------------------------------------------------------------------------------------


def test_futures_are_those_of_the_standard_library(executor):
    futures = [executor.submit(inc, number) for number in range(50)]
    assert all(isinstance(future, concurrent.futures.Future) for future in futures)
    done, rest = concurrent.futures.wait(futures, timeout=TIMEOUT_S)
    assert not rest
    assert sorted(future.result() for future in done) == list(range(1, 51))


def test_futures_are_arguments_that_the_workers_wait_for(executor):
    first = executor.submit(add, 1)
    second = executor.submit(add, first, y=executor.submit(add, 10))
    nested = executor.submit(sum, [first, second, 100])
    assert nested.result(TIMEOUT_S) == 112


def test_an_argument_that_cannot_travel_fails_its_call(processes):
    future = processes.submit(add, threading.Lock())
    with pytest.raises(hr.ArgumentNotPicklable, match="lock"):
        future.result(TIMEOUT_S)
    assert processes.submit(add, 1).result(TIMEOUT_S) == 1


def test_a_crash_fails_its_call_and_no_other(processes):
    others = [processes.submit(inc, number) for number in range(100)]
    with pytest.raises(hr.WorkerDied, match="killed by SIGKILL"):
        processes.submit(blow, "kill").result(TIMEOUT_S)
    others += [processes.submit(inc, number) for number in range(100)]
    assert [future.result(TIMEOUT_S) for future in others] == [*range(1, 101)] * 2
    assert not processes._broken


def test_callbacks_come_on_one_thread_and_may_submit(executor):
    threads, values, done = set(), [], threading.Event()

    def more(future):
        threads.add(threading.get_ident())
        values.append(future.result())
        if len(values) < 20:
            executor.submit(inc, values[-1]).add_done_callback(more)
        else:
            done.set()

    executor.submit(inc, 0).add_done_callback(more)
    assert done.wait(TIMEOUT_S)
    assert values == list(range(1, 21))
    assert len(threads - {threading.get_ident()}) <= 1


def test_an_event_loop_runs_calls(executor):
    async def main():
        loop = asyncio.get_running_loop()
        values = await asyncio.gather(*(loop.run_in_executor(executor, inc, number) for number in range(20)))
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(executor, divmod, 1, 0)
        return values, await asyncio.wrap_future(executor.submit(add, 1))

    assert asyncio.run(main()) == (list(range(1, 21)), 1)


# -- cancellation ------------------------------------------------------------------------------------------------------


def test_what_runs_cannot_be_cancelled_and_what_waits_can(executor, tmp_path):
    running = [executor.submit(wait_for, tmp_path / "gate") for _ in range(2)]
    while not all(future.running() for future in running):
        pass
    behind = executor.submit(add, running[0])
    assert (behind.running(), behind.done()) == (False, False)
    assert not running[0].cancel()
    assert behind.cancel()
    assert behind.cancelled()
    (tmp_path / "gate").touch()
    for future in running:
        future.result(TIMEOUT_S)
        assert not future.running()
        assert not future.cancel()


def test_terminated_workers_take_nothing_more(executor, tmp_path):
    if executor._by_reference:
        running = executor.submit(add, 1)
        running.result(TIMEOUT_S)
    else:
        running = executor.submit(time.sleep, 3600)
    start = time.monotonic()
    executor.terminate_workers()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(add, 1)
    concurrent.futures.wait([running], timeout=TIMEOUT_S)
    assert time.monotonic() - start < TIMEOUT_S


# -- map ---------------------------------------------------------------------------------------------------------------


def test_map_takes_endless_iterables_as_far_as_it_may(executor):
    taken = []

    def numbers():
        for number in itertools.count():
            taken.append(number)
            yield number

    results = executor.map(add, numbers(), itertools.repeat(1), buffersize=3)
    assert taken == [0, 1, 2]
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert len(taken) == 13
    results.close()


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_map_refuses_buffers_that_are_none(executor, size, error):
    with pytest.raises(error, match="buffersize"):
        executor.map(add, [1], buffersize=size)


def test_map_with_a_buffer_keeps_no_executor():
    executor = hr.Executor(1, mode="threads")
    results = executor.map(add, range(10), buffersize=2)
    alive = weakref.ref(executor)
    del executor
    gc.collect()
    assert alive() is None
    assert list(results) == [0, 1]


def test_map_takes_text_sets_and_nothing(executor):
    assert list(executor.map(add, "abc", "xyz")) == ["ax", "by", "cz"]
    assert sorted(executor.map(inc, {1, 2, 3})) == [2, 3, 4]
    assert list(executor.map(inc, [])) == []
    assert list(executor.map(add, [1, 2, 3], [1])) == [2]


def test_what_map_has_not_started_is_cancelled_with_its_results(tmp_path):
    def note(number):
        (tmp_path / str(number)).touch()
        wait_for(tmp_path / "gate")

    with hr.Executor(1, mode="threads") as executor:
        results = executor.map(note, range(50), timeout=0.2)
        with pytest.raises(TimeoutError):
            next(results)
        (tmp_path / "gate").touch()
    assert len(list(tmp_path.iterdir())) == 2


# -- initializers ------------------------------------------------------------------------------------------------------


def fail(text):
    raise ValueError(text)


HERE = threading.local()


def mark(text):
    HERE.mark = text


def read_mark():
    return HERE.mark


@pytest.mark.parametrize("mode", MODES)
def test_an_initializer_runs_on_each_worker_first(mode):
    with hr.Executor(2, mode=mode, initializer=mark, initargs=("here",)) as executor:
        assert {executor.submit(read_mark).result(TIMEOUT_S) for _ in range(20)} == {"here"}
        assert set(executor.map(lambda _: read_mark(), range(20))) == {"here"}


@pytest.mark.parametrize("mode", MODES)
def test_a_failing_initializer_breaks_the_executor(mode, caplog, capfd):
    executor = hr.Executor(2, mode=mode, initializer=fail, initargs=("no license",))
    with pytest.raises(concurrent.futures.BrokenExecutor):
        executor.submit(add, 1).result(TIMEOUT_S)
    assert executor._broken
    with pytest.raises(hr.BrokenWorkers):
        executor.submit(add, 1)
    with pytest.raises(hr.BrokenWorkers):
        executor.map(add, [1])
    executor.shutdown()
    said = caplog.text if mode == "threads" else capfd.readouterr().err
    assert "Exception in initializer" in said
    assert "ValueError: no license" in said


def test_what_is_no_initializer_is_refused():
    with pytest.raises(TypeError, match="initializer must be a callable"):
        hr.Executor(1, initializer=5)


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "end", ["executor.shutdown(wait=False)", "del executor", "pass"], ids=["shutdown", "collected", "exit"]
)
def test_what_was_submitted_is_done_before_the_interpreter_ends(mode, end, tmp_path):
    script = run_script(
        f"""
        import headrace as hr, pathlib, time
        def work(path):
            time.sleep(0.3)
            pathlib.Path(path).touch()
        executor = hr.Executor(1, mode={mode!r})
        for number in range(3):
            executor.submit(work, {str(tmp_path)!r} + f"/{{number}}")
        {end}
        """
    )
    assert (script.returncode, script.stderr) == (0, "")
    assert len(list(tmp_path.iterdir())) == 3


def test_output_comes_unmarked():
    script = run_script("""
        import headrace as hr
        with hr.Executor(1) as executor:
            executor.submit(print, "a line").result()
    """)
    assert (script.stdout, script.stderr) == ("a line\n", "")


def test_importing_headrace_imports_no_futures():
    script = run_script("""
        import headrace
        print("concurrent.futures" in sys.modules)
        assert headrace.Executor.__mro__[1].__module__ == "concurrent.futures._base"
    """)
    assert (script.stdout, script.stderr) == ("False\n", "")


def test_workers_are_as_many_as_wanted(processes):
    assert processes._max_workers == 2
    pids = {processes.submit(os.getpid).result(TIMEOUT_S) for _ in range(20)}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_a_second_shutdown_waits_for_what_the_first_did_not(executor, tmp_path):
    running = executor.submit(wait_for, tmp_path / "gate")
    executor.shutdown(wait=False)
    threading.Timer(0.1, (tmp_path / "gate").touch).start()
    executor.shutdown()
    assert running.done()
